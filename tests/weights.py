"Whether two networks are the same to the bit."
import torch


def same_weights(one, other):
    "Of networks or of their tensors by name: what the first has the second has, too."
    one, other = (each if isinstance(each, dict) else each.state_dict() for each in (one, other))
    return all(torch.equal(value, other[name]) for name, value in one.items())

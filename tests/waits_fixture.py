"""What would make a GPU wait for the processor, found without one: on the device `meta` tensors
have shapes and no values, so whatever looks at a value fails there, and copies can be told by where
they begin and end."""
from contextlib import contextmanager

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
MAKERS = torch.tensor, torch.as_tensor, torch.asarray
INDEXING = torch.Tensor.__getitem__, torch.Tensor.__setitem__


def comes_from_values(function, args, kwargs):
    "A tensor is made of, or read at, numbers that the processor has."
    if function in MAKERS:
        there = torch.device(kwargs.get("device") or getattr(args[0], "device", "cpu"))
        return there == META and getattr(args[0], "device", None) != META
    if function is torch.Tensor.new_tensor: return args[0].device == META
    if function in INDEXING and args[0].device == META:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, (list, np.ndarray)) for i in index)
    return False


class NoValues(TorchFunctionMode):
    "`meta` makes tensors of numbers without a copy that could be seen below; a GPU does not."
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert not comes_from_values(function, args, kwargs), f"{function}, of numbers"
        return function(*args, **kwargs)


class NoCopies(TorchDispatchMode):
    "Numbers without dimensions may stand anywhere: kernels are given them as they are."
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        answer = function(*args, **kwargs or {})
        tensors = [t for t in tree_leaves((answer, args, kwargs)) if torch.is_tensor(t)]
        places = {t.device.type for t in tensors if t.ndim or "copy" in str(function)}
        assert len(places) <= 1, f"{function} goes from {places}"
        return answer


@contextmanager
def no_waits():
    "Whatever would make a GPU wait in here is an error."
    with NoValues(), NoCopies(): yield

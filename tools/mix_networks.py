"""A network between another and itself after further training: every number is SHARE of the second
network's and the rest of the first one's, running means and variances of batch norms too. Such a
mean can find more than either (Wortsman et al., CVPR 2022). Its recipe is that of the first.

    python tools/mix_networks.py dppt_s_lspet runs/further 0.8 runs/mixed
"""
from dataclasses import asdict
from pathlib import Path

import click

from dppt_nb.checkpoints import load_network, parts_to_save, save_network
from dppt_nb.checks import DataError
from dppt_nb.cropset import join_marks, unpack_marks
from dppt_nb.files import make_folder
from dppt_nb.terminal import Place, Sentence


def mixed(first, second, share):
    "Tensors between those of two networks."
    between = {}
    for name, end in second.items():
        if not end.is_floating_point(): between[name] = end    # counters
        else: between[name] = (1 - share) * first[name].float() + share * end.float()
    return between


@click.command(cls=Sentence)
@click.argument("first", type=Place())
@click.argument("second", type=Place())
@click.argument("share", type=click.FloatRange(0, 1))
@click.argument("out", type=Place(path_type=Path))
def main(first, second, share, out):
    "Write the network between FIRST and SECOND to the folder OUT."
    one, recipe, points = load_network(first)
    other, _, keypoints = load_network(second)
    if one.config != other.config or points != keypoints:
        raise DataError(f"{first} and {second} are not of one architecture and its keypoints")
    info = dict(
        config=asdict(other.config), recipe=recipe.to_dict(), keypoint_set=keypoints.to_dict(),
        data=other.about.get("data"),
        # whom either has learned from, this network has learned from too
        **join_marks(*(unpack_marks(network.about) for network in (one, other))),
    )
    one.load_state_dict(mixed(one.state_dict(), other.state_dict(), share))
    weights, _ = parts_to_save(one)    # numbers that are not finite are refused
    make_folder(out)
    save_network(out, weights, info)
    print(out)


if __name__ == "__main__": main()

"""What the programs that judge networks share; it is none itself."""
import time
from pathlib import Path

import click
import numpy as np
import torch

from dppt_nb.checks import DataError
from dppt_nb.evaluation import answer_in_terms_of, conditions, predict_joints
from dppt_nb.files import make_folder
from dppt_nb.metrics import pck
from dppt_nb.terminal import Place

NETWORK = "dppt_s_lspet"    # whose answers are measured unless another network is named
TWELVE = [                  # joints that LSP, COCO and BlazePose share
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def folder_first(context, option, out):
    "The file to write, whose folder is there before hours are spent on what the file will hold."
    try:
        if out: make_folder(Path(out).parent)
    except DataError as error: raise click.BadParameter(str(error)) from None
    return out


write_json_too = click.option(
    "--out", type=Place(dir_okay=False), callback=folder_first,
    help="also write rows and conditions here, as JSON",
)


def command_of(tool, network=NETWORK, **places):
    """The command that finds the same again: places by their last names, none or several of an
    option, and a network that was named."""
    words = []
    for name, given in places.items():
        several = given if isinstance(given, tuple) else (given,) if given else ()
        words += [f"--{name} {Path(place).resolve().name}" for place in several]
    if network != NETWORK: words.append(f"--network {network}")
    return " ".join([f"python tools/{tool}.py", *words])


def judge_network(network, recipe, found, crops, data, split):
    """What `pck` says of a network that finds the keypoint set `found`, the people with those
    labels that count, and the conditions."""
    start = time.time()
    joints, _ = predict_joints(network, crops, recipe, bars=False, keypoint_set=found)
    joints, people = answer_in_terms_of(crops, joints, found)
    result = pck(joints, people.photo_joints, people.visible, people.keypoint_set)
    took, device = time.time() - start, torch.device("cpu")
    return result, people, conditions(recipe, data, split, people, device, took)


def best_joints(people):
    "Joints (J, 2) of the person whose box scores highest; NaN where nobody was found."
    if not len(people): return np.full((len(people.keypoint_set), 2), np.nan, np.float32)
    scores = people.box_scores
    return people.keypoints[0 if scores is None else scores.argmax()]

"""What a network that ships typically finds on photographs that it never saw, as skeletons: six
people of LSPET's test split, from one of the worst answers to one of the best. The photographs
themselves may not travel with the project.

    python tools/answers.py --root lspet_dataset.zip     # finds joints, writes results and picture
    python tools/answers.py                              # draws the stored joints again
"""
import time
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from judging import NETWORK, command_of

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import refuse_idle
from dppt_nb.evaluation import answer_in_terms_of, conditions, predict_joints
from dppt_nb.files import read_json, write_json
from dppt_nb.keypoints import LSP14
from dppt_nb.metrics import PCK_THRESHOLDS, pck, person_size
from dppt_nb.skeletons import COLOURS, limb_side
from dppt_nb.store import load_people
from dppt_nb.terminal import Place, Sentence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "answers_lspet.json"
PICTURE = ROOT / "nbs" / "images" / "answers.png"
SHOWN = 6
# on white paper the middle of the body needs a darker colour than on photographs
MIDDLE, TRUTH, MISSED = "#555555", "#d0d0d0", "#000000"
SIDES = {side: f"#{bytes(colour).hex()}" for side, colour in COLOURS.items()} | {"middle": MIDDLE}


def spread(shares, count):
    "Numbers of `count` people, evenly spread from the worst answer to the best."
    ranked = np.argsort(shares, kind="stable")
    return ranked[((np.arange(count) + 0.5) / count * len(ranked)).astype(int)]


def find(name, root):
    "Joints of the chosen people, true and found, and how the rest fared."
    network, recipe, found = load_network(name)
    people = load_people("lspet", root, ("test",), recipe.image_size, True)["test"]
    start = time.time()
    joints, _ = predict_joints(network, people, recipe, keypoint_set=found)
    joints, people = answer_in_terms_of(people, joints, found, name)
    # as they are stored, so that the picture counts the same hits
    joints, truth = (points.round(decimals=1) for points in (joints, people.photo_joints))
    result = pck(joints, truth, people.visible, people.keypoint_set)
    hits, counts = (np.asarray(result[key]) for key in ("hits", "counts"))
    measured = np.flatnonzero(counts.any(1))
    shares = hits[measured].sum(1) / counts[measured].sum(1)
    rows = [
        dict(
            number=int(person), hits=int(hits[person].sum()), counts=int(counts[person].sum()),
            true=truth[person].tolist(), visible=people.visible[person].tolist(),
            found=joints[person].tolist(),
        )
        for person in measured[spread(shares, SHOWN)]
    ]
    known = conditions(recipe, "lspet", "test", people, torch.device("cpu"), time.time() - start)
    command = command_of("answers", name, root=root)
    return dict(format=1, network=name, command=command, conditions=known, people=rows)


def draw_missed(ax, true, found, shown):
    "A ring around every true joint that was missed; inside of it the answer would have counted."
    judged = pck(found[None], true[None], shown[None], LSP14)
    missed = (judged["counts"][0] > 0) & (judged["hits"][0] == 0)
    radius = PCK_THRESHOLDS["torso"] * person_size(true[None], shown[None], LSP14.torso)[0]
    for x, y in true[missed]: ax.add_patch(plt.Circle((x, y), radius, fill=False, lw=1, ec=MISSED))
    return int(missed.sum())


def draw_person(ax, row):
    "The true skeleton broad and pale, the found one thin and coloured."
    true, found = np.array(row["true"]), np.array(row["found"])
    shown = np.array(row["visible"], bool)
    assert draw_missed(ax, true, found, shown) == row["counts"] - row["hits"]
    for one, two in LSP14.limbs:
        if not (shown[one] and shown[two]): continue
        colour = SIDES[limb_side(LSP14, (one, two))]
        ax.plot(*true[[one, two]].T, color=TRUTH, lw=7, solid_capstyle="round", zorder=1)
        ax.plot(*found[[one, two]].T, color=colour, lw=2, marker="o", ms=3, zorder=2)
    ax.set(title=f"{row['hits']} of {row['counts']} joints")
    ax.set_aspect("equal", adjustable="datalim")
    ax.invert_yaxis()
    ax.axis("off")


def draw(results):
    "Six people in a row, each as large as the others."
    figure, axes = plt.subplots(1, SHOWN, figsize=(11, 2.9))
    for ax, row in zip(axes, results["people"]): draw_person(ax, row)
    figure.tight_layout()
    return figure


@click.command(cls=Sentence)
@click.option("--root", type=Place(exists=True), help="LSPET's folder or zip")
@click.option("--network", help="of --root: whose joints; dppt_s_lspet unless given")
def main(root, network):
    "Find joints of test people, or draw those that are stored."
    if root: write_json(RESULTS, find(network or NETWORK, root))
    else: refuse_idle(dict(network=network), "finds joints anew; name LSPET's folder with --root")
    figure = draw(read_json(RESULTS))
    figure.savefig(PICTURE, dpi=100)
    print(f"{PICTURE.relative_to(ROOT)} is drawn")


if __name__ == "__main__": main()

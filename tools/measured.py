"""What the study found, as the picture of the README: nbs/images/measured.png, drawn from the
results files alone. Its numbers stand in the file's own description, so that a test can make them
again.

    python tools/measured.py
"""
import json
from pathlib import Path

import click
import matplotlib.pyplot as plt

from dppt_nb.claims import columns_of_claims, show_forest
from dppt_nb.judged import difference

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results"
PICTURE = ROOT / "nbs" / "images" / "measured.png"
DIFFERENCES = {
    "a teacher: DPPT over PPT": ("dppt", "ppt"),
    "dropping nothing: TokenPose over PPT": ("tokenpose", "ppt"),
    "the fair opponent: a taught TokenPose over DPPT": ("tokenpose_taught", "dppt"),
    "a second cycle: SDPose over TokenPose, our head": ("sdpose", "tokenpose"),
    "the same with the papers' head": ("sdpose_mlp", "tokenpose_mlp"),
}
LOOKS = {    # size -> colour, marker, and by how much of a row its marks stand above
    "nano": ("#0072b2", "o", -0.13), "S": ("#d55e00", "s", 0.13),
}


def runs_of(results=RESULTS):
    "The runs that answer, by size: fresh seeds of nano, and the papers' encoder."
    columns = columns_of_claims(results)
    return {"nano": columns["nano, fresh"][0], "S": columns["S"][0]}


def numbers(runs):
    "Mean and ends of every difference that is drawn, in points; a single seed has no ends."
    found = {}
    for words, pair in DIFFERENCES.items():
        for size, some in runs.items():
            gain = difference(some, *pair)
            if gain is None: continue
            ends = gain["interval"] if gain["seeds"] > 1 else ()
            found[f"{words}, {size}"] = [round(value, 1) for value in (gain["mean"], *ends)]
    return found


def draw(runs):
    "The differences with their intervals, both sizes in one picture."
    figure, ax = plt.subplots(figsize=(8.2, 2.9), dpi=110)
    for size, some in runs.items():
        colour, marker, offset = LOOKS[size]
        show_forest(
            some, DIFFERENCES, ax, offset=offset, color=colour, marker=marker, label=size, ls=""
        )
    for side in ("top", "right"): ax.spines[side].set_visible(False)
    ax.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    return figure


@click.command()
def main():
    "Draw the picture, and print its numbers."
    runs = runs_of()
    told = numbers(runs)
    draw(runs).savefig(PICTURE, metadata={"Description": json.dumps(told), "Software": None})
    for words, values in told.items(): click.echo(f"{words:<56}" + " ".join(map(str, values)))


if __name__ == "__main__": main()

"""How often is a joint right that a network is so sure of? Joints are sorted by their score, the
height of the heatmap's peak; a joint is right within a fifth of the torso (PCK@0.2), boxes given,
one pass.

    python tools/scores.py --data lspet --root lspet_dataset.zip --out lspet.json
    python tools/scores.py --data coco --root coco_mini --split all --out coco.json

The folder `coco_mini` is cut out of COCO by tools/coco_70.py."""
from pathlib import Path

import click
import numpy as np
import torch
from judging import folder_first

from dppt_nb.checkpoints import load_network
from dppt_nb.compare import hits_of
from dppt_nb.datasets import judged_split
from dppt_nb.evaluation import answer_in_terms_of, conditions, predict_joints
from dppt_nb.files import write_json
from dppt_nb.keypoints import map_keypoints
from dppt_nb.optim import pick_device
from dppt_nb.store import load_people
from dppt_nb.terminal import Place, Sentence

EDGES = 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, np.inf


def by_score(scores, hits, counts):
    "For each range of scores: where it begins, labelled joints that fall into it, right ones."
    labelled = counts > 0
    return [
        dict(start=low, joints=int(inside.sum()), right=int(hits[inside].sum()))
        for low, high in zip(EDGES, EDGES[1:])
        if (inside := labelled & (scores >= low) & (scores < high)).any()
    ]


@click.command(cls=Sentence)
@click.option("--network", default="dppt_s_lspet", show_default=True)
@click.option("--data", default="lspet", show_default=True)
@click.option(
    "--root", type=Place(exists=True), required=True,
    help="its folder, zip, or a crop store",
)
@click.option(
    "--split", type=click.Choice(["test", "val", "train", "all"]),
    help="test, or what the data set is judged on, unless given",
)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--out", type=Place(dir_okay=False, path_type=Path), callback=folder_first, required=True
)
def main(network, data, root, split, device, out):
    "Write OUT: how many joints have a score in each range, and how many of them are right."
    count(network, data, root, split or judged_split(data), device, out)


def count(network, data, root, split, device, out):
    "Judge, sort by score, print and write."
    model, recipe, found = load_network(network, pick_device(device))
    recipe = recipe.change(mirror=False)
    crops = load_people(data, root, (split,), recipe.image_size, False)[split]
    joints, scores = predict_joints(model, crops, recipe, bars=False, keypoint_set=found)
    joints, judges = answer_in_terms_of(crops, joints, found)
    told = hits_of(joints, judges, judges.visible)
    pairs = scores.float().cpu()[..., None].expand(-1, -1, 2)  # as places, so that they are named
    aligned = map_keypoints(pairs, torch.ones_like(scores), found, judges.keypoint_set)[0][..., 0]
    rows = by_score(aligned.numpy(), told["hits"], told["counts"])
    write_json(out, dict(
        network=network, people=told["n"], left_out=told["left_out"], mean=told["mean"],
        conditions=conditions(recipe, data, split, crops, device, 0), rows=rows,
    ))
    print(f"{told['n']} people, {told['left_out']} left out: their size is not visible")
    for row in rows:
        share = row["right"] / row["joints"]
        print(f"from {row['start']:.1f} {row['joints']:>6} joints, {share:.0%} right")


if __name__ == "__main__": main()

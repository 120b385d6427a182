"""Scores of the networks that ship and learned from photographs, in one pass and with the mirrored
test, on test people of LSPET and on people of COCO, in float32, which machines compute alike; it
writes nbs/results/shipped.json, by which the README's table is checked.

    python tools/coco_70.py --root COCO --out coco_mini      # 70 photographs of COCO 2017
    python tools/shipped.py --lspet lspet_dataset.zip --coco coco_mini
"""
import time
from pathlib import Path

import click
import torch

from dppt_nb.checkpoints import load_network, shipped_networks
from dppt_nb.evaluation import RESULTS_FORMAT, answer_in_terms_of, conditions, predict_joints
from dppt_nb.files import write_json
from dppt_nb.judged import stored_score
from dppt_nb.metrics import pck
from dppt_nb.store import load_people
from dppt_nb.terminal import Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "shipped.json"
SPLITS = {"lspet": "test", "coco": "all"}


def judge(name, data, root, mirror):
    "One network on the people of a data set that it never saw."
    network, recipe, found = load_network(name)
    recipe, start = recipe.change(mirror=mirror, precision="fp32"), time.time()
    crops = load_people(data, root, (SPLITS[data],), recipe.image_size, False)[SPLITS[data]]
    joints, _ = predict_joints(network, crops, recipe, bars=False, keypoint_set=found)
    joints, people = answer_in_terms_of(crops, joints, found)
    result = pck(joints, people.photo_joints, people.visible, people.keypoint_set)
    known = conditions(
        recipe, data, SPLITS[data], people, torch.device("cpu"), time.time() - start
    )
    way = "mirrored" if mirror else "one pass"
    print(f"{name:<24}{data:<8}{way:<10}{result['mean']:.1f} of {int(result['n'])}", flush=True)
    return dict(
        network=name, data=data, way=way, people=int(result["n"]), conditions=known,
        **stored_score(result, people),
    )


@click.command(cls=Sentence)
@click.option("--lspet", type=click.Path(exists=True), required=True, help="its zip")
@click.option("--coco", type=click.Path(exists=True), required=True, help="coco_mini")
def main(lspet, coco):
    "Judge every network that ships and learned from photographs."
    names = [name for name in shipped_networks() if name.endswith("_lspet")]
    runs = [
        judge(name, data, root, mirror)
        for name in sorted(names)
        for data, root in (("lspet", lspet), ("coco", coco))
        for mirror in (False, True)
    ]
    command = f"python tools/shipped.py --lspet {Path(lspet).name} --coco {Path(coco).name}"
    write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, runs=runs))


if __name__ == "__main__": main()

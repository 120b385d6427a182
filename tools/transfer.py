"""Networks that learned from LSPET, on people of COCO, whom none of them has seen: writes
nbs/results/transfer.json. Only networks whose weights lie in the project can be judged.

    python tools/coco_70.py --root COCO --out coco_mini      # 70 photographs of COCO 2017
    python tools/transfer.py --root coco_mini
"""
import time
from pathlib import Path

import click
import torch

from dppt_nb.checkpoints import load_network
from dppt_nb.evaluation import RESULTS_FORMAT, answer_in_terms_of, conditions, predict_joints
from dppt_nb.files import write_json
from dppt_nb.judged import stored_score
from dppt_nb.metrics import pck
from dppt_nb.store import load_people

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "transfer.json"
SHIPPED = {    # row -> name of a network that ships
    "tokenpose_s": "tokenpose_s_lspet", "ppt_s": "ppt_s_lspet", "dppt_s": "dppt_s_lspet",
    "sdpose_nano": "sdpose_nano_lspet",
}
TEACHERS = ROOT / "nbs" / "results" / "teachers"


def networks():
    "Row, seed, and where the network is."
    found = [(row, 0, name) for row, name in SHIPPED.items()]
    folders = sorted(TEACHERS.glob("tokenpose_nano_lspet_seed*"))
    return found + [("tokenpose_nano", seed, folder) for seed, folder in enumerate(folders)]


def judge(row, seed, place, root):
    "One network on everybody, as a row of a results file, with the mirrored test."
    network, recipe, found = load_network(place)
    crops = load_people("coco", root, ("all",), recipe.image_size, False)["all"]
    start = time.time()
    joints, _ = predict_joints(network, crops, recipe, bars=False, keypoint_set=found)
    joints, people = answer_in_terms_of(crops, joints, found)
    result = pck(joints, people.photo_joints, people.visible, people.keypoint_set)
    known = conditions(
        recipe, "coco", "all", people, torch.device("cpu"), time.time() - start
    )
    return dict(
        row=row, seed=seed, network=Path(place).name, **stored_score(result),
        measured=int(result["n"]), conditions=known,
    )


@click.command()
@click.option("--root", type=click.Path(exists=True), required=True, help="coco_mini")
def main(root):
    "Judge every network whose weights are here on people of COCO."
    runs = [judge(*network, root) for network in networks()]
    for run in runs: print(f"{run['network']:<30}{run['score']:.1f} of {run['measured']} people")
    write_json(RESULTS, dict(
        format=RESULTS_FORMAT, command="python tools/transfer.py --root coco_mini", runs=runs,
    ))


if __name__ == "__main__": main()

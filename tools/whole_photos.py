"""Where people are looked for in whole photographs, which no box was cut from: the labelled box,
MediaPipe's person detector, the detector and else the whole photo, the whole photo alone. One
labelled person a photo, of LSPET's test split; writes nbs/results/whole_photos.json.

    python tools/whole_photos.py --lspet lspet_dataset.zip

The detector wants ai-edge-litert, and mediapipe==0.10.21 without its dependencies."""
import io
import platform
from pathlib import Path

import click
import numpy as np
import torch
from judging import NETWORK, best_joints, command_of
from PIL import Image

from dppt_nb import PosePredictor
from dppt_nb.datasets import read_dataset
from dppt_nb.detectors import MediaPipeDetector
from dppt_nb.evaluation import device_name
from dppt_nb.files import write_json
from dppt_nb.keypoints import map_keypoints
from dppt_nb.metrics import bootstrap_interval, pck
from dppt_nb.terminal import Place, Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "whole_photos.json"
EVERY, DETECTED = 3, "MediaPipe's detector"


def ways_of(network):
    "How a photo is looked at: words -> a predictor, and whether it is given the labelled box."
    make = lambda **how: PosePredictor.from_pretrained(network, "cpu", **how)
    finds = dict(detector=MediaPipeDetector(threads=1), refine=True)
    return {
        "the labelled box, one look": (make(), True),
        f"{DETECTED}, two looks": (make(**finds), False),
        f"{DETECTED}, else the whole photo, two looks": (make(or_whole=True, **finds), False),
        "the whole photo, two looks": (make(), False),
    }


@click.command(cls=Sentence)
@click.option("--lspet", type=Place(exists=True), required=True, help="its folder or zip")
@click.option("--network", default=NETWORK, show_default=True)
def main(lspet, network):
    "Measure, and store the result."
    torch.set_num_threads(1)
    table = read_dataset("lspet", lspet).select("test").select(slice(None, None, EVERY))
    photos = [Image.open(io.BytesIO(table.source.read_bytes(file))) for file in table.files]
    ways, rows, results = ways_of(network), {}, {}
    keypoint_set = next(iter(ways.values()))[0].keypoint_set
    seen = torch.tensor(np.array(table.visible) > 0).float()
    truth = map_keypoints(torch.tensor(table.joints), seen, table.keypoint_set, keypoint_set)
    for words, (predictor, labelled) in ways.items():
        boxes = [box[None] for box in table.boxes] if labelled else None
        found = predictor(photos, boxes)
        joints = torch.as_tensor(np.stack([best_joints(people) for people in found]))
        joints = joints.nan_to_num(-1e6)    # far from everybody: a miss
        results[words] = result = pck(joints, *truth, keypoint_set)
        rows[words] = dict(
            score=result["mean"], people=result["n"],
            found_nobody=sum(len(people) == 0 for people in found),
            interval=bootstrap_interval(result["hits"], result["counts"]),
        )
        print(f"{words}: {rows[words]}", flush=True)
    for words, result in results.items():
        rows[words]["over"] = {
            other: bootstrap_interval(result["hits"], result["counts"], other=base["hits"])
            for other, base in results.items() if other != words
        }
    write_json(RESULTS, dict(
        format=1, command=command_of("whole_photos", network, lspet=lspet), network=network,
        photos=len(photos), device=device_name("cpu"), torch=torch.__version__,
        python=platform.python_version(), rows=rows,
    ))


if __name__ == "__main__": main()

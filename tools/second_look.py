"""What a second look, in the box of the joints that the first one found, is worth on photographs:
people of LSPET's test split and of COCO in boxes that are right, moved, too large, or missing.

    python tools/second_look.py --lspet lspet_dataset.zip --coco coco_mini
"""
import io
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from dppt_nb import PosePredictor
from dppt_nb.datasets import read_dataset
from dppt_nb.evaluation import device_name
from dppt_nb.files import write_json
from dppt_nb.inference import pose_boxes
from dppt_nb.keypoints import map_keypoints
from dppt_nb.metrics import bootstrap_interval, pck
from dppt_nb.photos import open_photo

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "second_look.json"
EVERY, LABELLED, MOVED, GROWN, SEED = 6, 8, 0.25, 1.5, 0


def boxes_of(table, photos):
    "Four kinds of boxes: of the labels, every side moved, larger about the middle, the photo."
    low, size = table.boxes[:, :2], table.boxes[:, 2:]
    moves = np.random.default_rng(SEED).uniform(-MOVED, MOVED, (len(table), 4))
    corners = np.concatenate([low, low + size], 1) + moves * np.concatenate([size, size], 1)
    grown = np.concatenate([low - size * (GROWN - 1) / 2, size * GROWN], 1)
    return {
        "of the labels": table.boxes,
        "every side moved by up to a quarter": np.concatenate(
            [corners[:, :2], corners[:, 2:] - corners[:, :2]], 1
        ),
        "half as large again": grown,
        "the whole photo": np.array([[0, 0, *photo.image.size] for photo in photos]),
    }


def both_looks(predictor, photos, boxes):
    "Joints (N, J, 2) of one look and of two."
    boxes = [box[None].astype(np.float32) for box in boxes]
    answers = predictor.locate(photos, boxes)
    again = [pose_boxes(*answer, box) for answer, box in zip(answers, boxes)]
    return [np.concatenate([joints for joints, _ in looked])
            for looked in (answers, predictor.locate(photos, again))]


def compare(joints, truth, visible, keypoint_set):
    "PCK of one look and of two, and the difference with its interval over people."
    one, two = (pck(found, truth, visible, keypoint_set) for found in joints)
    return dict(
        people=one["n"], one=one["mean"], two=two["mean"], difference=two["mean"] - one["mean"],
        interval=bootstrap_interval(two["hits"], two["counts"], other=one["hits"]),
    )


def measure(predictor, table, whole):
    "All kinds of boxes for the people of a table; the whole photo only where `whole`."
    labelled = np.array(table.visible) > 0
    truth, visible = map_keypoints(
        torch.tensor(table.joints), torch.tensor(labelled).float(), table.keypoint_set,
        predictor.keypoint_set,
    )
    read = lambda file: open_photo(Image.open(io.BytesIO(table.source.read_bytes(file))))
    photos = [read(file) for file in table.files]
    rows = {}
    for name, boxes in boxes_of(table, photos).items():
        if name == "the whole photo" and not whole: continue
        joints = both_looks(predictor, photos, boxes)
        rows[name] = compare(joints, truth, visible, predictor.keypoint_set)
        print(f"{table.name}, {name}: {rows[name]}", flush=True)
    return rows


@click.command()
@click.option("--lspet", type=click.Path(exists=True), required=True, help="its folder or zip")
@click.option("--coco", type=click.Path(exists=True), required=True, help="its folder")
@click.option("--network", default="dppt_s_lspet", show_default=True)
def main(lspet, coco, network):
    "Measure, and store the result."
    start, predictor = time.time(), PosePredictor.from_pretrained(network, "cpu", mirror=True)
    athletes = read_dataset("lspet", lspet).select("test").select(slice(None, None, EVERY))
    everyday = read_dataset("coco", coco)
    everyday = everyday.select((np.array(everyday.visible) > 0).sum(1) >= LABELLED)
    results = {
        "lspet": measure(predictor, athletes, True),
        "coco": measure(predictor, everyday, False),
    }
    write_json(RESULTS, dict(
        format=1, network=network, mirror=True, seed=SEED, device=device_name("cpu"),
        seconds=round(time.time() - start), command="python tools/second_look.py "
        "--lspet lspet_dataset.zip --coco coco_mini", results=results,
    ))


if __name__ == "__main__": main()

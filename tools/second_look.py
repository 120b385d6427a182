"""What a second look, in the box of the joints that the first one found, is worth on photographs:
people of LSPET's test split and of COCO in boxes that are right, moved, too large, or missing, by
twelve joints and without the mirrored test, as in tools/peers.py. Two other rules stand beside it:
to keep the look with the higher mean score, and to turn the picture for the second look so that
the torso stands upright, as MediaPipe's BlazePose does.

    python tools/second_look.py --lspet lspet_dataset.zip --coco coco_mini
"""
import io
import time
from pathlib import Path

import click
import numpy as np
import torch
from judging import NETWORK, TWELVE, command_of
from PIL import Image

from dppt_nb import PosePredictor
from dppt_nb.crops import batched_affine, box_to_center_scale, crop_image, normalize
from dppt_nb.datasets import read_dataset
from dppt_nb.evaluation import device_name, find_joints
from dppt_nb.files import write_json
from dppt_nb.inference import pose_boxes
from dppt_nb.keypoints import map_keypoints
from dppt_nb.metrics import bootstrap_interval, pck
from dppt_nb.optim import compute_name
from dppt_nb.photos import open_photo
from dppt_nb.terminal import Place, Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "second_look.json"
MOVED, GROWN, SEED = 0.25, 1.5, 0


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


def upright_angles(joints, names):
    "(N,) degrees, counter-clockwise, by which each picture is turned to stand the torso up."
    middle = lambda part: joints[:, [names.index(f"{side}_{part}") for side in ("left", "right")]]
    up = (middle("shoulder") - middle("hip")).mean(1)
    return torch.rad2deg(torch.atan2(up[:, 0], -up[:, 1]))


def turned(points, centers, degrees):
    "Points (N, P, 2) turned about a centre each as the pictures are, counter-clockwise."
    cos, sin = (part(torch.deg2rad(degrees))[:, None] for part in (torch.cos, torch.sin))
    x, y = (points - centers[:, None]).unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1) + centers[:, None]


@torch.inference_mode()
def look_upright(predictor, photos, joints, scores, boxes):
    "Joints (N, J, 2) of a look in the box that the joints have once the torso stands upright."
    joints, recipe = torch.from_numpy(joints), predictor.recipe
    degrees = upright_angles(joints, predictor.keypoint_set.names)
    about = torch.from_numpy(boxes[:, :2] + boxes[:, 2:] / 2).float()
    stood = turned(joints, about, degrees).numpy()
    centers, scales = box_to_center_scale(
        torch.from_numpy(pose_boxes(stood, scores, boxes)), recipe.image_size
    )
    centers = turned(centers[:, None], about, -degrees)[:, 0]
    places = batched_affine(
        centers.double(), scales.double(), degrees.double(), recipe.image_size, recipe.unbiased
    )
    found = []
    for photo, place, center, scale in zip(photos, places.numpy(), centers, scales):
        crop = torch.from_numpy(crop_image(photo.image, place, recipe.image_size))
        found.append(find_joints(
            predictor.network, normalize(crop.permute(2, 0, 1)[None]), center[None], scale[None],
            recipe, predictor.keypoint_set,
        )[0])
    return turned(torch.cat(found), centers, -degrees).numpy()


def all_looks(predictor, photos, boxes):
    "Joints (N, J, 2) of one look and of two, of the surer of both, and of a second one upright."
    locate = lambda boxes: [
        np.concatenate(part) for part in zip(*predictor.locate(photos, list(boxes[:, None])))
    ]
    boxes = boxes.astype(np.float32)
    first, scores = locate(boxes)
    second, scores_again = locate(pose_boxes(first, scores, boxes))
    surer = (scores_again.mean(1) > scores.mean(1))[:, None, None]
    return dict(
        one=first, two=second, surer=np.where(surer, second, first),
        upright=look_upright(predictor, photos, first, scores, boxes),
    )


def compare(joints, truth, visible, keypoint_set, photos):
    """PCK of every rule. The difference of two looks to one with its interval over people, and of
    the other rules to two looks."""
    results = {rule: pck(found, truth, visible, keypoint_set) for rule, found in joints.items()}

    def over(rule, other):
        base, mine = results[other], results[rule]
        return dict(
            difference=mine["mean"] - base["mean"],
            interval=bootstrap_interval(
                mine["hits"], mine["counts"], other=base["hits"], photos=photos
            ),
        )
    return dict(
        people=results["one"]["n"], **{rule: result["mean"] for rule, result in results.items()},
        **over("two", "one"), over_two={rule: over(rule, "two") for rule in ("surer", "upright")},
    )


def measure(predictor, table, whole):
    "All kinds of boxes for the people of a table; the whole photo only where `whole`."
    names, labelled = predictor.keypoint_set.names, np.array(table.visible) > 0
    truth, visible = map_keypoints(
        torch.tensor(table.joints), torch.tensor(labelled).float(), table.keypoint_set,
        predictor.keypoint_set,
    )
    visible *= torch.tensor([name in TWELVE for name in names])
    read = lambda file: open_photo(Image.open(io.BytesIO(table.source.read_bytes(file))))
    photos = [read(file) for file in table.files]
    rows = {}
    for name, boxes in boxes_of(table, photos).items():
        if name == "the whole photo" and not whole: continue
        joints = all_looks(predictor, photos, boxes)
        rows[name] = compare(joints, truth, visible, predictor.keypoint_set, table.image_ids)
        print(f"{table.name}, {name}: {rows[name]}", flush=True)
    return rows


@click.command(cls=Sentence)
@click.option("--lspet", type=Place(exists=True), required=True, help="its folder or zip")
@click.option("--coco", type=Place(exists=True), required=True, help="its folder")
@click.option("--network", default=NETWORK, show_default=True)
def main(lspet, coco, network):
    "Measure, and store the result."
    start, predictor = time.time(), PosePredictor.from_pretrained(network, "cpu")
    results = {
        "lspet": measure(predictor, read_dataset("lspet", lspet).select("test"), True),
        "coco": measure(predictor, read_dataset("coco", coco), False),
    }
    write_json(RESULTS, dict(
        format=1, network=network, mirror=False, joints=TWELVE, seed=SEED,
        device=device_name("cpu"), compute=compute_name(predictor.recipe, predictor.device),
        seconds=round(time.time() - start),
        command=command_of("second_look", network, lspet=lspet, coco=coco), results=results,
    ))


if __name__ == "__main__": main()

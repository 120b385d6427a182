"""Five kinds of people that nobody made this suite for: a face of 68 points, a hand of 21, an
object of 4 corners, AP-10K's animals, CrowdPose. Each goes the whole way by the command alone: it
is looked at, trained on, judged and drawn. A red dot lies on every joint, so that the pixels say
where it is."""
import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sampling import sample

from dppt_nb.cli import main
from dppt_nb.faces import MIRROR_LAYOUTS
from dppt_nb.store import read_store
from dppt_nb.video import drawing_name

SIZE = (240, 200)
TINY = [
    "--image-size", "64x48", "--overrides", '{"width": 32, "depth": 1, "heads": 2}',
    "--batch-size", "4", "--warmup-steps", "2", "--device", "cpu", "--lr", "3e-3",
    "--optimizer", "adam", "--rotation", "0", "--scale", "0", "--half-body", "0",
    "--eval-every", "40", "--no-report", "--no-samples",
]
ANIMAL = (
    "left_eye right_eye nose neck root_of_tail left_shoulder left_elbow left_front_paw "
    "right_shoulder right_elbow right_front_paw left_hip left_knee left_back_paw right_hip "
    "right_knee right_back_paw"
).split()
CROWD = (
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
    "left_knee right_knee left_ankle right_ankle head neck"
).split()
HAND = ["wrist"] + [
    f"{finger}_{i}" for finger in ("thumb", "index", "middle", "ring", "little") for i in range(4)
]


def layout(count, pairs):
    """Places in a box from 0 to 1: pairs mirror each other, the rest is in the middle; without
    pairs rows of points."""
    places = np.zeros((count, 2))
    if not pairs:
        columns = math.ceil(count ** .5)
        number = np.arange(count)
        places[:] = np.stack([number % columns, number // columns], 1) + .5
        return places / columns
    columns = math.ceil((len(pairs) / 2) ** .5)
    for i, pair in enumerate(pairs):
        x, y = (i % columns + .5) / columns * .45, (i // columns + .5) / 2 / columns
        places[list(pair)] = (x, y), (1 - x, y)
    middle = sorted(set(range(count)) - {i for pair in pairs for i in pair})
    for i, number in enumerate(middle): places[number] = .5, (i + .5) / len(middle)
    return places


# keypoints, mirror pairs that must be found, words of the command, what is said; where they are not
# COCO's: data set, folder of the pictures, files, categories; whether there is a torso
KINDS = {
    "face": dict(
        names=[f"p{i}" for i in range(68)], words=["--flip-pairs", "ibug68"],
        pairs=MIRROR_LAYOUTS["ibug68"], epochs=40,
    ),
    "hand": dict(names=HAND, pairs=(), epochs=20, said="WARNING: no mirror pairs are known"),
    "corners": dict(
        names=["top_left", "top_right", "bottom_right", "bottom_left"],
        pairs=((0, 1), (3, 2)),
    ),
    "animals": dict(
        names=ANIMAL, categories=["antelope", "zebra", "rabbit"], folder="data",
        files="annotations/ap10k-{}-split1.json", given="{:012d}.jpg", torso=True,
        pairs=((0, 1), (5, 8), (6, 9), (7, 10), (11, 14), (12, 15), (13, 16)),
        words=[
            "--annotations", "annotations/ap10k-train-split1.json",
            "--annotations", "annotations/ap10k-val-split1.json",
        ],
        said="3 categories with the same keypoints are read as one: antelope, zebra, rabbit",
    ),
    "crowd": dict(
        names=CROWD, data="crowdpose", files="json/crowdpose_{}.json", torso=True,
        pairs=tuple((i, i + 1) for i in range(0, 12, 2)),
        # COCO's seventeen, as the published files have them
        skeleton=[[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7]],
    ),
}


def make(root, kind, split, people, first):
    "Photographs with a red dot on every joint, and their file."
    k, rng = KINDS[kind], np.random.default_rng(first)
    folder, given = k.get("folder", "images"), k.get("given", "{:04d}.jpg")
    categories = k.get("categories", ["person"])
    images, annotations = [], []
    for i in range(first, first + people):
        box = np.array([60 + rng.integers(-15, 15), 20 + rng.integers(-8, 8), 110, 150], float)
        points = np.round(box[:2] + layout(len(k["names"]), k["pairs"]) * box[2:], 1)
        picture = Image.new("RGB", SIZE, tuple(rng.integers(60, 140, 3).tolist()))
        for x, y in points: ImageDraw.Draw(picture).ellipse((x - 3, y - 3, x + 3, y + 3), "red")
        (root / folder).mkdir(parents=True, exist_ok=True)
        picture.save(root / folder / given.format(i), quality=95)
        images.append(dict(id=i, file_name=given.format(i), width=SIZE[0], height=SIZE[1]))
        triples = np.concatenate([points, np.full((len(points), 1), 2.)], 1)
        annotations.append(
            dict(id=i, image_id=i, category_id=1 + i % len(categories), bbox=box.tolist(),
                 area=9000., iscrowd=0, num_keypoints=len(points),
                 keypoints=triples.ravel().tolist())
        )
    kinds = [
        dict(id=i, name=name, keypoints=k["names"], skeleton=k.get("skeleton", []))
        for i, name in enumerate(categories, 1)
    ]
    file = root / k.get("files", "annotations/person_keypoints_{}.json").format(split)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=kinds)
    file.write_text(json.dumps(content))
    return content


def dppt(*words):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def red(pixels, points):
    "At how many points a picture (H, W, 3) is red."
    x, y = np.round(points).astype(int).T
    r, g, b = np.moveaxis(pixels[y, x].astype(int), -1, 0)
    return int(((r > 150) & (g < 120) & (b < 120)).sum())


def check_store(folder, truth, k):
    "In the crops the joints lie on the dots, and back in the photographs where they were."
    crops = read_store(folder, progress=False)
    names, J = tuple(k["names"]), len(k["names"])
    assert crops.keypoint_set.names == names and crops.keypoint_set.flip_pairs == tuple(k["pairs"])
    assert sorted(crops.split) == ["train"] * 24 + ["val"] * 3
    found = [
        red(image.permute(1, 2, 0).numpy(), joints.numpy())
        for image, joints in zip(crops.images, crops.joints)
    ]
    assert found == [J] * 27
    for i, joints in zip(crops.image_ids.tolist(), crops.photo_joints.numpy()):
        expected = np.reshape(truth[i]["keypoints"], (J, 3))[:, :2]
        assert np.abs(joints - expected).max() < .01


def ap_by_hand(content, rows, sigmas):
    "What pycocotools says of the answers."
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(rows), "keypoints")
        judged.params.kpt_oks_sigmas, judged.params.catIds = np.array(sigmas), [1]
        for step in (judged.evaluate, judged.accumulate, judged.summarize): step()
    return 100 * judged.stats[0]


def points_of(a): return np.reshape(a["keypoints"], (-1, 3))[:, :2]


def size_of(a, k):
    "How far a joint may be off for PCK: by the torso, else by the window's longer side."
    if not k.get("torso"): return .05 * max(a["bbox"][2] * 64 / 48, a["bbox"][3])
    ends = [k["names"].index(name) for name in ("left_shoulder", "right_hip")]
    return .2 * np.linalg.norm(np.subtract(*points_of(a)[ends]))


def check_scores(run, content, k):
    "AP as pycocotools has it, PCK counted by hand from the same answers; it has learned."
    results = json.loads((run / "results.json").read_text())["scores"]
    rows = json.loads((run / "keypoint-results.json").read_text())
    sigmas = json.loads((run / "config.json").read_text())["keypoint_set"]["sigmas"]
    people = [dict(a, category_id=1) for a in content["annotations"]]
    ap = ap_by_hand(dict(content, annotations=people), rows, sigmas)
    assert results["AP"]["mean"] == pytest.approx(ap, abs=1e-6)
    answers = {row["image_id"]: points_of(row) for row in rows}
    hits = [
        np.linalg.norm(answers[a["image_id"]] - points_of(a), axis=1) <= size_of(a, k)
        for a in people
    ]
    score = results["PCK@0.2 torso" if k.get("torso") else "PCK@0.05 box"]
    assert score["people"] == 3
    assert score["mean"] == pytest.approx(100 * np.mean(hits), abs=1e-6) and score["mean"] > 90
    return answers


@pytest.mark.parametrize("kind", sample(KINDS, 1, 4))
def test_read_trained_judged_and_drawn(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    k, root, run = KINDS[kind], tmp_path / "data", tmp_path / "run"
    epochs = k.get("epochs", 10)
    train, val = make(root, kind, "train", 24, 1), make(root, kind, "val", 3, 101)
    truth = {a["image_id"]: a for a in train["annotations"] + val["annotations"]}
    data, words = k.get("data", "coco"), ["--root", root, *k.get("words", [])]
    said = dppt("data", "check", data, *words)
    assert "27 people in 27 photographs" in said and "train 24, val 3" in said
    assert k.get("said", "mirror pairs: ") in said
    dppt("data", "prepare", data, *words, "--out", tmp_path / "store", "--image-size", "64x48",
         "--crop-size", "288x216", "--workers", "1")
    check_store(tmp_path / "store", truth, k)
    dppt("train", "tokenpose_nano", "--data", data, *words, "--out", run, *TINY,
         "--epochs", epochs)
    history = json.loads((run / "training.json").read_text())["history"]
    assert len(history) == epochs and all(np.isfinite(row["pose"]) for row in history)
    dppt("eval", run, "--data", data, *words, "--split", "val", "--device", "cpu")
    answers = check_scores(run, val, k)
    check_drawings(tmp_path, root / k.get("folder", "images"), val, answers)


def check_drawings(folder, photos, val, answers):
    "`dppt predict` in the annotated boxes finds what `dppt eval` found, and draws it there."
    names = {i["id"]: i["file_name"] for i in val["images"]}
    rows = [
        dict(file_name=names[a["image_id"]], bbox=a["bbox"], category_id=7)
        for a in val["annotations"]
    ]
    rows += [dict(row, category_id=1) for row in rows]    # of people, who are not asked for
    (folder / "boxes.json").write_text(json.dumps(rows))
    given = [photos / name for name in names.values()]
    dppt("predict", folder / "run", *given, "--boxes", folder / "boxes.json", "--out",
         folder / "poses", "--category", "7", "--mirror", "--device", "cpu")
    lines = [json.loads(line) for line in (folder / "poses/poses.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        name = Path(line["photo"]).name
        joints = np.array(line["keypoints"])[:, :2]
        # crops are from the photograph here, from a JPEG there; a heatmap's pixel is 12 of these
        apart = np.abs(joints - answers[int(Path(name).stem)])
        assert apart.mean() < 2 and apart.max() < 6
        photo = np.asarray(Image.open(photos / name).convert("RGB"), int)
        drawn = np.asarray(Image.open(folder / "poses" / drawing_name(name, ".jpg", set())), int)
        changed = np.abs(drawn - photo).max(-1) > 60
        x, y = np.round(joints).astype(int).T
        near = np.stack([changed[y + b, x + a] for a in (-2, 0, 2) for b in (-2, 0, 2)]).any(0)
        assert near.mean() > .9

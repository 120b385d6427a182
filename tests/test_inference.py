"""From a photograph to joints: odd photographs and boxes, batches, boxes of files, tables,
recordings on a GPU, and ten thousand answers without growth."""
import copy
import gc
import io
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
import warnings
import zlib
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from waits_fixture import no_waits

from dppt_nb import PosePredictor
from dppt_nb import photos as photos_module
from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.detectors import (
    MediaPipeDetector,
    from_torchvision,
    from_transformers,
    from_ultralytics,
)
from dppt_nb.files import ImageSource
from dppt_nb.inference import cut_boxes, pose_boxes, several_to_coco
from dppt_nb.keypoints import COCO17, LSP14
from dppt_nb.metrics import bootstrap_interval
from dppt_nb.photos import boxes_by_photo, check_boxes, open_photo, read_boxes
from dppt_nb.pictures import list_photos
from dppt_nb.predictor import Captured, Locator, find_in_photo
from dppt_nb.studies import photos_of, unpack_bits
from dppt_nb.synthetic import make_photo

SOAK = os.environ.get("DPPT_SOAK") == "1"


@pytest.fixture(scope="module")
def predictor():
    return PosePredictor.from_pretrained("tokenpose_nano", device="cpu")


@pytest.fixture(scope="module")
def made():
    "A photograph with three people: pixels and boxes."
    photo = make_photo(3, COCO17, (180, 270), seed=1)
    return photo.image.permute(1, 2, 0).numpy(), photo.boxes.numpy(), photo


def encoded(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


# Photographs

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photo_is_turned_as_people_see_it(made, orientation, kind):
    "EXIF says by how much the stored picture has to be turned; `TURNS` are the ways back."
    note = Image.Exif()
    note[0x0112] = orientation
    upright = Image.fromarray(made[0])
    options = dict(quality=98, subsampling=0) if kind == "JPEG" else {}
    content = encoded(upright.transpose(TURNS[orientation]), kind, exif=note, **options)
    found = np.asarray(open_photo(content).image).astype(int)
    assert found.shape == made[0].shape and np.abs(found - made[0]).mean() < 2


def test_a_turned_photo_has_the_joints_of_the_upright_one(predictor, made, tmp_path):
    pixels, boxes, _ = made
    note = Image.Exif()
    note[0x0112] = 6
    path = tmp_path / "phone.png"
    Image.fromarray(pixels).transpose(TURNS[6]).save(path, exif=note)
    for turned in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.array_equal(
            predictor(turned, boxes).keypoints, predictor(pixels, boxes).keypoints
        )


def test_photos_of_every_kind(predictor, made, tmp_path):
    "Grey, with transparency, of sixteen bits, with a palette, as tensors and numbers with a point."
    pixels, boxes, _ = made
    picture, grey = Image.fromarray(pixels), Image.fromarray(pixels).convert("L")
    deep = np.asarray(grey).astype(np.uint16) * 257
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    whole, plain = predictor(pixels, boxes).keypoints, predictor(grey, boxes).keypoints
    same = lambda photo, wanted: np.abs(predictor(photo, boxes).keypoints - wanted).max() < 0.5
    with_alpha = np.dstack([pixels, np.full(pixels.shape[:2], 200, np.uint8)])
    for photo in (picture.convert("RGBA"), with_alpha, tensor, tensor / 255, pixels / 255,
                  pixels.astype(np.uint16) * 257, pixels.astype(np.int64)):
        assert same(photo, whole)
    for photo in (np.asarray(grey), deep, encoded(Image.fromarray(deep), "PNG"), tensor[:1] * 0 +
                  torch.from_numpy(np.asarray(grey).copy())[None]):
        assert same(photo, plain)
    assert len(predictor(encoded(picture.quantize(64), "PNG"), boxes)) == 3
    assert len(predictor(encoded(picture.convert("CMYK"), "JPEG"), boxes)) == 3


def test_the_smallest_photo(predictor):
    people = predictor(np.zeros((1, 1, 3), np.uint8))
    assert people.keypoints.shape == (1, 17, 2) and np.isfinite(people.keypoints).all()
    assert people.draw().size == (1, 1)


def test_a_photo_of_108_million_pixels(predictor, made, tmp_path):
    "12,000 x 9,000: one person in it is found where the same person is found in a small photo."
    pixels, boxes, _ = made
    large = Image.new("RGB", (12_000, 9_000), (90, 120, 90))
    large.paste(Image.fromarray(pixels), (8_000, 6_000))
    path = tmp_path / "large.jpg"
    large.save(path, quality=95, subsampling=0)
    moved = boxes + [8_000, 6_000, 0, 0]
    found, small = predictor(path, moved), predictor(pixels, boxes)
    sure = (small.scores > 0.6) & (found.scores > 0.6)
    assert sure.sum() > 10
    apart = np.linalg.norm(found.keypoints - [8_000, 6_000] - small.keypoints, axis=-1)
    assert np.median(apart[sure]) < 1


def refusal(action):
    "The one sentence with which an action is refused."
    with pytest.raises(DataError) as error: action()
    said = str(error.value)
    assert "\n" not in said and "Traceback" not in said and len(said) < 400
    return said


def test_a_photo_of_200_million_pixels_is_to_be_smaller():
    "Some telephones take them; a copy would be as large. Its head is enough to see it."
    head = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    head[16:24] = (16320).to_bytes(4) + (12240).to_bytes(4)
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4)
    said = refusal(lambda: open_photo(bytes(head)))
    assert "199756800 pixels" in said and said.endswith("make it smaller.")
    within = io.BytesIO(b"before" + head)    # also in a file that is read from its middle
    within.seek(6)
    assert refusal(lambda: open_photo(within)).endswith("make it smaller.")


def test_what_is_no_photo_is_named(predictor, made, tmp_path):
    whole = encoded(Image.fromarray(made[0]), "JPEG")
    files = {
        "cut.jpg": whole[: len(whole) // 2], "letter.jpg": b"Dear reader", "empty.jpg": b"",
        "head.png": encoded(Image.fromarray(made[0]), "PNG")[:40],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert name in refusal(lambda: predictor(tmp_path / name))
        assert "bytes" in refusal(lambda: predictor(content))
    assert "does not exist" in refusal(lambda: predictor(tmp_path / "gone.jpg"))
    assert "shape" in refusal(lambda: predictor(np.zeros((4, 5, 7), np.uint8)))
    assert "outside 0 to 255" in refusal(lambda: predictor(torch.randn(3, 20, 20)))
    assert "outside 0 to 255" in refusal(lambda: predictor(np.full((9, 9), np.nan)))
    for thing in (None, 5, {"a": 1}): assert "no photo" in refusal(lambda: predictor(thing))
    (tmp_path / "none").mkdir()
    assert "no picture" in refusal(lambda: predictor(tmp_path / "none"))


def test_damaged_photos_end_with_a_sentence(made, fuzz):
    "Bytes turned over at random: a photograph, or one sentence."
    generator, done = np.random.default_rng(0), 0
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"):
        content = np.frombuffer(encoded(Image.fromarray(made[0]), kind), np.uint8)
        for _ in range(fuzz // 6):
            damaged = content.copy()
            where = generator.integers(0, min(len(content), 400), 4)
            damaged[where] = generator.integers(0, 256, 4)
            try: open_photo(damaged.tobytes())
            except DataError: done += 1
    assert done


# Boxes

def test_boxes_that_are_none(predictor, made):
    pixels = made[0]
    for box, word in (
        ([300, 10, 20, 20], "outside"), ([-50, 10, 20, 20], "outside"), ([5, 5, 0, 9], "empty"),
        ([5, 5, 9, -9], "empty"), ([5, float("nan"), 9, 9], "no number"), ([1, 2, 3], "(N, 4)"),
        ("abcd", "no table"),
    ):
        said = refusal(lambda: predictor(pixels, [box]))
        assert word in said, said


def test_odd_boxes_are_said_once_a_call(predictor, made):
    "Two corners in place of x, y, w, h; percent; boxes of a few pixels. Right ones say nothing."
    pixels, boxes, _ = made
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor([pixels, pixels], [boxes, boxes])
        predictor(np.zeros((3, 3, 3), np.uint8))    # the whole photo: nobody said where
        predictor(pixels, [[60, 90, 90, 190]])      # of 270 x 180: the legs are below it
    percent, tiny = [[10, 10, 90, 90, 95]], [[10, 10, 2, 3], [10, 10, 9, 1]]
    for given, words in (
        (corners, "boxes reach far out of the photo"), (percent, "2 boxes have a score above 1"),
        (tiny, "2 boxes are less than 8 pixels on the longer side"),
    ):
        with pytest.warns(UserWarning) as said: predictor([pixels, pixels], [given, given])
        assert len(said) == 1 and words in str(said[0].message)
        assert said[0].filename == __file__
        with pytest.warns(UserWarning): list(predictor.stream([pixels], [given]))


def test_corners_of_a_detector_are_said(predictor, made):
    "But for the squares of a detector that reach out of the photo by right."
    pixels, boxes, _ = made
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    class Corners:
        def __call__(self, photo): return corners
    with_it = lambda d: PosePredictor(predictor.network, predictor.recipe, COCO17, detector=d)
    with pytest.warns(UserWarning, match="far out of the photo"): with_it(Corners())(pixels)
    squares = Corners()
    squares.reaches_out = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_it(squares)(pixels)


def test_a_negative_score_orders_boxes_too(predictor, made):
    row = np.array([[10, 10, 90, 90, -0.5]])
    assert len(predictor(made[0], row)) == 1


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_scores_that_order_nothing_are_refused(predictor, made, score):
    row = [10, 10, 90, 90, score]
    find = PosePredictor(predictor.network, predictor.recipe, COCO17, detector=lambda _: [row])
    for call in (lambda: predictor(made[0], np.array([row])), lambda: find(made[0])):
        assert "no number; correct it" in refusal(call)


def test_five_numbers_in_a_list_are_those_of_an_array(predictor, made):
    pixels, boxes, _ = made
    rows = np.concatenate([boxes, [[.9]] * len(boxes)], 1)
    wanted = predictor(pixels, rows)
    forms = (rows.tolist(), [tuple(row) for row in rows.tolist()], torch.from_numpy(rows))
    for found in (predictor(pixels, form) for form in forms):
        assert np.array_equal(found.keypoints, wanted.keypoints)
        assert np.allclose(found.box_scores, .9)
    assert np.allclose(predictor(pixels, rows[0].tolist()).box_scores, [.9])


def test_nobody_one_and_three_hundred(predictor, made):
    pixels, boxes, _ = made
    for none in ([], np.zeros((0, 4)), torch.zeros(0, 4)):
        people = predictor(pixels, none)
        assert len(people) == 0 and people.keypoints.shape == (0, 17, 2)
        assert people.to_coco() == people.to_rows() == [] and people.draw().size == (270, 180)
    crowd = np.repeat(boxes, 100, 0)
    many = predictor(pixels, crowd)
    assert np.allclose(many.keypoints[::100], predictor(pixels, boxes).keypoints, atol=0.1)
    one = predictor(pixels, boxes[0])
    assert np.allclose(one.keypoints[0], many.keypoints[0], atol=0.1)


def test_a_box_over_the_edge_is_cut_with_black(made):
    crops, centers, _ = cut_boxes(Image.fromarray(made[0]), [[-40, -40, 80, 80]], (64, 48))
    assert crops.shape == (1, 3, 64, 48) and not crops[0, :, :20, :15].any()
    assert check_boxes([-40, -40, 80, 80], (180, 270)).tolist() == [[-40, -40, 80, 80]]


def test_many_photos_are_one_batch_in_their_order(predictor, made, tmp_path):
    pixels, boxes, _ = made
    photos = [np.roll(pixels, k, 1) for k in range(5)]
    given = [boxes[: k % 4] for k in range(5)]
    small = PosePredictor(predictor.network, predictor.recipe, COCO17, batch_size=2)
    together, parts = predictor(photos, given), small(photos, given)
    for photo, own, answer, part in zip(photos, given, together, parts):
        alone = predictor(photo, own)
        assert np.allclose(answer.keypoints, alone.keypoints, atol=0.1)
        assert np.allclose(part.keypoints, alone.keypoints, atol=0.1)
    for k, photo in enumerate(photos): Image.fromarray(photo).save(tmp_path / f"{k}.png")
    from_folder = predictor(tmp_path, given)
    assert [Path(p.name).name for p in from_folder] == [f"{k}.png" for k in range(5)]
    assert [str(p.photo) for p in from_folder] == list_photos([tmp_path])  # no pictures are kept
    stacked = predictor(np.stack(photos), given)
    assert all(np.allclose(a.keypoints, b.keypoints) for a, b in zip(stacked, together))
    assert "need as many" in refusal(lambda: predictor(photos, given[:2]))


def test_a_detector_is_asked_where_no_boxes_are_given(predictor, made):
    pixels, boxes, _ = made
    asked = []
    def detector(picture):
        asked.append(picture.shape)
        return np.concatenate([boxes, [[0.9], [0.8], [0.7]]], 1)
    own = PosePredictor(predictor.network, predictor.recipe, COCO17, detector=detector)
    people = own(pixels)
    assert asked == [(180, 270, 3)] and np.allclose(people.box_scores, [0.9, 0.8, 0.7])
    assert np.array_equal(people.keypoints, predictor(pixels, boxes).keypoints)
    assert len(own(pixels, boxes[:1])) == 1 and len(asked) == 1


def test_without_boxes_the_whole_photo_is_one_and_is_looked_at_twice(predictor, made, capsys):
    pixels, boxes, photo = made
    x, y, w, h = boxes[1].astype(int)
    part = pixels[max(y - 30, 0) : y + h + 30, max(x - 40, 0) : x + w + 40]
    fresh = PosePredictor(predictor.network, predictor.recipe, COCO17)
    once = PosePredictor(predictor.network, predictor.recipe, COCO17, refine=False)
    twice, single = fresh(part), once(part)
    assert "one box around one person" in capsys.readouterr().out
    fresh(part)
    assert not capsys.readouterr().out  # said once
    assert single.boxes.tolist() == [[0, 0, part.shape[1], part.shape[0]]]
    # the box of an answer is the one that it was found in: one look in it finds the same
    assert np.array_equal(twice.boxes, pose_boxes(single.keypoints, single.scores, single.boxes))
    assert np.array_equal(once(part, twice.boxes).keypoints, twice.keypoints)
    truth = photo.joints[1].numpy() - [max(x - 40, 0), max(y - 30, 0)]
    error = lambda people: np.linalg.norm(people.keypoints[0] - truth, axis=-1).mean()
    assert error(twice) < error(single)


def test_boxes_of_joints(made):
    joints, sure = made[2].joints.numpy(), np.ones((3, 17))
    sure[2, 3:] = 0
    boxes = pose_boxes(joints, sure, made[1], growth=1.0)
    low, high = joints.min(1), joints.max(1)
    assert np.allclose(boxes[:2, :2], low[:2], atol=1e-3)
    assert np.allclose(boxes[:2, :2] + boxes[:2, 2:], high[:2], atol=1e-3)
    assert np.array_equal(boxes[2], made[1][2])  # three sure joints are too few


def test_boxes_of_a_file_by_name_and_number():
    rows = {"7": [[0, 0, 5, 5, 1.0]], "b.jpg": [[1, 1, 5, 5, 1.0]], "d/c.jpg": [[2, 2, 5, 5, 1.0]]}
    found = boxes_by_photo(rows, ["x/im00007.jpg", "y/b.jpg", "d/c.jpg", "e.jpg"])
    assert [len(r) for r in found] == [1, 1, 1, 0] and found[2][0][0] == 2
    assert "could be those of" in refusal(lambda: boxes_by_photo(rows, ["a/7.jpg", "b/7.png"]))


# Answers

def test_boxes_of_a_file_by_paths_within_the_folder_that_is_named(tmp_path):
    "Photos of one name in two folders below it; another folder's with the same paths is refused."
    for name in ("am/a/1.jpg", "am/b/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(tmp_path / name)
    rows = [dict(file_name="a/1.jpg", bbox=[0, 0, 40, 50]),
            dict(file_name="b/1.jpg", bbox=[9, 9, 40, 50])]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    found = boxes_by_photo(read_boxes(tmp_path / "boxes.json"), list_photos([tmp_path / "am"]))
    assert [[row[:2] for row in mine] for mine in found] == [[[0, 0]], [[9, 9]]]
    one = {"a/1.jpg": [[0, 0, 40, 50, 1]]}
    assert "could be those of" in refusal(lambda: boxes_by_photo(one, ["x/a/1.jpg", "y/a/1.jpg"]))


def test_a_boxes_file_that_was_written_on_windows():
    "Its backslashes are slashes, but where a photo is really called so."
    one, other, third = ([[x, 0, 9, 9, 1]] for x in range(3))
    rows = {r"a\1.jpg": one, "a/1.jpg": other, "b.jpg": third}
    assert boxes_by_photo(rows, ["am/a/1.jpg", "b.jpg"]) == [one + other, third]
    assert boxes_by_photo({r"x\1.jpg": one}, [r"x\1.jpg"]) == [one]


def test_the_predictor_agrees_with_evaluation(tmp_path, monkeypatch):
    """Joints in photographs are those of `dppt eval`, which cuts people out once, stores them as
    JPEG and cuts again."""
    from dppt_nb.evaluation import predict_joints
    from dppt_nb.store import load_people
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    images, people, photos = [], [], [make_photo(2, COCO17, (180, 270), 5, k) for k in range(4)]
    (tmp_path / "images").mkdir()
    for k, photo in enumerate(photos):
        name = f"{k:012}.png"
        Image.fromarray(photo.image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / name)
        images.append(dict(id=k, file_name=name, width=270, height=180))
        for box, joints, seen in zip(photo.boxes, photo.joints, photo.visible):
            flags = torch.cat([joints, 2.0 * seen[:, None]], 1).flatten().tolist()
            people.append(dict(
                id=len(people) + 1, image_id=k, category_id=1, bbox=box.tolist(), iscrowd=0,
                keypoints=flags, num_keypoints=int(seen.sum()), area=float(box[2] * box[3]),
            ))
    kind = dict(id=1, name="person", keypoints=list(COCO17.names), skeleton=[])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val.json").write_text(
        json.dumps(dict(images=images, annotations=people, categories=[kind]))
    )
    network, recipe, keypoints = load_network("tokenpose_nano")
    crops = load_people("coco", tmp_path, ("val",), recipe.image_size, False)["val"]
    stored, sure = predict_joints(network, crops, recipe, bars=False)
    predictor = PosePredictor(network, recipe, keypoints, mirror=recipe.mirror)
    boxes = (crops.centers - 100 * crops.scales / 1.25).numpy()
    boxes = np.concatenate([boxes, 200 * crops.scales.numpy() / 1.25], 1)
    names = [tmp_path / "images" / f"{int(i):012}.png" for i in crops.image_ids]
    found = np.stack([predictor(name, box).keypoints[0] for name, box in zip(names, boxes)])
    apart = (found - stored.numpy())[sure.numpy() > 0.5]
    # a pixel of the heatmap is five or so of the photograph, and JPEG took its share
    assert len(apart) > 40 and np.median(np.linalg.norm(apart, axis=-1)) < 1
    assert np.abs(np.median(apart, 0)).max() < 0.25


def test_options_are_those_of_the_functions(predictor, made):
    pixels, boxes, _ = made
    own = lambda **o: PosePredictor(predictor.network, predictor.recipe, COCO17, **o)
    answer = lambda **o: own(**o)(pixels, boxes)
    rough = answer(decode="argmax").keypoints
    assert not np.allclose(rough, answer(decode="dark").keypoints, atol=0.1)
    assert not np.allclose(answer(mirror=True).keypoints, answer().keypoints, atol=0.01)
    assert "decode" in refusal(lambda: answer(decode="guess"))
    if not torch.cuda.is_available(): assert "CUDA" in refusal(lambda: answer(graph=True))


@pytest.mark.parametrize("option", [
    {"refine": "no"}, {"refine": 0}, {"mirror": "no"}, {"graph": "no"}, {"batch_size": True},
    {"batch_size": 2.5}, {"decode": ""}, {"runner": True}, {"device": 1.5}, {"detector": "none"},
])
def test_an_option_of_another_kind_is_refused(option):
    "Text is true in Python, also 'no'; what is no answer to a question is not taken as one."
    said = refusal(lambda: PosePredictor.from_pretrained(
        "tokenpose_nano", **{"device": "cpu", **option}
    ))
    [(name, value)] = option.items()
    assert name in said and repr(value) in said


def test_a_whole_number_of_numpy_is_a_batch_size(predictor):
    own = Locator(predictor.network, predictor.recipe, COCO17, np.int64(4))
    assert own.batch_size == 4


def test_answers_in_other_forms(predictor, made, tmp_path):
    pixels, boxes, _ = made
    path = tmp_path / "street-0042.png"
    Image.fromarray(pixels).save(path)
    people = predictor(path, boxes)
    rows = people.to_coco()
    assert [r["image_id"] for r in rows] == [42] * 3 and rows[0]["category_id"] == 1
    assert np.allclose(np.reshape(rows[1]["keypoints"], (17, 3))[:, :2], people.keypoints[1])
    lines = json.loads(json.dumps(people.to_rows(frame=3)))
    assert set(lines[0]) == {
        "photo", "frame", "track", "box", "score", "keypoints", "keypoint_set",
    }
    assert lines[0]["frame"] == 3 and lines[0]["track"] is None
    assert np.shape(lines[0]["keypoints"]) == (17, 3) and lines[0]["keypoint_set"] == "coco"
    assert Image.open(io.BytesIO(people._repr_png_())).size == (270, 180)
    drawn = np.asarray(people.draw())
    assert (drawn != pixels).any() and np.array_equal(np.asarray(people.draw(threshold=9)), pixels)


def test_rows_with_numbers_of_numpy_are_json(predictor, made):
    pixels, boxes, _ = made
    people, three = predictor(pixels, boxes), np.int64(3)
    rows = json.loads(json.dumps(people.to_rows(frame=three) + people.to_coco(three, three)))
    assert [r["frame"] for r in rows[:3]] == [3] * 3
    assert [(r["image_id"], r["category_id"]) for r in rows[3:]] == [(3, 3)] * 3


def test_photos_without_a_number_get_no_id_of_coco_by_guess(predictor, made, tmp_path):
    pixels, boxes, _ = made
    for name in ("p.png", "l.png"): Image.fromarray(pixels).save(tmp_path / name)
    for people in predictor([tmp_path / "p.png", tmp_path / "l.png", pixels], [boxes] * 3):
        assert "to_coco(image_id=...)" in refusal(people.to_coco)
        assert {row["image_id"] for row in people.to_coco(image_id=3)} == {3}
    frame = replace(predictor(pixels, boxes), name="walk2.mp4", tracks=np.arange(3))
    assert "a frame of walk2.mp4" in refusal(frame.to_coco)
    assert {row["image_id"] for row in frame.to_coco(5)} == {5}


@pytest.mark.parametrize("name, number", [
    ("000000000139", 139), ("COCO_val2014_000000000139", 139), ("im00007", 7), ("a-01", 1),
    (str(2**63 - 1), 2**63 - 1), (str(2**63), "too large for an id"),
    ("12345678901234567890123", "too large for an id"), ("2024-05-01", "no number of its own"),
    ("2024-05-02-000000000012", 12), ("b2-01", "no number of its own"), ("1a", "no number of its"),
])
def test_the_id_in_a_photos_name(predictor, made, name, number):
    "A date is none: others of that day of a month would be the same photo."
    people = replace(predictor(*made[:2]), name=f"2/{name}.jpg")
    if isinstance(number, str): assert number in refusal(people.to_coco)
    else: assert {row["image_id"] for row in people.to_coco()} == {number}


def test_rows_of_several_photos_tell_them_apart(predictor, made):
    pixels, boxes, _ = made
    answer = predictor(pixels, boxes)
    nobody = replace(predictor(pixels, boxes[:0]), name="nobody.jpg")
    named = lambda *names: [replace(answer, name=f"{name}.jpg") for name in names]
    rows = several_to_coco([*named("a-01", "a-02"), nobody], category_id=3)
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(1, 3)] * 3 + [(2, 3)] * 3
    for pair in (("a-01", "b-01"), ("a/1", "b/001"), ("a/1", "a/1")):
        said = refusal(lambda: several_to_coco(named(*pair)))
        assert f"{pair[0]}.jpg and {pair[1]}.jpg would both have the id 1; give each" in said
    with pytest.raises(ValueError, match="whole numbers of 64 bits"): answer.to_coco(10**30)


def test_answers_as_a_table(predictor, made):
    pytest.importorskip("pandas")
    people = predictor(*made[:2])
    table = people.to_pandas()
    assert len(table) == 3 * 17 and list(table.keypoint[:17]) == list(COCO17.names)
    assert np.allclose(table[["x", "y"]].to_numpy().reshape(3, 17, 2), people.keypoints)


def test_answers_for_supervision(predictor, made):
    pytest.importorskip("supervision")
    people = predictor(*made[:2])
    points = people.to_supervision()
    named = "keypoint_confidence" if hasattr(points, "keypoint_confidence") else "confidence"
    assert np.allclose(points.xy, people.keypoints)
    assert np.allclose(getattr(points, named), people.scores)


@pytest.mark.parametrize("package, action", {
    "pandas": lambda people: people.to_pandas(),
    "supervision": lambda people: people.to_supervision(),
    "av": lambda _: __import__("dppt_nb.video").video.Video("x.mp4"),
    "ai_edge_litert": lambda _: __import__("dppt_nb.detectors").detectors.MediaPipeDetector(),
}.items())
def test_what_is_not_installed_is_named(predictor, made, monkeypatch, package, action):
    for name in [package, *(n for n in sys.modules if n.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install" in refusal(lambda: action(predictor(*made[:2])))


# Growth, and a GPU

def memory():
    "Megabytes that the process holds."
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from Linux's /proc")
def test_many_predictions_without_growth(predictor, made):
    "150 answers; `make soak` asks for 10,000."
    pixels, boxes, _ = made
    count, marks = 10_000 if SOAK else 150, []
    for k in range(count):
        predictor(pixels[: 100 + k % 80], boxes[1:2])
        if k in (count // 3, count - 1):
            gc.collect()
            marks.append(memory())
    assert marks[1] - marks[0] < 20, marks


@pytest.mark.parametrize("name, mirror", [("dppt_s_lspet", True), ("tokenpose_nano", False)])
def test_what_is_recorded_asks_nothing_of_the_processor(name, mirror, monkeypatch):
    "On the device `meta`; constants are there after the first call."
    monkeypatch.setattr("dppt_nb.evaluation.precision", lambda *_: nullcontext())  # knows no meta
    network, recipe, keypoints = load_network(name)
    like = lambda *shape, **o: torch.zeros(*shape, device="meta", **o)
    values = like(80, 90, 3, dtype=torch.uint8), like(2, 2, 3), like(2, 2), like(2, 2)
    given = network.to("meta"), recipe.change(mirror=mirror), keypoints, *values, 2
    with torch.inference_mode():
        find_in_photo(*given)
        with no_waits(): joints, _ = find_in_photo(*given)
    assert joints.shape == (2, len(keypoints), 2)


def test_the_way_through_recordings_answers_the_same(predictor, made):
    "Asked for the first time nothing is recorded, so that this way can be gone without a GPU."
    own = Locator(predictor.network, predictor.recipe, COCO17)
    own.graph = True
    pixels, boxes, _ = made
    crowd = np.concatenate([boxes, boxes * [1, 1, 2, 2]]).astype(np.float32)  # of several densities
    photo = open_photo(pixels)
    [(joints, scores)] = own.locate([photo], [crowd])
    [(wanted, sure)] = predictor.locate([photo], [crowd])
    assert len(own._asked) > 1 and not own._recordings
    assert np.abs(joints - wanted)[sure > 0.5].max() < 0.5 and np.abs(scores - sure).max() < 0.1


def test_shapes_that_are_asked_for_once_push_no_recording_out(predictor, monkeypatch):
    "And of five shapes in turn most are replayed."
    made = []
    monkeypatch.setattr("dppt_nb.predictor.Captured", lambda run, *values: made.append(run) or run)
    own = Locator(predictor.network, predictor.recipe, COCO17)
    own.graph, ask = True, lambda key: own._recorded(key, f"run {key}", ()) and len(made)
    assert [ask(key) for key in "aabbccdd"] == [0, 1, 1, 2, 2, 3, 3, 4]
    assert [ask(key) for key in "efgh" + "abcd"] == [4] * 8
    assert [ask(key) for key in "ebcde"] == [5] * 5 and "a" not in own._recordings
    for key in range(1000): ask(key)
    assert len(own._asked) == 100 and list(own._recordings) == [*"bcde"]
    del made[:]
    for key in "vwxyz" * 20: ask(key)
    assert len(made) < 30


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_recording_answers_as_the_function_that_was_recorded(made):
    pixels, boxes, _ = made
    device = PosePredictor.from_pretrained(
        "tokenpose_nano", device="cuda", mirror=True, graph=True,
    )
    eager = PosePredictor(device.network, device.recipe, COCO17, mirror=True, graph=False)
    plain = eager(pixels, boxes)
    for k in range(3):  # asked for, recorded, replayed
        shifted = np.roll(pixels, k, 1)
        found, wanted = device(shifted, boxes), eager(shifted, boxes)
        assert np.abs(found.keypoints - wanted.keypoints)[wanted.scores > 0.5].max() < 0.5
    recordings = [r for r in device._recordings.values() if r is not None]
    assert recordings and all(isinstance(r, Captured) for r in recordings)
    for recording in recordings:
        values = recording.inputs
        key = next(k for k, r in device._recordings.items() if r is recording)
        again = recording(*values)
        with torch.inference_mode():
            direct = find_in_photo(device.network, device.recipe, COCO17, *values, key[-1])
        assert all(torch.equal(a, b) for a, b in zip(again, direct))
    assert plain.keypoints.shape == (3, 17, 2)


def test_the_table_of_boxes_says_what_its_record_says(root):
    stored = json.loads((root / "nbs/results/second_look.json").read_text())["results"]
    notebook = json.loads((root / "nbs/11_inference.ipynb").read_text())
    lines = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"]).splitlines()
    row = lambda one: (
        f"{one['one']:.1f} | {one['two']:.1f} | {one['difference']:+.1f} "
        "({:+.1f} to {:+.1f})".format(*one["interval"])
    )
    nothing = " | ".join(["not measured"] * 3)
    for boxes, athletes in stored["lspet"].items():
        everyday = stored["coco"].get(boxes)
        assert athletes["people"] == 631 and (everyday is None or everyday["people"] == 143)
        told = [boxes, row(athletes), row(everyday) if everyday else nothing]
        assert f"| {' | '.join(told)} |" in lines
    lost = stored["coco"]["of the labels"]
    low, high = sorted(abs(end) for end in lost["interval"])
    said = f"lost {-lost['difference']:.1f} in the labels' boxes on COCO ({low:.1f} to {high:.1f})"
    assert any(said in line for line in lines)


def over(row, other):
    "The difference of two ways on the same people, and its interval."
    marks = lambda row, part: unpack_bits(row[part], row["shape"])
    low, high = bootstrap_interval(
        marks(row, "hits"), marks(row, "counts"), other=marks(other, "hits"),
        photos=photos_of(row),
    )
    return row["score"] - other["score"], low, high


def test_the_differences_in_mediapipes_boxes_are_those_of_their_record(root):
    stored = json.loads((root / "nbs/results/peers.json").read_text())
    notebook = json.loads((root / "nbs/11_inference.ipynb").read_text())
    text = "".join("".join(cell["source"]) + "\n" for cell in notebook["cells"])
    boxes = {    # a row of the page: how these boxes are called in the record
        "from a score of 0.5, the default": ", boxes from a score of 0.5",
        "from 0.1": "",
        "from 0.5, else the whole photo, `or_whole=True`":
            ", boxes from a score of 0.5, the whole picture where it finds nobody",
    }
    told = {words: [] for words in boxes}
    beside, elsewhere = [], []
    for part in ("accuracy lspet test", "accuracy coco all"):
        ours = {row["way"]: row for row in stored[part] if row["network"] == "dppt_s_lspet"}
        theirs = next(row for row in stored[part] if row["network"] == "BlazePose full")
        for words, tail in boxes.items():
            one, two = (
                ours[f"PyTorch, MediaPipe's detector, {looks}{tail}"]
                for looks in ("one look", "two looks")
            )
            told[words].append(
                f"{one['score']:.1f} | {two['score']:.1f} | "
                + "{:+.1f} ({:+.1f} to {:+.1f})".format(*over(two, one))
            )
        gap, low, high = over(ours["PyTorch, the whole picture, two looks"], theirs)
        beside.append((gap, low, high))
        elsewhere.append(over(ours["PyTorch, MediaPipe's detector, two looks, boxes from a score "
                                   "of 0.5, the whole picture where it finds nobody"], theirs))
    for words, row in told.items(): assert f"| {words} | {' | '.join(row)} |" in text, words
    pair = "{:+.1f} {{}}({:+.1f} to {:+.1f})"
    athletes, everyday = (pair.format(*one) for one in beside)
    told = f"stood {athletes.format('points from it on LSPET ')} and {everyday}"
    assert told.format("on COCO ") in text
    assert all(low < 0 < high for _, low, high in beside)
    # the command that the README gives, there and on the page that compares
    athletes, everyday = (pair.format(*one) for one in elsewhere)
    told = f"{athletes.format('points against BlazePose on LSPET ')}, open, and {everyday}"
    assert told.format("on COCO ") in (root / "nbs/machinery/peers.ipynb").read_text()
    told = f"{athletes.format('points beside BlazePose on athletes ')}, open, and {everyday}"
    readme = (root / "README.md").read_text().replace("(95 % interval ", "(")
    assert told.format("on COCO's people ") in readme
    athletes, everyday = (pair.format(*one) for one in beside)
    told = f"stood {athletes.format('points on athletes ')} and {everyday}, both open"
    assert told.format("on COCO's people ") in readme
    few = "with `or_whole=True` stood {:+.1f} and {:+.1f} ({:+.1f} to {:+.1f})"
    assert few.format(elsewhere[0][0], *elsewhere[1]) in text


def test_files_that_take_a_photo_find_what_pytorch_finds(root):
    "In all three precisions no difference can be told, as the page says; 8 bits are the fastest."
    stored = json.loads((root / "nbs/results/peers.json").read_text())
    for part in ("files lspet test", "files coco all"):
        ways = {}
        for row in stored[part]: ways.setdefault(row["network"], []).append(row)
        for plain, full, half, eight in ways.values():
            assert [row["way"].split(",")[0] for row in (plain, full, half, eight)] == [
                "PyTorch", "ONNX float32", "ONNX float16", "ONNX int8",
            ]
            for row in (full, half, eight):
                _, low, high = over(row, plain)
                assert low <= 0 <= high, (part, row["network"], row["way"])
            took = [row["processor_ms"] for row in (eight, full, half, plain)]
            assert took == sorted(took)


def test_the_scores_and_times_with_a_detector_are_those_of_their_record(root):
    stored = json.loads((root / "nbs/results/peers.json").read_text())
    cells = json.loads((root / "nbs/11_inference.ipynb").read_text())["cells"]
    text = "".join("".join(cell["source"]) + "\n" for cell in cells)
    way = "PyTorch, MediaPipe's detector, two looks"
    surer = f"{way}, boxes from a score of 0.5"

    instead = f"{surer}, the whole picture where it finds nobody"

    def rows(part, way):
        "Of one way both data sets."
        return [row for data in ("lspet test", "coco all") for row in stored[f"{part} {data}"]
                if (row["network"], row["way"]) == ("dppt_s_lspet", way)]

    def told(part, key, digits):
        return lambda way: [f"{row[key]:.{digits}f}" for row in rows(part, way)]

    athletes, everyday = map(over, rows("accuracy", instead), rows("accuracy", way))
    said = "{:.1f} points above boxes from 0.1 on LSPET ({:.1f} to {:.1f})".format(*athletes)
    assert f"{said} and {{:.1f}} on COCO ({{:+.1f}} to {{:+.1f}}, open)".format(*everyday) in text
    theirs = [row for data in ("lspet test", "coco all") for row in stored[f"accuracy {data}"]
              if row["network"] == "BlazePose full"]
    given, (athletes, everyday) = (
        list(map(over, rows("accuracy", name), theirs)) for name in ("PyTorch", instead)
    )
    assert given[0][1] < 0 < given[0][2] and athletes[1] < 0 < athletes[2] and everyday[2] < 0
    summary = (root / "nbs/machinery/peers.ipynb").read_text().split("## Summary")[1]
    equal = list(map(over, rows("accuracy", way), theirs))
    assert equal[0][1] < 0 < equal[0][2] and equal[1][2] < 0
    said = "found {:+.1f} points on LSPET's athletes, open, and {:+.1f} on COCO's people."
    assert said.format(equal[0][0], equal[1][0]) in summary
    said = "on LSPET {:+.1f} points with the box given and {:+.1f} with MediaPipe's detector, "
    assert said.format(given[0][0], athletes[0]) in summary
    assert given[1][1] < 0 < given[1][2]
    said = "both open; on COCO {:+.1f}, open, and {:+.1f}."
    assert said.format(given[1][0], everyday[0]) in summary
    for key in ("processor_ms", "mean_ms"):
        took = told("pictures", key, 0)
        words = "{} ms on LSPET, {} on COCO; with boxes from {}0.1: {} and {} |"
        start = "a score of " if key == "processor_ms" else ""
        assert words.format(*took(surer), start, *took(way)) in text


def test_the_other_rules_of_a_second_look_say_what_their_record_says(root):
    stored = json.loads((root / "nbs/results/second_look.json").read_text())["results"]
    cells = json.loads((root / "nbs/machinery/detectors.ipynb").read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    text = next(text for text in texts if "keep the look with" in text)
    gained = [stored[data]["of the labels"]["over_two"]["surer"] for data in ("coco", "lspet")]
    assert all(one["interval"][0] > 0 for one in gained)
    told = "in COCO's own boxes, by {:.1f} points, and in LSPET's, by {:.1f} ("
    assert told.format(*(one["difference"] for one in gained)) in text
    boxes = ("half as large again", "the whole photo")
    lost = [stored["lspet"][box]["over_two"]["surer"] for box in boxes]
    assert all(one["interval"][1] < 0 for one in lost)
    assert "by {:.1f} and {:.1f})".format(*(-one["difference"] for one in lost)) in text
    upright = [r["over_two"]["upright"] for rows in stored.values() for r in rows.values()]
    gain, *losses = sorted(-one["difference"] for one in upright)
    assert len(losses) == 6 and f"in six, by {losses[0]:.1f} to {losses[-1]:.1f} points" in text
    assert gain < 0 and f"above it in one, {-gain:+.1f}, open" in text


def test_a_stream_gives_each_photo_its_boxes_or_says_so():
    predictor = PosePredictor.from_pretrained("tokenpose_nano", "cpu")
    photo = np.zeros((80, 60, 3), np.uint8)
    boxes = [[0, 0, 60, 80]]
    for photos, given in ((3, 2), (2, 3)):
        with pytest.raises(DataError, match=f"end after {min(photos, given)}, the"):
            list(predictor.stream(iter([photo] * photos), iter([boxes] * given)))


def test_boxes_of_several_photos_may_come_one_after_the_other(predictor, made):
    photos, given = [made[0]] * 2, [made[1], made[1][:1]]
    found = predictor(photos, (boxes for boxes in given))
    assert [len(people) for people in found] == [len(boxes) for boxes in given]
    assert "2 photos need as many lists of boxes, not 1" in refusal(
        lambda: predictor(photos, iter(given[:1]))
    )
    assert "2 photos need as many lists of boxes, not 1" in refusal(lambda: predictor(photos, 7))


def test_a_list_of_photos_may_hold_folders(predictor, tmp_path):
    for name in ("b.png", "pics/c.png", "pics/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 80)).save(tmp_path / name)
    pixels = np.zeros((80, 60, 3), np.uint8)
    found = predictor([tmp_path / "b.png", tmp_path / "pics", pixels])
    assert [Path(people.name).name for people in found] == ["b.png", "c.png", "d.png", "the array"]
    assert len(predictor([str(tmp_path / "pics")])) == 2


def test_photos_before_a_bad_one_are_answered(predictor, tmp_path):
    names = [tmp_path / f"{letter}.png" for letter in "abc"]
    for name in (names[0], names[1]): Image.new("RGB", (60, 80)).save(name)
    names[2].write_text("no picture")
    answers = predictor.stream(names)    # fewer than a batch
    assert [Path(next(answers).name).name for _ in range(2)] == ["a.png", "b.png"]
    assert "c.png" in refusal(lambda: next(answers))


def test_a_detectors_name_for_people_in_any_letters():
    config = SimpleNamespace(id2label={0: "Car", 1: "Pedestrian"})
    for name in ("Pedestrian", "pedestrian"):
        assert callable(from_transformers(SimpleNamespace(config=config), None, person=name))
    assert "no 'dog'" in refusal(
        lambda: from_transformers(SimpleNamespace(config=config), None, person="dog")
    )


# of each person as corners x0, y0, x1, y1: one sure, one that is no person, one below the score,
# one outside of the photo of 120 x 160
CORNERS = [[10.0, 20, 60, 100], [5, 5, 50, 50], [0, 0, 40, 40], [200, 10, 260, 90]]
SURE = [0.9, 0.95, 0.3, 0.8]
WANTED = [[10, 20, 50, 80, 0.9]]


def photo_with_red():
    "A photo (120, 160) whose first channel alone is lit."
    return np.zeros((120, 160, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


class Answers(torch.nn.Module):
    "Stands in for a detection model: notes what it is given, and answers the same each time."
    def __init__(self, answer, **fields):
        super().__init__()
        self.answer, self.device, self.given = answer, torch.device("cpu"), []
        self.config = SimpleNamespace(**fields)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *given, **named):
        assert not self.training and torch.is_inference_mode_enabled()
        self.given.append(given or named)
        return self.answer


def test_a_detection_model_of_torchvision():
    "Called with a list of pictures (3, height, width) of 0 to 1; a dictionary of tensors for each."
    found = dict(boxes=torch.tensor(CORNERS), labels=torch.tensor([1, 3, 1, 1]),
                 scores=torch.tensor(SURE))
    model = Answers([found]).train()
    assert np.allclose(from_torchvision(model)(photo_with_red()), WANTED)
    [picture], = model.given[0]
    assert picture.shape == (3, 120, 160) and picture.amax((1, 2)).tolist() == [1, 0, 0]
    assert len(from_torchvision(model, 0.2)(photo_with_red())) == 2
    assert np.allclose(from_torchvision(model, person=3)(photo_with_red())[0, 4], 0.95)


def test_a_detection_model_of_transformers():
    "A processor makes its inputs, and of its outputs rows in pixels of `target_sizes`."
    class Given(dict):    # as `BatchFeature`
        def to(self, device): return Given({k: v.to(device) for k, v in self.items()})

    class Processor:
        def __call__(self, images, return_tensors):
            assert return_tensors == "pt" and images.size == (160, 120)
            assert images.getpixel((0, 0)) == (255, 0, 0)
            return Given(pixel_values=torch.zeros(1, 3, 8, 8))

        def post_process_object_detection(self, outputs, threshold, target_sizes):
            assert outputs == "raw outputs" and [*map(tuple, target_sizes)] == [(120, 160)]
            kept = torch.tensor(SURE) >= threshold
            rows = dict(boxes=CORNERS, labels=[1, 17, 1, 1], scores=SURE)
            return [{name: torch.tensor(values)[kept] for name, values in rows.items()}]

    model = Answers("raw outputs", id2label={0: "N/A", 1: "person", 17: "cat"})
    assert np.allclose(from_transformers(model, Processor())(photo_with_red()), WANTED)
    assert model.given[0].keys() == {"pixel_values"}
    assert len(from_transformers(model, Processor(), 0.2)(photo_with_red())) == 2
    cats = from_transformers(model, Processor(), person="cat")(photo_with_red())
    assert np.allclose(cats, [[5, 5, 45, 45, 0.95]])


def test_a_detection_model_of_ultralytics():
    "Called with blue first; what it gives is of the classes that were asked for."
    class Model:
        names = {0: "person", 15: "cat"}

        def predict(self, source, conf, classes, verbose):
            assert source.shape == (120, 160, 3) and source.flags.c_contiguous and not verbose
            assert source[0, 0].tolist() == [0, 0, 255]
            kinds = torch.tensor([0.0, 15, 0, 0])
            kept = torch.isin(kinds, torch.tensor(classes)) & (torch.tensor(SURE) >= conf)
            numbers = dict(xyxy=torch.tensor(CORNERS), conf=torch.tensor(SURE), cls=kinds)
            return [SimpleNamespace(
                boxes=SimpleNamespace(**{name: v[kept] for name, v in numbers.items()})
            )]

    assert np.allclose(from_ultralytics(Model())(photo_with_red()), WANTED)
    assert len(from_ultralytics(Model(), 0.2)(photo_with_red())) == 2
    assert np.allclose(from_ultralytics(Model(), person="cat")(photo_with_red())[0, 4], 0.95)
    assert "no 'dog'" in refusal(lambda: from_ultralytics(Model(), person="dog"))


@pytest.mark.parametrize("wrap", [
    lambda none: from_torchvision(Answers([dict(
        boxes=none, labels=none[:, 0].long(), scores=none[:, 0],
    )])),
    lambda none: from_ultralytics(SimpleNamespace(
        names={0: "person"}, predict=lambda *given, **named: [SimpleNamespace(
            boxes=SimpleNamespace(xyxy=none, conf=none[:, 0], cls=none[:, 0])
        )],
    )),
])
def test_a_detection_model_that_finds_nobody(predictor, wrap):
    detector = wrap(torch.zeros(0, 4))
    assert detector(photo_with_red()).shape == (0, 5)
    with_it = PosePredictor(predictor.network, predictor.recipe, COCO17, detector=detector)
    assert len(with_it(photo_with_red())) == 0


def test_a_folder_is_no_photo_of_a_stream(predictor, tmp_path):
    said = refusal(lambda: list(predictor.stream([tmp_path])))
    assert f"{tmp_path} is a folder and no photo" in said and "list_photos" in said


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_photo_that_was_opened_as_text_is_refused(tmp_path, encoding):
    "One encoding reads no picture, the other any: as letters, which are no path."
    Image.new("RGB", (60, 80), "red").save(tmp_path / "a.jpg")
    with open(tmp_path / "a.jpg", encoding=encoding) as file:
        said = refusal(lambda: open_photo(file))
    assert f"{tmp_path}/a.jpg was opened as text; open it with 'rb', or give its path" in said


@pytest.mark.parametrize("values, words", [
    (np.full((9, 9, 3), 200, np.uint16), "16 bits and no number above 255"),
    (np.full((9, 9, 3), 1.01), "goes from 0 to 1.01"),
    (torch.zeros(9, 8, 3), "as a tensor is \\(channels, height, width\\)"),
])
def test_numbers_of_an_unclear_range_are_refused(values, words):
    with pytest.raises(DataError, match=words): open_photo(values)


def test_a_picture_of_twelve_bits_is_warned_of(tmp_path):
    "Also where a data set is read; it may be a dark one, so it is taken."
    path = tmp_path / "deep.png"
    save = lambda number: Image.fromarray(np.full((9, 8), number, np.uint16)).save(path)
    save(3000)
    for read in (lambda: open_photo(path), lambda: ImageSource(tmp_path).read("deep.png"),
                 lambda: open_photo(np.full((9, 9), 4095, np.uint16))):
        with pytest.warns(UserWarning, match="as of 12 bits; multiply by 16"): read()
    for number in (0, 4096):
        save(number)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_photo(path).image.getpixel((0, 0)) == (round(number / 257),) * 3


def test_a_picture_of_twelve_bits_is_warned_of_each_time(tmp_path):
    "In a process of its own, whose filters nobody touches: pytest's are new for every test."
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((9, 8), 3000, np.uint16)).save(path)
    program = (
        "import sys\n"
        "from dppt_nb.files import ImageSource\n"
        "from dppt_nb.photos import open_photo\n"
        "for _ in range(3): ImageSource(sys.argv[1]).read('deep.png')\n"
        "for _ in range(2): open_photo(sys.argv[1] + '/deep.png')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("as of 12 bits; multiply by 16") == 3    # once, and of each photo


def test_threads_that_open_photos_leave_the_filters_of_warnings_alone(monkeypatch):
    "The second begins before the first has ended, and ends after it."
    begun, ended, before = threading.Event(), threading.Event(), list(warnings.filters)
    def to_rgb(picture, turn, convert=photos_module.to_rgb):
        if picture.height == 2: begun.set() or ended.wait(9)
        else: begun.wait(9)
        return convert(picture, turn)
    monkeypatch.setattr(photos_module, "to_rgb", to_rgb)
    def first(): open_photo(Image.new("RGB", (1, 1))), ended.set()
    def second(): open_photo(Image.new("RGB", (2, 2)))
    slow, quick = threading.Thread(target=second), threading.Thread(target=first)
    quick.start(), slow.start(), quick.join(9), slow.join(9)
    assert begun.is_set() and ended.is_set() and list(warnings.filters) == before


FORKED = """
import os, signal, sys
from dppt_nb import PosePredictor
from dppt_nb.pictures import free_photo
predictor, photo = PosePredictor.from_pretrained("tokenpose_nano", device="cpu"), free_photo()
child = os.fork()
if child: sys.exit(os.waitpid(child, 0)[1])
signal.alarm(300)   # one that waits for threads that are not there is ended by this
os._exit(len(predictor(photo, [[40, 40, 320, 640]])) != 1)
"""


def test_a_forked_process_answers(root):
    "As a server's workers are; PyTorch's threads are not copied with the process."
    words = [sys.executable, "-c", FORKED]
    ended = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "2"}, cwd=root, timeout=600)
    assert ended.returncode == 0


def test_an_open_file_is_a_photo(tmp_path):
    Image.new("RGB", (6, 8), "red").save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as file:
        assert open_photo(file).size == (8, 6)
        with pytest.raises(DataError, match="stood behind its beginning: go there with seek"):
            open_photo(file)
    written = io.BytesIO()
    Image.new("RGB", (6, 8)).save(written, "PNG")
    with pytest.raises(DataError, match="seek"): open_photo(written)
    with pytest.raises(DataError, match="copy it again"): open_photo(io.BytesIO(b"no photo"))


class Interpreter:
    """What runs MediaPipe's file, stood in for: it notes the picture that it is given, and answers
    with numbers for anchors that a test chose."""
    answers = {}    # number of an anchor -> its twelve numbers, its score
    widths = {3: 12, 7: 1}    # number of an output -> its last side
    def __init__(self, path, num_threads=None):
        if path == "letter.tflite": raise ValueError("Model provided has an invalid header")
        self.seen, self.threads = {}, num_threads
    def allocate_tensors(self): pass
    def get_input_details(self): return [dict(index=0, shape=[1, 224, 224, 3])]
    def get_output_details(self):
        return [dict(index=i, shape=np.array([1, 2254, w])) for i, w in self.widths.items()]
    def set_tensor(self, index, values): self.seen[index] = values
    def invoke(self): self.done = True
    def get_tensor(self, index):
        told = np.zeros((1, 2254, 12)) if index == 3 else np.full((1, 2254, 1), -20.0)
        for anchor, (numbers, score) in self.answers.items():
            told[0, anchor] = numbers if index == 3 else np.log(score / (1 - score))
        return told.astype(np.float32)


@pytest.fixture
def interpreter(monkeypatch):
    "The stand-in, where MediaPipe's detector looks for the real one."
    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = type("Stub", (Interpreter,), {})
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    return module.Interpreter


def anchor_numbers(hips, reach, face=(0, -30)):
    "Twelve numbers: a face of 20 pixels, the middle of the hips, a point above it, two more."
    return [*face, 20, 20, *hips, hips[0], hips[1] - reach, 0, 0, 0, 0]


def test_mediapipes_detector_reads_anchors_scores_and_a_letterbox(interpreter):
    "A picture of 448 x 224: halved, with 56 dark rows above and below. Boxes are in its pixels."
    cell = 2 * (14 * 28 + 18)    # two anchors at (148, 116) in the network's picture
    coarse = 2 * 28 ** 2 + 2 * 14 ** 2 + 6 * (3 * 7)    # of the coarsest grid, at (16, 112)
    interpreter.answers = {
        cell: (anchor_numbers((2, 0), 50), 0.8),        # hips at (150, 116): (300, 120) of ours
        cell + 1: (anchor_numbers((4, 0), 50), 0.6),    # the same face, so the same person
        coarse: (anchor_numbers((4, -16), 25), 0.4),    # hips at (20, 96): (40, 80)
        0: (anchor_numbers((0, 0), 10), 0.9),           # at (4, 4), among the dark rows
    }
    pixels = np.full((224, 448, 3), 255, np.uint8)
    detector = MediaPipeDetector("pose_detection.tflite", least_score=0.5, threads=1)
    boxes = detector(pixels)
    middle = (0.8 * 300 + 0.6 * 304) / 1.4    # weighted by the scores
    # the circle of 100 pixels, shrunk by the window's padding, 1.25
    assert np.allclose(boxes, [[middle - 80, 120 - 80, 160, 160, 0.8]], atol=1e-3)
    seen = detector.runner.seen[0]
    assert (seen.shape, seen.dtype) == ((1, 224, 224, 3), np.float32)
    assert (seen[0, 56:168] == 1).all() and (seen[0, :56] == -1).all()
    assert (seen[0, 168:] == -1).all() and detector.runner.threads == 1
    detector.least_score = 0.3
    assert np.allclose(detector(pixels)[1], [40 - 40, 80 - 40, 80, 80, 0.4], atol=1e-3)


def test_threads_share_mediapipes_detector(interpreter):
    "What runs it has one place for a picture: another thread's would be answered for."
    def invoke(self):
        bright = self.seen[0].max() > 0.5
        self.answers = {820: (anchor_numbers((2, 0), 50), 0.8)} if bright else {}
        if not bright: begun.set() or time.sleep(0.3)
    interpreter.invoke = invoke
    detector, begun, found = MediaPipeDetector("pose_detection.tflite"), threading.Event(), {}
    def look(value): found[value] = len(detector(np.full((224, 224, 3), value, np.uint8)))
    dark = threading.Thread(target=look, args=(20,))
    dark.start()
    begun.wait(9)
    look(250)
    dark.join(9)
    assert found == {20: 0, 250: 1}


def test_mediapipes_detector_is_copied_and_goes_to_other_processes(interpreter):
    detector = MediaPipeDetector("pose_detection.tflite", threads=3)
    detector.least_score = 0.2
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert (other.least_score, other.runner.threads) == (0.2, 3)
        assert other.runner is not detector.runner
        assert len(other(np.zeros((9, 9, 3), np.uint8))) == 0


def one_box_in_bright_photos(pixels):
    "A detector that sees nobody in the dark."
    return np.array([[5, 5, 40, 60, 0.7]]) if pixels.mean() > 127 else np.zeros((0, 5))


def test_where_the_detector_finds_nobody_the_whole_photo_may_be_taken(predictor, capsys):
    parts = predictor.network, predictor.recipe, predictor.keypoint_set
    finds = PosePredictor(*parts, detector=one_box_in_bright_photos, or_whole=True)
    dark, bright = (np.full((80, 60, 3), value, np.uint8) for value in (20, 220))
    alone, found = finds([dark, bright])
    whole = PosePredictor(*parts)(dark)    # looked at twice, since the photo was the box
    assert "no boxes and no detector" in capsys.readouterr().out
    assert np.array_equal(alone.keypoints, whole.keypoints) and alone.box_scores is None
    once = PosePredictor(*parts, detector=one_box_in_bright_photos)([dark, bright])
    assert len(once[0]) == 0 and np.array_equal(found.keypoints, once[1].keypoints)
    finds([dark])
    assert not capsys.readouterr().out
    said = "or_whole=True goes with a detector"
    assert said in refusal(lambda: PosePredictor(*parts, or_whole=True))
    assert "or_whole is 'yes'" in refusal(
        lambda: PosePredictor(*parts, detector=one_box_in_bright_photos, or_whole="yes")
    )


def test_photos_that_are_taken_whole_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "dppt_nb.detectors.MediaPipeDetector", lambda **_: one_box_in_bright_photos
    )
    for name, value in (("a", 20), ("b", 220), ("c", 20)):
        Image.new("RGB", (60, 80), (value,) * 3).save(tmp_path / f"{name}.png")
    def call(*more):
        words = ["predict", "tokenpose_nano", str(tmp_path), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(main, [*words, "--device", "cpu", "--no-drawings", *more])
    found = call("--detector", "mediapipe")
    assert found.output.startswith("1 person in 3 pictures") and "nobody" not in found.output
    taken = call("--detector", "mediapipe", "--or-whole")
    assert taken.output.startswith("3 people in 3 pictures")
    assert "found nobody in 2 photos: taken whole, as one person" in taken.output
    assert "--or-whole goes with a detector" in call("--or-whole").output
    (tmp_path / "walk.mp4").write_bytes(b"")
    refused = call("--detector", "mediapipe", "--or-whole")
    assert "--or-whole is of photos that show one person each" in refused.output


def test_a_file_that_is_no_detector_is_named(interpreter):
    assert "letter.tflite is no detector" in refusal(lambda: MediaPipeDetector("letter.tflite"))
    interpreter.widths = {3: 12, 7: 4}
    assert "x.tflite is not pose_detection.tflite" in refusal(lambda: MediaPipeDetector("x.tflite"))


@pytest.mark.parametrize("score", ["50", "-0.1", "nan"])
def test_a_least_score_that_no_box_or_every_box_has_is_refused(tmp_path, score):
    "Fifty percent found nobody, without a word."
    Image.new("RGB", (60, 80)).save(tmp_path / "a.jpg")
    words = ["predict", "tokenpose_nano", str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*words, "--detector", "mediapipe", "--min-score", score])
    said = f"boxes is {score}; its scores lie between 0 and 1"
    assert done.exit_code == 1 and said in done.output


def test_a_least_score_of_no_file_is_refused_whatever_it_is(tmp_path):
    Image.new("RGB", (60, 80)).save(tmp_path / "a.jpg")
    words = ["predict", "tokenpose_nano", str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*words, "--device", "cpu", "--min-score", "nan"])
    assert done.exit_code == 1 and "--min-score chooses among the boxes of a file" in done.output


@pytest.mark.parametrize("given, least", [([], 0.5), (["--min-score", "0.1"], 0.1)])
def test_min_score_reaches_the_detector(monkeypatch, tmp_path, given, least):
    asked = []
    def detector(least_score=0.5):
        asked.append(least_score)
        return lambda pixels: np.array([[0, 0, 60, 80, 0.3]])
    monkeypatch.setattr("dppt_nb.detectors.MediaPipeDetector", detector)
    Image.new("RGB", (60, 80)).save(tmp_path / "a.jpg")
    words = ["predict", "tokenpose_nano", str(tmp_path / "a.jpg"), "--detector", "mediapipe",
             "--out", str(tmp_path / "out"), "--device", "cpu", *given]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and asked == [least], done.output


@pytest.mark.parametrize("detector, people, words", [
    ([], 1, "1 of 2 photos has no box in the file: nobody there"),
    (["--detector", "mediapipe"], 2, "1 of 2 photos has no box in the file: the detector looks"),
])
def test_a_detector_looks_at_photos_that_the_boxes_file_does_not_name(
    monkeypatch, tmp_path, detector, people, words
):
    found = np.array([[5, 6, 30, 40, 0.7]])
    monkeypatch.setattr("dppt_nb.detectors.MediaPipeDetector", lambda: lambda pixels: found)
    for name in "ab": Image.new("RGB", (60, 80)).save(tmp_path / f"{name}.jpg")
    row = dict(file_name="a.jpg", bbox=[0, 0, 60, 80], score=0.9)
    (tmp_path / "boxes.json").write_text(json.dumps([row]))
    done = CliRunner().invoke(main, [
        "predict", "tokenpose_nano", f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg", "--device", "cpu",
        "--out", f"{tmp_path}/out", "--boxes", f"{tmp_path}/boxes.json", "--no-refine", *detector,
    ])
    assert done.exit_code == 0 and words in done.output, done.output
    lines = map(json.loads, (tmp_path / "out" / "poses.jsonl").read_text().splitlines())
    boxes = {Path(line["photo"]).name: line["box"] for line in lines}
    assert boxes == dict([("a.jpg", [0, 0, 60, 80]), ("b.jpg", [5, 6, 30, 40])][:people])


def test_bytes_of_any_kind_hold_a_photo(predictor):
    photo_bytes = encoded(Image.new("RGB", (8, 6), (200, 10, 30)), "PNG")
    assert repr(predictor(photo_bytes, [])) == "0 people in the photo in bytes: coco"
    plain = np.asarray(open_photo(photo_bytes).image)
    for kind in (bytearray, memoryview):
        opened = open_photo(kind(photo_bytes))
        assert opened.name == "the photo in bytes"
        np.testing.assert_array_equal(np.asarray(opened.image), plain)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_benchmark_says_in_which_numbers_it_computed(precision, capsys):
    network, recipe, keypoints = load_network("tokenpose_nano")
    predictor = PosePredictor(network, recipe.change(precision=precision), keypoints)
    predictor.benchmark(people=1, rounds=1)
    said = capsys.readouterr().out
    assert said.splitlines()[0].endswith(f"eager, {precision}") and "all of it, 1 person " in said


def test_a_benchmark_that_is_stopped_leaves_the_predictor_as_it_was(monkeypatch):
    "Else it would make no recordings any more, without a word."
    predictor = PosePredictor(*load_network("tokenpose_nano"))
    def stop(*parts): raise KeyboardInterrupt
    monkeypatch.setattr(predictor, "_pass", stop)
    monkeypatch.setattr(predictor, "graph", True)    # as on a GPU
    with pytest.raises(KeyboardInterrupt): predictor.benchmark(people=1, rounds=1)
    assert predictor.graph is True


@pytest.mark.parametrize("give", [
    lambda box: [torch.tensor(box, requires_grad=True)],
    lambda box: [[torch.tensor(float(value), requires_grad=True) for value in box]],
    lambda box: np.array([[Decimal(str(value)) for value in box]]),
    lambda box: [[Decimal(str(value)) for value in [*box, 0.5]]],
    lambda box: [torch.tensor([*box, 0.5], requires_grad=True)],
])
def test_boxes_may_hold_tensors_or_exact_numbers(predictor, made, give):
    box = made[1][0].tolist()
    people = predictor(made[0], give(box))
    np.testing.assert_array_equal(people.keypoints, predictor(made[0], [box]).keypoints)
    assert people.box_scores in (None, [0.5])


def test_a_detector_may_give_tensors_with_a_gradient(made):
    boxes = [torch.tensor(made[1][0], requires_grad=True)]
    found = PosePredictor.from_pretrained(
        "tokenpose_nano", device="cpu", detector=lambda photo: boxes
    )(made[0])
    assert len(found) == 1


@pytest.mark.parametrize("boxes", [[[10**400, 0, 1, 1]], [[10**400, 0, 1, 1, 1]]])
def test_a_number_that_no_format_holds_is_no_box(predictor, made, boxes):
    assert "no table of numbers" in refusal(lambda: predictor(made[0], boxes))


def test_boxes_of_a_stream_are_a_list(predictor, made):
    assert "boxes is 3; give a list" in refusal(lambda: predictor.stream([made[0]], 3))


def test_a_batch_may_be_of_any_size(predictor, made):
    many = copy.copy(predictor)
    many.batch_size = 10**30
    np.testing.assert_array_equal(many(*made[:2]).keypoints, predictor(*made[:2]).keypoints)


def test_a_network_with_other_joints_or_weights_is_refused(predictor):
    network, recipe = predictor.network, predictor.recipe
    said = refusal(lambda: PosePredictor(network, recipe, LSP14))
    assert said.startswith(f"the network finds 17 keypoints, {LSP14.name} has 14; give the set")
    for kind in ("float16", "float64", "bfloat16"):
        wrong = copy.deepcopy(network).to(getattr(torch, kind))
        for runner in ("eager", "folded", "auto"):
            make = partial(PosePredictor, wrong, recipe, COCO17, runner=runner)
            said = refusal(make)
            assert f"network's weights are torch.{kind}" in said and "give network.float()" in said


def test_another_default_of_pytorch_changes_no_answer(predictor, made):
    torch.set_default_dtype(torch.float64)
    try: found = PosePredictor.from_pretrained("tokenpose_nano", device="cpu")(*made[:2])
    finally: torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(found.keypoints, predictor(*made[:2]).keypoints, atol=0.1)


@pytest.mark.parametrize("mirror", [False, True])
def test_another_default_device_of_pytorch_changes_no_answer(predictor, made, mirror):
    "As `torch.set_default_device` says it; on this one nothing can be computed."
    parts = predictor.network, predictor.recipe, predictor.keypoint_set
    other = PosePredictor(*parts, mirror=mirror, refine=True)
    with torch.device("meta"): found = other(*made[:2])
    np.testing.assert_array_equal(found.keypoints, other(*made[:2]).keypoints)


def test_a_picture_of_shares_is_cut_off_at_1_as_an_array_is(tmp_path):
    "Else it would be black without a word."
    grey = np.linspace(0, 1.02, 48, dtype=np.float32).reshape(8, 6)
    Image.fromarray(grey).save(tmp_path / "f.tif")
    for photo in (grey, tmp_path / "f.tif"):
        assert "goes from 0 to 1.02; cut it off at 1" in refusal(lambda p=photo: open_photo(p))
    with pytest.raises(DataError, match="f.tif cannot be read .*cut it off at 1"):
        ImageSource(tmp_path).read("f.tif")
    Image.fromarray(grey / 1.02).save(tmp_path / "f.tif")
    assert np.asarray(open_photo(tmp_path / "f.tif").image).max() == 255


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    place = tmp_path / "a.png"
    Image.new("RGB", (60, 80)).save(place)
    with open(place, "rb") as closed: assert open_photo(closed).name == str(place)
    with open(tmp_path / "b.png", "wb") as writes:
        for file, name in ((closed, place), (writes, tmp_path / "b.png")):
            said = refusal(lambda file=file: open_photo(file))
            assert said.startswith(f"{name} cannot be read (") and "open it with 'rb'" in said
    assert refusal(lambda: open_photo("")) == "an empty path names no photo."


def test_a_format_that_is_not_read_is_not_called_no_picture(tmp_path):
    Image.new("RGB", (60, 80)).save(tmp_path / "a.tga")
    assert "(it is no picture that is read here)" in refusal(lambda: open_photo(tmp_path / "a.tga"))


@pytest.mark.parametrize("device", ["mps", "xla", "vulkan"])
def test_a_device_that_is_not_there_is_a_short_sentence(device):
    if device == "mps" and torch.backends.mps.is_available(): pytest.skip("it is there")
    said = refusal(lambda: PosePredictor.from_pretrained("tokenpose_nano", device=device))
    assert len(said) < 300 and said.endswith("leave it out or take 'cpu'")

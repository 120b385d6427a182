"""Annotation files and pictures, damaged at random: read as they were, or refused in one sentence.
DPPT_FUZZ=10000 tries as many of each kind."""
import copy
import io
import json
import warnings

import numpy as np
import pytest
from fuzzing import Tally, how_many
from PIL import Image

from dppt_nb.coco import read_content
from dppt_nb.datasets import read_coco
from dppt_nb.files import ImageSource
from dppt_nb.keypoints import COCO17

INPUTS = how_many(300)
SIZE = (60, 50)
STRANGE = (
    None, True, False, 0, -1, 1, 2**70, -1e400, 1e400, float("nan"), "", "1", "a", "../a", "\0", [],
    {}, [1], ["a"], [[]], {"id": 1}, [None], 1e-9, 3.5, "NaN", "é", [0] * 9, [[1, 2], [0, 9]],
)


def annotated():
    rng, annotations = np.random.default_rng(0), []
    for i in range(1, 4):
        keypoints = np.full((3, 3), 2.)
        keypoints[:, :2] = rng.uniform(5, 45, (3, 2)).round(1)
        annotations.append(
            dict(id=i, image_id=(i + 1) // 2, category_id=1, bbox=[4., 4., 45., 44.], area=900.,
                 iscrowd=0, num_keypoints=3, keypoints=keypoints.ravel().tolist())
        )
    images = [dict(id=i, file_name=f"{i}.png", width=SIZE[0], height=SIZE[1]) for i in (1, 2)]
    category = dict(id=1, name="person", keypoints=["nose", "left_eye", "right_eye"],
                    skeleton=[[1, 2]], sigmas=[.03, .03, .03])
    return dict(images=images, annotations=annotations, categories=[category])


def places(value, path=()):
    "Every place in the content, as a path of keys."
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list)): yield from places(inner, (*path, key))
        else: yield (*path, key)


def damaged(content, rng):
    "The content with one to three things changed, taken out, doubled or put elsewhere."
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        paths = [p for p in places(content) if p]
        if not paths: break
        *way, key = paths[rng.integers(len(paths))]
        inside = content
        for step in way: inside = inside[step]
        action = rng.integers(4)
        if action == 0: inside[key] = copy.deepcopy(STRANGE[rng.integers(len(STRANGE))])
        elif action == 1: del inside[key]
        elif action == 2 and isinstance(inside, list): inside.append(copy.deepcopy(inside[key]))
        else:
            others = [p for p in places(content) if p]
            other = content
            for step in others[rng.integers(len(others))]: other = other[step]
            inside[key] = copy.deepcopy(other)
    return content


def expected_joints(content, annotation_id):
    "The labelled joints of the annotations of that id, as the damaged file itself has them."
    same = (str(annotation_id), f"{annotation_id}.0")
    return [
        np.array(a["keypoints"], float).reshape(3, 3) for a in content["annotations"]
        if isinstance(a, dict) and str(a.get("id")) in same
        and isinstance(a.get("keypoints"), list) and len(a["keypoints"]) == 9
        and all(isinstance(v, (int, float)) for v in a["keypoints"])
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "images").mkdir()
    for i in (1, 2): Image.new("RGB", SIZE, (i, 90, 90)).save(folder / f"images/{i}.png")
    return folder


def test_damaged_annotation_files(folder):
    rng, good, tally = np.random.default_rng(0), annotated(), Tally("annotation files")
    for number in range(INPUTS):
        content = damaged(good, rng)
        (folder / "val.json").write_text(json.dumps(content))
        table = tally.take(number, lambda: read_coco(folder, annotations="val.json"))
        if table is None: continue
        assert np.isfinite(table.joints).all() and np.isfinite(table.boxes).all(), number
        assert (table.areas > 0).all() and set(table.files) <= {"images/1.png", "images/2.png"}
        for joints, seen, i in zip(table.joints, table.visible, table.ids):
            assert len(seen) == 3 and any(
                np.array_equal(r[:, 2] > 0, seen > 0)
                and np.allclose(r[seen > 0, :2], joints[seen > 0], rtol=1e-6)
                for r in expected_joints(content, i)
            ), number
    tally.check()
    assert min(tally.counts[word] for word in ("read", "refused")) > .05 * INPUTS


def test_damaged_text_of_annotation_files(folder):
    rng, text = np.random.default_rng(1), json.dumps(annotated()).encode()
    tally = Tally("text of annotation files")
    for number in range(INPUTS):
        broken = bytearray(text)
        for _ in range(rng.integers(1, 4)): broken[rng.integers(len(broken))] = rng.integers(256)
        if number % 3 == 0: broken = broken[: rng.integers(len(broken))]
        (folder / "val.json").write_bytes(bytes(broken))
        table = tally.take(number, lambda: read_coco(folder, annotations="val.json"))
        assert table is None or np.isfinite(table.joints).all(), number
    tally.check()


def test_truths_for_the_scorer_are_read_or_refused():
    rng, good, tally = np.random.default_rng(2), annotated(), Tally("truths for the scorer")
    for number in range(INPUTS):
        content = damaged(good, rng)
        file = tally.take(number, lambda: read_content(content, named=False))
        if file is None: continue
        assert all(np.isfinite(a["area"]) for a in file.content["annotations"]), number
    tally.check()


def pictures():
    "The same picture in every format that is opened."
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"):
        content = io.BytesIO()
        picture.save(content, kind)
        yield content.getvalue()


def test_damaged_pictures_are_read_or_refused(tmp_path):
    rng, kinds, tally = np.random.default_rng(4), list(pictures()), Tally("pictures")
    for number in range(INPUTS):
        broken = bytearray(kinds[number % len(kinds)])
        # mostly in the header, where sizes and offsets are
        reach = min(len(broken), 80 if number % 3 else len(broken))
        for _ in range(rng.integers(1, 5)): broken[rng.integers(reach)] = rng.integers(256)
        if number % 5 == 0: broken = broken[: rng.integers(1, len(broken))]
        (tmp_path / "a.jpg").write_bytes(bytes(broken))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = tally.take(number, lambda: ImageSource(tmp_path).read("a.jpg"))
        assert picture is None or picture.mode == "RGB", number
    tally.check()


def test_the_undamaged_file_is_read(folder):
    (folder / "val.json").write_text(json.dumps(annotated()))
    table = read_coco(folder, annotations="val.json")
    assert len(table) == 3 and table.keypoint_set.names != COCO17.names

"""COCO's format: one rule completes an annotation for reader and scorer; categories, ids, sigmas,
mirror pairs and splits as files of many tools have them."""
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from data_fixture import one_sentence
from PIL import Image

from dppt_nb import datasets
from dppt_nb.augmentation import AUGMENTATIONS, augment_batch
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.coco import (
    choose_categories,
    read_category,
    read_content,
    read_flip_pairs,
    to_coco_results,
)
from dppt_nb.compare import hits_of
from dppt_nb.cropset import CropSet
from dppt_nb.datasets import DATASETS, DataSet, coco_truth, judged_split, read_coco, read_dataset
from dppt_nb.evaluation import format_scores, headline, score_joints
from dppt_nb.heatmaps import average_flip
from dppt_nb.keypoints import COCO17, LSP14
from dppt_nb.metrics import evaluate_coco
from dppt_nb.ownsets import keypoint_set_of, write_keypoint_set
from dppt_nb.photos import read_boxes
from dppt_nb.pictures import DRAWING
from dppt_nb.splits import said_split, split_of_file


def content_of(people=6, names=COCO17.names, seed=0, **category):
    "People of 60 x 120 pixels, two in a picture, all keypoints labelled."
    rng, annotations = np.random.default_rng(seed), []
    for i in range(1, people + 1):
        corner = rng.uniform(5, 30, 2) + (60 * (i % 2), 0)
        points = corner + rng.uniform(0, 1, (len(names), 2)) * (60, 120)
        low, size = points.min(0), np.ptp(points, axis=0)
        annotations.append(
            dict(
                id=i, image_id=(i + 1) // 2, category_id=1, iscrowd=0,
                bbox=[*low.tolist(), *size.tolist()],
                keypoints=[v for x, y in points for v in (x, y, 2)],
            )
        )
    images = [dict(id=i, file_name=f"{i}.png", width=200, height=180) for i in range(1, 4)]
    category = dict(id=1, name="person", keypoints=list(names)) | category
    return dict(images=images, annotations=annotations, categories=[category])


def save(root, content, file="annotations/person_keypoints_val.json", pictures="images"):
    for image in content["images"]:
        (root / pictures).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 180)).save(root / pictures / image["file_name"])
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


def rows_of(content, error=0.):
    points = np.array([a["keypoints"] for a in content["annotations"]]).reshape(
        len(content["annotations"]), -1, 3
    )
    ids = [a["image_id"] for a in content["annotations"]]
    return to_coco_results(points[..., :2] + error, ids)


# D. one rule

@pytest.mark.parametrize("area", [0, 1, None, "absent"])
def test_area_that_is_none_scores_like_the_readers(tmp_path, area, capsys):
    content = content_of()
    rows = rows_of(content, 1.)
    right = evaluate_coco(content, rows)["AP"]
    capsys.readouterr()
    if area != "absent":
        for a in content["annotations"]: a["area"] = area
    assert evaluate_coco(content, rows)["AP"] == right > .9
    assert "6 without a usable area" in capsys.readouterr().out
    table = read_coco(save(tmp_path, content))
    assert any("6 without a usable area" in n for n in table.notes)
    boxes = np.array([a["bbox"] for a in content["annotations"]])
    assert np.allclose(table.areas, .53 * boxes[:, 2] * boxes[:, 3])


def test_reader_and_scorer_know_the_same_people(tmp_path):
    content = content_of()
    for a, change in zip(content["annotations"], (
        dict(num_keypoints=0), dict(bbox=None), dict(area=0), dict(iscrowd=1), dict(keypoints=[]),
    )): a |= change
    truth = coco_truth("coco", save(tmp_path, content), "val")
    table = read_coco(tmp_path)
    scored = [a for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    assert [a["id"] for a in scored] == table.ids.tolist() == [1, 2, 3, 6]
    assert np.allclose([a["area"] for a in scored], table.areas)


@pytest.mark.parametrize("field, shares", [
    ("bbox", [0.1, 0.1, 0.5, 0.8]), ("keypoints", [0.5, 0.5, 2] * 17),
])
def test_shares_of_the_picture_are_no_pixels(tmp_path, field, shares):
    content = content_of()
    for a in content["annotations"]: a[field] = shares
    with pytest.raises(DataError, match=f"every '{field}' lies between 0 and 1"):
        read_coco(save(tmp_path, content))


def test_a_photograph_with_two_ids_is_in_one_split(tmp_path):
    content = content_of(people=12)
    content["images"] = [
        dict(id=i, file_name=f"{(i + 1) // 2}.png", width=200, height=180) for i in range(1, 7)
    ]
    for seed in range(5):
        table = read_coco(
            save(tmp_path, content, "people.json"), annotations="people.json", val_share=0.5,
            split_seed=seed,
        )
        split_of = {(f, s) for f, s in zip(table.files, table.split)}
        assert len(split_of) == len(set(table.files)) == 3


def test_counts_of_several_files_say_of_which(tmp_path):
    save(tmp_path, content_of(seed=1), "train/people.json", "train")
    root = save(tmp_path, content_of(), "valid/people.json", "valid")
    files = ["train/people.json", "valid/people.json"]
    notes = read_coco(root, files).notes
    for file in files:
        assert [n for n in notes if n.startswith(f"{file}: 6 without a usable area")]
    assert not [n for n in notes if n.startswith("6")]
    alone = read_coco(root, files[1]).notes
    assert [n for n in alone if n.startswith("6 without a usable area")]


def scored(content, change=lambda i, row: row):
    rows = [
        change(i, dict(image_id=a["image_id"], category_id=1, keypoints=a["keypoints"], score=.9))
        for i, a in enumerate(content["annotations"])
    ]
    return evaluate_coco(content, rows)


@pytest.mark.parametrize("field, value", [
    ("bbox", None), ("bbox", []), ("bbox", "box"), ("caption", ""), ("segmentation", []),
])
@pytest.mark.parametrize("every", [False, True])
def test_what_other_tools_add_to_result_rows_changes_nothing(field, value, every):
    content = content_of()
    more = lambda i, row: row | ({field: value} if every or not i else {})
    assert scored(content, more) == scored(content)


def test_boxes_of_some_result_rows_are_those_of_none():
    content = content_of()
    first = lambda i, row: row | ({"bbox": [0, 0, 600, 1200]} if not i else {})
    assert scored(content, first) == scored(content)


def test_image_ids_of_two_kinds_are_refused():
    content = content_of()
    content["images"][0]["id"] = "a"
    for a in content["annotations"]: a["image_id"] = {1: "a"}.get(a["image_id"], a["image_id"])
    with pytest.raises(DataError, match='numbers such as 2 and text such as "a"') as error:
        scored(content)
    one_sentence(error)
    names = {"a": "a", 2: "b", 3: "c"}    # all of one kind are no obstacle
    for image in content["images"]: image["id"] = names[image["id"]]
    for a in content["annotations"]: a["image_id"] = names[a["image_id"]]
    assert scored(content) == scored(content_of())


def test_odd_flags_are_counted(tmp_path):
    content = content_of()
    content["annotations"][0]["keypoints"][2] = 3
    content["annotations"][1]["keypoints"][2] = -1
    content["annotations"][2]["keypoints"][2] = 0.5
    table = read_coco(save(tmp_path, content))
    words = "3 with a flag other than 0, 1 or 2: keypoints above 0 are taken as labelled"
    assert words in table.notes
    assert table.visible[:3, 0].tolist() == [1, 0, 1]


def test_the_given_count_of_keypoints_is_ignored(capsys):
    content = content_of()
    right = evaluate_coco(content, rows_of(content, 1.))["AP"]
    for a in content["annotations"]: a["num_keypoints"] = 0
    assert evaluate_coco(content, rows_of(content, 1.))["AP"] == right
    assert "6 with a 'num_keypoints' that disagrees" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [float("nan"), -.05, 0., float("inf")])
def test_sigmas_that_are_none(tmp_path, bad):
    content = content_of()
    with pytest.raises(ValueError, match="finite number above 0"):
        evaluate_coco(content, rows_of(content), sigmas=[bad] * 17)
    content["categories"][0]["sigmas"] = [.05] * 16 + [bad]
    for read in (lambda: evaluate_coco(content, []), lambda: read_coco(save(tmp_path, content))):
        with pytest.raises(DataError, match="finite number above 0"): read()


def test_sigmas_of_the_file_are_used_and_said(tmp_path, capsys):
    content = content_of(sigmas=[.5] * 17)
    assert read_coco(save(tmp_path, content)).keypoint_set.sigmas == (.5,) * 17
    rows = rows_of(content, 15.)
    capsys.readouterr()
    ours = evaluate_coco(content, rows)
    assert "OKS sigmas are those of the file" in capsys.readouterr().out
    assert ours == evaluate_coco(content, rows, sigmas=[.5] * 17) and ours["AP"] > .8
    assert evaluate_coco(content, rows, sigmas=COCO17.sigmas)["AP"] < .1


def test_keypoints_of_a_detector_are_no_truth(tmp_path):
    content = content_of()
    boxes = [dict(image_id=a["image_id"], category_id=1, bbox=a["bbox"], score=.9)
             for a in content["annotations"]]
    save(tmp_path, content)
    tables = []
    for extra in ({}, dict(keypoints=[9.] * 51), dict(keypoints=[9.] * 15)):
        (tmp_path / "boxes.json").write_text(json.dumps([b | extra for b in boxes]))
        tables.append(read_coco(tmp_path, boxes="boxes.json"))
    for table in tables:
        assert not table.visible.any() and not table.joints.any()
        assert np.array_equal(table.boxes, tables[0].boxes) and len(table) == 6
    assert any("keypoints that come with 6 boxes are not used" in n for n in tables[1].notes)


# E. mirror pairs

def test_pairs_come_from_names_category_option_or_file(tmp_path):
    names = ["kpt-0", "kpt-1", "kpt-2"]
    plain, notes = read_category(dict(name="face", keypoints=names))
    assert plain.flip_pairs == () and notes[0].startswith("WARNING: no mirror pairs")
    write_keypoint_set(tmp_path / "set.json", keypoint_set_of(dict(keypoints=names)))
    fields = json.loads((tmp_path / "set.json").read_text()) | dict(flip_pairs=[[0, 2]])
    (tmp_path / "set.json").write_text(json.dumps(fields))
    for category, option in (
        (dict(flip_pairs=[[0, 2]]), None), (dict(flip_pairs=[["kpt-0", "kpt-2"]]), None),
        (dict(swap=["kpt-2", "", "kpt-0"]), None), (dict(swap={"kpt-0": "kpt-2"}), None),
        ({}, "kpt-0:kpt-2"), ({}, "0:2"), (dict(flip_pairs=[[0, 1]]), "0:2"),
        ({}, str(tmp_path / "set.json")),
    ):
        s, notes = read_category(dict(name="face", keypoints=names) | category, option)
        assert s.flip_pairs == ((0, 2),) and notes == ["mirror pairs: kpt-0:kpt-2"]


@pytest.mark.parametrize(
    "pairs", ["a:z", "a", "a:a", "0:3", [[0, 1, 2]], 7, "a:b,b:c", [[0, True]]]
)
def test_bad_pairs_are_one_sentence(pairs):
    with pytest.raises(DataError) as error:
        read_category(dict(name="x", keypoints=["a", "b", "c"]), pairs)
    assert "\n" not in str(error.value)


def test_layouts_of_facial_landmarks():
    names = tuple(f"kpt-{i}" for i in range(98))
    assert [len(read_flip_pairs(k, names)) for k in ("ibug68", "wflw98", "cofw29")] == [29, 44, 11]
    with pytest.raises(DataError, match="no keypoint"): read_flip_pairs("wflw98", names[:68])


def test_nobody_is_mirrored_without_pairs():
    numbered = keypoint_set_of(dict(keypoints=["kpt-0", "kpt-1"]))
    sided = keypoint_set_of(dict(keypoints=["left_eye", "right_eye"]))
    images = torch.randint(0, 255, (8, 3, 48, 36), dtype=torch.uint8)
    joints, seen = torch.tensor([[[12., 20], [24, 20]]]).repeat(8, 1, 1), torch.ones(8, 2)
    still = AUGMENTATIONS["coco"].__class__(flip=1, rotation=0, scale=0, half_body=0, shift=0)
    run = lambda s: augment_batch(
        images, joints, seen, s, 1.5, (32, 24), still, torch.Generator().manual_seed(0)
    )[1]
    plain = augment_batch(images, joints, seen, numbered, 1.5, (32, 24))[1]
    assert torch.allclose(run(numbered), plain, atol=1e-3)
    assert not torch.allclose(run(sided), plain, atol=.5)
    model = lambda x: x[:, :2]
    x = torch.randn(2, 3, 8, 6)
    assert torch.equal(average_flip(model, x, numbered), model(x))
    assert not torch.equal(average_flip(model, x, sided), model(x))


# H. categories, files, splits

def zoo(*categories):
    "A file with a person of each category, given as id and name."
    content = content_of(len(categories))
    kind = content["categories"][0]
    content["categories"] = [kind | dict(id=i, name=n) for i, n in categories]
    for a, (i, _) in zip(content["annotations"], categories): a["category_id"] = i
    return content


def test_a_category_is_chosen_by_every_id_that_is_read_and_by_names_with_commas():
    content = zoo((1.0, "person, adult"), ("02", "child"), (3, "person"))
    chosen = lambda c: read_content(content, category=c).category_ids
    for wanted, ids in {1: {1}, "1": {1}, "1.0": {1}, "01": {1}, 2: {2}, "2": {2}, "02": {2},
                        "person, adult": {1}, "Person, Adult ": {1}, "person, child": {2, 3},
                        "1,2": {1, 2}}.items():
        assert chosen(wanted) == chosen([wanted]) == ids, wanted
    assert chosen(["person, adult", 2]) == {1, 2} == chosen(np.array([1, 2]).tolist())
    with pytest.raises(DataError, match="--category names '01' again"): chosen("1,01")
    with pytest.raises(DataError, match="has no category 'adult'"): chosen("adult")


def test_a_name_that_is_another_category_s_id_is_not_guessed():
    content = zoo((1, "person"), (2, "1"), (3, "3"))
    with pytest.raises(DataError, match="'1' is the name of one category and the id of another"):
        read_content(content, category="1")
    for wanted, ids in ((1, {1}), ("person", {1}), ("2", {2}), ("3", {3})):
        assert read_content(content, category=wanted).category_ids == ids


@pytest.mark.parametrize("top", ["", "mine/"])
def test_what_is_named_in_a_zip_is_found_there_or_what_it_holds_is_said(tmp_path, top):
    root = save(tmp_path / "mine", content_of(), "people.json", pictures="photos")
    for i in (1, 2, 3): Image.new("RGB", (20, 18)).save(root / f"{i}.png")  # others of these names
    packed = tmp_path / "mine.zip"
    with zipfile.ZipFile(packed, "w") as z:
        for path in sorted(root.rglob("*.*")): z.write(path, f"{top}{path.relative_to(root)}")
    read = lambda file, images: read_coco(packed, annotations=file, images=images, val_share=.4)
    for folder in (f"{top}photos", f"./{top}photos/"):
        table = read(f"{top}people.json", folder)
        assert set(table.files) == {f"{top}photos/{i}.png" for i in (1, 2, 3)}
        assert table.source.read(table.files[0]).size == (200, 180)
    for file, images, words in (
        ("nobody.json", None, f"no JSON file nobody.json; there are {top}people.json."),
        (f"{top}people.json", "pictures", f"no folder pictures; there are .*{top}photos, or "),
    ):
        with pytest.raises(DataError, match=words) as error: read(file, images)
        one_sentence(error)


@pytest.mark.parametrize("way", ["absolute", "from here", "upwards", "link"])
def test_a_path_that_leads_into_the_root_means_what_the_name_from_the_root_does(
    tmp_path, monkeypatch, way
):
    for seed, split in enumerate(("train", "valid")):
        save(tmp_path / "ds", content_of(seed=seed), f"{split}/_annotations.coco.json", split)
    (tmp_path / "other").symlink_to(tmp_path / "ds")
    monkeypatch.chdir(tmp_path)
    folder = {
        "absolute": tmp_path / "ds", "from here": "ds", "upwards": "../ds",
        "link": tmp_path / "other",
    }[way]
    names = [f"{split}/_annotations.coco.json" for split in ("train", "valid")]
    for given in (names[:1], names[1:], names):
        right = read_coco("ds", annotations=given)
        table = read_coco("ds", annotations=[f"{folder}/{name}" for name in given])
        assert table.files == right.files and table.annotations == right.annotations
        assert np.array_equal(table.split, right.split)
        assert np.array_equal(table.boxes, right.boxes)
    with pytest.raises(DataError, match="twice"):
        read_coco("ds", annotations=[names[0], f"{folder}/{names[0]}"])
    alone = save(tmp_path / "train" / "mine", content_of(), "people.json")
    assert set(read_coco(alone, annotations=[str(alone / "people.json")]).split) == {"val"}


def test_categories_that_are_called_the_same_are_one():
    content = content_of()
    content["categories"] = [
        dict(content["categories"][0], id=i, name=n)
        for i, n in enumerate(("ape", "bear", "cat"), 1)
    ]
    for k, a in enumerate(content["annotations"]): a["category_id"] = k % 2 + 1
    file = read_content(content)
    assert len(file.content["annotations"]) == 6 and any("ape, bear" in n for n in file.notes)
    for wanted in ("BEAR", 2, "2", ["bear"]):
        assert len(read_content(content, category=wanted).content["annotations"]) == 3
    assert len(read_content(content, category="ape,bear").content["annotations"]) == 6
    with pytest.raises(DataError, match="it has .labelled.: ape 3, bear 3, cat 0"):
        read_content(content, category="dog")
    content["categories"][1]["keypoints"] = content["categories"][1]["keypoints"][::-1]
    with pytest.raises(DataError, match="choose one with --category"): read_content(content)
    # Roboflow may call a category as the group above it, which has no keypoints
    content["categories"] = [
        dict(id=0, name="bear"), *({**c, "name": "bear"} for c in content["categories"][1:2])
    ]
    with pytest.raises(DataError, match=r"differ in 'keypoints' .* by its id if names are alike"):
        read_content(content, category="bear")
    assert len(read_content(content, category=2).content["annotations"]) == 3


def test_the_category_that_has_people_is_read():
    content = content_of()
    content["categories"] = [dict(id=2, name="bag", keypoints=["handle"]),
                             dict(content["categories"][0], name="Person")]
    assert [c["id"] for c in choose_categories(content, "x")] == [1]
    content["categories"][1]["name"] = "skater"
    assert [c["id"] for c in choose_categories(content, "x")] == [1]


@pytest.mark.parametrize(
    "file, split",
    [
        ("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "val"),
        ("annotations/instances_default.json", "val"), ("result.json", "val"),
        ("annotations/person_keypoints_default.json", "val"), ("test/result.json", "test"),
    ],
)
def test_files_as_other_tools_name_them(tmp_path, file, split):
    table = read_coco(save(tmp_path, content_of(), file))
    assert set(table.split) == {split} == {split_of_file(file)}


def test_a_file_of_any_name_and_its_split(tmp_path):
    save(tmp_path, content_of(), "mine.json")
    with pytest.raises(DataError, match="--annotations .there are mine.json"): read_coco(tmp_path)
    table = read_coco(tmp_path, annotations=["train=mine.json"])
    assert set(table.split) == {"train"}
    shares = [read_coco(tmp_path, annotations="mine.json", val_share=.4, split_seed=s).split
              for s in (0, 0, 1, 2, 3)]
    assert np.array_equal(shares[0], shares[1])
    assert any(not np.array_equal(shares[0], s) for s in shares[2:])
    table = read_coco(tmp_path, annotations="mine.json", val_share=.4)
    assert not set(table.select("train").files) & set(table.select("val").files)
    truth = coco_truth("coco", tmp_path, "val", annotations="mine.json", val_share=.4)
    assert {i["id"] for i in truth["images"]} == set(table.select("val").image_ids.tolist())


def test_skeletons_of_two_splits_may_differ(tmp_path):
    save(tmp_path, content_of(skeleton=[[1, 2]], name="fly", keypoints=list("abcdefghijklmnopq")),
         "annotations/person_keypoints_train.json", "train")
    other = content_of(name="Fly", keypoints=list("abcdefghijklmnopq"), seed=1)
    table = read_coco(save(tmp_path, other, pictures="val"))
    assert len(table) == 12 and table.keypoint_set.limbs == ((0, 1),)


def test_a_data_set_is_one_row(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", DataSet(read_coco, ap=True, judged="val", note="17"))
    table = read_dataset("mine", save(tmp_path, content_of()), category="person")
    assert table.name == "mine" and len(table) == 6 and judged_split("mine") == "val"
    assert datasets.has_ap("mine") and not datasets.has_ap("synthetic")
    assert len(coco_truth("mine", tmp_path, "val")["annotations"]) == 6
    with pytest.raises(DataError, match="--category goes with data sets in COCO's format"):
        read_dataset("lspet", tmp_path, category="person")


# G. emptiness

def crops_of(names, visible=None, count=5):
    s = keypoint_set_of(dict(name="x", keypoints=names))
    joints = torch.rand(count, len(names), 2, generator=torch.Generator().manual_seed(0)) * 40
    visible = torch.ones(count, len(names), dtype=torch.uint8) if visible is None else visible
    return CropSet(
        images=torch.zeros(count, 3, 48, 36, dtype=torch.uint8), joints=joints, visible=visible,
        affine=torch.eye(2, 3).repeat(count, 1, 1), centers=torch.full((count, 2), 20.),
        scales=torch.full((count, 2), .3), keypoint_set=s, margin=1.5, name="x",
        ids=torch.arange(count), image_ids=torch.arange(count), split=["val"] * count,
        areas=torch.full((count,), 900.),
    )


@pytest.mark.filterwarnings("error")
def test_sets_without_torso_are_measured_by_the_box():
    corners = crops_of(["top_left", "top_right", "bottom_right", "bottom_left"])
    scores = score_joints(corners.joints, corners)
    assert list(scores) == ["PCK@0.05 box"] and headline(scores) == 100
    # the box is the window without its padding: 48 pixels, of which a twentieth is 2.4
    for shift, mean in ((2.3, 100), (2.5, 0)):
        assert headline(score_joints(corners.joints + torch.tensor([shift, 0]), corners)) == mean
    face = crops_of(["nose", "left_eye", "right_eye"])
    assert list(score_joints(face.joints, face)) == ["PCK@0.05 box", "OKS"]


@pytest.mark.filterwarnings("error")
def test_nobody_to_measure_is_said():
    people = crops_of(COCO17.names)
    people.visible[:, [5, 12]] = 0
    scores = score_joints(people.joints, people)
    assert headline(scores) == 100 and scores["PCK@0.2 torso"]["people"] == 0
    assert np.isnan(scores["PCK@0.2 torso"]["mean"])
    text = format_scores(scores)
    assert "nobody to measure, 5 left out" in text and "nan" not in text
    people.visible[:] = 0
    assert "nan" not in format_scores(score_joints(people.joints, people))


def test_upper_bodies_are_measured_by_the_head():
    "Where no torso is labelled, but neck and head top are: while training and in `dppt compare`."
    people = crops_of(LSP14.names)
    people.visible[:, :6] = 0    # ankles, knees and hips
    scores = score_joints(people.joints, people)
    assert scores["PCK@0.2 torso"]["people"] == 0 and scores["PCK@0.5 head"]["people"] == 5
    assert headline(scores) == scores["PCK@0.5 head"]["mean"] == 100
    assert hits_of(people.joints, people, people.visible)["normaliser"] == "head"


def test_ap_of_a_size_that_nobody_has_is_words():
    row = dict(mean=50., interval=[40., 60.], joints=dict(AP_M=float("nan")), people=3, left_out=0)
    assert "AP_M              nobody of that size" in format_scores({"AP": row})


# the command

def test_data_check_says_what_is_odd(tmp_path):
    content = content_of(names=["kpt-0", "kpt-1", "kpt-2"])
    for a in content["annotations"][:2]: a["keypoints"][:2] = [500., 500.]
    for a in content["annotations"]: a["keypoints"][8] = 0
    save(tmp_path, content)
    Image.new("RGB", (9, 9)).save(tmp_path / "images/unused.png")
    # a run's samples and a drawing, which no data set has
    for name in ("run/samples/epoch-0001.png", "run/training.json", "poses/unused-poses.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if ".json" in name: (tmp_path / name).write_text("{}")
        else: Image.new("RGB", (9, 9)).save(tmp_path / name, comment=DRAWING)
    found = CliRunner().invoke(main, ["data", "check", "coco", "--root", str(tmp_path)])
    assert found.exit_code == 0, found.output
    for words in (
        "6 people in 3 photographs", "no mirror pairs are known", "val: 6 people in 3 pictures",
        "pictures from 200 x 180 to 200 x 180", "labelled on nobody: kpt-2",
        "2 people have a labelled joint outside", "1 picture has no row, in images",
    ): assert words in found.output, words
    stray = "WARNING: 2 people have a labelled joint outside of their picture"
    assert found.output.count(stray) == 1 and stray in read_coco(tmp_path).notes
    paired = CliRunner().invoke(
        main, ["data", "check", "coco", "--root", str(tmp_path), "--flip-pairs", "0:1"]
    )
    assert "mirror pairs: kpt-0:kpt-1" in paired.output
    wrong = CliRunner().invoke(
        main, ["data", "check", "coco", "--root", str(tmp_path), "--category", "dog"]
    )
    assert wrong.exit_code == 1 and "has no category 'dog'" in wrong.output


SMALL = [
    "--image-size", "64x48", "--overrides", '{"width": 32, "depth": 1, "heads": 2}', "--epochs",
    "2", "--device", "cpu", "--no-report", "--no-samples",
]


def train_own(root, out, *words, recipe="tokenpose_nano"):
    "What `dppt train` says at the end of a training on people.json in this folder."
    own = ["--data", "coco", "--root", str(root), "--annotations", "people.json", "--images",
           "images", "--val-share", "0.3"]
    done = CliRunner().invoke(main, ["train", recipe, *own, "--out", str(out), *SMALL, *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_finished_run_says_the_same_again_where_a_joint_is_labelled_on_nobody(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    content = content_of()
    for a in content["annotations"]: a["keypoints"][:3] = [0, 0, 0]    # the nose
    save(tmp_path, content, "people.json")
    said = [train_own(tmp_path, tmp_path / "run", *more).split("validation people of")[1]
            for more in ([], ["--resume"])]
    assert said[0] == said[1] and "nose              labelled on nobody" in said[0]


def test_a_training_on_upper_bodies_has_scores_and_a_best_network(tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    content = content_of(names=LSP14.names)
    for a in content["annotations"]: a["keypoints"][2:18:3] = [0] * 6    # ankles, knees and hips
    save(tmp_path, content, "people.json")
    train_own(tmp_path, tmp_path / "run")
    history = json.loads((tmp_path / "run" / "training.json").read_text())["history"]
    assert "score" in history[-1]
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


@pytest.mark.parametrize("field, values", [
    ("sigmas", ([0.05] * 17, [0.5] * 17)), ("sigmas", (None, [0.5] * 17)),
    ("flip_pairs", ([[1, 2]], [[3, 4]])), ("swap", ([[1, 2]], None)),
])
def test_categories_that_would_be_judged_otherwise_are_not_joined(field, values):
    "The first one's sigmas and pairs would be taken for all, without a word."
    content = content_of()
    content["categories"] = [
        {k: v for k, v in (dict(content["categories"][0], id=i, name=n) | {field: value}).items()
         if v is not None}
        for i, (n, value) in enumerate(zip(("ape", "bear"), values), 1)
    ]
    for k, a in enumerate(content["annotations"]): a["category_id"] = k % 2 + 1
    for category in (None, "ape,bear"):
        with pytest.raises(DataError, match=f"differ in '{field}' .ape 3, bear 3.") as error:
            read_content(content, category=category)
        one_sentence(error)
    assert len(read_content(content, category="bear").content["annotations"]) == 3


def test_a_category_that_is_named_and_names_no_keypoints_is_refused(tmp_path):
    content = content_of()
    content["categories"].append(dict(id=3, name="ball"))
    with pytest.raises(DataError, match="category \"ball\" names no keypoints") as error:
        read_coco(save(tmp_path, content), category="ball")
    assert "person_keypoints_val.json" in one_sentence(error)


@pytest.mark.parametrize("pairs", [[[1, 2], [2, 3]], "left_eye:right_eye,left_eye:right_ear"])
def test_a_point_of_two_pairs_is_said_with_its_file(tmp_path, pairs):
    given = {} if isinstance(pairs, str) else dict(flip_pairs=pairs)
    said = dict(flip_pairs=pairs) if isinstance(pairs, str) else {}
    with pytest.raises(DataError, match="twice; a point has one mirror image") as error:
        read_coco(save(tmp_path, content_of(**given)), **said)
    assert "person_keypoints_val.json" in one_sentence(error)


@pytest.mark.parametrize("crowd", [0.5, 2, -1])
def test_a_crowd_is_one_or_none(tmp_path, crowd):
    content = content_of()
    content["annotations"][0]["iscrowd"] = crowd
    with pytest.raises(DataError, match="annotation 1: 'iscrowd' is .*; it must be 0 or 1"):
        read_coco(save(tmp_path, content))


def test_a_share_of_which_nothing_comes_is_refused(tmp_path):
    "Also where the files that are found say of which split they are."
    save(tmp_path, content_of())
    with pytest.raises(DataError, match="person_keypoints_val.json says its split; leave out one"):
        read_coco(tmp_path, val_share=0.3)
    asked = ["data", "check", "coco", "--root", str(tmp_path)]
    done = CliRunner().invoke(main, [*asked, "--val-share", "0.3"])
    assert done.exit_code == 1 and "--val-share divides people of no split" in done.output
    done = CliRunner().invoke(main, [*asked, "--flip-pairs", ""])
    assert done.exit_code == 1 and "--flip-pairs is empty" in done.output


def test_boxes_in_shares_of_the_picture_are_said_of_their_own_file(tmp_path):
    save(tmp_path, content_of())
    (tmp_path / "found.json").write_text(
        json.dumps([dict(image_id=1, bbox=[0.1, 0.1, 0.2, 0.2], score=0.5)])
    )
    with pytest.raises(DataError, match="found.json: every 'bbox' lies between 0 and 1"):
        read_coco(tmp_path, boxes="found.json")


def test_boxes_with_scores_below_zero_are_left_out_only_where_somebody_asks(tmp_path, capsys):
    "Margins of a detector are scores too."
    save(tmp_path, content_of())
    rows = [dict(image_id=1, bbox=[5, 6, 90, 120], score=score) for score in (-0.5, 0.5)]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    assert len(read_coco(tmp_path, boxes="found.json")) == 2
    assert len(read_coco(tmp_path, boxes="found.json", min_score=0.0)) == 1
    count = lambda **more: sum(map(len, read_boxes(tmp_path / "found.json", **more).values()))
    assert count() == 2 and "left out" not in capsys.readouterr().out
    assert count(min_score=0.0) == 1 and "1 box with a score below 0.0" in capsys.readouterr().out


@pytest.mark.parametrize("none", [None, [], ()])
def test_no_file_and_no_category_at_all_are_as_none_that_was_named(tmp_path, none):
    save(tmp_path, content_of())
    assert len(read_coco(tmp_path, annotations=none, category=none)) == 6
    assert len(coco_truth("coco", tmp_path, "val", none, none)["annotations"]) == 6


def test_files_of_other_sigmas_are_not_joined_in_silence(tmp_path):
    save(tmp_path, content_of())
    note = "WARNING: the OKS sigmas of the files differ; those of annotations/person_keypoints_"
    for sigmas in (list(COCO17.sigmas), [.05] * 17):
        other = content_of(seed=1, sigmas=sigmas)
        save(tmp_path, other, "annotations/person_keypoints_test.json")
        told = [n for n in read_coco(tmp_path).notes if n.startswith(note)]
        assert len(told) == (sigmas[0] == .05)


def test_a_category_of_null_is_none(tmp_path, capsys):
    "Its boxes are anybody's, for a data set and for photographs alike."
    save(tmp_path, content_of())
    rows = [dict(image_id=1, bbox=[5, 6, 90, 120], category_id=k, score=.5) for k in (None, 2)]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    assert len(read_coco(tmp_path, boxes="found.json")) == 1
    assert sum(map(len, read_boxes(tmp_path / "found.json").values())) == 1
    assert "1 box is of other categories than 1" in capsys.readouterr().out
    with pytest.raises(DataError, match="row 1 has no 'category_id' to compare with --category"):
        read_boxes(tmp_path / "found.json", category=2)


def test_where_nobody_is_mirrored_results_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    content = content_of(names=["kpt-0", "kpt-1", "kpt-2"])
    save(tmp_path, content, "people.json")
    said = train_own(tmp_path, tmp_path / "run")
    assert "nobody mirrored" in said and "mirrored test" not in said
    known = json.loads((tmp_path / "run" / "validation.json").read_text())["conditions"]
    assert known["mirror"] is False


@pytest.mark.parametrize("given, split, file", [
    ("train=a.json", "train", "a.json"), ("validation=b/c=d.json", "val", "b/c=d.json"),
    ("testing=a.json", "test", "a.json"), ("valid=a.json", "val", "a.json"),
    ("a.json", None, "a.json"), ("train=", None, "train="), ("mine=a.json", None, "mine=a.json"),
    (Path("val=a.json"), "val", "a.json"),
])
def test_a_file_may_be_named_with_its_split(given, split, file):
    assert said_split(given) == (split, file)

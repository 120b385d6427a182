"""Readers on tiny data sets in every public layout and on the real samples."""
import json
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data_fixture import coco_file, one_sentence, picture
from PIL import Image
from scipy.io import savemat

from dppt_nb import datasets
from dppt_nb.checks import DataError
from dppt_nb.datasets import (
    lspet_split,
    read_coco,
    read_crowdpose,
    read_dataset,
    read_lsp,
    read_lspet,
    read_mpii,
)
from dppt_nb.files import ImageSource
from dppt_nb.keypoints import COCO17, LSP14, MPII16
from dppt_nb.tables import joint_boxes


def save_pictures(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / name, quality=95)


def zipped(folder, inside=""):
    "The folder as a zip beside it, its files under `inside`."
    path = folder.with_name(f"{folder.name}{inside.replace('/', '_')}.zip")
    with zipfile.ZipFile(path, "w") as z:
        for f in sorted(folder.rglob("*")):
            if f.is_file(): z.write(f, inside + f.relative_to(folder).as_posix())
    return path


# LSPET and LSP

@pytest.fixture
def lspet(tmp_path):
    """Five people of LSPET: one coordinate pair with the code for 'not visible', one person without
    any joint."""
    joints = np.random.default_rng(0).uniform(5, 55, (5, 14, 3))
    joints[..., 2] = 1
    joints[1, 3] = (0, -26, 0)
    joints[2] = (-3, 0, 0)
    folder = tmp_path / "lspet"
    save_pictures(folder, [f"images/im{i:05d}.jpg" for i in range(1, 6)])
    savemat(folder / "joints.mat", {"joints": joints.transpose(1, 2, 0)})
    return folder, joints


def test_lspet_folder_and_zip_agree(lspet):
    folder, joints = lspet
    tables = [
        read_lspet(folder), read_lspet(str(zipped(folder))),
        read_lspet(zipped(folder, "lspet_dataset/")),
    ]
    for table in tables:
        assert (
            len(table) == 4
            and table.left_out == {"no visible joints": 1}
            and list(table.ids) == [1, 2, 4, 5]
        )
        assert table.joints.dtype == np.float32 and table.visible.dtype == np.uint8
        assert (
            np.allclose(table.joints[0], joints[0, :, :2])
            and not table.joints[1, 3].any()
            and table.visible[1].sum() == 13
        )
        assert np.array_equal(
            np.asarray(table.source.read(table.files[2])),
            np.asarray(tables[0].source.read(tables[0].files[2])),
        )
    assert tables[2].files[0] == "lspet_dataset/images/im00001.jpg"


def test_of_the_two_leeds_sets_one_is_not_read_as_the_other(lspet, tmp_path):
    "In one the flag marks joints that are seen, in the other those that are hidden."
    with pytest.raises(DataError, match="laid out as that of lspet.* say --data lspet"):
        read_lsp(lspet[0])
    save_pictures(tmp_path / "lsp", [f"images/im{i:04d}.jpg" for i in range(1, 6)])
    savemat(tmp_path / "lsp/joints.mat", {"joints": lspet[1].transpose(2, 1, 0)})
    with pytest.raises(DataError, match="laid out as that of lsp,.* say --data lsp,"):
        read_lspet(tmp_path / "lsp")


def test_lspet_split_by_blocks():
    assert [lspet_split(i) for i in (1, 800, 801, 900, 901, 1000, 1001, 9500)] == [
        "train", "train", "val", "val", "test", "test", "train", "train",
    ]
    names, counts = np.unique(lspet_split(np.arange(1, 9501)), return_counts=True)
    assert dict(zip(names, counts)) == {"test": 900, "train": 7700, "val": 900}


def test_lsp_flag_marks_hidden_joints_that_have_a_place(tmp_path):
    joints = np.random.default_rng(0).uniform(5, 55, (2000, 14, 3))
    joints[..., 2] = np.random.default_rng(1).integers(0, 2, (2000, 14))
    save_pictures(tmp_path / "lsp", [f"images/im{i:04d}.jpg" for i in range(1, 2001)])
    savemat(tmp_path / "lsp/joints.mat", {"joints": joints.transpose(2, 1, 0)})
    table = read_lsp(tmp_path / "lsp")
    assert table.visible.all() and np.array_equal(table.visibility, joints[..., 2])
    assert [(table.split == s).sum() for s in ("train", "val", "test")] == [900, 100, 1000]


def with_nan(joints, place):
    "The joints as LSPET has them, with one number spoilt."
    spoilt = joints.copy()
    spoilt[place] = np.nan
    return spoilt.transpose(1, 2, 0)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda f, j: (f / "joints.mat").unlink(), "has no joints.mat"),
        (lambda f, j: (f / "joints.mat").write_bytes(b"not a mat file"), "no MATLAB file"),
        (lambda f, j: savemat(f / "joints.mat", {"joints": j}), r"shape \(5, 14, 3\)"),
        (lambda f, j: savemat(f / "joints.mat", {"points": j}), "has no 'joints'; it has points"),
        (
            lambda f, j: savemat(
                f / "joints.mat", {"joints": np.where(j == j[3, 2, 0], 1e300, j).transpose(1, 2, 0)}
            ),
            "person 4 is not a number up to",
        ),
        (
            lambda f, j: savemat(
                f / "joints.mat",
                {"joints": np.where(j == j[3, 2, 0], np.nan, j).transpose(1, 2, 0)},
            ),
            "person 4 is not a number",
        ),
        (
            lambda f, j: savemat(f / "joints.mat", {"joints": with_nan(j, (1, 3, 0))}),
            "person 2 is not a number",
        ),  # a joint that is not visible
        (
            lambda f, j: savemat(f / "joints.mat", {"joints": with_nan(j, (4, 0, 2))}),
            "flag in 'joints' of person 5",
        ),
        (
            lambda f, j: savemat(f / "joints.mat", {"joints": np.full((14, 3, 5), "a", object)}),
            "not a number",
        ),
        (lambda f, j: (f / "images/im00002.jpg").unlink(), "im00002.jpg"),
        (lambda f, j: shutil.rmtree(f / "images"), "names 5 picture"),
    ],
)
def test_spoilt_lspet_is_one_sentence(lspet, spoil, words):
    spoil(*lspet)
    for root in (lspet[0], zipped(lspet[0])):
        with pytest.raises(DataError, match=words) as error: read_lspet(root)
        assert str(root) in one_sentence(error)


def test_truncated_picture_is_named(lspet):
    folder, _ = lspet
    path = folder / "images/im00004.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    for table in (read_lspet(folder), read_lspet(zipped(folder))):
        with pytest.raises(DataError, match="im00004.jpg") as error:
            table.source.read("images/im00004.jpg")
        one_sentence(error)


def test_damaged_zip_member_is_named(lspet):
    path = zipped(lspet[0])
    start = path.read_bytes().find(b"images/im00003.jpg") + 200
    with open(path, "r+b") as f:
        f.seek(start)
        f.write(b"damage")
    table = read_lspet(path)
    with pytest.raises(DataError, match="im00003.jpg") as error:
        table.source.read("images/im00003.jpg")
    one_sentence(error)


def test_lsp_refuses_nan_everywhere(tmp_path):
    for place in ((0, 0, 1), (2, 5, 1)):
        joints = np.ones((3, 14, 4))
        joints[place] = np.nan
        save_pictures(tmp_path / "lsp", [f"images/im{i:04d}.jpg" for i in range(1, 5)])
        savemat(tmp_path / "lsp/joints.mat", {"joints": joints})
        with pytest.raises(DataError, match="person 2 is not a number") as error:
            read_lsp(tmp_path / "lsp")
        assert "joints.mat" in one_sentence(error)


def test_zip_with_a_damaged_directory_is_one_sentence(lspet):
    path = zipped(lspet[0])
    good, rng, said = path.read_bytes(), np.random.default_rng(0), 0
    start = good.find(b"PK\x01\x02")
    spoilt = [good.replace(b"PK\x01\x02", b"XXXX")]
    for _ in range(300):  # three random bytes of the directory at a time
        content = bytearray(good)
        for place in rng.integers(start, len(good), 3): content[place] = rng.integers(256)
        spoilt.append(bytes(content))
    for content in spoilt:
        path.write_bytes(content)
        try:
            table = read_lspet(path)
            for name in table.files: table.source.read(name)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            said += 1
    assert said > 100
    path.write_bytes(spoilt[0])
    with pytest.raises(DataError, match="lspet.zip is damaged") as error: read_lspet(path)
    one_sentence(error)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\0" * 40]
)
def test_what_is_no_picture_is_said_without_a_place_in_memory(lspet, content):
    (lspet[0] / "images/im00001.jpg").write_bytes(content)
    for source in (ImageSource(lspet[0]), ImageSource(zipped(lspet[0]))):
        with pytest.raises(DataError, match="im00001.jpg cannot be read") as error:
            source.read("images/im00001.jpg")
        assert "0x" not in one_sentence(error)


def test_roots_that_cannot_be(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    for root, words in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "text.zip", "neither a folder nor a zip"),
    ):
        for name in datasets.DATASETS:
            with pytest.raises(DataError, match=words) as error: read_dataset(name, root)
            one_sentence(error)


def test_unknown_name_gives_the_nearest():
    for name, words in (
        ("lspte", "lspet"), ("COCO", "coco"), ("crowd-pose", "crowdpose"),
        ("zzz", "known are lspet, lsp, coco, mpii, crowdpose"),
    ):
        with pytest.raises(DataError, match=words) as error: read_dataset(name, "anywhere")
        one_sentence(error)


def test_zip_is_read_by_many_threads(lspet):
    source = ImageSource(zipped(lspet[0]))
    names = sorted(source.find("*.jpg")) * 20
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda n: np.asarray(source.read(n)), names))
    for name, got in zip(names, pictures):
        assert np.array_equal(got, np.asarray(Image.open(lspet[0] / name)))


def test_joint_boxes_hold_all_visible_joints():
    rng = np.random.default_rng(0)
    joints, visible = rng.uniform(0, 99, (50, 14, 2)), rng.integers(0, 2, (50, 14))
    visible[:, 0] = 1
    x, y, w, h = joint_boxes(joints, visible).T[..., None]
    inside = (
        (joints[..., 0] >= x - 1e-3)
        & (joints[..., 0] <= x + w + 1e-3)
        & (joints[..., 1] >= y - 1e-3)
        & (joints[..., 1] <= y + h + 1e-3)
    )
    assert inside[visible > 0].all()


# COCO format

def coco_content(num_people=4, **changes):
    return coco_file([
        dict(
            id=i + 10, image_id=i % 3 + 1, area=500.0, bbox=[5, 6, 40, 30],
            keypoints=[20, 15, 2, 30, 20, 1] + [0] * 45,
        )
        for i in range(num_people)
    ]) | changes


def save_coco(folder, content, file="annotations/person_keypoints_val2017.json", images="val2017"):
    save_pictures(folder, [f"{images}/{i}.jpg" for i in (1, 2, 3)])
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    return folder


def test_coco_rows_and_counts(tmp_path):
    people = coco_content()["annotations"]
    odd = [
        dict(people[0], id=50, iscrowd=1),
        dict(people[0], id=51, bbox=[]),
        dict(people[0], id=52, bbox=[3, 3, 0, 9]),
        dict(people[0], id=53, bbox=[500, 3, 9, 9]),
        dict(people[0], id=54, keypoints=[0] * 51),
        {k: v for k, v in people[0].items() if k != "keypoints"} | {"id": 55},
        dict(people[0], id=56, category_id=7),
    ]
    table = read_coco(save_coco(tmp_path, coco_content(annotations=people + odd)))
    assert (
        len(table) == 5
        and table.keypoint_set == COCO17
        and set(table.split) == {"val"}
        and list(table.image_ids) == [1, 2, 3, 1, 1]
    )
    # the box that is missing is that of the labelled joints, (20, 15) and (30, 20)
    assert table.ids[4] == 51 and table.boxes[4].tolist() == [20, 15, 9, 4]
    assert table.left_out == {
        "crowd, not a person": 1, "box of no size": 1, "no visible joints": 2,
        "another category": 1, "box outside the picture": 1,
    }
    assert table.visible[0, :3].tolist() == [1, 1, 0] and table.visibility[0, :3].tolist() == [
        2, 1, 0,
    ]
    assert table.boxes[0].tolist() == [5, 6, 39, 29] and table.areas[0] == 500
    assert all(
        words in table.summary()
        for words in ("5 people in 3 photographs", "crowd, not a person 1", "no visible joints 2")
    )


def test_coco_train_and_val_in_a_zip(tmp_path):
    folder = save_coco(tmp_path / "coco", coco_content(2))
    save_coco(folder, coco_content(3), "annotations/person_keypoints_train2017.json", "train2017")
    for i in (1, 2, 3): (folder / f"val2017/{i}.jpg").rename(folder / f"val2017/v{i}.jpg")
    content = coco_content(2)
    for image in content["images"]: image["file_name"] = "v" + image["file_name"]
    (folder / "annotations/person_keypoints_val2017.json").write_text(json.dumps(content))
    table = read_coco(zipped(folder))
    assert (
        len(table.select("train")) == 3
        and len(table.select("val")) == 2
        and len(table.annotations) == 2
    )
    assert table.select("val").files == ["val2017/v1.jpg", "val2017/v2.jpg"]


def test_own_keypoints_from_elsewhere(tmp_path):
    own = coco_content(
        categories=[
            dict(
                id=1, name="chair", keypoints=["back", "leg_l", "leg_r"], skeleton=[[1, 2], [1, 3]]
            )
        ]
    )
    for a in own["annotations"]: a["keypoints"] = [10, 10, 2, 20, 20, 2, 30, 30, 0]
    save_coco(tmp_path / "data", own, "../labels.json", "photos")
    table = read_coco(tmp_path / "data", annotations=tmp_path / "labels.json", split="train")
    assert (
        table.keypoint_set.names == ("back", "leg_l", "leg_r")
        and table.keypoint_set.flip_pairs == ((1, 2),)
        and set(table.split) == {"train"}
    )
    elsewhere = read_coco(tmp_path, annotations="labels.json", images="data")
    assert (
        np.array_equal(elsewhere.joints, table.joints)
        and elsewhere.source.root == tmp_path / "data"
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(keypoints=[1, 2, 2]), "'keypoints' has 3 numbers; 17 keypoints need 51"),
        (dict(keypoints=[float("nan")] * 51), "NaN"),
        (dict(bbox=[0, 0, float("inf"), 3]), "infinity"),
        (dict(bbox=[1, 2]), "'bbox' has 2 numbers"),
        (dict(image_id=9), "names image 9"),
        (dict(keypoints=["left"] * 51), "not a number"),
        (dict(keypoints=[None] * 51), "'keypoints' holds something that is not a number"),
        (dict(keypoints=7), "'keypoints' has shape"),
        (dict(keypoints={}), "'keypoints' holds"),
        (dict(keypoints=[[1, 2], 2] * 17), "lists of different lengths"),
        (dict(keypoints="nose"), "'keypoints' holds"),
        (dict(bbox="5 6 40 30"), "'bbox' holds"),
        (dict(bbox=[1, 2, None, 4]), "'bbox' holds"),
        (dict(area="large"), "'area' holds"),
        (dict(area=float("nan")), "'area' holds NaN"),
        (dict(area=[1, 2]), "'area' has 2 numbers"),
        (dict(image_id=[1]), "names image .1."),
        (dict(image_id=None), "names image None"),
        (dict(image_id="9"), 'names image "9"'),
    ],
)
def test_bad_annotation_names_file_and_field(tmp_path, change, words):
    content = coco_content()
    content["annotations"][2] |= change
    with pytest.raises(DataError, match=words) as error: read_coco(save_coco(tmp_path, content))
    assert "annotation 12" in one_sentence(error) and "person_keypoints_val2017.json" in str(
        error.value
    )


@pytest.mark.parametrize(
    "content, words",
    [
        (
            coco_content(images=[dict(id=i, file_name=f"lost{i}.jpg") for i in (1, 2, 3)]),
            "lost1.jpg, lost2.jpg, lost3.jpg",
        ),
        (coco_content(images=[dict(id=1)]), "needs 'id' and 'file_name'"),
        (coco_content(categories=[dict(id=1, name="person")]), "no category names keypoints"),
        ([1, 2], "not in COCO format"),
        (dict(images=[]), "not in COCO format"),
    ],
)
def test_bad_coco_file_is_one_sentence(tmp_path, content, words):
    with pytest.raises(DataError, match=words) as error: read_coco(save_coco(tmp_path, content))
    assert "person_keypoints_val2017.json" in one_sentence(error)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["annotations"].append("person"), "'person' in 'annotations'"),
        (lambda c: c["annotations"].append(None), "'None' in 'annotations'"),
        (lambda c: c["images"].append("1.jpg"), "'1.jpg' in 'images'"),
        (lambda c: c["categories"].insert(0, "person"), "'person' in 'categories'"),
        (lambda c: c["images"][1].update(width="80"), "'width' of image 2 is '80'"),
        (lambda c: c["images"][1].update(width=float("nan")), "'width' of image 2"),
        (lambda c: c["images"][0].update(id=None), "'id' and 'file_name'"),
        (lambda c: c["images"][0].update(file_name=4), "'id' and 'file_name'"),
        (
            lambda c: c["annotations"][0].update(id="a"),
            "annotation \"a\": 'id' is missing or no whole number",
        ),
        (lambda c: c["annotations"][0].update(id=float("nan")), "'id' is missing"),
        (lambda c: c["categories"][0].update(keypoints=7), "no category names keypoints"),
        (lambda c: c["categories"][0].update(id=None), "no category names keypoints"),
        (lambda c: c["categories"][0].update(keypoints=[1, 2]), "no list of keypoint names"),
        (lambda c: c["categories"][0].update(sigmas=[0.1]), "one sigma a keypoint"),
        (lambda c: c["categories"][0].update(sigmas=[float("nan")] * 17), "finite number above 0"),
        (lambda c: c["categories"][0].update(flip_pairs=[[0, 99]]), "no keypoint '99'"),
    ],
)
def test_wrong_kinds_in_a_coco_file_are_one_sentence(tmp_path, change, words):
    content = coco_content()
    change(content)
    with pytest.raises(DataError, match=words) as error: read_coco(save_coco(tmp_path, content))
    assert "person_keypoints_val2017.json" in one_sentence(error)


def test_nulls_in_a_coco_file_are_what_is_not_there(tmp_path):
    content = coco_content()
    good = read_coco(save_coco(tmp_path / "good", content))
    for image in content["images"]: image |= dict(width=None, height=None)
    nothing = [
        dict(content["annotations"][0], id=60, keypoints=None),
        dict(content["annotations"][0], id=61, bbox=None, keypoints=None),
    ]
    # of something else: not looked at
    other = [dict(id=62, image_id=1, category_id=2, bbox=[1, 2, 3, 4], keypoints=[1, 2, 2])]
    for a in content["annotations"]: a["area"] = None
    content["annotations"] += nothing + other
    content["categories"].append(dict(id=2, name="dog", keypoints=["nose"]))
    table = read_coco(save_coco(tmp_path / "null", content))
    assert table.left_out == {
        "no box": 1, "no visible joints": 1, "another category": 1,
    } and np.array_equal(table.joints, good.joints)
    assert np.allclose(table.areas, .53 * 40 * 30)


def test_a_box_of_zeros_around_labelled_keypoints_is_none(tmp_path):
    "COCO Annotator writes it, and an area of 0, where keypoints alone were marked."
    content = coco_content()
    for a in content["annotations"]: a |= dict(bbox=[0, 0, 0, 0], area=0, iscrowd=False)
    content["annotations"].append(
        dict(content["annotations"][0], id=60, keypoints=[0] * 51, bbox=[0.0, 0, 0, 0])
    )
    table = read_coco(save_coco(tmp_path, content))
    assert np.array_equal(table.boxes, [[20, 15, 9, 4]] * 4) and table.left_out == {"no box": 1}
    assert "4 without a box: that of the labelled keypoints is taken" in table.notes


def test_a_category_that_is_null_is_one_that_is_not_given(tmp_path):
    content = coco_content()
    for a in content["annotations"]: a["category_id"] = None
    save_coco(tmp_path, content)
    assert len(read_coco(tmp_path)) == 4
    rows = [dict(image_id=1, category_id=None, bbox=[1, 2, 30, 40], score=0.5)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    assert len(read_coco(tmp_path, boxes="boxes.json")) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(bbox="box"), "'bbox' holds"),
        (dict(bbox=[1, 2, 3]), "'bbox' has 3 numbers"),
        (dict(bbox=[float("nan"), 2, 3, 4]), "NaN"),
        (dict(score=None), "'score' holds"),
        (dict(score=float("inf")), "infinity"),
        (dict(image_id=[1]), "'image_id'"),
        (dict(image_id=None), "'image_id'"),
    ],
)
def test_bad_detections_are_one_sentence(tmp_path, change, words):
    save_coco(tmp_path, coco_content())
    (tmp_path / "found.json").write_text(
        json.dumps(
            [
                dict(image_id=1, bbox=[5, 6, 9, 30], score=0.5),
                dict(image_id=2, bbox=[5, 6, 9, 30], score=0.9) | change,
            ]
        )
    )
    with pytest.raises(DataError, match=words) as error: read_coco(tmp_path, boxes="found.json")
    assert "found.json: detection 2" in one_sentence(error)


@pytest.mark.parametrize("field", ["image_id", "bbox", "score", None])
def test_a_detection_without_a_field_is_named(tmp_path, field):
    "Also an entry that is no detection at all."
    whole = dict(image_id=1, bbox=[5, 6, 9, 30], score=0.5)
    bad = {k: v for k, v in whole.items() if k != field} if field else 7
    save_coco(tmp_path, coco_content())
    (tmp_path / "found.json").write_text(json.dumps([whole, bad, whole]))
    with pytest.raises(DataError, match=f"has no '{field or 'image_id'}'; add it") as error:
        read_coco(tmp_path, boxes="found.json")
    assert "found.json: detection 2" in one_sentence(error)


@pytest.mark.parametrize("change, words", [
    (None, "holds no box at all"),
    (dict(image_id=99), "left out: photograph not in the annotations 2."),
    (dict(bbox=[5000, 6, 9, 30]), "left out: box outside the picture 2."),
    (dict(score=0.1), "left out: score below 0.5 2."),
])
def test_a_boxes_file_that_shows_nobody_is_named(tmp_path, change, words):
    "Unless its boxes are of another annotation file alone."
    box = dict(image_id=1, bbox=[5, 6, 9, 30], score=0.9)
    save_coco(tmp_path, coco_content())
    rows = [] if change is None else [box | change] * 2
    (tmp_path / "found.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=words) as error:
        read_coco(tmp_path, boxes="found.json", min_score=0.5)
    assert f"{tmp_path}/found.json " in one_sentence(error)
    train = coco_content()
    for thing in train["images"]: thing["id"] += 98
    for thing in train["annotations"]: thing["image_id"] += 98
    save_coco(tmp_path, train, "annotations/person_keypoints_train2017.json", "train2017")
    (tmp_path / "found.json").write_text(json.dumps([box | dict(image_id=99)]))
    assert len(read_coco(tmp_path, boxes="found.json")) == 1


def test_boxes_beside_two_annotation_files_are_counted_once(tmp_path):
    train = coco_content()
    for thing in train["images"]: thing["id"] += 98
    for thing in train["annotations"]: thing["image_id"] += 98
    save_coco(tmp_path, coco_content())
    save_coco(tmp_path, train, "annotations/person_keypoints_train2017.json", "train2017")
    box = dict(image_id=1, category_id=1, bbox=[5, 6, 9, 30], score=0.9)
    changes = (
        {}, dict(image_id=99), dict(image_id=7), dict(category_id=5), dict(score=.1, image_id=100),
    )
    (tmp_path / "found.json").write_text(json.dumps([box | change for change in changes]))
    table = read_coco(tmp_path, boxes="found.json", min_score=.2)
    assert sorted(zip(table.split, table.image_ids.tolist())) == [("train", 99), ("val", 1)]
    assert table.left_out == {
        "photograph not in the annotations": 1, "another category": 1, "score below 0.2": 1,
    }


def test_a_box_whose_picture_two_files_tell_otherwise_is_refused(tmp_path):
    save_coco(tmp_path, coco_content(), "train/people.json", "train")
    save_coco(tmp_path, coco_content(), "valid/people.json", "valid")
    (tmp_path / "found.json").write_text(
        json.dumps([dict(image_id=2, bbox=[5, 6, 9, 30], score=0.9)])
    )
    files = ["train/people.json", "valid/people.json"]
    with pytest.raises(DataError, match="train/2.jpg in train.*valid/2.jpg in valid") as error:
        read_coco(tmp_path, files, boxes="found.json")
    assert "--annotations" in one_sentence(error)
    assert read_coco(tmp_path, files[1:], boxes="found.json").files == ["valid/2.jpg"]


@pytest.mark.parametrize("turned", [False, True])
def test_two_sizes_of_one_picture_are_refused_with_both_ids(tmp_path, turned):
    content = coco_content()
    size = content["images"][0]["width"], content["images"][0]["height"]
    content["images"].append(content["images"][0] | dict(id=99, width=1000))
    content["annotations"][0]["image_id"] = 99
    content["annotations"].append(content["annotations"][0] | dict(id=77, image_id=1))
    if turned: content["annotations"].reverse()
    save_coco(tmp_path, content)
    with pytest.raises(DataError, match="as image 99") as error: read_coco(tmp_path)
    words = one_sentence(error)
    assert f"{size[0]} x {size[1]} as image 1" in words and f"1000 x {size[1]}" in words
    del content["images"][-1]["width"]    # not known, so nothing disagrees
    save_coco(tmp_path, content)
    assert len(read_coco(tmp_path)) == 5


def test_text_that_is_not_json(tmp_path):
    save_coco(tmp_path, [])
    (tmp_path / "annotations/person_keypoints_val2017.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON") as error: read_coco(tmp_path)
    one_sentence(error)
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path, annotations="mine.json")


def test_notes_on_annotations_say_so_beside_a_detectors_boxes(tmp_path):
    content = coco_content()
    del content["annotations"][0]["bbox"]
    save_coco(tmp_path, content)
    found = [dict(image_id=1, category_id=1, bbox=[5, 6, 9, 30], score=0.9)]
    (tmp_path / "found.json").write_text(json.dumps(found))
    said = "1 without a box: that of the labelled keypoints is taken"
    assert said in read_coco(tmp_path).notes
    notes = read_coco(tmp_path, boxes="found.json").notes
    assert f"of the annotations: {said}" in notes and said not in notes


def test_detections(tmp_path):
    found = [
        dict(image_id=i, category_id=c, bbox=[5, 6, w, 30], score=s)
        for i, c, w, s in (
            (1, 1, 9, 0.9), (2, 1, 0, 0.9), (3, 1, 9, 0.1), (9, 1, 9, 0.9), (1, 3, 9, 0.9),
        )
    ]
    save_coco(tmp_path, coco_content())
    (tmp_path / "found.json").write_text(json.dumps(found))
    table = read_coco(tmp_path, boxes="found.json", min_score=.2)
    assert (
        len(table) == 1
        and table.box_scores.tolist() == pytest.approx([0.9])
        and not table.visible.any()
        and table.boxes[0].tolist() == [5, 6, 9, 30]
    )
    assert sum(table.left_out.values()) == 4 and len(table.left_out) == 4
    joined = coco_content()
    first = joined["categories"][0]
    joined["categories"] = [first, first | dict(id=3, name="other")]
    (tmp_path / "annotations/person_keypoints_val2017.json").write_text(json.dumps(joined))
    one, both = (read_coco(tmp_path, boxes="found.json", min_score=.2, category=c)
                 for c in (None, [1, 3]))
    assert len(one) == 1 and len(both) == 2 and "another category" not in both.left_out
    (tmp_path / "found.json").write_text(json.dumps(dict(a=1)))
    with pytest.raises(DataError, match="not a list of detections") as error:
        read_coco(tmp_path, boxes="found.json")
    one_sentence(error)
    with pytest.raises(DataError, match="--boxes is .*annotations, no file; name one"):
        read_coco(tmp_path, boxes="annotations")


def test_crowdpose_keeps_its_own_points(tmp_path):
    names = [n for n in LSP14.names if n not in ("neck", "head_top")] + ["head", "neck"]
    content = coco_content(
        categories=[dict(id=1, name="person", keypoints=names, skeleton=[[13, 14]])]
    )
    for a in content["annotations"]:
        a["keypoints"] = [10, 10, 1] * 14
        del a["area"]
    save_coco(tmp_path, content, "json/crowdpose_train.json", "images")
    save_coco(tmp_path, content, "json/crowdpose_trainval.json", "images")
    table = read_crowdpose(tmp_path)
    assert (
        table.keypoint_set.name == "crowdpose" and len(table) == 4 and set(table.split) == {"train"}
    ), "trainval would count people twice"
    assert np.allclose(table.areas, .53 * 40 * 30)


# MPII

def save_mpii(folder, entries, file="valid.json"):
    save_pictures(folder, [f"images/{e['image']}" for e in entries if "image" in e])
    (folder / "annot").mkdir(exist_ok=True)
    (folder / "annot" / file).write_text(json.dumps(entries))
    return folder


def mpii_entry(i, **changes):
    return (
        dict(
            image=f"{i}.jpg", center=[40.0, 30.0], scale=0.2,
            joints=[[10.0 + j, 20.0] for j in range(16)], joints_vis=[1] * 15 + [0],
        )
        | changes
    )


def test_mpii_conversion_is_that_of_the_public_code(tmp_path):
    save_mpii(tmp_path, [mpii_entry(1), mpii_entry(2, center=[-1, -1])])
    save_mpii(tmp_path, [mpii_entry(3)], "train.json")
    corners = np.random.default_rng(0).uniform(0, 9, (2, 2, 2))
    savemat(tmp_path / "annot/gt_valid.mat", {"headboxes_src": corners})
    table = read_mpii(tmp_path)
    assert (
        list(table.split) == ["train", "val"]
        and table.left_out == {"no visible joints or no centre": 1}
        and table.keypoint_set == MPII16
    )
    assert table.joints[1, 0].tolist() == [9, 19] and not table.joints[1, 15].any()
    assert (
        table.centers[1].tolist() == [39, 32]
        and np.allclose(table.scales[1], 0.25)
        and np.allclose(table.boxes[1], [19, 12, 40, 40])
    )
    assert np.isnan(table.head_boxes[0]).all() and np.allclose(
        table.head_boxes[1], corners[..., 0] - 1
    )


@pytest.mark.parametrize(
    "entry, words",
    [
        (dict(image="1.jpg"), "has no 'joints'"),
        (mpii_entry(1, joints=[[1, 2]] * 14), r"\(14, 2\)"),
        (mpii_entry(1, scale=float("nan")), "not a number"),
        (mpii_entry(1, scale=None), "'scale' holds"),
        (mpii_entry(1, scale=[1, 2]), "'scale' has 2 numbers"),
        (mpii_entry(1, center=None), "'center' holds"),
        (mpii_entry(1, joints=[[1.0, None]] + [[1.0, 2.0]] * 15), "'joints' holds"),
        (
            mpii_entry(1, joints=[[1.0]] + [[1.0, 2.0]] * 15),
            "'joints' holds lists of different lengths",
        ),
        (mpii_entry(1, joints_vis=["yes"] * 16), "'joints_vis' holds"),
        (mpii_entry(1) | dict(image=3), "'image' must be the name"),
    ],
)
def test_bad_mpii_entry(tmp_path, entry, words):
    save_mpii(tmp_path, [mpii_entry(2)])
    (tmp_path / "annot/valid.json").write_text(json.dumps([mpii_entry(2), entry]))
    with pytest.raises(DataError, match=words) as error: read_mpii(tmp_path)
    assert "valid.json, entry 2" in one_sentence(error)


def test_mpii_entries_and_head_boxes_of_another_kind(tmp_path):
    save_mpii(tmp_path, [mpii_entry(1)])
    for head_boxes, words in (
        ({"other": 1}, "has no 'headboxes_src'; it has other"),
        ({"headboxes_src": np.ones((2, 2, 5))}, "take both files from one release"),
    ):
        savemat(tmp_path / "annot/gt_valid.mat", head_boxes)
        with pytest.raises(DataError, match=words) as error: read_mpii(tmp_path)
        assert "gt_valid.mat" in one_sentence(error)
    (tmp_path / "annot/gt_valid.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match="gt_valid.mat is no MATLAB file"): read_mpii(tmp_path)
    (tmp_path / "annot/valid.json").write_text(json.dumps([None]))
    with pytest.raises(DataError, match="entry 1 has no 'image'"): read_mpii(tmp_path)


# the real samples

def test_real_lspet(shared):
    table = read_lspet(shared / "data/lspet_dataset.zip")
    assert len(table) == 9500 and [(table.split == s).sum() for s in ("train", "val", "test")] == [
        7700, 900, 900,
    ]
    assert (
        table.visible.sum() == 116_967
        and (table.boxes[:, 2:] > 0).all()
        and table.source.read(table.files[0]).mode == "RGB"
    )


def test_real_coco(shared):
    table = read_coco(shared / "data/coco_mini")
    assert (
        len(table) == 227
        and table.left_out == {"no visible joints": 108, "crowd, not a person": 9}
        and len(set(table.files)) <= 70
    )
    detected = read_coco(shared / "data/coco_mini", boxes="annotations/person_detections.json")
    assert len(set(detected.files)) == 29 and (detected.box_scores <= 1).all()
    for f in set(table.files): assert table.source.read(f).mode == "RGB"


def test_real_mpii(shared):
    table = read_mpii(shared / "data/mpii_mini")
    assert len(table) == 5 and table.joints[0, 0].tolist() == [803, 710]
    assert np.allclose(table.centers[0], [965, 339 + 15 * 4.718488]) and np.allclose(
        table.scales[0], 4.718488 * 1.25
    )


def test_importing_stays_light():
    program = (
        "import sys, dppt_nb.datasets; print([m for m in ('pyarrow', 'scipy', "
        "'matplotlib', 'fastprogress', 'pycocotools', 'IPython', 'fastcore') if m "
        "in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.parametrize("name, file", [
    ("lspet", "joints.mat"), ("mpii", "train.json"), ("crowdpose", "crowdpose_val.json"),
])
def test_two_data_sets_in_one_folder_are_not_guessed_between(tmp_path, name, file):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text("[]")
    with pytest.raises(DataError, match=f"2 data sets .a/{file}, b/{file}.; name the folder"):
        read_dataset(name, tmp_path)


@pytest.mark.parametrize("flag", [0.5, -1, 300])
def test_an_odd_flag_of_mpii_is_named(tmp_path, flag):
    save_mpii(tmp_path, [mpii_entry(1), mpii_entry(2, joints_vis=[1] * 15 + [flag])])
    with pytest.raises(DataError, match="entry 2: 'joints_vis' holds .*; it must be 0 or 1"):
        read_mpii(tmp_path)

"""Odd names, frames and boxes: taken, or left out with a count, or refused with one sentence that
can be followed."""
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from data_fixture import coco_file, one_sentence, picture
from PIL import Image

from dppt_nb import PosePredictor
from dppt_nb.checks import DataError, as_text
from dppt_nb.cutting import prepare_store
from dppt_nb.datasets import read_coco
from dppt_nb.files import ImageSource, claim_folder
from dppt_nb.photos import open_photo
from dppt_nb.pictures import find_pictures, read_header
from dppt_nb.store import load_people, read_store
from dppt_nb.tables import check_table, empty_outside, twin_pictures, wrong_people
from dppt_nb.video import VideoWriter, predict_files

ROOT = Path(__file__).resolve().parent.parent
PERSON = dict(bbox=[10, 5, 40, 50], area=900, keypoints=[30, 20, 2] * 17)


def people(**change):
    return [dict(id=i, image_id=i) | PERSON | change for i in (1, 2, 3)]


def data_set(root, content=None, name="train"):
    "Three pictures and their annotation file; the file's path."
    for folder in ("images", "annotations"): (root / folder).mkdir(parents=True, exist_ok=True)
    for i in (1, 2, 3): picture(i).save(root / "images" / f"{i}.jpg")
    file = root / "annotations" / f"person_keypoints_{name}.json"
    file.write_text(json.dumps(content or coco_file(people())))
    return file


@pytest.fixture(scope="module")
def predictor(): return PosePredictor.from_pretrained("tokenpose_nano", device="cpu")


def lines_of(out):
    lines = (out / "poses.jsonl").read_text().splitlines()
    return [Path(json.loads(line)["photo"]).name for line in lines]


# names

def test_a_name_too_long_for_its_drawing_is_left_out_alone(predictor, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    long = f"{'n' * 248}.png"    # "-poses.jpg" makes 258 of it, 255 is most
    for name in ("a.png", long, "z.png"): picture().save(photos / name)
    with pytest.raises(DataError, match="1 of 3 could not be used \\(2 pictures were\\)") as error:
        predict_files(predictor, [photos], out)
    assert long in str(error.value) and "--no-drawings" in str(error.value)
    assert lines_of(out) == ["a.png", "z.png"]
    names = sorted(p.name for p in out.iterdir())
    assert names == ["a-poses.jpg", "poses.jsonl", "z-poses.jpg"]
    assert predict_files(predictor, [photos], out, draw=False).photos == 3
    fits = photos / f"{'m' * 245}.png"    # its drawing's name has 255 letters
    picture().save(fits)
    assert predict_files(predictor, [fits], out).photos == 1
    assert f"{'m' * 245}-poses.jpg" in os.listdir(out)


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "n" * 5000, "n" * 300 + ".mp4"])
def test_a_name_that_no_disk_has_does_not_end_the_batch(predictor, tmp_path, name):
    if name.endswith(".mp4"): pytest.importorskip("av", reason="videos need PyAV")
    picture().save(tmp_path / "a.png")
    with pytest.raises(DataError, match="1 of 2 could not be used \\(1 picture was\\): "):
        predict_files(predictor, [name, tmp_path / "a.png"], tmp_path / "out", draw=False)
    assert lines_of(tmp_path / "out") == ["a.png"]


def test_a_photo_too_long_for_jpeg_is_left_out_alone(predictor, tmp_path):
    Image.new("RGB", (70_000, 2)).save(tmp_path / "line.png")
    picture().save(tmp_path / "z.png")
    with pytest.raises(DataError, match="line.png cannot be drawn"):
        predict_files(predictor, [tmp_path], tmp_path / "out")
    assert lines_of(tmp_path / "out") == ["z.png"]


def test_a_photo_named_twice_is_taken_once(predictor, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    report = predict_files(predictor, [tmp_path, tmp_path / "a.png"], tmp_path / "out", draw=False)
    assert report.photos == 1 and "1 named twice: taken once" in capsys.readouterr().out


def test_names_that_the_system_has_no_letters_for(tmp_path):
    assert as_text("a/Zo\udcc3\udcab.jpg") == "a/Zoë.jpg" == as_text("a/Zoë.jpg")
    assert as_text("Zo\udceb.jpg") == "Zo\\udceb.jpg" and as_text("\ud83d") == "\\ud83d"
    assert str(DataError("Zo\udcc3\udcab.jpg")) == "Zoë.jpg"
    source = ImageSource(tmp_path)
    source._names = {"images/Zo\udcc3\udcab.jpg"}
    assert find_pictures(source, ["Zoë.jpg"], "a.json") == ["images/Zo\udcc3\udcab.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_unicode_names_are_found_without_a_locale(tmp_path):
    picture().save(tmp_path / "Zoë.jpg")
    program = (
        "import sys\nfrom dppt_nb.files import ImageSource\n"
        "from dppt_nb.pictures import find_pictures, read_header\n"
        "source = ImageSource('.')\nname, = find_pictures(source, ['Zo\\xeb.jpg'], 'a.json')\n"
        "print(sys.getfilesystemencoding(), read_header(source, name).width)\n"
    )
    plain = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | plain, capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["ascii", "80"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
def test_a_name_that_is_no_utf8_goes_into_a_store(tmp_path):
    content = coco_file(people())
    content["images"][0]["file_name"] = "Zo\udceb.jpg"
    data_set(tmp_path, content)
    os.rename(tmp_path / "images/1.jpg", os.fsencode(tmp_path) + b"/images/Zo\xeb.jpg")
    prepare_store(read_coco(tmp_path), tmp_path / "store", (64, 48), progress=False)
    assert len(read_store(tmp_path / "store", progress=False)) == 3


# frames and pages

def frames(path, count=3, **how):
    first, *more = [picture(i) for i in range(count)]
    first.save(path, save_all=True, append_images=more, **how)
    return path


@pytest.mark.parametrize("name, several", [
    ("a.gif", True), ("a.webp", True), ("a.png", True), ("a.tif", True), ("a.jpg", False),
])
def test_what_holds_several_pictures(tmp_path, name, several):
    many = frames(tmp_path / name, **(dict(format="MPO") if name == "a.jpg" else {}))
    assert open_photo(many).several is several and open_photo(many).size == (60, 80)
    assert read_header(ImageSource(tmp_path), name).several is several
    picture().save(tmp_path / f"one-{name}")
    assert not open_photo(tmp_path / f"one-{name}").several


def test_predict_says_once_what_it_does_not_read(predictor, tmp_path):
    for name in ("b.gif", "c.tif"): frames(tmp_path / name)
    frames(tmp_path / "a.jpg", format="MPO")
    report = predict_files(predictor, [tmp_path], tmp_path / "out", draw=False)
    said, = report.notes
    assert "2 files hold several frames or pages, only the first is read" in said
    assert "b.gif" in said and "a.jpg" not in said and said in str(report)


def test_a_data_set_with_frames_says_so_once(tmp_path):
    content = coco_file(people())
    for k, name in enumerate(("1.gif", "2.gif")):
        content["images"][k]["file_name"] = name
    data_set(tmp_path, content)
    for name in ("1.gif", "2.gif"): frames(tmp_path / "images" / name)
    said = "\n".join(check_table(read_coco(tmp_path)))
    assert said.count("2 files hold several frames or pages") == 1 and "images/1.gif" in said


# what is hardly meant is said by every command that cuts people out

CORNER = "3 people have a joint labelled at (0, 0), the picture's corner"


@pytest.mark.parametrize("change, words", [
    (dict(keypoints=[0, 0, 2] + [30, 20, 2] * 16), CORNER),
    (dict(bbox=[50, 1, 9, 9]), "3 people have a labelled joint far from their box"),
])
def test_odd_labels_are_said_at_every_use(tmp_path, capsys, monkeypatch, change, words):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    data_set(tmp_path / "set", coco_file(people(**change)), "val")
    for _ in range(2):    # the crops are in the cache at the second time
        load_people("coco", tmp_path / "set", ("val",), (64, 48), False)
        assert f"WARNING: {words}" in capsys.readouterr().out
    assert f"WARNING: {words}" in "\n".join(check_table(read_coco(tmp_path / "set")))


def test_people_who_are_there_twice_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    twice = [*people(), *(person | dict(id=person["id"] + 3) for person in people())]
    data_set(tmp_path / "set", coco_file(twice), "val")
    load_people("coco", tmp_path / "set", ("val",), (64, 48), False)
    assert "WARNING: 3 people are there twice: same picture" in capsys.readouterr().out


def test_copies_of_a_picture_on_both_sides_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    content = coco_file(people()) | dict(images=[
        dict(id=i, file_name=f"{i}.jpg", width=80, height=60) for i in (1, 2, 3, 4)
    ])
    content["annotations"].append(content["annotations"][0] | dict(id=4, image_id=4))
    data_set(tmp_path / "set", content, "all")
    shutil.copyfile(tmp_path / "set/images" / "1.jpg", tmp_path / "set/images" / "4.jpg")
    said = set()
    for seed in range(6):    # by some draws both copies are on one side
        drawn = dict(val_share=0.5, split_seed=seed)
        table = read_coco(tmp_path / "set", **drawn)
        apart = table.split[0] != table.split[3]
        lines = "\n".join(check_table(table))
        assert apart == ("1 picture is in several splits, as copies with other names" in lines)
        said.add(bool(apart))
        load_people("coco", tmp_path / "set", ("val",), (64, 48), False, **drawn)
        assert apart == ("WARNING: 1 picture is in several splits" in capsys.readouterr().out)
    assert said == {True, False}


def test_pictures_with_the_same_ends_are_no_copies(tmp_path):
    data_set(tmp_path, coco_file(people()), "all")
    content = coco_file(people())
    for i, image in enumerate(content["images"], 1):
        pixels = np.zeros((60, 480, 3), np.uint8)
        pixels[25:35] = i    # the ends of an uncompressed file are black
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.bmp")
        image |= dict(file_name=f"{i}.bmp", width=480)
    data_set(tmp_path, content, "all")
    for seed in range(3):
        table = read_coco(tmp_path, val_share=0.4, split_seed=seed)
        assert len(set(table.split)) == 2 and twin_pictures(table) == []


def test_a_detectors_boxes_are_no_labels(tmp_path):
    data_set(tmp_path, name="val")
    found = [dict(image_id=1, category_id=1, bbox=[10, 5, 40, 50 + x], score=.9) for x in (0, .2)]
    (tmp_path / "found.json").write_text(json.dumps(found))
    assert wrong_people(read_coco(tmp_path, boxes="found.json")) == []


# boxes

def test_boxes_outside_of_their_picture_are_left_out_and_counted(tmp_path):
    data_set(tmp_path, name="val")
    boxes = [[10, 5, 40, 50], [-60, 5, 40, 50], [81, 5, 40, 50], [10, -90, 40, 50], [70, 50, 40, 9]]
    inside, small = [10, 5, .5, 50], "box of a pixel or less"
    found = [dict(image_id=1, category_id=1, bbox=b, score=.9) for b in boxes]
    (tmp_path / "found.json").write_text(json.dumps(found))
    table = read_coco(tmp_path, boxes="found.json")
    assert table.boxes.tolist() == [boxes[0], boxes[4]]
    assert table.left_out == {"box outside the picture": 3}
    boxes = [*boxes[:2], inside]
    content = coco_file(
        [dict(image_id=1) | PERSON | dict(id=n, bbox=b) for n, b in enumerate(boxes)]
    )
    data_set(tmp_path / "own", content)
    own = read_coco(tmp_path / "own")
    assert own.ids.tolist() == [0] and own.left_out == {small: 1, "box outside the picture": 1}


def test_a_box_that_touches_only_the_border_shows_nothing():
    boxes, size = np.array([[80, 0, 9, 9], [79, 0, 9, 9], [-9, 0, 9, 9.]]), np.array([[80, 60]] * 3)
    assert empty_outside(boxes, size)[:, 2].tolist() == [0, 9, 0]


# several data sets in one root

def test_two_sets_with_equal_names_are_told_how_to_be_read(tmp_path):
    for part in ("one", "two"):
        data_set(tmp_path / part)
        (tmp_path / part / "images").rename(tmp_path / part / "img")
    with pytest.raises(DataError, match="several equally good places") as error:
        read_coco(tmp_path)
    said = one_sentence(error)
    assert f"--root {tmp_path / 'one'}" in said and "as in one/img/1.jpg" in said
    assert len(read_coco(tmp_path / "one")) == 3    # as it was told
    for part in ("one", "two"):
        content = coco_file(people())
        for k, image in enumerate(content["images"]):
            image.update(file_name=f"{part}/img/{k + 1}.jpg")
        file = tmp_path / part / "annotations" / "person_keypoints_train.json"
        if part == "two":
            for entry in content["images"]: entry["id"] += 3
            for entry in content["annotations"]:
                entry.update(id=entry["id"] + 3, image_id=entry["image_id"] + 3)
        file.write_text(json.dumps(content))
    assert len(read_coco(tmp_path)) == 6    # and together


def test_a_file_beside_two_folders_is_told_to_choose(tmp_path):
    data_set(tmp_path)
    (tmp_path / "images").rename(tmp_path / "red")
    (tmp_path / "blue").mkdir()
    for i in (1, 2, 3): picture(i).save(tmp_path / "blue" / f"{i}.jpg")
    with pytest.raises(DataError, match="--images") as error: read_coco(tmp_path)
    said = one_sentence(error)
    assert f"--images {tmp_path / 'blue'}" in said
    assert len(read_coco(tmp_path, images=tmp_path / "blue")) == 3


# a disk that takes no more

@contextmanager
def small_files(most):
    "No file may grow beyond so many bytes, as on a disk that is full."
    resource = pytest.importorskip("resource", reason="limits of POSIX systems")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("draw, most, file", [(True, 500, "b-poses.jpg"), (False, 500, "poses.js")])
def test_predict_on_a_full_disk_leaves_what_was_there(predictor, tmp_path, draw, most, file):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in "bcde": picture().save(photos / f"{name}.png")
    with pytest.raises(DataError, match=f"cannot write .*{file}.*make room"), small_files(most):
        predict_files(predictor, [photos], out, draw=draw)
    assert not out.exists()
    predict_files(predictor, [photos], out, draw=draw)
    before = content_of(out)
    Image.new("RGB", (90, 90), "red").save(photos / "b.png")
    with pytest.raises(DataError, match="make room"), small_files(most):
        predict_files(predictor, [photos], out, draw=draw)
    assert content_of(out) == before


def test_a_video_on_a_full_disk_leaves_what_was_there(tmp_path):
    pytest.importorskip("av", reason="videos need PyAV")
    noise = np.random.default_rng(0).integers(0, 255, (12, 240, 320, 3), np.uint8)
    def write(count):
        with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as out:
            for frame in noise[:count]: out.write(frame)
    write(2)
    before = content_of(tmp_path)
    with pytest.raises(DataError, match="cannot write .*a.mp4 .*make room"), small_files(20_000):
        write(12)
    assert content_of(tmp_path) == before and list(before) == [Path("a.mp4")]
    with pytest.raises(RuntimeError, match="elsewhere"):
        with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as out:
            out.write(noise[0])
            raise RuntimeError("elsewhere")
    assert content_of(tmp_path) == before


def test_a_claim_on_a_full_disk_does_not_stay(tmp_path):
    with pytest.raises(DataError, match="cannot write in"), small_files(0):
        with claim_folder(tmp_path): pass
    assert not list(tmp_path.iterdir())


def test_a_store_on_a_full_disk_leaves_nothing(tmp_path):
    data_set(tmp_path)
    table = read_coco(tmp_path)
    with pytest.raises(DataError, match="cannot write .*crops-00000.parquet"), small_files(3000):
        prepare_store(table, tmp_path / "store", (64, 48), progress=False)
    assert not (tmp_path / "store").exists()

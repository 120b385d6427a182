"""Annotation files, names and zips as other tools and other machines leave them: read truly, or
refused with one sentence."""
import json
import os
import sys
import unicodedata
import zipfile

import pytest
import torch
from data_fixture import coco_file, one_sentence, picture

from dppt_nb.checks import DataError, parse_json
from dppt_nb.coco import read_content
from dppt_nb.datasets import read_coco
from dppt_nb.files import CLAIM, ImageSource, claim_folder, write_json
from dppt_nb.models import create_model
from dppt_nb.photos import boxes_by_photo, check_boxes, open_photo, read_boxes
from dppt_nb.pictures import find_pictures, list_photos
from dppt_nb.recipes import Recipe
from dppt_nb.spelling import check_keypoint_set
from dppt_nb.store import load_people
from dppt_nb.studies import beside_stored, read_judged, read_runs
from dppt_nb.tables import check_table
from dppt_nb.terminal import plain_words
from dppt_nb.tokenpose import PoseTransformer

POINTS = [30, 20, 2] * 17
PERSON = dict(bbox=[10, 5, 40, 50], area=900, keypoints=POINTS)


def folder(root, content, images=3, name="train"):
    "A data set of small pictures on the disk."
    for i in range(1, images + 1):
        (root / "images").mkdir(parents=True, exist_ok=True)
        picture(i).save(root / "images" / f"{i}.jpg")
    (root / "annotations").mkdir(exist_ok=True)
    file = root / "annotations" / f"person_keypoints_{name}.json"
    file.write_text(json.dumps(content))
    return file


def people(**change):
    return [dict(id=i, image_id=i) | PERSON | change for i in (1, 2, 3)]


# names

@pytest.mark.parametrize("name", [
    "/data/local-files/?d=images%2F1.jpg", "https://host.org/set/1.jpg?size=big#top",
    "images%2F1.jpg", " 1.jpg ", "file:///home/me/1.jpg",
])
def test_addresses_and_blanks_lead_to_the_picture(tmp_path, name):
    folder(tmp_path, coco_file(people()))
    assert find_pictures(ImageSource(tmp_path), [name], "a.json") == ["images/1.jpg"]


def test_a_name_that_is_there_as_it_is_comes_first(tmp_path):
    for name in ("a%20b.png", "a b.png", "c?d=1.png", "1.png"): picture().save(tmp_path / name)
    given = ["a%20b.png", "a b.png", "c?d=1.png", "1.png"]
    assert find_pictures(ImageSource(tmp_path), given, "a.json") == given


def test_names_of_two_pictures_are_not_one_file(tmp_path):
    folder(tmp_path, coco_file(people()))
    source = ImageSource(tmp_path)
    same = ["images/1.jpg", "1.jpg", "./1.jpg"]
    assert find_pictures(source, same, "a.json") == ["images/1.jpg"] * 3
    for names in (["left/1.jpg", "right/1.jpg"], ["1.jpg", "1.JPG"]):
        with pytest.raises(DataError, match="only images/1.jpg is there") as error:
            find_pictures(source, names, "a.json")
        one_sentence(error)


def test_a_folder_in_another_spelling_tells_pictures_of_one_name_apart(tmp_path):
    "As a label tool writes it, and as macOS and case-blind disks have it."
    names = [unicodedata.normalize("NFD", f"all/{n}/1.jpg") for n in ("a", "ä", "tag")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        picture().save(tmp_path / name)
    found = find_pictures(ImageSource(tmp_path), ["a/1.jpg", "ä/1.jpg", "Tag/1.jpg"], "a.json")
    assert found == names
    with pytest.raises(DataError, match="1 picture.s. that have several equally good places"):
        find_pictures(ImageSource(tmp_path), ["b/1.jpg"], "a.json")



def test_one_picture_under_two_ids_is_said(tmp_path):
    content = coco_file(people())
    content["images"][1]["file_name"] = "1.jpg"
    folder(tmp_path, content)
    said = "\n".join(check_table(read_coco(tmp_path)))
    assert "1 picture has several image ids in the same split" in said


def test_a_picture_in_two_splits_is_said_before_training(tmp_path):
    content = coco_file(people())
    folder(tmp_path, content)
    content["annotations"][0]["bbox"] = [12, 5, 40, 50]
    folder(tmp_path, content | {"annotations": content["annotations"][:1]}, name="val")
    assert "WARNING: 1 pictures are in several splits" in read_coco(tmp_path).notes


# zips

def zipped(path, entries, flag=None):
    "A zip of (name, content) pairs, the names as they are given."
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content)
    if flag is not None:
        content = bytearray(path.read_bytes())
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            at = -1
            while (at := content.find(mark, at + 1)) >= 0:
                bits = flag(int.from_bytes(content[at + place : at + place + 2], "little"))
                content[at + place : at + place + 2] = bits.to_bytes(2, "little")
        path.write_bytes(content)
    return ImageSource(path)


def test_names_in_a_zip_of_another_system(tmp_path):
    source = zipped(tmp_path / "a.zip", [("set\\a.txt", b"A"), ("b/", b""), ("b/c.txt", b"C")])
    assert source.names() == {"set/a.txt", "b/c.txt"}
    assert source.read_bytes("set/a.txt") == b"A"
    unsaid = zipped(tmp_path / "b.zip", [("Zoë.txt", b"Z")], flag=lambda bits: bits & ~0x800)
    assert unsaid.names() == {"Zoë.txt"} and unsaid.read_bytes("Zoë.txt") == b"Z"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_in_a_zip(tmp_path):
    same = zipped(tmp_path / "a.zip", [("a.txt", b"A"), ("a.txt", b"A")])
    assert same.read_bytes("a.txt") == b"A"
    with pytest.raises(DataError, match="two different files a.txt") as error:
        zipped(tmp_path / "b.zip", [("a.txt", b"A"), ("a.txt", b"B")])
    one_sentence(error)


def test_an_encrypted_and_a_cut_zip_say_what_to_do(tmp_path):
    locked = zipped(tmp_path / "a.zip", [("a.txt", b"A")], flag=lambda bits: bits | 1)
    with pytest.raises(DataError, match="encrypted; unpack the zip") as error:
        locked.read_bytes("a.txt")
    one_sentence(error)
    zipped(tmp_path / "b.zip", [("a.txt", b"A" * 999)])
    (tmp_path / "b.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:500])
    with pytest.raises(DataError, match="is cut short"): ImageSource(tmp_path / "b.zip")


@pytest.mark.skipif(os.name == "nt", reason="named pipes of POSIX systems")
def test_an_annotation_file_that_is_a_named_pipe_does_not_hang(tmp_path):
    folder(tmp_path, coco_file(people()))
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="no ordinary file"):
        read_coco(tmp_path, annotations="pipe.json")


# JSON

def test_a_name_given_twice_in_json_is_refused():
    with pytest.raises(DataError, match="'images' is given twice") as error:
        parse_json(b'{"images": [1], "images": []}', "a.json")
    one_sentence(error)
    with pytest.raises(DataError, match="no text in UTF-8"): parse_json(b'{"a": "\xeb"}', "a.json")
    assert parse_json('{"a": 1}'.encode("utf-16"), "a.json") == {"a": 1}


# numbers

@pytest.mark.parametrize("change, words", [
    ({"bbox": [0, 0, 1e300, 9]}, "'bbox' holds a number beyond 1e12"),
    ({"keypoints": [1e300, 1, 2] + POINTS[3:]}, "'keypoints' holds a number beyond"),
    ({"area": 1e300}, "'area' holds a number beyond"),
    ({"iscrowd": "0"}, "'iscrowd' holds something that is not a number"),
    ({"iscrowd": [0]}, "'iscrowd' has 1 numbers; it must be 0 or 1"),
    ({"id": 2**64}, "'id' is missing or no whole number below 2"),
])
def test_numbers_that_cannot_be_are_refused(change, words):
    with pytest.raises(DataError, match=words) as error:
        read_content(coco_file(people(**change)), "a.json")
    one_sentence(error)


def test_numbers_of_pictures_and_sizes_beyond_reason_are_refused():
    for field, value in (("id", 10**30), ("id", 2**63), ("width", 10**400)):
        content = coco_file(people())
        content["images"][0][field] = value
        with pytest.raises(DataError, match=f"'{field}'"): read_content(content, "a.json")


def test_two_categories_of_one_id_are_refused():
    content = coco_file(people())
    first = content["categories"][0]
    content["categories"].append(first | {"keypoints": first["keypoints"][::-1]})
    with pytest.raises(DataError, match="two categories have the id 1"):
        read_content(content, "a.json")


def test_blank_names_and_sigmas_beyond_a_person_are_refused():
    content = coco_file(people())
    content["categories"][0]["keypoints"][3] = " "
    with pytest.raises(DataError, match="keypoint 3, counted from 0, has a blank name"):
        read_content(content, "a.json")
    content = coco_file(people())
    content["categories"][0]["sigmas"] = [.1] * 16 + [1e300]
    with pytest.raises(DataError, match="at most 1"): read_content(content, "a.json")
    content["categories"][0]["sigmas"] = [.1] * 16 + [1]
    check_keypoint_set(read_content(content, "a.json").keypoint_set)


def test_corners_in_place_of_sizes_and_joints_far_away_are_said(tmp_path):
    content = coco_file(people(bbox=[30, 5, 70, 58]))
    content["annotations"][2]["bbox"] = [30, 5, 40, 50]
    content["annotations"][2]["keypoints"] = [.4, .3, 2] * 17
    folder(tmp_path, content)
    table = read_coco(tmp_path)
    said = "\n".join(check_table(table))
    assert any("2 boxes reach far out of their picture" in note for note in table.notes)
    assert "1 person has a labelled joint far from their box" in said
    fine = coco_file(people())
    folder(tmp_path, fine)
    said = "\n".join(check_table(read_coco(tmp_path)))
    assert "reach far" not in said and "far from their box" not in said


def test_a_warning_is_said_again_from_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    folder(tmp_path / "set", coco_file(people(bbox=[30, 5, 70, 58])))
    for _ in range(2):
        load_people("coco", tmp_path / "set", ("train",), (64, 48), bars=False)
        assert capsys.readouterr().out.count("reach far out of their picture") == 1


# boxes for predict

def test_boxes_by_number_whatever_its_form(tmp_path):
    rows = [dict(image_id=i, bbox=[1, 2, 3, 4], category_id="1") for i in (7.0, "000000000007", 7)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    found = boxes_by_photo(read_boxes(tmp_path / "boxes.json"), ["photos/0007.jpg"])
    assert len(found[0]) == 3
    (tmp_path / "boxes.json").write_text(json.dumps([dict(image_id=[7], bbox=[1, 2, 3, 4])]))
    with pytest.raises(DataError, match="row 1: '\\[7\\]' is no name or number of a photo"):
        read_boxes(tmp_path / "boxes.json")
    with pytest.raises(DataError, match="--min-score"):
        read_boxes(tmp_path / "boxes.json", float("nan"))


def test_boxes_of_one_photo_under_two_names_are_all_taken(tmp_path):
    rows = [dict(file_name=name, bbox=[1, 2, 3, 4]) for name in ("a.jpg", "a")]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    found = read_boxes(tmp_path / "boxes.json")
    assert [len(mine) for mine in boxes_by_photo(found, ["pics/a.jpg", "pics/b.jpg"])] == [2, 0]
    with pytest.raises(DataError, match="it names 'a.jpg', and given is 'pics/c.jpg'"):
        boxes_by_photo(found, ["pics/c.jpg"])


@pytest.mark.parametrize("on_disk, in_file", [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("folder", ["", "pics/"])
def test_boxes_find_their_photo_in_the_other_form_of_unicode(folder, on_disk, in_file):
    "macOS unpacks names in the one, most programs write the other; the two look the same."
    photo, name = (unicodedata.normalize(form, "Zoë.jpg") for form in (on_disk, in_file))
    found = {f"{folder}{name}": [[1, 2, 30, 40, 1]], "other": [[5, 6, 30, 40, 1]]}
    rows = boxes_by_photo(found, [f"pics/{photo}", "pics/other.jpg", "more/pics/bob.jpg"])
    assert rows == [[[1, 2, 30, 40, 1]], [[5, 6, 30, 40, 1]], []]


def test_photos_that_differ_in_their_form_alone_have_their_own_boxes():
    forms = [unicodedata.normalize(form, "Zoë.jpg") for form in ("NFC", "NFD")]
    found = {name: [[k, 0, 30, 40, 1]] for k, name in enumerate(forms)}
    rows = boxes_by_photo(found, [f"pics/{name}" for name in forms])
    assert rows == list(found.values())
    assert len(boxes_by_photo(found, [f"pics/{forms[1]}"])[0]) == 2  # nobody else is meant


# folders

def test_a_link_that_leads_to_itself_is_left_out(tmp_path):
    picture(1).save(tmp_path / "1.jpg")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert ImageSource(tmp_path).names() == {"1.jpg"}


def test_files_that_are_no_photos_are_counted(tmp_path, capsys):
    picture(1).save(tmp_path / "1.jpg")
    for name in ("a.heic", "b.HEIC", "notes"): (tmp_path / name).touch()
    assert [os.path.basename(path) for path in list_photos([tmp_path])] == ["1.jpg"]
    assert f"3 other files in {tmp_path} left out: .heic 2, no ending 1" in capsys.readouterr().out


# where nothing can be written

def test_closed_streams_are_no_fault(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with plain_words():
        print("nobody reads this")
        sys.stderr.write("nor this")
    assert sys.stdout is None and sys.stderr is None


@pytest.mark.skipif(os.name == "nt", reason="named pipes of POSIX systems")
def test_a_claim_that_is_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / CLAIM)
    with pytest.raises(DataError, match="cannot write in"):
        with claim_folder(tmp_path): pass


@pytest.mark.parametrize("odd", [
    lambda values: values.to_sparse(), lambda values: torch.empty_like(values, device="meta"),
    lambda values: torch.quantize_per_tensor(values.float(), 0.1, 0, torch.quint8),
])
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_numbers_are_refused(odd):
    picture, boxes = torch.zeros(3, 80, 60), torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    with pytest.raises(DataError, match="holds no plain numbers") as error: open_photo(odd(picture))
    one_sentence(error)
    with pytest.raises(DataError, match="holds no plain numbers"): check_boxes(odd(boxes), (80, 60))
    with pytest.raises(DataError, match="no table of numbers"):
        check_boxes(boxes * 1j, (80, 60))
    assert check_boxes(boxes.requires_grad_(), (80, 60)).shape == (1, 4)


@pytest.mark.parametrize("overrides, said", [
    (dict(width=10**8), "width is 100000000; it must be less"),
    (dict(depth=10**9), "depth is 1000000000"), (dict(mlp_ratio=1e12), "mlp_ratio is"),
    (dict(width=16384, depth=64), "64 layers of width 16,384 have"),
])
def test_networks_beyond_reason_are_refused(overrides, said):
    with pytest.raises(ValueError, match=said): create_model("tokenpose_nano", **overrides)


def test_a_judged_run_of_a_newer_format_is_refused(tmp_path):
    write_json(tmp_path / "judged.json", dict(format=99))
    with pytest.raises(DataError, match="has format version 99"):
        read_judged(tmp_path / "judged.json")
    write_json(tmp_path / "runs.json", [dict(format=99)])
    with pytest.raises(DataError, match="has format version 99"):
        read_runs(tmp_path / "runs.json")


def test_what_builds_a_network_stands_beside_its_weights(tmp_path):
    with pytest.raises(ValueError, match="knows no 'depth'"):
        PoseTransformer.from_pretrained("tokenpose_nano", depth=3)
    network = create_model("tokenpose_nano")
    (tmp_path / "file").write_text("mine")
    for place in ("", tmp_path / "file", None, 5):
        with pytest.raises(ValueError, match="no folder for a network"):
            network.save_pretrained(place)
    with pytest.raises(DataError, match="a name of 5,000 letters is no folder"):
        PoseTransformer.from_pretrained("a" * 5000)
    network.save_pretrained(tmp_path / "net")
    assert PoseTransformer.from_pretrained(str(tmp_path / "net")).config == network.config


def test_a_recipe_of_odd_parts_is_refused():
    for overrides in ({"name": "mine"}, {1: 2}):    # `create_model` has a name already
        with pytest.raises(DataError, match="it must be settings by name"):
            Recipe(overrides=overrides)
    with pytest.raises(DataError, match="a recipe is a dictionary of its fields, not {1: 2}"):
        Recipe.from_dict({1: 2})
    for epochs in ((-5, -1), (2, 1), (1.5,)):
        with pytest.raises(DataError, match="milestones is .*; it must be epochs from 0 on"):
            Recipe(milestones=epochs)
    for odd in (None, [1], "flip", {1: 2}):
        with pytest.raises(DataError, match="augmentation is a dictionary"):
            Recipe.from_dict({"augmentation": odd})


def run_of(**change):
    "A judged run, as a results file holds it."
    return dict(row="ppt", seed=0, score=50.0, interval=[48.0, 52.0], recipe=dict(epochs=12),
                conditions=dict(people_digest="a", split="test")) | change


@pytest.mark.parametrize("stored, words", [
    (run_of(), "stored 50.00, within its interval"),
    (run_of(recipe=dict(epochs=1)), "not to be compared: epochs is 1 there, 12 here"),
    (run_of(conditions=dict(split="val")), "not to be compared: split is 'val' there"),
    (run_of(interval=[None, None]), "its interval is not known"),
    (run_of(seed=1), "no run of this row and seed"),
])
def test_a_stored_run_is_set_beside_its_like_alone(stored, words):
    assert words in beside_stored(run_of(), [stored])


def test_a_run_that_was_just_judged_is_compared_as_one_from_a_file():
    recipe = Recipe().to_dict()    # with tuples
    judged, stored = run_of(recipe=recipe), run_of(recipe=json.loads(json.dumps(recipe)))
    assert "within its interval" in beside_stored(judged, [stored])


def test_a_photo_that_does_not_fit_into_memory_is_not_to_be_copied_again(tmp_path, monkeypatch):
    from dppt_nb import photos
    def full(*given): raise MemoryError
    picture().save(tmp_path / "large.jpg")
    monkeypatch.setattr(photos, "to_rgb", full)
    with pytest.raises(DataError) as error: open_photo(tmp_path / "large.jpg")
    assert str(error.value).endswith("large.jpg cannot be read as a photo (MemoryError); "
                                     "make it smaller.")

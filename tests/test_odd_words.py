"""What people type and write by hand: a field that is nearly one, a list with something twice, a
number where a list belongs. Refused with one sentence that names the field and the mend; and advice
that can be followed from where it is given."""
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from data_fixture import coco_file, one_sentence, picture
from PIL import Image

from dppt_nb.checkpoints import find_network, results_folder
from dppt_nb.checks import DataError, each_once
from dppt_nb.cli import main
from dppt_nb.coco import choose_categories, read_category, read_flip_pairs
from dppt_nb.config import PoseConfig
from dppt_nb.cutting import prepare_store
from dppt_nb.datasets import read_coco, read_dataset
from dppt_nb.files import write_json
from dppt_nb.keypoints import COCO17
from dppt_nb.options import how_to_judge, take_reader_options
from dppt_nb.ownsets import read_keypoint_set, write_keypoint_set
from dppt_nb.photos import read_boxes
from dppt_nb.pictures import list_photos
from dppt_nb.recipes import Recipe
from dppt_nb.store import is_store, read_store
from dppt_nb.studies import find_rows

PERSON = dict(bbox=[10, 5, 40, 50], area=900, keypoints=[30, 20, 2] * 17)


def dppt(*words):
    done = CliRunner().invoke(main, [str(word) for word in words], prog_name="dppt")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.strip()


# twice

@pytest.mark.parametrize("words, said", [
    (["study", "protocol", "--list", "--seeds", "0,0"], "--seeds names 0 twice"),
    (["study", "protocol", "--list", "--seeds", "0,1,01"], "--seeds names 1 twice"),
    (["study", "dppt", "--list", "--rows", "ppt,dppt,ppt"], "--rows (--only) names ppt twice"),
    (["train", "tokenpose_nano", "--overrides", '{"depth": 1, "depth": 2}'], "--overrides"),
    (["train", "tokenpose_nano", "--plan", "--overrides", '{"prune_at": [1, 1]}'], "a layer twice"),
])
def test_twice_in_a_list_is_refused(words, said, tmp_path):
    out = [] if words[1] == "protocol" or words[1] == "dppt" else ["--out", tmp_path / "run"]
    code, text = dppt(*words, *out)
    assert code == 1 and said in text and len(text.splitlines()) == 1


def test_the_same_list_without_a_double_is_taken():
    code, text = dppt("study", "protocol", "--list", "--seeds", "0,1")
    listed = [line for line in text.splitlines() if " seed " in line]    # a hint may follow
    assert code == 0 and len(listed) == 2 * len(find_rows("protocol"))
    assert each_once([1, 2], "--seeds") == [1, 2]
    PoseConfig(prune_at=(1, 2), depth=4)


# options of which nothing would come

@pytest.mark.parametrize("words, said", [
    (["--split-seed", "5"], "--split-seed is of the draw of --val-share"),
    (["--annotations", "train=a.json", "--val-share", "0.5"], "a.json says its split"),
    (["--annotations", "val2017.json", "--val-share", "0.5"], "val2017.json says its split"),
    (["--flip-shift", "--no-mirror"], "--flip-shift moves the mirrored answer"),
])
def test_an_option_that_does_nothing_is_refused(words, said, tmp_path):
    for name in ("a.json", "val2017.json"): (tmp_path / name).write_text("{}")
    code, text = dppt("eval", "tokenpose_nano", "--data", "coco", "--root", tmp_path, *words)
    assert code == 1 and said in text and "Traceback" not in text


def test_a_folder_around_the_root_says_no_split():
    said = take_reader_options({"annotations": ("/home/train/mine/people.json",), "val_share": 0.3})
    assert said["val_share"] == 0.3
    assert take_reader_options({"val_share": 0.0, "split_seed": 1})["split_seed"] == 1


def test_a_comparison_takes_the_place_of_nothing_but_another(tmp_path):
    labels, words = tmp_path / "people.json", ["compare", "tokenpose_nano", "ppt_nano_d12"]
    labels.write_text('{"images": []}')
    code, text = dppt(*words, "--people", 4, "--device", "cpu", "--out", labels)
    assert code == 1 and "holds no earlier comparison" in text and len(text.splitlines()) == 1
    assert labels.read_text() == '{"images": []}'
    (tmp_path / "both.json").touch()    # an empty file is nobody's
    for _ in range(2):
        code, text = dppt(*words, "--people", 4, "--device", "cpu", "--out", tmp_path / "both.json")
        assert code == 0, text


def test_categories_and_pairs_twice():
    content = coco_file([dict(id=1, image_id=1) | PERSON])
    for category, said in (("person,person", "person twice"), (["1", "person"], "'person' again")):
        with pytest.raises(DataError, match=said) as error:
            choose_categories(content, "a.json", category)
        one_sentence(error)
    assert len(choose_categories(content, "a.json", "person")) == 1
    for text in ("a:b,a:b", "a:b,b:a"):
        with pytest.raises(DataError, match="a pair is named twice"):
            read_flip_pairs(text, ("a", "b", "c"))
    assert read_flip_pairs(["b", "a"], ("a", "b")) == ((0, 1),)    # mmpose names each partner


def test_an_annotation_file_twice(tmp_path):
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3): picture(i).save(tmp_path / "images" / f"{i}.jpg")
    (tmp_path / "a.json").write_text(json.dumps(coco_file([dict(id=1, image_id=1) | PERSON])))
    for given in (["a.json", "a.json"], ["train=a.json", "val=a.json"], ["a.json", "./a.json"]):
        with pytest.raises(DataError, match="twice; leave one out") as error:
            read_coco(tmp_path, annotations=given)
        one_sentence(error)
    assert len(read_coco(tmp_path, annotations=["a.json"])) == 1


# files that are mended by hand

@pytest.mark.parametrize("change, words", [
    (dict(sigma=[1] * 17), "no field 'sigma'; nearest names: sigmas"),
    (dict(sigmas=1), "sigmas is 1; it must be a list of numbers"),
    (dict(sigmas=[[1] * 17]), "17 names and 1 sigmas"),
    (dict(sigmas=[[.1]] * 17), r"the sigma \(0.1,\) is no finite number"),
    (dict(names="nose"), "names is nose; it must be a list of texts"),
    (dict(names=[1] * 17), "it must be a list of texts"),
    (dict(name=[1] * 17), "name is .*; it must be a text"),
    (dict(flip_pairs=[[1, "a"]]), "flip_pairs is .* pairs of whole numbers"),
    (dict(flip_pairs=[1, 2]), "flip_pairs is .* pairs of whole numbers"),
    (dict(limbs=[[0.5, 1]]), "limbs is .* pairs of whole numbers"),
    (dict(limbs={"a": 1}), "limbs is .* pairs of whole numbers"),
    (dict(upper_body=[[1]]), "upper_body is .* a list of whole numbers"),
    (dict(upper_body=[1.5]), "upper_body is .* a list of whole numbers"),
    (dict(torso=[1]), "torso is .* a pair of whole numbers"),
    (dict(torso=5), "torso is .* a pair of whole numbers"),
    (dict(torso=[True, False]), "torso is .* a pair of whole numbers"),
    (dict(head_segment="x"), "head_segment is .* a pair of whole numbers"),
    (dict(format=99), "format version 99"),
    (dict(names=None), "names is None"),
])
def test_a_keypoint_set_file_with_a_mistake(tmp_path, change, words):
    file = tmp_path / "set.json"
    write_keypoint_set(file, COCO17)
    assert read_keypoint_set(file) == COCO17
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=words) as error: read_keypoint_set(file)
    assert str(file) in one_sentence(error)


def test_a_keypoint_set_file_that_lacks_a_field(tmp_path):
    fields = COCO17.to_dict()
    del fields["sigmas"]
    (tmp_path / "set.json").write_text(json.dumps(fields))
    with pytest.raises(DataError, match="needs 'sigmas'; add it"):
        read_keypoint_set(tmp_path / "set.json")


def test_a_recipe_with_a_field_that_is_nearly_one():
    with pytest.raises(DataError, match="recipe has no field 'epoch'; nearest names: epochs"):
        Recipe.from_dict({"epoch": 3})
    with pytest.raises(DataError, match="augmentation has no field 'rotate'; nearest names: rota"):
        Recipe.from_dict({"augmentation": {"rotate": 3}})
    with pytest.raises(DataError, match="sigma is"): Recipe.from_dict({"sigma": [1] * 17})


def test_a_category_with_a_field_that_is_nearly_one():
    category = dict(name="face", keypoints=["left_eye", "right_eye"], sigma=[.1, .1])
    notes = read_category(category)[1]
    assert notes[0] == "WARNING: 'sigma' of the category is not read; 'sigmas' would be"
    plain = category | dict(supercategory="x", keypoints_colors=[], color="red", isthing=1)
    del plain["sigma"]
    assert not [note for note in read_category(plain)[1] if "is not read" in note]


def test_boxes_without_a_score(tmp_path):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([dict(image_id=1, bbox=[1, 2, 3, 4], scores=.2)]))
    with pytest.raises(DataError, match="row 1 has 'scores', which is not known; write it 'score'"):
        read_boxes(file)
    file.write_text(json.dumps([dict(image_id=1, bbox=[1, 2, 3, 4])]))
    assert read_boxes(file) == {"1": [[1, 2, 3, 4, 1.0]]}
    with pytest.raises(DataError, match="row 1 has no 'score' to compare with --min-score"):
        read_boxes(file, .5)


@pytest.mark.parametrize("row, words", [
    (dict(bbox=[0, 0, 1, 1]), "every 'bbox' lies between 0 and 1; COCO's numbers are pixels"),
    (dict(bbox=[.2, .1, .5, .8]), "every 'bbox' lies between 0 and 1"),
    (dict(score=float("inf")), "row 1: 'score' holds NaN or infinity"),
])
def test_boxes_of_other_numbers_are_refused(tmp_path, row, words):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([dict(image_id=1, bbox=[1, 2, 30, 40]) | row]))
    with pytest.raises(DataError, match=words): read_boxes(file)


def test_a_category_where_the_boxes_have_none_is_refused(tmp_path):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([dict(image_id=1, bbox=[1, 2, 30, 40])]))
    with pytest.raises(DataError, match="row 1 has no 'category_id' to compare with --category"):
        read_boxes(file, category=3)
    assert read_boxes(file, category=1) == {"1": [[1, 2, 30, 40, 1.0]]}


def test_a_crop_store_in_place_of_a_data_set(tmp_path):
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3): picture(i).save(tmp_path / "images" / f"{i}.jpg")
    (tmp_path / "a.json").write_text(json.dumps(coco_file([dict(id=1, image_id=1) | PERSON])))
    table, store = read_coco(tmp_path, annotations="a.json"), tmp_path / "store"
    prepare_store(table, store, (64, 48), progress=False)
    shutil.make_archive(tmp_path / "store", "zip", store)
    for root in (store, tmp_path / "store.zip"):
        for name in ("coco", "lspet", "mpii", "crowdpose"):
            with pytest.raises(DataError, match="is a crop store, in which") as error:
                read_dataset(name, root)
            one_sentence(error)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["header"]["keypoint_set"]["sigmas"][0] = .9
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="manifest.json says something else of it"):
        read_store(store, progress=False)


# advice

def test_the_line_that_judges_says_again_what_was_said():
    said = dict(annotations=["val=my val.json"], pixels="stored")
    line = how_to_judge("out", "coco", "my data", said, ["train", "val"], "val")
    assert shlex.split(line) == [
        "dppt", "eval", "out", "--data", "coco", "--root", "my data", "--annotations",
        "val=my val.json", "--pixels", "stored", "--split", "val",
    ]
    assert how_to_judge("out", "synthetic", None, {}, ["train", "test"], "test") == (
        "dppt eval out --data synthetic --split test"
    )
    assert "--split test" in how_to_judge("out", "coco", "r", {}, ["train", "test"], "val")
    assert "--root PLACE --split val" in how_to_judge("out", "mpii", "r", {}, ["train"], "val")


def test_after_training_without_validation_people_the_advice_works(tmp_path):
    for folder in ("images", "annotations"): (tmp_path / folder).mkdir()
    for i in (1, 2, 3): picture(i).save(tmp_path / "images" / f"{i}.jpg")
    content = coco_file([dict(id=i, image_id=i) | PERSON for i in (1, 2)])
    (tmp_path / "annotations/person_keypoints_train.json").write_text(json.dumps(content))
    code, said = dppt(
        "train", "tokenpose_nano", "--data", "coco", "--root", tmp_path, "--out", tmp_path / "run",
        "--image-size", "64x48", "--overrides", '{"width": 32, "depth": 1, "heads": 2}',
        "--epochs", 1, "--batch-size", 4, "--device", "cpu", "--no-report", "--no-samples",
    )
    assert code == 0 and "training without validation people: coco has train" in said
    line = re.search(r"judge it on others with: dppt (.*) \(FILE: their annotations\)$", said)[1]
    own = content | {"annotations": [dict(id=9, image_id=3, category_id=1, iscrowd=0) | PERSON]}
    (tmp_path / "own.json").write_text(json.dumps(own))
    words = shlex.split(line.replace("FILE", "own.json"))
    code, said = dppt(*words, "--device", "cpu")
    assert code == 0 and "val people of coco" in said and "(1 person" in said


# places in the home folder: not every shell spells out what stands behind --out=

@pytest.fixture
def home(tmp_path, monkeypatch):
    "A home folder with a network, a photo and its box."
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(find_network("tokenpose_nano"), tmp_path / "net")
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    write_json("~/boxes.json", [dict(file_name="a.png", bbox=[1, 2, 40, 50])])
    return tmp_path


@pytest.mark.parametrize("photos", ["~/a.png", "~"])
def test_every_place_of_a_command_may_begin_in_the_home_folder(home, photos):
    words = f"predict ~/net {photos} --boxes=~/boxes.json --out=~/poses --device cpu"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0 and f"they are in {home}/poses" in done.output, done.output
    assert (home / "poses" / "poses.jsonl").stat().st_size and (home / "poses/a-poses.jpg").exists()


def test_networks_and_stores_that_a_command_names_may_begin_in_the_home_folder(home):
    for words, what in (
        ("eval ~/net --out=~/a.png", f"{home}/a.png"),
        ("compare ~/net tokenpose_s --out=~/net", f"--out is {home}/net, a folder"),
        ("eval ~/net --data coco --root=~/gone", f"{home}/gone does not exist"),
        ("export ~/net --out=~/gone/x.onnx", f"there is no folder {home}/gone"),
        ("study dppt --teacher=~/gone --device cpu", f"there is no folder {home}/gone"),
        ("train tokenpose_nano --start ~/gone --device cpu", f"there is no folder {home}/gone"),
    ):
        done = CliRunner().invoke(main, words.split())
        assert done.exit_code and what in done.output and "mistake" not in done.output, done.output


def test_places_in_the_home_folder_are_found_in_python_too(home):
    assert find_network("~/net") == home / "net" == results_folder("~/net", "lspet")
    assert list_photos(["~/a.png"]) == [str(home / "a.png")] == list_photos(["~"])
    assert [*read_boxes("~/boxes.json")] == ["a.png"]
    assert not is_store("~/net")
    (home / "manifest.json").write_text('{"crop_size": []}')
    assert is_store("~") and is_store(Path("~"))


def test_a_home_of_nobody_is_a_folder_that_is_not_there(monkeypatch, tmp_path):
    "Not a mistake of ours: pathlib ends with a RuntimeError here."
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["data", "check", "coco", "--root", "~nobody-of-that-name/x"])
    assert "~nobody-of-that-name/x does not exist" in done.output, done.output

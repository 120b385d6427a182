"""Two networks side by side: the same people, the joints that both know, a paired interval."""
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dppt_nb.checkpoints import load_network, save_network
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.compare import (
    check_same_people,
    compare_networks,
    format_comparison,
    hits_of,
    in_photos_of,
)
from dppt_nb.evaluation import predict_joints
from dppt_nb.keypoints import COCO17, KeypointSet
from dppt_nb.metrics import bootstrap_interval, pck
from dppt_nb.models import create_model
from dppt_nb.recipes import Recipe
from dppt_nb.store import from_synthetic, synthetic_people
from dppt_nb.synthetic import make_people

SIZE = (64, 48)


def saved(folder, names, size=SIZE):
    "A network with drawn weights that finds joints of these names."
    folder.mkdir()
    torch.manual_seed(sum(map(len, names)))
    overrides = dict(width=32, depth=1, heads=2)
    network = create_model("tokenpose_nano", len(names), size, **overrides)
    own = KeypointSet("own", names, (), (), (0.05,) * len(names))
    save_network(folder, network.state_dict(), dict(
        config=asdict(network.config), keypoint_set=own.to_dict(),
        recipe=Recipe(image_size=size, overrides=overrides).to_dict(),
    ))
    return folder


def test_the_command_gives_what_the_functions_of_the_lessons_give(tmp_path):
    words = ["compare", "tokenpose_nano", "tokenpose_nano_lspet", "--people", "24", "--no-mirror",
             "--device", "cpu", "--out", str(tmp_path / "both.json")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "both.json").read_text())
    assert format_comparison(told) in done.output and "12 joints that both know" in done.output

    people, found = synthetic_people("test", (128, 96), 24), []
    for name in ("tokenpose_nano", "tokenpose_nano_lspet"):
        network, recipe, names = load_network(name)
        joints, _ = predict_joints(network, people, recipe.change(mirror=False), bars=False)
        columns = [names.index(joint) for joint in told["joints"]]
        answer = torch.zeros(24, 17, 2)
        answer[:, [COCO17.index(joint) for joint in told["joints"]]] = joints[:, columns]
        found.append(answer)
    shared = torch.tensor([float(name in told["joints"]) for name in COCO17.names])
    mine, theirs = (
        pck(joints, people.photo_joints, people.visible * shared, COCO17) for joints in found
    )
    assert told["scores"] == pytest.approx([mine["mean"], theirs["mean"]])
    paired = bootstrap_interval(mine["hits"], mine["counts"], other=theirs["hits"])
    assert told["interval"] == pytest.approx(list(paired))


def test_joints_that_one_alone_knows_do_not_count(tmp_path):
    one = saved(tmp_path / "one", ("left_wrist", "right_wrist", "nose"))
    other = saved(tmp_path / "other", ("left_wrist", "right_wrist", "left_eye"))
    result = compare_networks(one, other, people=8, device="cpu", bars=False, mirror=False)
    assert set(result["joints"]) == {"left_wrist", "right_wrist"}
    assert result["measure"].endswith("box")    # no torso among them


@pytest.mark.parametrize("mine, theirs, words", [
    (("left_wrist",), ("nose",), "one finds own keypoints and .*two own, which have no joint in c"),
    (("left_wrist", "toe"), ("nose", "toe"), "no joint in common that is labelled here"),
    (("toe",), ("toe", "heel"), "one finds own keypoints, of which coco has none"),
])
def test_nothing_in_common_is_a_sentence_that_names_the_networks(tmp_path, mine, theirs, words):
    one, other = saved(tmp_path / "one", mine), saved(tmp_path / "two", theirs)
    with pytest.raises(DataError, match=words):
        compare_networks(one, other, people=8, device="cpu", bars=False, mirror=False)


def test_a_network_is_not_compared_with_itself(tmp_path):
    one, copy = tmp_path / "one", tmp_path / "copy"
    shutil.copytree(saved(one, ("nose",)), copy)
    with pytest.raises(DataError, match="one is named twice"): compare_networks(one, one)
    with pytest.raises(DataError, match="copy are the same network"): compare_networks(one, copy)


def test_a_network_is_compared_with_itself_at_another_keep_ratio(tmp_path):
    for name, ratio in (("whole", 1.0), ("half", 0.5)):
        network, recipe, _ = load_network("ppt_nano_d12")
        network.keep_ratio = ratio
        network.save_pretrained(tmp_path / name)
    how = dict(people=8, device="cpu", bars=False, mirror=False)
    result = compare_networks(tmp_path / "whole", tmp_path / "half", **how)
    assert result["people"] and np.isfinite(result["interval"]).all()


def test_people_of_the_training_are_no_judges_without_a_word(capsys):
    compare_networks("tokenpose_nano", "tokenpose_nano_lspet", split="train", people=8,
                     device="cpu", bars=False, mirror=False)
    assert "tokenpose_nano was trained on people of synthetic" in capsys.readouterr().out


def test_a_torso_is_the_ruler_only_where_it_is_labelled():
    people = from_synthetic(make_people(6, COCO17, SIZE, seed=1, margin=1.5))
    off = people.photo_joints + torch.tensor([3.0, 0.0])
    assert hits_of(off, people, people.visible)["normaliser"] == "torso"
    visible = people.visible.clone()
    visible[:, COCO17.index("right_hip")] = 0
    found = hits_of(off, people, visible)
    sizes = (200 * people.scales / 1.25).max(1).values
    counted = visible.numpy() > 0
    hit = (3 <= found["threshold"] * sizes.numpy())[:, None] & counted
    assert found["normaliser"] == "box" and np.array_equal(found["hits"] & counted, hit)


@pytest.mark.parametrize("size", [(128, 96), (64, 64)])
def test_people_made_by_program_are_the_same_at_another_input_size(tmp_path, size):
    "Of twice the size, and of another shape; a true answer is a hit in the pixels of either."
    one = saved(tmp_path / "one", ("left_wrist", "nose"))
    other = saved(tmp_path / "other", ("left_wrist", "left_eye"), size)
    result = compare_networks(one, other, people=8, device="cpu", bars=False, mirror=False)
    assert set(result["joints"]) == {"left_wrist"} and result["people"]

    here, there = (synthetic_people("test", s, 8) for s in (SIZE, size))
    placed = in_photos_of(here, there, there.photo_joints)
    assert torch.allclose(placed, here.photo_joints, atol=1e-3)
    assert hits_of(placed, here, here.visible)["mean"] == 100


def test_other_people_are_not_compared_at_another_input_size():
    here, there = (synthetic_people(s, (z, z), 8) for s, z in (("test", 64), ("val", 128)))
    with pytest.raises(DataError, match="one and other were given other people"):
        check_same_people(here, there, "one", "other")


@pytest.mark.parametrize("people", [(6, 1), (5, 1), (6, 2)])
def test_other_people_are_not_compared(people):
    "As many of another seed, or one fewer; the same ones pass."
    made = lambda count, seed: from_synthetic(make_people(count, COCO17, SIZE, seed, margin=1.5))
    first, second = made(6, 1), made(*people)
    if people == (6, 1): return check_same_people(first, second, "one", "other")
    with pytest.raises(DataError, match="one and other were given other people"):
        check_same_people(first, second, "one", "other")

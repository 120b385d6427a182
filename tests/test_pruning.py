"""Pruning: what stays, by whose choice, and when; and the small networks that travel with the
package, one of which prunes."""
import copy
import importlib.util
import json
import math
import tomllib

import numpy as np
import pytest
import torch

from dppt_nb.checkpoints import load_network, load_released
from dppt_nb.crops import normalize
from dppt_nb.models import create_model
from dppt_nb.pruning import (
    PlaceScores, RandomScores, draw_kept, first_scores, joints_kept, keep_ratio_at, keep_top,
    often_kept, patch_scores, patches_left,
)
from dppt_nb.recipes import Recipe
from dppt_nb.synthetic import make_people
from dppt_nb.tokenpose import PoseTransformer

SHIPPED = ("tokenpose_nano", "ppt_nano_d12")


def test_schedule_of_the_release():
    ratios = [keep_ratio_at(epoch) for epoch in np.linspace(0, 300, 3001)]
    assert all(r == 1 for r in ratios[:101]) and all(math.isclose(r, 0.7) for r in ratios[1000:])
    assert (np.diff(ratios) <= 0).all() and (np.diff(ratios[101:1000]) < 0).all()
    for epoch in (10, 33, 55, 99.5):  # EViT's formula, written out
        assert math.isclose(
            keep_ratio_at(epoch), 0.7 + 0.3 * (math.cos((epoch - 10) / 90 * math.pi) + 1) * 0.5
        )
    assert keep_ratio_at(4, final=0.5, start=2, end=6) == 0.75


@pytest.mark.parametrize("start, end", [(5, 5), (10, 3), (-1, 5)])
def test_wrong_schedules_are_refused(start, end):
    with pytest.raises(ValueError, match="start must come before end"):
        keep_ratio_at(1, start=start, end=end)


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.7, 0.5, 0.3, 0.01])
def test_patches_left_are_those_of_the_network(ratio):
    model = create_model("ppt_s", 5, (128, 96), keep_ratio=ratio).eval()
    with torch.no_grad(): kept = model.trace(torch.randn(1, 3, 128, 96)).kept[0]
    assert [48, *(kept[layer].shape[1] for layer in (3, 6, 9))] == patches_left(48, ratio)


def test_patches_left_of_the_release():
    assert patches_left(256, 0.7) == [256, 180, 126, 89]


def opponents():
    places = PlaceScores(torch.arange(48.) % 7)                          # many are alike
    return {
        "by lot": RandomScores(5), "first": first_scores, "attention": patch_scores,
        "same places": places,
    }


@pytest.mark.parametrize("name", opponents())
def test_any_score_can_choose(name):
    model = create_model("ppt_nano", 5, (128, 96)).eval()
    images = torch.randn(3, 3, 128, 96)
    model.encoder.score = opponents()[name]
    with torch.no_grad(): trace = model.trace(images)
    kept = trace.kept[0][-1]
    assert (
        kept.shape == (3, 17)
        and (kept.diff(dim=1) > 0).all()
        and kept.min() >= 0
        and kept.max() < 48
    )
    model.encoder.score = opponents()[name]
    with torch.no_grad(): answer = model(images)
    assert torch.allclose(answer, trace.heatmaps[0], atol=1e-4 * answer.abs().max().item())
    if name == "first": assert torch.equal(kept, torch.arange(17).expand(3, -1))
    # 20 places have 4, 5 or 6
    if name == "same places": assert (kept == kept[0]).all() and (kept % 7 >= 4).all()
    if name == "by lot": assert len({tuple(row) for row in kept.tolist()}) == 3


def test_lots_are_seeded_and_fair():
    shares = torch.rand(500, 2, 3, 10)
    lots = keep_top(RandomScores(1)(shares), 4)
    assert torch.equal(lots, keep_top(RandomScores(1)(shares), 4))
    assert not torch.equal(lots, keep_top(RandomScores(2)(shares), 4))
    often = torch.bincount(lots.flatten(), minlength=10) / 500
    assert (often - 0.4).abs().max() < 5 * math.sqrt(0.4 * 0.6 / 500)
    copy.deepcopy(RandomScores(1))


def test_a_fixed_mask_keeps_the_best_places_also_when_it_chooses_several_times():
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    # order: the best places first
    scores = torch.zeros(48)
    scores[order] = torch.arange(48, 0, -1.0)
    places, score = torch.arange(48)[None], PlaceScores(scores)
    for count in (34, 24, 17):
        places = places.gather(1, keep_top(score(torch.rand(1, 2, 3, places.shape[1])), count))
        assert places[0].tolist() == sorted(order[:count].tolist())


def test_whether_a_joint_lies_in_a_kept_patch():
    kept, size, grid = torch.tensor([[0, 7], [1, 2]]), (64, 32), (4, 2)  # patches of 16 x 16 pixels
    joints = torch.tensor([[[15.4, 15.4], [15.6, 15.4], [31, 63], [-9, -9], [99, 99]]]).expand(
        2, -1, -1
    )
    assert joints_kept(kept, joints, size, grid).tolist() == [
        [True, False, True, True, True],
        [False, True, False, False, False],
    ]
    assert often_kept(kept, 8).tolist() == [0.5, 0.5, 0.5, 0, 0, 0, 0, 0.5]


def test_the_shipped_pruner_keeps_the_joints(pruner):
    "What the lesson shows: a joint's own patch stays more often than patches do."
    network, images = pruner
    people = make_people(len(images), image_size=(128, 96), seed=2)
    with torch.no_grad(): kept = network.trace(images, look=()).kept[0]
    for layer in network.config.prune_at:
        there = (
            joints_kept(kept[layer], people.joints, (128, 96), network.config.grid)[
                people.visible > 0
            ]
            .float()
            .mean()
        )
        assert there > kept[layer].shape[1] / 48 + 0.15


def test_scores_read_the_attention_given():
    shares = torch.zeros(2, 3, 4, 6)
    shares[0, 1, 2, 5], shares[1, 0, 0, 1] = 0.6, 0.3
    assert patch_scores(shares)[0].argmax() == 5 and patch_scores(shares)[1].argmax() == 1
    assert math.isclose(patch_scores(shares)[0, 5], 0.2, rel_tol=1e-6)


def test_drawn_survivors():
    image = np.full((32, 24, 3), 100, np.uint8)
    drawn = draw_kept(image, torch.tensor([0, 11]), (4, 3), dim=0.5)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and (image == 100).all()
    light = drawn[::8, ::8, 0] == 100
    assert light.sum() == 2 and light[0, 0] and light[3, 2] and (drawn[8:, :8] == 50).all()
    with pytest.raises(ValueError, match="32 x 24 pixels does not divide into 5 x 3 patches"):
        draw_kept(image, torch.tensor([0]), (5, 3))


def test_a_pruning_network_compiles_and_exports():
    "Token counts are fixed by the keep ratio, so the graph is one piece."
    model, images = create_model("ppt_nano", 5, (128, 96)).eval(), torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        answer = model(images)
        assert torch.allclose(
            torch.export.export(model, (images,)).module()(images), answer, atol=1e-5
        )
        assert torch.allclose(
            torch.compile(model, backend="eager", fullgraph=True)(images), answer, atol=1e-5
        )


@pytest.fixture(scope="module")
def weights(root): return root / "dppt_nb" / "weights"


@pytest.fixture(scope="module")
def packer(root):
    "The tool that packs a run, as a module."
    spec = importlib.util.spec_from_file_location("ship", root / "tools" / "ship.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pruner(weights):
    "The twelve-layer network that was trained with pruning, and unseen people."
    return load_network(weights / "ppt_nano_d12")[0], normalize(
        make_people(24, image_size=(128, 96), seed=2).images
    )


def test_all_shipped_networks_are_known_small_and_packed(weights, root):
    assert {f.name for f in weights.iterdir()} == set(SHIPPED)
    assert sum(f.stat().st_size for f in weights.rglob("*") if f.is_file()) < 5e6
    packed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["dppt_nb"]
    assert {f for f in weights.rglob("*") if f.is_file()} <= {
        f for glob in packed for f in (root / "dppt_nb").glob(glob)
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_hold_numbers_and_words_only(weights, name):
    assert sorted(f.name for f in (weights / name).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    content = (weights / name / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    assert {v["dtype"] for v in header.values()} <= {"F16", "I64"}
    assert len(content) == 8 + length + max(v["data_offsets"][1] for v in header.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_say_how_they_came_about(weights, packer, name):
    told = json.loads((weights / name / "config.json").read_text())
    assert packer.recipe_of(told["trained"]["command"]) == Recipe.from_dict(told["recipe"])
    assert (
        told["trained"]["people"] == 8000
        and told["trained"]["epochs"] == told["epoch"] == told["recipe"]["epochs"]
    )
    assert (
        told["judged"]["people"] == 1000
        and told["judged"]["split"] == "test"
        and told["data"] == told["judged"]["data"] == "synthetic"
    )
    for row in (told["judged"]["scores"], told["check"]["scores"]):
        low, high = row["PCK@0.2 torso"]["interval"]
        assert 50 < low < row["PCK@0.2 torso"]["mean"] < high < 100


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_score_what_they_say(weights, packer, name):
    told = json.loads((weights / name / "config.json").read_text())["check"]
    found = packer.judge(weights / name, told["people"])
    assert {k: found[k] for k in found if k != "scores"} == {
        k: told[k] for k in told if k != "scores"
    }
    # other processors round otherwise: a few joints at the border of 3,000 may fall on its other
    # side
    assert (
        abs(found["scores"]["PCK@0.2 torso"]["mean"] - told["scores"]["PCK@0.2 torso"]["mean"])
        < 0.5
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_load_alike_by_folder_and_by_name(weights, name):
    networks = [
        load_network(weights / name)[0], load_network(name)[0],
        PoseTransformer.from_pretrained(weights / name),
    ]
    for network in networks[1:]:
        assert network.config == networks[0].config and not network.training
        assert all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(network.state_dict().values(), networks[0].state_dict().values())
        )
    assert networks[2].about["judged"]["scores"]


def test_packing_refuses_what_it_cannot_stand_for(packer):
    with pytest.raises(SystemExit, match="does not fit into half precision"):
        packer.halve({"fine": torch.ones(2), "wide": torch.tensor([1e6])})
    halves = packer.halve({"weight": torch.tensor([1 / 3]), "counter": torch.tensor(70_000)})
    assert halves["weight"].dtype == torch.float16 and halves["counter"] == 70_000
    with pytest.raises(SystemExit, match="does not begin with dppt train"):
        packer.recipe_of("dppt eval here")
    assert (
        packer.recipe_of("dppt train tokenpose_nano --epochs 3 --rotation 5").augmentation.rotation
        == 5
    )


def test_choices_are_the_same_every_time_and_in_any_company(pruner):
    network, images = pruner
    with torch.no_grad():
        kept, again, alone = (network.trace(x).kept[0][-1] for x in (images, images, images[5:6]))
    assert torch.equal(kept, again)
    # two scores may tie but for rounding
    assert len(set(kept[5].tolist()) & set(alone[0].tolist())) >= kept.shape[1] - 1
    assert len({tuple(row) for row in kept.tolist()}) > 1  # and it does look at the picture


def test_indices_of_indices_are_places_in_the_picture(pruner):
    """Each choice repeated from the attention that it was made by: number among survivors -> place
    in the grid."""
    network, images = pruner
    with torch.no_grad(): trace = network.trace(images)
    places, J = torch.arange(48).expand(len(images), -1), network.num_keypoints
    for layer, (attention, seen, kept) in enumerate(
        zip(trace.attention[0], trace.seen[0], trace.kept[0])
    ):
        assert torch.equal(seen, places) and attention.shape[-1] == J + places.shape[1]
        if layer in network.config.prune_at:
            chosen = keep_top(
                patch_scores(attention[:, :, :J, J:]), math.ceil(0.7 * places.shape[1])
            )
            places = torch.stack([row[pick] for row, pick in zip(places, chosen)])
        assert torch.equal(kept, places)
    assert kept.shape[1] == patches_left(48, 0.7)[-1] == 17


def test_a_learned_network_that_drops_nothing_is_the_plain_one(pruner):
    network, images = pruner
    plain = create_model(
        "tokenpose_nano", 17, (128, 96), depth=12, width=64, pyramid_blocks=1
    ).eval()
    network, plain = copy.deepcopy(network), load_released(plain, network.state_dict())
    with torch.no_grad():
        assert not torch.allclose(network(images), plain(images), atol=1e-3)
        network.keep_ratio = 1
        assert torch.allclose(network(images), plain(images), atol=1e-6)

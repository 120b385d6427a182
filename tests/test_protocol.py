"""Two code bases, two protocols: every switch does what it says, and each protocol is free of error
within itself."""
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_fixture import TINY

from dppt_nb.augmentation import augment_batch
from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.crops import apply_affine, batched_affine
from dppt_nb.evaluation import decode, predict_joints
from dppt_nb.judged import run_study
from dppt_nb.keypoints import COCO17
from dppt_nb.metrics import mean_rate, pck
from dppt_nb.recipes import PROTOCOLS, RECIPES, Recipe, get_recipe
from dppt_nb.store import from_synthetic, synthetic_people
from dppt_nb.studies import STUDIES, find_rows, row_recipe, unpack_bits
from dppt_nb.synthetic import make_people
from dppt_nb.training import make_batch

SIZE, HEAT = (128, 96), (32, 24)


@pytest.fixture(scope="module")
def people(): return from_synthetic(make_people(24, COCO17, SIZE, seed=5, margin=1.5))


def answer(people, recipe):
    """What a network without fault would say about the plain crops, as the recipe draws targets and
    reads heatmaps."""
    batch = make_batch(people, torch.arange(len(people)), recipe, None, torch.Generator(), HEAT)
    inner = ((batch.joints > 12) & (batch.joints < torch.tensor([SIZE[1] - 12, SIZE[0] - 12]))).all(
        -1
    ) & (batch.visible > 0)
    return decode(recipe, batch.targets, people.centers, people.scales)[0], inner


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_finds_what_it_drew(people, protocol):
    recipe = Recipe().change(protocol=protocol, sigma=1.0, kernel=5)
    found, inner = answer(people, recipe)
    assert inner.sum() > 100
    heat_pixel = 200 * people.scales[:, :1] / HEAT[1]  # photograph pixels
    assert ((found - people.photo_joints).norm(dim=-1) / heat_pixel)[inner].max() < 0.1
    other = recipe.change(unbiased=not recipe.unbiased)  # drawn in one way, read in the other
    batch = make_batch(people, torch.arange(len(people)), recipe, None, torch.Generator(), HEAT)
    wrong = decode(other, batch.targets, people.centers, people.scales)[0]
    assert ((wrong - people.photo_joints).norm(dim=-1) / heat_pixel)[inner].mean() > 0.3


def test_counted_crops_from_a_store_are_those_from_the_photograph(people):
    "Store and photograph lead to one place, also where lengths are counts of pixels."
    widths = 200 * people.scales[:, 0]
    _, through, _ = augment_batch(
        people.images, people.joints, people.visible, COCO17, people.margin, SIZE,
        photo_widths=widths,
    )
    direct = apply_affine(
        people.photo_joints,
        batched_affine(people.centers, people.scales, 0.0, SIZE, unbiased=False),
    )
    torch.testing.assert_close(through, direct, atol=2e-2, rtol=0)
    _, plain, _ = augment_batch(
        people.images, people.joints, people.visible, COCO17, people.margin, SIZE
    )
    assert 0.3 < (plain - through).abs().mean() < 1.0  # half a pixel and a little zoom


def test_the_mirror_of_counted_crops_is_one_pixel_off(people):
    from dppt_nb.augmentation import Augmentation
    still = Augmentation(flip=1.0, rotation_prob=0, scale=0, half_body=0)
    run = lambda augmentation, widths: augment_batch(
        people.images, people.joints, people.visible, COCO17, people.margin, SIZE, augmentation,
        torch.Generator().manual_seed(0), widths,
    )[1][:, COCO17.flip_index if augmentation else slice(None)]
    for widths, length in ((None, SIZE[1] - 1), (200 * people.scales[:, 0], SIZE[1])):
        straight, mirrored = run(None, widths), run(still, widths)
        torch.testing.assert_close(mirrored[..., 0], length - straight[..., 0], atol=1e-2, rtol=0)


class MirroredAlone(torch.nn.Module):
    """Puts every joint into one column of the mirrored picture, and says nothing to the picture
    itself."""
    def __init__(self):
        super().__init__()
        self.weight, self.calls = torch.nn.Parameter(torch.ones(1)), 0

    def forward(self, images):
        maps = torch.zeros(len(images), 17, *HEAT)
        maps[:, :, 16, 10] = 1
        self.calls += 1
        return maps * self.weight * (self.calls % 2)    # the mirrored picture is asked first


def test_the_mirrored_answer_is_moved(people):
    found = {
        moved: predict_joints(
            MirroredAlone(), people, Recipe(decode="argmax", flip_shift=moved), bars=False
        )[0][:, 0, 0]
        for moved in (False, True)
    }
    heat_pixel = (200 * people.scales[:, 0] - 1) / (HEAT[1] - 1)  # in photograph pixels
    torch.testing.assert_close(found[True] - found[False], heat_pixel, atol=1e-2, rtol=0)


def test_presets_are_those_of_the_releases():
    small, base, pruned = (
        get_recipe(f"{name}_coco", protocol="tokenpose")
        for name in ("tokenpose_s_v1", "tokenpose_b", "ppt_s")
    )
    assert (
        small.overrides["attention_scale"] == pruned.overrides["attention_scale"] == "model"
        and base.overrides["attention_scale"] == "head"
    )
    assert (small.anneal, pruned.anneal) == ((), (10 / 300, 110 / 300))
    assert (
        small.unbiased
        and not small.flip_shift
        and small.loss_factor == 0.5
        and small.batch_size == 128
        and small.boxes == "annotated"
    )
    theirs = get_recipe("sdpose_s_v1_coco", protocol="mmpose")
    assert (
        not theirs.unbiased
        and theirs.flip_shift
        and theirs.loss_factor == 1
        and theirs.batch_size == 512
        and theirs.boxes == "detected"
    )
    assert (
        theirs.keypoint_cycles == theirs.patch_cycles == 5e-6
        and theirs.decode == "dark"
        and theirs.warmup_steps == 500
    )
    assert get_recipe("ppt_s_coco", protocol="mmpose").anneal == ()


def test_what_is_named_wins_and_the_rest_of_the_network_stays():
    recipe = get_recipe(
        "sd_dppt_nano", protocol="mmpose", batch_size=32,
        overrides={"cycles": 3, "attention_scale": "model"},
    )
    assert (
        recipe.batch_size == 32
        and recipe.overrides == {"cycles": 3, "attention_scale": "model"}
        and recipe.output == RECIPES["sd_dppt_nano"].output
    )
    assert get_recipe("sd_dppt_nano", protocol="mmpose").overrides == {
        "cycles": 2,
        "attention_scale": "head",
    }
    with pytest.raises(DataError, match="no protocol 'mmdet'; there are tokenpose and mmpose"):
        get_recipe("ppt_nano", protocol="mmdet")
    # there and back
    again = get_recipe("ppt_s_coco", protocol="mmpose").change(protocol="tokenpose")
    assert again == get_recipe("ppt_s_coco", protocol="tokenpose")


def test_shift_and_warm_up_come_with_the_papers_schedule_only():
    "As SDPose's configurations of TokenPose and PPT have them; TokenPose's own have neither."
    for name in ("tokenpose_s_v1_coco", "ppt_b_coco", "sdpose_t_coco"):
        theirs, own = (get_recipe(name, protocol=one) for one in ("mmpose", "tokenpose"))
        seen = theirs.augmentation
        assert (seen.shift, seen.shift_prob, theirs.warmup_steps) == (0.16, 0.3, 500)
        assert (own.augmentation.shift, own.warmup_steps) == (0, 0)
        named = dict(shift=0.1, shift_prob=1.0, warmup_steps=7)
        kept = get_recipe(name, protocol="mmpose", **named)
        seen = kept.augmentation
        assert (seen.shift, seen.shift_prob, kept.warmup_steps) == (0.1, 1.0, 7)
    for protocol in PROTOCOLS:
        nano = get_recipe("ppt_nano", protocol=protocol)
        assert nano.augmentation == RECIPES["ppt_nano"].augmentation and nano.warmup_steps == 70


TOY = get_recipe(
    "tokenpose_nano", image_size=(64, 48), overrides=TINY, epochs=1, batch_size=16, warmup_steps=2,
)


def test_rows_that_are_only_judged_are_not_trained(tmp_path, monkeypatch):
    names = ("tokenpose", "argmax", "one_look", "biased", "biased_unmoved")
    settings = dict(data="synthetic", base=TOY, seeds=(0,), device="cpu", people=32, out=tmp_path)
    with pytest.raises(DataError, match="row 'argmax' judges the networks of row 'tokenpose'"):
        run_study("protocol", names=("argmax",), **settings)
    runs = {run["row"]: run for run in run_study("protocol", names=names, **settings)}
    assert sorted(runs) == sorted(names) and len(list(tmp_path.glob("*/model.safetensors"))) == 2
    assert (
        runs["argmax"]["conditions"]["decode"] == "argmax"
        and not runs["one_look"]["conditions"]["mirror"]
    )
    assert (
        not runs["biased"]["conditions"]["unbiased"]
        and runs["biased"]["recipe"]["flip_shift"]
        and not runs["biased_unmoved"]["recipe"]["flip_shift"]
    )
    # the same network, read in another way: what it says of the people differs
    hits = {name: unpack_bits(runs[name]["hits"], runs[name]["shape"]) for name in names}
    counts = unpack_bits(runs["argmax"]["counts"], runs["argmax"]["shape"])
    for name in names:
        score = mean_rate(hits[name].sum(0), counts.sum(0))
        assert runs[name]["score"] == pytest.approx(score)
    assert runs["argmax"]["recipe"]["decode"] == "argmax"
    network, recipe, _ = load_network(tmp_path / "tokenpose-seed0")
    judges = synthetic_people("test", TOY.image_size, 32)
    by_dark, by_argmax = (
        predict_joints(network, judges, recipe.change(decode=way), bars=False)[0]
        for way in ("dark", "argmax")
    )
    assert (by_dark - by_argmax).abs().max() > 0.1
    result = pck(by_argmax, judges.photo_joints, judges.visible, judges.keypoint_set)
    assert np.array_equal(result["hits"], hits["argmax"])


def test_every_row_of_a_study_can_follow_a_protocol():
    for study in ("dppt", "sdpose"):
        for row in STUDIES[study]:
            recipe = row_recipe(row, "tokenpose_nano", 0, 12, "t", "mmpose")
            assert not recipe.unbiased and recipe.overrides["attention_scale"] == "head"
            assert row.changes.get("overrides", {}).items() <= recipe.overrides.items()
            # how slowly patches go is the row's own affair
            assert recipe.anneal == (row.changes.get("anneal") or ())
    # as its row says
    assert (
        row_recipe(find_rows("dppt", ["ppt"])[0], "tokenpose_nano", 0, protocol="tokenpose").anneal
        == ()
    )


def test_the_command_takes_a_protocol(tmp_path):
    words = [
        "train", "tokenpose_nano", "--people", "16", "--epochs", "1", "--image-size", "64x48",
        "--overrides", json.dumps(TINY), "--device", "cpu", "--no-report", "--no-samples",
    ]
    done = CliRunner().invoke(
        main, [*words, "--protocol", "mmpose", "--batch-size", "8", "--out", str(tmp_path / "run")]
    )
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (
        recipe["unbiased"] is False
        and recipe["batch_size"] == 8
        and recipe["overrides"]["attention_scale"] == "head"
    )
    judged = CliRunner().invoke(
        main, ["eval", str(tmp_path / "run"), "--people", "8", "--no-flip-shift", "--device", "cpu"]
    )
    assert judged.exit_code == 0, judged.output
    known = json.loads((tmp_path / "run" / "results.json").read_text())["conditions"]
    assert (known["flip_shift"], known["unbiased"], known["boxes"]) == (False, False, "annotated")
    assert (
        "there are tokenpose and mmpose"
        in CliRunner()
        .invoke(main, [*words, "--protocol", "mmdet", "--out", str(tmp_path / "x")])
        .output
    )

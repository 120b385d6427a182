"""The table of networks: counts that are kept, counts of any network, backbones as rows."""
import dataclasses
import json

import pytest
import torch
from sampling import sample
from torch import Tensor, nn

from dppt_nb import models
from dppt_nb.backbones import BACKBONES, Backbone
from dppt_nb.checks import DataError
from dppt_nb.models import (
    count,
    create_model,
    format_models,
    known_count,
    list_models,
    listed_config,
    macs,
    model_config,
    parameters_count,
    settings,
    without_numbers,
)
from dppt_nb.released import load_backbone
from dppt_nb.store import synthetic_people
from dppt_nb.trainer import Trainer

LISTED = [name for name in list_models() if not name.startswith("dppt")]


@pytest.mark.parametrize("name", sample(LISTED, 0, 6, 8, 12, 15))
def test_the_kept_counts_are_what_is_counted(name):
    config = listed_config(name)
    kept = [row["counts"] for row in models.stored_counts() if row["settings"] == settings(config)]
    assert kept == [count(config)]


def test_a_row_with_other_settings_is_counted_afresh(monkeypatch):
    config = model_config("tokenpose_nano", image_size=(128, 96), depth=2)
    assert known_count(config) == count(config) != known_count(listed_config("tokenpose_nano"))
    monkeypatch.setattr(models, "stored_counts", lambda: [])
    assert known_count(config)["parameters"] == parameters_count(models.PoseTransformer(config))


def test_the_list_builds_no_network(monkeypatch):
    def refuse(*_): raise AssertionError("a network is built")
    monkeypatch.setattr(models, "PoseTransformer", refuse)
    lines = format_models().splitlines()
    assert len(lines) == 1 + len(list_models())
    large = next(line for line in lines if line.startswith("dppt_l_d6 "))
    assert "20,300,064" in large and " 9.61 " in large


def test_counts_survive_the_file(tmp_path, monkeypatch):
    kept = json.loads(models.COUNTS.read_text())
    monkeypatch.setattr(models, "list_models", lambda: ["tokenpose_nano", "sdpose_nano"])
    monkeypatch.setattr(models, "COUNTS", tmp_path / "counts.json")
    models.stored_counts.cache_clear()
    models.write_counts()
    written = json.loads((tmp_path / "counts.json").read_text())
    models.stored_counts.cache_clear()
    assert written["format"] == 1 and len(written["rows"]) == 2
    assert all(row in kept["rows"] for row in written["rows"])


def test_counting_sees_shapes_only():
    model = create_model("ppt_nano", image_size=(64, 48)).half().train()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    model.head.from_patches.requires_grad_(False)
    twin = without_numbers(model)
    assert all(p.is_meta for p in [*twin.parameters(), *twin.buffers()])
    assert [p.requires_grad for p in twin.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    whole, cycled = macs(model), macs(model, cycles=2)
    model.keep_ratio = 0.5
    assert macs(model).total < whole.total < cycled.total
    assert model.training and not calls and not model.tokens.code.is_meta
    assert whole == macs(create_model("ppt_nano", image_size=(64, 48)))


class Strides(nn.Module):
    "A backbone that the package does not know: two convolutions, one map at an eighth."
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()
        )

    def forward(self, images: Tensor) -> list[Tensor]: return [self.features(images)]


@pytest.fixture
def strides(monkeypatch):
    "The one row that brings it."
    row = Backbone(
        lambda config: Strides(), (24,), (8,), r"features\.", {"channels": "features.0.weight"}
    )
    monkeypatch.setitem(BACKBONES, "strides", row)
    return row


def test_a_backbone_is_one_row(strides, capsys):
    "Built, trained a step, filled with weights of its own release, and sized by its cell."
    model = create_model("tokenpose_s_v1", backbone="strides", width=32, heads=2, depth=2)
    assert model.config.stride == 8 and model.config.patch_size == (2, 1)
    assert model.backbone.channels == (24,)
    assert model(torch.zeros(1, 3, 256, 192)).shape == (1, 17, 64, 48)
    weights = {f"module.{k}": v for k, v in Strides().state_dict().items()} | {
        "module.classifier.weight": torch.zeros(10, 24)
    }
    load_backbone(model, weights)
    assert torch.equal(model.backbone.features[2].weight, weights["module.features.2.weight"])
    assert "4 tensors loaded" in capsys.readouterr().out
    with pytest.raises(DataError, match="with 8 channels instead of 16"):
        load_backbone(model, weights | {"module.features.0.weight": torch.zeros(8, 3, 5, 5)})
    with pytest.raises(ValueError, match="'strides' does not have"):
        create_model("tokenpose_s_v1", backbone="strides", head="dot")
    with pytest.raises(ValueError, match="it must be one of .*strides"):
        create_model("tokenpose_s_v1", backbone="stride")


def test_a_backbone_of_a_row_is_trained(strides):
    from dppt_nb.recipes import get_recipe
    recipe = get_recipe(
        "tokenpose_nano", model="tokenpose_s_v1", image_size=(64, 48), batch_size=8, epochs=1,
        overrides=dict(backbone="strides", width=32, heads=2, depth=2, patch_size=(2, 2)),
    )
    people = synthetic_people("train", recipe.image_size, 8)
    trainer = Trainer(recipe, people, device="cpu", bars=False)
    before = trainer.model.backbone.features[0].weight.clone()
    trainer.fit()
    assert not torch.equal(trainer.model.backbone.features[0].weight, before)


def test_every_row_says_what_its_backbone_makes():
    images = torch.zeros(1, 3, 64, 64)
    for name, row in BACKBONES.items():
        maps = row.make(model_config("tokenpose_s_v1", backbone=name, image_size=(64, 64)))(images)
        assert [len(found[0]) for found in maps] == list(row.channels), name
        assert [64 // found.shape[2] for found in maps] == list(row.strides), name


def test_a_configuration_says_what_the_network_is():
    config = model_config("sdpose_b", 16, (256, 256), cycles=1)
    with torch.device("meta"): network = create_model("sdpose_b", 16, (256, 256), cycles=1)
    assert network.config == config
    assert settings(config)["hrnet_bottleneck"] == 32 and "cycles" not in settings(config)
    assert settings(dataclasses.replace(config, name="other")) == settings(config)


@pytest.mark.parametrize("name", [None, 5, ["tokenpose_nano"], b"tokenpose_nano"])
def test_a_name_that_is_no_text(name):
    with pytest.raises(ValueError, match="a model is named by a text"): create_model(name)


def test_no_image_is_refused():
    model = create_model("tokenpose_nano", image_size=(64, 48)).eval()
    with pytest.raises(ValueError, match="was given no image"): model(torch.zeros(0, 3, 64, 48))

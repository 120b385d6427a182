"""Networks and losses inside somebody else's research code: in double precision, on the meta
device, with parts exchanged, under other defaults of PyTorch."""
import pytest
import torch
from torch.autograd import gradcheck

from dppt_nb.cycles import heatmap_cycle_loss, token_loss
from dppt_nb.distillation import attention_loss, feature_loss
from dppt_nb.heatmaps import (
    divergence,
    heatmap_cross_entropy_loss,
    heatmap_mse_loss,
    normalize_heatmaps,
)
from dppt_nb.models import create_model
from dppt_nb.rle import ResidualFlow, rle_loss

SIZE = (64, 48)
WEIGHTS = torch.tensor([[1.0, 0, 1], [1, 1, 0]]).double()


def doubles(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).double()


MAPS, TARGETS, JOINTS = doubles(2, 3, 4, 4), doubles(2, 3, 4, 4, seed=1), doubles(2, 3, 2)
SHARES, WANTED = doubles(2, 2, 3, 7), doubles(2, 2, 3, 7, seed=1).softmax(-1)
RAW = torch.linspace(-1, 1, 24).double().view(2, 3, 4)
FLOW = ResidualFlow(2, 4).double()
LOSSES = {
    "squared": lambda x: heatmap_mse_loss(x, TARGETS, WEIGHTS),
    "entropy": lambda x: heatmap_cross_entropy_loss(x, normalize_heatmaps(TARGETS), WEIGHTS),
    "divergence": lambda x: divergence(x.flatten(2), TARGETS.flatten(2), 2.0).sum(),
    "teacher": lambda x: divergence(TARGETS.flatten(2), x.flatten(2), 2.0).sum(),
    "features": lambda x: feature_loss(x.flatten(2), TARGETS.flatten(2)),
    "tokens": lambda x: token_loss(x.flatten(2), TARGETS.flatten(2)),
    "cycles": lambda x: heatmap_cycle_loss(x, TARGETS, WEIGHTS, "cross_entropy"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_in_double_precision_have_the_slope_that_they_say(name):
    assert LOSSES[name](MAPS).dtype == torch.float64
    assert gradcheck(LOSSES[name], MAPS.clone().requires_grad_())


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_attention_in_double_precision_has_the_slope_that_it_says(kind):
    loss = lambda x: attention_loss(x.softmax(-1), WANTED, kind)
    assert gradcheck(loss, SHARES.clone().requires_grad_())


def test_a_flow_in_double_precision_has_the_slope_that_it_says():
    loss = lambda raw: rle_loss(raw, JOINTS, WEIGHTS, FLOW)
    assert gradcheck(loss, RAW.clone().requires_grad_())


@pytest.mark.parametrize("changes", [
    dict(), dict(head="regression"), dict(prune_at=(1,)), dict(prune_at=(1,), reduce="merge"),
])
def test_a_network_in_double_precision_computes_in_it(changes):
    "Heatmaps move with the picture as their gradient says: in float32 steps they would not."
    torch.manual_seed(0)
    overrides = dict(depth=2, patch_size=(1, 1), init="residual", width=32, heads=2)
    model = create_model("tokenpose_s_v1", 3, SIZE, **{**overrides, **changes}).double().eval()
    images, way = torch.randn(2, 1, 3, *SIZE, dtype=torch.float64).unbind()
    images.requires_grad_()
    answer = lambda x: (model.trace(x, 1).heatmaps[0] * 100).square().sum()
    slope, = torch.autograd.grad(answer(images), images)
    with torch.no_grad(): moved = answer(images + 1e-6 * way) - answer(images - 1e-6 * way)
    torch.testing.assert_close(moved / 2e-6, (slope * way).sum(), rtol=1e-5, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model.trace(images, 1).heatmaps[0], rtol=1e-9,
                                   atol=1e-12)

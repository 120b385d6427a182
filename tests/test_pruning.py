"""Pruning: what stays, by whose choice, and when."""
import copy
import math

import numpy as np
import pytest
import torch

from dppt_nb.pruning import RandomScores, draw_kept, first_scores, keep_ratio_at, keep_top, patch_scores, patches_left
from dppt_nb.tokenpose import create_model


def test_schedule_of_the_release():
    ratios = [keep_ratio_at(epoch) for epoch in np.linspace(0, 300, 3001)]
    assert all(r == 1 for r in ratios[:101]) and all(math.isclose(r, 0.7) for r in ratios[1000:])
    assert (np.diff(ratios) <= 0).all() and (np.diff(ratios[101:1000]) < 0).all()
    for epoch in (10, 33, 55, 99.5):                                     # EViT's formula, written out
        assert math.isclose(keep_ratio_at(epoch), 0.7 + 0.3 * (math.cos((epoch - 10) / 90 * math.pi) + 1) * 0.5)
    assert keep_ratio_at(4, final=0.5, start=2, end=6) == 0.75


@pytest.mark.parametrize("start, end", [(5, 5), (10, 3), (-1, 5)])
def test_wrong_schedules_are_refused(start, end):
    with pytest.raises(ValueError, match="start must come before end"): keep_ratio_at(1, start=start, end=end)


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.7, 0.5, 0.3, 0.01])
def test_patches_left_are_those_of_the_network(ratio):
    model = create_model("ppt_s", 5, (128, 96), keep_ratio=ratio).eval()
    with torch.no_grad(): kept = model.trace(torch.randn(1, 3, 128, 96)).kept[0]
    assert [48, *(kept[layer].shape[1] for layer in (3, 6, 9))] == patches_left(48, ratio)


def test_patches_left_of_the_release():
    assert patches_left(256, 0.7) == [256, 180, 126, 89]


def opponents():
    return {"by lot": RandomScores(5), "first": first_scores, "attention": patch_scores}


@pytest.mark.parametrize("name", opponents())
def test_any_score_can_choose(name):
    model = create_model("ppt_nano", 5, (128, 96)).eval()
    images = torch.randn(3, 3, 128, 96)
    model.encoder.score = opponents()[name]
    with torch.no_grad(): trace = model.trace(images)
    kept = trace.kept[0][-1]
    assert kept.shape == (3, 17) and (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < 48
    model.encoder.score = opponents()[name]
    with torch.no_grad(): answer = model(images)
    assert torch.allclose(answer, trace.heatmaps[0], atol=1e-4 * answer.abs().max().item())
    if name == "first": assert torch.equal(kept, torch.arange(17).expand(3, -1))
    if name == "by lot": assert len({tuple(row) for row in kept.tolist()}) == 3


def test_lots_are_seeded_and_fair():
    shares = torch.rand(500, 2, 3, 10)
    lots = keep_top(RandomScores(1)(shares), 4)
    assert torch.equal(lots, keep_top(RandomScores(1)(shares), 4))
    assert not torch.equal(lots, keep_top(RandomScores(2)(shares), 4))
    often = torch.bincount(lots.flatten(), minlength=10) / 500
    assert (often - 0.4).abs().max() < 5 * math.sqrt(0.4 * 0.6 / 500)
    copy.deepcopy(RandomScores(1))


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
    with pytest.raises(ValueError, match="32 x 24 pixels does not divide into 5 x 3 patches"): draw_kept(image, torch.tensor([0]), (5, 3))


def test_a_pruning_network_compiles_and_exports():
    "Token counts are fixed by the keep ratio, so the graph is one piece."
    model, images = create_model("ppt_nano", 5, (128, 96)).eval(), torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        answer = model(images)
        assert torch.allclose(torch.export.export(model, (images,)).module()(images), answer, atol=1e-5)
        assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(images), answer, atol=1e-5)

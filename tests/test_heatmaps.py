"""Heatmaps against the released DarkPose values, and maps that ought not to occur but do."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dppt_nb.cycles import heatmap_cycle_loss
from dppt_nb.distillation import output_loss
from dppt_nb.heatmaps import (
    average_flip,
    decode_argmax,
    decode_dark,
    decode_quarter,
    encode_heatmaps,
    find_peaks,
    flip_back,
    heatmap_coordinates,
    heatmap_cross_entropy_loss,
    heatmap_mse_loss,
    masked_mean,
    normalize_heatmaps,
    photo_joints,
    rescale_joints,
)
from dppt_nb.keypoints import COCO17


def load(shared, name):
    return {
        k: torch.from_numpy(v) for k, v in np.load(shared / "reference" / f"{name}.npz").items()
    }


def test_targets_agree_with_the_release(shared):
    r = load(shared, "targets_sigma2")
    targets, weights = encode_heatmaps(r["joints_heatmap"], r["visible"], (64, 48), sigma=2.0)
    assert targets.dtype == weights.dtype == torch.float32
    assert torch.equal(weights, r["weights"][..., 0].float())
    torch.testing.assert_close(targets, r["targets"], atol=2e-6, rtol=0)


def test_dark_agrees_with_the_release(shared):
    r = load(shared, "decode_dark")
    keypoints, scores = decode_dark(r["heatmaps"], r["center"], r["scale"], kernel=11)
    assert (keypoints - r["keypoints"]).abs().max() < 1e-3  # asked for: 0.05 px; float32 gives 1e-4
    torch.testing.assert_close(scores, r["scores"][..., 0])
    plain, _ = decode_argmax(r["heatmaps"], r["center"], r["scale"])
    assert (plain - r["keypoints"]).abs().max() > 1             # the test can fail


@pytest.mark.parametrize(
    "center, scale, words",
    [
        (torch.zeros(3, 2), torch.ones(3), r"scale has shape \(3,\); 3 people need \(3, 2\)"),
        (torch.zeros(2), torch.ones(3, 2), r"center has shape \(2,\)"),
        (np.zeros((3, 2)), np.ones((2, 2)), r"scale has shape \(2, 2\)"),
        (torch.zeros(3, 2), 1.0, r"scale has shape \(\)"),
    ],
)
def test_windows_that_do_not_fit_are_one_sentence(center, scale, words):
    for decode in (decode_argmax, decode_quarter, decode_dark):
        with pytest.raises(ValueError, match=words): decode(torch.rand(3, 5, 16, 12), center, scale)


def test_one_window_serves_a_batch():
    heatmaps = torch.rand(3, 5, 16, 12)
    center, scale = torch.tensor([[90., 70.]]), torch.tensor([[.6, .8]])
    assert torch.equal(
        decode_dark(heatmaps, center, scale)[0],
        decode_dark(heatmaps, center.expand(3, 2), scale.expand(3, 2))[0],
    )
    assert decode_dark(heatmaps[:0], center[:0], scale[:0])[0].shape == (0, 5, 2)


def test_maps_of_other_keypoints_are_not_mirrored_back():
    for keypoints in (COCO17, COCO17.flip_pairs):
        with pytest.raises(ValueError, match="^5 maps have no keypoint 6 to mirror$"):
            flip_back(torch.zeros(1, 5, 4, 4), keypoints)


def test_flip_back_agrees_with_the_release(shared):
    r = load(shared, "flip_back")
    assert torch.equal(flip_back(r["heatmaps_flipped_input"], COCO17), r["heatmaps_flipped_back"])
    assert torch.equal(
        flip_back(r["heatmaps_flipped_input"], COCO17.flip_pairs), r["heatmaps_flipped_back"]
    )


def slow_dark(heatmap, kernel=11):
    """The release, for one map, step by step: blur of the whole map, old height, logarithm, Taylor
    step."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    g = np.exp(-(np.arange(kernel) - kernel // 2) ** 2 / (2 * sigma ** 2))
    g /= g.sum()
    h, w = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    blurred = np.apply_along_axis(np.convolve, 0, heatmap, g, "same")
    blurred = np.apply_along_axis(np.convolve, 1, blurred, g, "same")
    log = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10))
    if not (1 < x < w - 2 and 1 < y < h - 2): return np.array([x, y], float)
    dx, dy = 0.5 * (log[y, x + 1] - log[y, x - 1]), 0.5 * (log[y + 1, x] - log[y - 1, x])
    dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
    dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
    dxy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
    step = -np.linalg.inv([[dxx, dxy], [dxy, dyy]]) @ [dx, dy]
    return np.array([x, y]) + step


@pytest.mark.parametrize("kernel,sigma", [(11, 2.0), (17, 3.0), (5, 1.0)])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_dark_around_the_peak_equals_dark_over_the_map(kernel, sigma, noise):
    generator = torch.Generator().manual_seed(1)
    joints = torch.rand(12, 5, 2, generator=generator) * torch.tensor([47.0, 63.0])
    maps, _ = encode_heatmaps(joints, torch.ones(12, 5), (64, 48), sigma)
    maps = maps + noise * torch.randn(maps.shape, generator=generator)
    fast, _ = heatmap_coordinates(maps, "dark", kernel)
    slow = np.stack([[slow_dark(m.double().numpy(), kernel) for m in person] for person in maps])
    np.testing.assert_allclose(fast.numpy(), slow, atol=2e-3)


def test_dark_finds_clean_peaks_exactly():
    generator = torch.Generator().manual_seed(0)
    joints = 8 + torch.rand(50, 17, 2, generator=generator) * torch.tensor([31.0, 47.0])
    maps, _ = encode_heatmaps(joints, torch.ones(50, 17))
    error = {
        m: (heatmap_coordinates(maps, m)[0] - joints).norm(dim=-1).mean().item()
        for m in ("argmax", "quarter", "dark")
    }
    assert error["dark"] < 0.02 < error["quarter"] < error["argmax"] < 0.45
    for scale in (1e-4, 30.0):      # the height of the bump does not matter
        torch.testing.assert_close(
            heatmap_coordinates(maps * scale, "dark")[0], heatmap_coordinates(maps, "dark")[0],
            atol=1e-2, rtol=0,
        )


@pytest.mark.parametrize("method", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_odd_maps_give_finite_answers(method, dtype):
    corner, border, ridge, tiny = (torch.zeros(64, 48) for _ in range(4))
    corner[0, 0], border[63, 20], ridge[30], tiny[10, 10] = 1, 1, 1, 6e-8
    odd = torch.stack(
        [
            torch.zeros(64, 48), torch.full((64, 48), 0.5), torch.full((64, 48), -1.0), corner,
            corner.flip(0, 1), border, ridge, ridge * -1 + 2, tiny,
            torch.randn(64, 48, generator=torch.Generator().manual_seed(0)),
        ]
    )[None]
    joints, scores = heatmap_coordinates(odd.to(dtype), method)
    assert (
        joints.dtype == scores.dtype == torch.float32
        and torch.isfinite(joints).all()
        and torch.isfinite(scores).all()
    )
    wanted = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [47.0, 63.0], [0.0, 30.0]])
    assert torch.equal(joints[0, [0, 1, 2, 4, 6]], wanted)
    assert (joints >= -5).all() and (joints[..., 0] <= 52).all() and (joints[..., 1] <= 68).all()


def test_bfloat16_maps_decode_like_their_values():
    "bfloat16 keeps three digits: the answer is that of the rounded map, computed in float32."
    joints = torch.tensor([[[20.3, 31.7], [11.9, 40.2]]])
    maps, _ = encode_heatmaps(joints, torch.ones(1, 2))
    half = maps.bfloat16()
    torch.testing.assert_close(heatmap_coordinates(half)[0], heatmap_coordinates(half.float())[0])
    assert (heatmap_coordinates(half)[0] - joints).abs().max() < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(heatmap_coordinates(maps)[0], heatmap_coordinates(maps)[0].float())
        assert (heatmap_coordinates(maps)[0] - joints).abs().max() < 0.02


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 5), (1, 7), (96, 72)])
def test_any_map_size(size):
    for method in ("argmax", "quarter", "dark"):
        joints, scores = heatmap_coordinates(
            torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)), method
        )
        assert joints.shape == (2, 3, 2) and torch.isfinite(joints).all()


def test_empty_batch():
    for method in ("argmax", "quarter", "dark"):
        assert heatmap_coordinates(torch.zeros(0, 17, 64, 48), method)[0].shape == (0, 17, 2)
    assert encode_heatmaps(torch.zeros(0, 17, 2), torch.zeros(0, 17))[0].shape == (0, 17, 64, 48)


def test_targets_of_missing_joints():
    joints = torch.tensor(
        [
            [
                [10.0, 10.0], [float("nan"), 3.0], [float("inf"), 3.0], [-7.9, 3.0], [-8.1, 3.0],
                [10.0, 70.5],
            ]
        ]
    )
    visible = torch.tensor([[1, 0, 1, 1, 1, 1]], dtype=torch.uint8)
    targets, weights = encode_heatmaps(joints, visible)
    assert torch.isfinite(targets).all() and weights.tolist() == [[1, 0, 0, 1, 0, 0]]
    assert targets[0, [1, 2, 4, 5]].abs().max() == 0 and targets[0, 0, 10, 10] == 1


def test_distributions_and_their_loss():
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand(4, 17, 2, generator=generator) * 47
    targets, weights = encode_heatmaps(joints, torch.rand(4, 17, generator=generator) > 0.3)
    distribution = normalize_heatmaps(targets)
    torch.testing.assert_close(distribution.sum((2, 3)), weights)
    best = heatmap_cross_entropy_loss(targets.clamp(min=1e-30).log(), distribution, weights)
    entropy = (
        -(distribution * distribution.clamp(min=1e-30).log()).sum((2, 3)).sum() / weights.sum()
    )
    torch.testing.assert_close(best, entropy, rtol=1e-4, atol=1e-4)
    logits = torch.zeros(4, 17, 64, 48, requires_grad=True)
    flat = heatmap_cross_entropy_loss(logits, distribution, weights)
    torch.testing.assert_close(flat, torch.tensor(64 * 48.0).log())
    flat.backward()
    assert (
        torch.isfinite(logits.grad).all()
        and (logits.grad.abs().sum((2, 3)) > 0).eq(weights > 0).all()
    )
    assert heatmap_cross_entropy_loss(logits, distribution, weights * 0) == 0


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
@pytest.mark.parametrize("name, loss", {
    "squared": heatmap_mse_loss,
    "entropy": lambda maps, wanted, weights: heatmap_cross_entropy_loss(
        maps, normalize_heatmaps(wanted), weights
    ),
    "cycles": lambda *given: heatmap_cycle_loss(*given, "cross_entropy"),
    "squared cycles": heatmap_cycle_loss,
    "teacher": lambda *given: told_by_teacher(*given, ("dot", "dot")),
    "teacher, squared": lambda *given: told_by_teacher(*given, ("mlp", "mlp")),
    "teacher, mixed": lambda *given: told_by_teacher(*given, ("dot", "mlp")),
    "mean": lambda maps, wanted, weights: masked_mean((maps - wanted).mean((2, 3)), weights),
}.items())
def test_targets_of_joints_without_weight_may_be_unknown(name, loss, unknown):
    "The loss and its gradient are those of any other target there, to the bit."
    draw = lambda seed: torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(seed))
    maps, wanted, weights = draw(0), draw(1), torch.tensor([[1.0, 0, 1], [0.5, 1, 0]])
    found = []
    for there in (0.3, unknown):
        ours = maps.clone().requires_grad_()
        value = loss(ours, wanted.where(weights[..., None, None] > 0, there), weights)
        found.append((value, *torch.autograd.grad(value, ours)))
    for known, other in zip(*found):
        assert torch.isfinite(known).all() and torch.equal(known, other)


def told_by_teacher(maps, wanted, weights, heads):
    ours, theirs = (SimpleNamespace(heatmaps=[m], logits=[m]) for m in (maps, wanted))
    return output_loss(ours, theirs, weights, heads)


def test_decoding_inverts_encoding_through_the_photograph():
    from dppt_nb.crops import apply_affine, batched_affine
    center, scale = (
        torch.tensor([[120.0, 90.0], [300.0, 250.0]]),
        torch.tensor([[0.9, 1.2], [1.5, 2.0]]),
    )
    generator = torch.Generator().manual_seed(0)
    photo = center[:, None] + (torch.rand(2, 17, 2, generator=generator) - 0.5) * 120
    in_input = apply_affine(photo, batched_affine(center, scale, 0.0, (256, 192)))
    maps, _ = encode_heatmaps(rescale_joints(in_input, (256, 192), (64, 48)), torch.ones(2, 17))
    keypoints, scores = decode_dark(maps, center.numpy(), scale.numpy())
    assert (keypoints - photo).abs().max() < 0.1 and scores.min() > 0.9
    assert (decode_quarter(maps, center, scale)[0] - photo).abs().max() > 0.5


def test_mirrored_test_of_a_mirror_symmetric_model():
    """A model that sees only brightness answers a mirrored picture with mirrored maps; the mean
    changes nothing."""
    images = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(0))
    model = lambda x: x.mean(1, keepdim=True).expand(-1, 17, -1, -1)
    torch.testing.assert_close(average_flip(model, images, COCO17), model(images))
    shifted = average_flip(model, images, COCO17, shift=True)
    expected = (model(images)[..., 1:] + model(images)[..., :-1]) / 2
    torch.testing.assert_close(shifted[..., 1:], expected)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'argmax', 'quarter' or 'dark'"):
        heatmap_coordinates(torch.zeros(1, 1, 4, 4), "darkpose")


@pytest.mark.parametrize("call, words", [
    (lambda h, b: decode_argmax(h[0], *b), "heatmaps are .people, joints, H, W., not .3, 16, 12."),
    (lambda h, b: decode_dark(h[0], *b), "not .3, 16, 12."),
    (lambda h, b: decode_quarter(h[..., :0, :], *b), "not .2, 3, 0, 12."),
    (lambda h, b: decode_dark(h, *b, kernel=4), "must be odd and a number of pixels, not 4"),
    (lambda h, b: decode_dark(h, *b, kernel=-3), "not -3"),
    (lambda h, b: decode_dark(h, *b, kernel=5.0), "not 5.0"),
    (lambda h, b: encode_heatmaps(torch.zeros(1, 1, 2), torch.ones(1, 1), sigma=0), "above 0"),
])
def test_heatmaps_that_are_none_are_refused(call, words):
    boxes = torch.full((2, 2), 50.), torch.full((2, 2), .4)
    with pytest.raises(ValueError, match=words): call(torch.rand(2, 3, 16, 12), boxes)


@pytest.mark.parametrize("way", ["argmax", "quarter", "dark"])
def test_a_map_of_nan_answers_nothing(way):
    "The corner would be an answer, and near a joint that lies there it would be a right one."
    maps = torch.rand(1, 3, 16, 12)
    maps[0, 1, 4, 5] = torch.nan
    joints, scores = heatmap_coordinates(maps, way)
    assert joints.isnan().all(-1)[0].tolist() == [False, True, False]
    assert scores.isnan()[0].tolist() == [False, True, False]


def test_peaks_are_whole_numbers_and_find_their_place_in_the_photo():
    maps = torch.rand(2, 17, 64, 48)
    center, scale = torch.tensor([[100.5, 80.25], [31.0, 47.5]]), torch.tensor([[0.9, 1.2]] * 2)
    peaks = torch.stack(find_peaks(maps)[:2], -1)
    wanted, _ = decode_argmax(maps, center, scale)
    assert torch.equal(photo_joints(peaks, center, scale, (64, 48)), wanted)
    for unbiased in (True, False):
        assert torch.equal(
            rescale_joints(peaks, (64, 48), (256, 192), unbiased),
            rescale_joints(peaks.float(), (64, 48), (256, 192), unbiased),
        )


def test_maps_in_an_array_that_runs_backwards():
    maps, pairs = np.random.default_rng(0).random((2, 17, 16, 12)), COCO17.flip_pairs
    same = maps[..., ::-1].copy()
    assert torch.equal(flip_back(maps[..., ::-1], pairs), flip_back(same, pairs))
    for method in ("argmax", "quarter", "dark"):
        assert all(map(
            torch.equal, heatmap_coordinates(maps[..., ::-1], method),
            heatmap_coordinates(same, method),
        ))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_map_of_zeros_stays_as_it_is_in_every_format(kind):
    "Float16 has no number as small as the least by which a map is divided."
    maps = torch.zeros(1, 2, 4, 3, dtype=kind)
    maps[0, 1, 2] = 0.5
    sums = normalize_heatmaps(maps).sum((-2, -1)).double()
    torch.testing.assert_close(sums, torch.tensor([[0.0, 1.0]]).double(), rtol=0, atol=0.005)


def test_a_place_without_an_answer_hides_no_picture():
    from dppt_nb.heat import draw_heatmaps
    image, maps = np.full((16, 12, 3), 200, np.uint8), torch.rand(2, 4, 3)
    maps[1, 2, 2] = 0.0
    wanted = draw_heatmaps(image, maps)
    maps[1, 2, 2] = math.nan
    np.testing.assert_array_equal(draw_heatmaps(image, maps), wanted)

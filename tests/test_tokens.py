"""Tokens: patches, position code and backbones, on more shapes than the notebook shows."""
import json
import math

import pytest
import torch
import torch.utils.checkpoint

from dppt_nb.backbones import Pixels, Pyramid, conv_norm
from dppt_nb.hrnet import HRNet
from dppt_nb.tokens import (
    Bottleneck,
    PoseTokens,
    Stem,
    extent,
    join_patches,
    pixels_seen,
    sine_position_code,
    split_patches,
)


@pytest.mark.parametrize(
    "shape, patch",
    [
        ((1, 3, 8, 6), (4, 3)), ((5, 7, 16, 16), (2, 2)), ((2, 1, 12, 18), (6, 9)),
        ((3, 4, 5, 5), (1, 1)),
    ],
)
def test_patches_are_cut_and_joined(shape, patch):
    x = torch.randn(shape)
    patches = split_patches(x, patch)
    grid = shape[2] // patch[0], shape[3] // patch[1]
    assert patches.shape == (shape[0], math.prod(grid), math.prod(patch) * shape[1])
    corner = x[:, :, -patch[0]:, -patch[1]:]
    assert torch.equal(patches[:, -1], corner.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(join_patches(patches, grid, patch), x)


def test_patches_do_not_depend_on_memory_layout():
    x = torch.randn(2, 6, 8, 6)
    assert torch.equal(
        split_patches(x.contiguous(memory_format=torch.channels_last), (2, 3)),
        split_patches(x, (2, 3)),
    )


@pytest.mark.parametrize("grid, width", [((16, 16), 192), ((8, 6), 128), ((3, 5), 8), ((1, 1), 4)])
def test_position_code_follows_its_formula(grid, width):
    code = sine_position_code(grid, width).view(*grid, width)
    half = width // 2
    for row in range(grid[0]):
        for column in range(grid[1]):
            for channel in range(width):
                place, size = (row, grid[0]) if channel < half else (column, grid[1])
                k = channel % half
                angle = (place + 1) / (size + 1e-6) * 2 * math.pi / 10000 ** (2 * (k // 2) / half)
                wanted = math.sin(angle) if k % 2 == 0 else math.cos(angle)
                assert abs(code[row, column, channel].item() - wanted) < 1e-5


def test_position_code_refuses_odd_widths():
    with pytest.raises(ValueError, match="multiple of 4, not 6"): sine_position_code((2, 2), 6)


@pytest.mark.parametrize(
    "backbone", [Pixels(), Stem(16, 2), HRNet(32), HRNet(32, bottleneck=32), Pyramid()]
)
def test_backbones_keep_their_promises(backbone):
    maps = backbone.eval()(torch.randn(2, 3, 64, 96))
    assert [x.shape[1] for x in maps] == list(backbone.channels)
    assert [(64 // x.shape[2], 96 // x.shape[3]) for x in maps] == [
        (s, s) for s in backbone.strides
    ]


def with_statistics(backbone):
    "As if it had been trained: norms that do something."
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return backbone


@pytest.mark.parametrize("backbone", [Stem(16, 2), HRNet(32), HRNet(32, bottleneck=32), Pyramid()])
@pytest.mark.parametrize("batch", [1, 3])
def test_shortcuts_of_inference_change_nothing(backbone, batch):
    "In double precision, where norms that went into convolutions can only differ by rounding."
    backbone, images = (
        with_statistics(backbone).double().eval(),
        torch.randn(batch, 3, 64, 48, dtype=torch.float64),
    )
    before = images.clone()
    wanted = backbone(images)  # with gradients: step by step
    for guard in (torch.no_grad, torch.inference_mode):
        with guard(): maps = backbone(images)
        for one, other in zip(maps, wanted):
            assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    assert torch.equal(images, before) and wanted[-1].requires_grad and not maps[-1].requires_grad


def test_training_takes_no_shortcut():
    "Batch statistics are taken and remembered, also where no gradient is wanted."
    one, other, images = (
        with_statistics(Stem(8, 2)).train(), with_statistics(Stem(8, 2)).train(),
        torch.randn(2, 3, 32, 32),
    )
    other.load_state_dict(one.state_dict())
    with torch.no_grad(): without = other(images)[0]
    assert torch.equal(one(images)[0], without)
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values())
    )
    assert one.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("channels", [8, 3])
def test_gradients_of_a_block(channels, mode):
    "The sum is written into a map in place; first and second derivatives must not notice."
    block = with_statistics(Bottleneck(channels, 2)).double().train(mode)
    x = torch.randn(2, channels, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x) and torch.autograd.gradgradcheck(block, x)
    again = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    assert torch.equal(
        torch.autograd.grad(again.sum(), x)[0], torch.autograd.grad(block(x).sum(), x)[0]
    )


@pytest.mark.parametrize("width, file", [(32, "tokenpose_b"), (48, "tokenpose_l_d24")])
def test_hrnet_has_the_released_parameters(shared, width, file):
    released = json.loads((shared / "reference" / f"{file}.keys.json").read_text())
    wanted = {
        name.removeprefix("pre_feature."): tuple(shape)
        for name, shape in released.items()
        if name.startswith("pre_feature.")
    }
    assert {name: tuple(value.shape) for name, value in HRNet(width).state_dict().items()} == wanted


def test_all_backbones_get_gradients():
    for backbone in (Stem(8, 2), HRNet(32), Pyramid()):
        backbone(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters()), (
            type(backbone).__name__
        )


def test_only_patch_tokens_get_the_code():
    tokens = PoseTokens(5, (4, 3), (2, 2), 16, num_keypoints=7)
    sequence = tokens(torch.zeros(3, 5, 8, 6))
    assert sequence.shape == (3, 7 + 12, 16)
    assert torch.equal(sequence[:, :7], tokens.keypoint_tokens.expand(3, -1, -1))
    assert torch.allclose(
        sequence[0, 7:], sine_position_code((4, 3), 16) + tokens.embed.bias, atol=1e-6
    )
    assert "code" not in tokens.state_dict()


def test_a_look_at_what_a_patch_sees_leaves_no_gradients():
    stem = Stem(16, 1).eval()
    assert extent(pixels_seen(stem, torch.randn(1, 3, 64, 48), (2, 1), 3, 5)) == (19, 15)
    assert all(parameter.grad is None for parameter in stem.parameters())


@pytest.mark.parametrize("how", [dict(dilation=2), dict(groups=2), dict(stride=2, padding=1)])
def test_a_folded_norm_keeps_what_its_convolution_does(how):
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(4, 6, 3, bias=False, **how), torch.nn.BatchNorm2d(6)
    norm(torch.randn(8, 6, 5, 5))    # statistics of its own
    x = torch.randn(2, 4, 9, 9)
    with torch.no_grad(): answer = conv_norm(conv, norm.eval(), x)
    torch.testing.assert_close(answer, norm(conv(x)))

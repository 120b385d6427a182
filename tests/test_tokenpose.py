"""PoseTransformer: the released networks number for number, and every row of the table put to work.
"""
import copy
import json
import math
import zlib

import numpy as np
import pytest
import torch
from sampling import sample, sampled_models
from weights import same_weights

from dppt_nb.heads import HEADS
from dppt_nb.heatmaps import decode_dark, encode_heatmaps
from dppt_nb.models import VARIANTS, create_model, list_models, macs, parameters_count
from dppt_nb.pruning import keep_top, patch_scores, take_patches
from dppt_nb.released import load_released
from dppt_nb.tokenpose import Attention

COUNTS = {
    "tokenpose_s_v1": (6_620_736, 2.726), "tokenpose_b": (13_465_216, 6.276),
    "tokenpose_l_d24": (27_482_400, 12.193), "ppt_s": (6_620_736, 2.186),
    "sdpose_t": (4_398_528, 3.544), "sdpose_s_v2": (6_227_520, 13.821),
}  # every cycle counted


def drawn_value(name, shape):
    "The weight that the reference values were computed with: drawn from the parameter's name."
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"): return 1 + 0.1 * np.abs(z)
    if name.endswith("running_mean"): return 0.1 * z
    if len(shape) == 1: return 1 + 0.1 * z if name.endswith("weight") else 0.02 * z
    return z / math.sqrt(math.prod(shape[1:]) if len(shape) == 4 else shape[-1])


def drawn_checkpoint(folder, name):
    keys = json.loads((folder / f"{name}.keys.json").read_text())
    fixed = ("pos_embedding", "num_batches_tracked")
    return {
        key: torch.from_numpy(drawn_value(key, shape))
        for key, shape in keys.items()
        if not key.endswith(fixed)
    }


@pytest.mark.parametrize("name", COUNTS)
def test_released_networks_number_for_number(shared, name):
    folder = shared / "reference"
    model = load_released(create_model(name), drawn_checkpoint(folder, name)).eval()
    images = torch.from_numpy(
        np.random.default_rng(7).standard_normal((2, 3, 256, 192)).astype(np.float32)
    )
    stored = np.load(folder / f"{name}.npz")
    wanted = [torch.from_numpy(stored[key]) for key in sorted(stored.files)]  # one for each cycle
    with torch.no_grad(): answer, traced = model(images), model.trace(images).heatmaps
    assert len(traced) == len(wanted) == model.config.cycles
    for one, other in zip(traced, wanted): assert (one - other).abs().max() < 1e-4
    assert (answer - wanted[0]).abs().max() < 1e-4
    assert (model(images) - wanted[0]).abs().max() < 1e-4       # with gradients


@pytest.mark.parametrize("name", sample(COUNTS, 0, 1, 3, 4))
def test_counts_equal_the_released_networks(name):
    with torch.device("meta"): model = create_model(name)
    parameters, billions = COUNTS[name]
    assert parameters_count(model) == parameters
    assert round(macs(model, model.config.cycles).total / 1e9, 3) == billions


# counted on the released code at MPII's and the large size
@pytest.mark.parametrize(
    "name, keypoints, size, parameters, linear, total",
    sample([
        ("tokenpose_t", 17, (256, 192), 5.82, 1.26, 1.60),
        ("tokenpose_s_v2", 17, (256, 192), 6.23, 4.65, 7.49),
        ("tokenpose_l_d6", 17, (256, 192), 20.82, 9.69, 9.87),
        ("tokenpose_s_v1", 16, (256, 256), 7.76, 2.78, 3.12),
        ("tokenpose_b", 16, (256, 256), 14.43, 7.51, 7.85),
        ("tokenpose_l_d6", 16, (256, 256), 21.44, 12.72, 12.89),
        ("tokenpose_l_d24", 17, (384, 288), 29.81, 23.15, 24.01),
        ("ppt_b", 17, (256, 192), 13.47, 5.54, 5.74),
        ("ppt_l_d6", 17, (256, 192), 20.30, 9.61, 9.76),
        ("ppt_s", 16, (256, 256), 7.76, 2.39, 2.58),
        ("ppt_b", 16, (256, 256), 14.43, 7.12, 7.31),
        ("ppt_l_d6", 16, (256, 256), 21.28, 12.65, 12.79),
    ], 0, 6, 10),
)
def test_counts_of_other_sizes(name, keypoints, size, parameters, linear, total):
    with torch.device("meta"): model = create_model(name, keypoints, size)
    count = macs(model)
    assert round(parameters_count(model) / 1e6, 2) == parameters
    assert (
        abs(count.conv_linear / 1e9 - linear) <= 0.0051 and abs(count.total / 1e9 - total) <= 0.0051
    )


@pytest.mark.parametrize(
    "ratio, linear, total",
    sample([  # counted on the released PPT-S
        (1.0, 2.38, 2.73), (0.9, 2.24, 2.51), (0.8, 2.11, 2.33), (0.7, 1.99, 2.19),
        (0.6, 1.90, 2.06), (0.5, 1.81, 1.96),
    ], 0, 3),
)
def test_counts_fall_with_the_keep_ratio(ratio, linear, total):
    with torch.device("meta"):
        model, annealed = create_model("ppt_s", keep_ratio=ratio), create_model("ppt_s")
    annealed.keep_ratio = ratio
    count = macs(model)
    assert (
        abs(count.conv_linear / 1e9 - linear) <= 0.0051 and abs(count.total / 1e9 - total) <= 0.0051
    )
    assert macs(annealed) == count


# counted on the released code, which runs all cycles
@pytest.mark.parametrize(
    "name, cycles, linear",
    sample([
        ("sdpose_s_v1", 1, 2.38), ("sdpose_s_v1", 2, 3.61), ("sdpose_t", 1, 1.78),
        ("sdpose_t", 3, 3.03), ("sdpose_s_v2", 1, 4.65), ("sdpose_s_v2", 2, 8.14),
        ("sdpose_b", 1, 5.13),
    ], 3, 5, 6),
)
def test_counts_of_cycles(name, cycles, linear):
    with torch.device("meta"): model = create_model(name)
    assert abs(macs(model, cycles).conv_linear / 1e9 - linear) <= 0.0051


def test_sdpose_b_has_the_narrow_first_stage():
    with torch.device("meta"): narrow, wide = create_model("sdpose_b"), create_model("tokenpose_b")
    assert [round(parameters_count(m) / 1e6, 2) for m in (narrow, wide)] == [13.15, 13.47]


def test_sdpose_reg_has_the_published_size():
    with torch.device("meta"): model = create_model("sdpose_reg")
    # SDPose, Table 3
    assert (
        round(parameters_count(model) / 1e6, 1) == 5.4
        and round(macs(model).conv_linear / 1e9, 1) == 2.4
    )


@pytest.mark.parametrize("name, keypoints, size", sample([
    *((name, 16, (256, 256)) for name in list_models() if not name.startswith("dppt")),    # MPII
    *((name, 17, (384, 288)) for name in ("tokenpose_b", "tokenpose_l_d6", "tokenpose_l_d24")),
], 0, 4, 9, 12))
def test_other_sizes_of_the_papers(name, keypoints, size):
    "Shapes alone: the meta device holds no numbers."
    with torch.device("meta"), torch.no_grad():
        model = create_model(name, keypoints, size).eval()
        assert model(torch.empty(2, 3, *size)).shape == (2, keypoints, size[0] // 4, size[1] // 4)
    wanted = {"tokenpose_s_v2": (32, 32), "sdpose_s_v2": (32, 32)}.get(
        name, (16, 16) if size == (256, 256) else (16, 18)
    )
    assert model.config.grid == wanted


@pytest.mark.parametrize(
    "name, keypoints, size", [("tokenpose_l_d24", 17, (384, 288)), ("ppt_s", 16, (256, 256))]
)
def test_large_pictures_and_mpii(name, keypoints, size):
    torch.manual_seed(0)
    model = create_model(name, keypoints, size, init="residual").eval()
    images = images_for(model, 1)
    with torch.no_grad(): answer, trace = model(images), model.trace(images, look=(3,))
    assert answer.shape == (1, keypoints, size[0] // 4, size[1] // 4) and answer.std() > 0
    assert (answer - trace.heatmaps[0]).abs().max() < 1e-4 * answer.abs().max()


SIZE, HEATMAP = (64, 48), (16, 12)    # small pictures: 4 x 3 patches, 8 x 6 where they are small


@pytest.fixture(scope="module", params=sampled_models())  # that DPPT's rows are PPT's: see below
def network(request):
    "Rows of the table, with start values that let attention differ from patch to patch."
    torch.manual_seed(0)
    return create_model(request.param, 5, SIZE, init="residual").eval()


def images_for(model, batch=2):
    return torch.randn(batch, 3, *model.image_size, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("batch", [1, 5])
def test_fast_path_equals_traced_path(network, batch):
    images = images_for(network, batch)
    with torch.no_grad(): answer, trace = network(images), network.trace(images)
    scale = answer.abs().max()
    assert answer.shape == (batch, 5, *HEATMAP) and answer.isfinite().all()
    assert (answer - trace.heatmaps[0]).abs().max() < 1e-4 * scale
    assert (network(images) - answer).abs().max() < 1e-4 * scale
    assert all(
        torch.equal(network.head.heatmaps(raw), drawn)
        for raw, drawn in zip(trace.logits, trace.heatmaps)
    )
    config, patches = network.config, math.prod(network.config.grid)
    assert len(trace.heatmaps) == config.cycles
    for cycle in range(config.cycles):
        for layer in range(config.depth):
            assert trace.attention[cycle][layer].shape == (
                batch, config.heads, 5 + patches, 5 + patches,
            )
            assert torch.allclose(trace.attention[cycle][layer].sum(-1), torch.ones(()), atol=1e-5)
            assert trace.columns[cycle][layer].shape == (batch, patches)
            if layer in config.prune_at and cycle == 0:
                patches = math.ceil(patches * config.keep_ratio)
            assert trace.keypoint_tokens[cycle][layer].shape == (batch, 5, config.width)
            assert trace.patch_tokens[cycle][layer].shape == (batch, patches, config.width)
            assert trace.kept[cycle][layer].shape == (batch, patches)


@pytest.mark.parametrize(
    "name, overrides",
    sample([
        ("ppt_s", {}), ("ppt_s", dict(head="dot")), ("sdpose_reg", {}),
        ("tokenpose_b", dict(head="dot")), ("tokenpose_t", {}), ("ppt_nano", {}),
    ], 0, 1),
)
def test_pieces_of_a_batch_give_the_same(name, overrides, monkeypatch):
    """A CPU takes a few images at a time through the backbone; with gradients, traced and one by
    one the answer is the same."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model, pieces = random_network(name, (256, 192), **overrides), []
    images = images_for(model, 3)
    start = model.start
    monkeypatch.setattr(model, "start", lambda some: pieces.append(len(some)) or start(some))
    with torch.no_grad():
        answer, traced = model(images), model.trace(images, 1, look=()).heatmaps[0]
    assert pieces == [2, 1, 3]
    with torch.inference_mode(): alone = torch.cat([model(image[None]) for image in images])
    for other in (traced, alone, model(images)):
        assert torch.allclose(answer, other, rtol=1e-3, atol=1e-4 * answer.abs().max().item())


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_look_sees_what_the_full_trace_sees(network, cycles):
    images, depth = images_for(network), network.config.depth
    layers = (0, depth // 2, depth - 1)
    with torch.no_grad():
        whole, glance, blind = (network.trace(images, cycles, look) for look in (None, layers, ()))
    for field in ("heatmaps", "logits"):
        for trace in (glance, blind):
            assert all(
                torch.allclose(one, other, atol=1e-4, rtol=1e-3)
                for one, other in zip(getattr(whole, field), getattr(trace, field))
            )
    for cycle in range(cycles):
        assert [rows is not None for rows in glance.attention[cycle]] == [
            layer in layers for layer in range(depth)
        ]
        assert blind.attention[cycle] == [None] * depth
        for layer in layers:
            assert torch.allclose(
                glance.attention[cycle][layer], whole.attention[cycle][layer][:, :, :5], atol=1e-5
            )
        for layer in range(depth):
            for field in ("columns", "kept", "owner"):
                there = [getattr(trace, field)[cycle][layer] for trace in (whole, glance, blind)]
                assert torch.equal(there[0], there[1]) and torch.equal(there[0], there[2])
            assert torch.allclose(
                glance.patch_tokens[cycle][layer], whole.patch_tokens[cycle][layer], atol=1e-4,
                rtol=1e-3,
            )


def test_a_trace_that_cannot_be_made_is_refused(network):
    for look in ((network.config.depth,), (0, -1)):
        with pytest.raises(ValueError, match="look names layer"):
            network.trace(images_for(network), look=look)
    with pytest.raises(ValueError, match="cycles is 0"):
        network.trace(images_for(network), cycles=0)
    with pytest.raises(ValueError, match="give trace=True"): network(images_for(network), look=(0,))


def test_forward_gives_a_trace_when_asked_and_runs_as_many_cycles_as_told(network):
    images = images_for(network)
    with torch.no_grad():
        asked = network(images, cycles=2, look=(0,), trace=True)
        trace = network.trace(images, 2, (0,))
        assert torch.equal(asked.heatmaps[1], trace.heatmaps[1])
        assert torch.equal(asked.attention[0][0], trace.attention[0][0])
        assert len(network(images, trace=True).heatmaps) == network.config.cycles
        twice = network(images, cycles=2)
        assert torch.allclose(twice, trace.heatmaps[1], atol=1e-4, rtol=1e-3)
        raw = network(images, logits=True, cycles=2)
        assert torch.allclose(raw, trace.logits[1], atol=1e-4, rtol=1e-3)


def test_one_person_does_not_depend_on_the_others(network):
    images = images_for(network, 5)
    with torch.no_grad():
        assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-4, rtol=1e-4)


def test_every_parameter_learns(network):
    model = copy.deepcopy(network).train()
    trace = model.trace(images_for(model), look=(1,))
    (
        sum(raw.square().mean() for raw in trace.logits) + trace.attention[0][1].square().sum()
    ).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert not [
        name
        for name, gradient in gradients.items()
        if gradient is None or not gradient.isfinite().all()
    ]
    first = next(model.backbone.parameters(), model.tokens.embed.weight)
    assert first.grad.any() and gradients["tokens.keypoint_tokens"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(network, dtype):
    images, half = images_for(network, 1), copy.deepcopy(network).to(dtype)
    with torch.no_grad():
        full, answer, traced = (
            network(images), half(images.to(dtype)).float(),
            half.trace(images.to(dtype)).heatmaps[0].float(),
        )
    assert (answer - full).abs().max() < 0.15 * full.abs().max() and (
        traced - full
    ).abs().max() < 0.15 * full.abs().max()


def test_autocast_keeps_attention_rows_whole(network):
    images = images_for(network)
    with torch.no_grad(): full = network(images)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        trace, answer = network.trace(images), network(images)
    assert trace.attention[0][0].dtype == torch.float32
    assert torch.allclose(trace.attention[0][0].sum(-1), torch.ones(()), atol=1e-5)
    assert (answer.float() - full).abs().max() < 0.15 * full.abs().max()


@pytest.mark.parametrize("shape", [(1, 1, *SIZE), (1, 3, 48, 64), (1, 3, 256, 192), (3, *SIZE)])
def test_wrong_images_are_refused(network, shape):
    for run in (network, network.trace):
        with pytest.raises(ValueError, match=r"takes images \(batch, 3, 64, 48\), not") as error:
            run(torch.zeros(shape))
        assert "\n" not in str(error.value)


# a row of each family; a few layers show what twelve would; test_pruning has one that prunes
@pytest.mark.parametrize(
    "name, overrides",
    sample([
        ("tokenpose_t", dict(depth=2)), ("tokenpose_l_d6", dict(depth=3)),
        ("tokenpose_nano", dict(depth=2)), ("ppt_s", dict(depth=2, prune_at=(0, 1))),
        ("ppt_nano", {}), ("sdpose_reg", dict(depth=2)),
    ], 5),
)
def test_compiled_and_exported_networks_give_the_same(name, overrides):
    """Without a break in the graph, pruning included: token counts are fixed by the keep ratio. The
    batch stays free."""
    model = random_network(name, SIZE, **overrides)
    images, dim = images_for(model), torch.export.Dim("batch", min=1, max=64)
    torch._dynamo.reset()
    with torch.no_grad():
        wanted = model(images)
        assert torch.allclose(
            torch.compile(model, backend="eager", fullgraph=True)(images), wanted, atol=1e-5
        )
        exported = torch.export.export(
            model, (images,), dynamic_shapes=({0: dim},), strict=False
        ).module()
        assert torch.allclose(exported(images), wanted, atol=1e-5)
        for batch in (1, 5):
            assert torch.allclose(
                exported(images_for(model, batch)), model(images_for(model, batch)), atol=1e-5
            )


@pytest.mark.parametrize("backend", sample(["eager", "aot_eager"], 0))
def test_a_compiled_trace_teaches_as_the_plain_one(backend):
    model, gradients = random_network("ppt_nano", SIZE, depth=3, prune_at=(1,), cycles=2), []
    images = images_for(model)
    torch._dynamo.reset()
    for trace in (model.trace, torch.compile(model.trace, backend=backend, fullgraph=True)):
        model.zero_grad()
        seen = trace(images, None, (0, 2))
        (
            sum(raw.square().mean() for raw in seen.logits) + seen.attention[0][2].square().sum()
        ).backward()
        gradients.append(model.tokens.embed.weight.grad.clone())
    assert gradients[0].any() and torch.allclose(
        *gradients, atol=1e-5 * gradients[0].abs().max().item()
    )


def random_network(name, size=(128, 96), **overrides):
    "A network whose attention differs from patch to patch."
    torch.manual_seed(4)
    model = create_model(name, 5, size, init="residual", **overrides).eval()
    for block in model.encoder.blocks: block.attention.qkv.weight.data *= 4
    return model


@pytest.mark.parametrize("name", sample(list_models("dppt_*"), 2))
def test_dppt_is_ppt_taught_otherwise(name):
    assert VARIANTS[name] == VARIANTS[name[1:]]
    dppt, ppt = (create_model(n, 5, SIZE).eval() for n in (name, name[1:]))
    dppt.load_state_dict(ppt.state_dict())
    with torch.no_grad(): assert torch.equal(dppt(images_for(dppt)), ppt(images_for(ppt)))


def test_sdpose_has_the_parameters_of_tokenpose():
    "Name for name and shape for shape: a second cycle has no weights of its own."
    once, twice = (create_model(f"{family}_s_v1", 5, SIZE) for family in ("tokenpose", "sdpose"))
    assert (once.config.cycles, twice.config.cycles) == (1, 2)
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (once, twice)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", sample(list_models("ppt_*"), 2))
def test_keep_ratio_of_one_is_the_unpruned_network(name):
    pruned, images = random_network(name), images_for(random_network(name))
    whole = load_released(create_model(name, 5, (128, 96), prune_at=()), pruned.state_dict()).eval()
    with torch.no_grad():
        assert not torch.allclose(pruned(images), whole(images))
        pruned.keep_ratio = 1.0
        assert torch.equal(pruned(images), whole(images))
        assert torch.equal(pruned.trace(images).heatmaps[0], whole.trace(images).heatmaps[0])


@pytest.mark.parametrize("cycles", [1, 2])
def test_trace_equals_forward_where_patches_leave(cycles):
    for name in list_models("ppt_*"):
        model = random_network(name, cycles=cycles)
        images = images_for(model, 5)
        with torch.no_grad(): answer, trace = model(images), model.trace(images)
        assert (answer - trace.heatmaps[0]).abs().max() < 1e-4 * answer.abs().max(), name
        # with drawn weights eleven thin blocks say hardly anything of a picture
        if model.config.backbone == "lite0": continue
        assert len({tuple(row.tolist()) for row in trace.kept[0][-1]}) > 1, (
            f"{name} keeps the same patches for everybody"
        )


def test_survivors_by_hand():
    """The indices are composed, scores are those of the layer, and every survivor carries its own
    code."""
    model = random_network("ppt_nano")
    encoder, images = model.encoder, images_for(model)
    with torch.no_grad():
        trace, x, code = (
            model.trace(images), model.tokens(model.backbone(images)[-1]),
            model.tokens.code.expand(2, -1, -1),
        )
        kept = [list(range(48)), list(range(48))]
        for i, block in enumerate(encoder.blocks):
            if i: x = x + code
            T = x.shape[1]
            x, weights, _ = block.attend(x, rows=T)
            if i in model.config.prune_at:
                count, rows, codes = math.ceil((T - 5) * 0.7), [], []
                for person in range(2):
                    score = sum(weights[person, h, j, 5:] for h in range(4) for j in range(5))
                    best = sorted(sorted(range(T - 5), key=lambda n: -score[n])[:count])
                    kept[person] = [kept[person][n] for n in best]
                    rows.append(x[person, [*range(5), *(5 + n for n in best)]])
                    codes.append(model.tokens.code[0, [*range(5), *(5 + n for n in kept[person])]])
                x, code = torch.stack(rows), torch.stack(codes)
            x = block.think(x)
            assert trace.kept[0][i].tolist() == kept
            assert torch.allclose(trace.patch_tokens[0][i], x[:, 5:], atol=1e-4)


def test_later_cycles_run_on_the_survivors():
    model = random_network("ppt_s", cycles=3)
    with torch.no_grad(): trace = model.trace(images_for(model))
    for cycle in (1, 2):
        assert all(torch.equal(kept, trace.kept[0][-1]) for kept in trace.kept[cycle])
        assert all(w.shape[-1] == 5 + trace.kept[0][-1].shape[1] for w in trace.attention[cycle])


def test_no_code_at_the_start_of_a_later_cycle():
    model = random_network("sdpose_nano")
    for block in model.encoder.blocks:
        block.attend = lambda x, rows=0, bias=None: (x, x[:, None], None)
        block.think = lambda x: x
    with torch.no_grad():
        images = images_for(model)
        x, trace = model.tokens(model.backbone(images)[-1]), model.trace(images)
    for cycle, times in enumerate((3, 6)):  # 4 layers, the first of each cycle gets none
        wanted = x + times * model.tokens.code
        assert torch.allclose(trace.patch_tokens[cycle][-1], wanted[:, 5:], atol=1e-4)


def test_choice_of_patches():
    shares = torch.rand(3, 4, 5, 20, generator=torch.Generator().manual_seed(0))
    scores = patch_scores(shares)
    assert torch.allclose(scores, torch.einsum("bhjn->bn", shares) / 4)
    kept = keep_top(scores, 7)
    assert (kept.diff() > 0).all()
    for row, best in zip(scores, kept):
        left_out = [n for n in range(20) if n not in best.tolist()]
        assert row[best].min() >= row[left_out].max()
    x = torch.randn(3, 25, 2)
    assert torch.equal(take_patches(x, kept, 5)[1], torch.cat((x[1, :5], x[1, 5 + kept[1]])))
    # one position code for all
    assert torch.equal(take_patches(x[:1], kept, 5)[2, 5:], x[0, 5 + kept[2]])


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5])
def test_wrong_keep_ratios_are_refused(ratio):
    model = create_model("ppt_nano", 5, (128, 96))
    with pytest.raises(ValueError, match="keep_ratio"): model.keep_ratio = ratio
    with pytest.raises(ValueError, match="keep_ratio"): create_model("ppt_nano", keep_ratio=ratio)
    assert model.keep_ratio == 0.7


def test_gradients_pass_pruned_networks():
    for name in ("ppt_nano", "ppt_s"):
        model = random_network(name).train()
        images = images_for(model)
        gradients = []
        for answer in (model(images), model.trace(images).heatmaps[0]):
            model.zero_grad()
            answer.square().mean().backward()
            gradients.append(model.tokens.embed.weight.grad.clone())
        assert (
            torch.allclose(*gradients, rtol=1e-3, atol=1e-3 * gradients[0].abs().max())
            and gradients[0].any()
        )


def test_silent_patches_of_the_dot_head():
    "A dropped patch is a zero on the coarse map, wherever it stood."
    head = create_model("ppt_nano", 5, (128, 96)).head.eval()
    tokens, maps = (
        torch.randn(2, 3, 128),
        [torch.zeros(2, 32, 32, 24), torch.zeros(2, 64, 16, 12), torch.randn(2, 128, 8, 6)],
    )
    kept, seen = torch.tensor([[0, 7, 47], [3, 4, 40]]), []
    owner = torch.full((2, 48), -1).scatter(1, kept, torch.arange(3).expand(2, -1))
    hook = head.from_patches.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad(): sparse = head.pixels(tokens, maps, owner)
    hook.remove()
    dense = torch.zeros(2, 48, seen[0].shape[2])
    for person in range(2):
        for place, values in zip(kept[person], seen[0][person]): dense[person, place] = values
    head.from_patches = torch.nn.Identity()
    with torch.no_grad(): assert torch.allclose(sparse, head.pixels(dense, maps), atol=1e-6)


def test_fused_and_written_out_attention_have_the_same_gradient():
    attention, x, bias = Attention(32, 4), torch.randn(2, 9, 32), torch.randn(2, 9)
    for given in (None, bias):
        answers, gradients = [], []
        # in one kernel; all rows written out; those asked for, and the rest in a second product
        for fuse, short in ((True, 100), (False, 100), (False, 8)):
            attention.fuse, attention.short = lambda _, fuse=fuse: fuse, short
            attention.zero_grad()
            mixed, weights, _ = attention(x, rows=4, bias=given)
            assert weights.shape == (2, 4, 9 if not fuse and short > 8 else 4, 9)
            mixed.square().sum().backward()
            answers.append(mixed)
            gradients.append(attention.qkv.weight.grad.clone())
        for other in (1, 2):
            assert torch.allclose(answers[0], answers[other], atol=1e-6)
            assert torch.allclose(gradients[0], gradients[other], atol=1e-5)


def test_attention_of_many_tokens_keeps_half_the_memory_in_half_precision():
    attention, x = Attention(32, 4), torch.randn(1, 128, 32)
    kept = []    # sizes of what the backward pass will read
    note = lambda tensor: kept.append((tensor.dtype, tuple(tensor.shape))) or tensor
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16): attention(x, rows=5)
    assert (torch.float32, (1, 4, 5, 128)) in kept      # asked for
    assert (torch.bfloat16, (1, 4, 123, 128)) in kept    # the rest
    assert not [shape for kind, shape in kept if kind == torch.float32 and shape[-2:] == (123, 128)]


def test_dot_head_for_every_backbone_that_has_maps():
    for name in ("tokenpose_s_v1", "tokenpose_s_v2", "tokenpose_b", "tokenpose_l_d6"):
        model = create_model(name, 5, (128, 96), head="dot", init="residual").eval()
        with torch.no_grad(): answer = model(images_for(model))
        assert answer.shape == (2, 5, 32, 24)
        assert torch.allclose(answer.sum((2, 3)), torch.tensor(8 * math.pi), rtol=1e-4)


def test_ideal_answer_of_the_dot_head_looks_like_its_target():
    for sigma in (1.0, 2.0):
        model = create_model("tokenpose_nano", 3, (128, 96), head_sigma=sigma)
        targets, _ = encode_heatmaps(
            torch.tensor([[[11.0, 15.0], [7.3, 20.2], [12.5, 9.9]]]), torch.ones(1, 3), (32, 24),
            sigma,
        )
        answer = model.head.heatmaps((targets + 1e-20).log())
        assert (answer - targets).abs().max() < 0.01
        assert abs(answer[0, 0].max().item() - 1) < 0.01


def test_pyramid_depth_is_a_setting():
    counts = [
        parameters_count(create_model("tokenpose_nano", 14, (128, 96), pyramid_blocks=blocks))
        for blocks in (1, 2, 3)
    ]
    assert counts[0] < counts[1] < counts[2] and counts[1] - counts[0] == counts[2] - counts[1]


def test_cycles_run_the_encoder_again():
    model = create_model("tokenpose_s_v1", 5, (64, 48), depth=2, init="residual").eval()
    with torch.no_grad(): trace = model.trace(images_for(model), cycles=3)
    assert len(trace.heatmaps) == len(trace.attention) == 3
    assert not torch.allclose(trace.heatmaps[0], trace.heatmaps[2])
    one, three = macs(model), macs(model, cycles=3)
    tokens, width = 5 + math.prod(model.config.grid), model.config.width
    assert three.attention == 3 * one.attention == 3 * 2 * 2 * tokens ** 2 * width
    assert three.conv_linear > one.conv_linear


def test_counting_leaves_the_model_alone():
    model = create_model("tokenpose_nano", image_size=(64, 48)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model)
    assert model.training
    assert same_weights(model, before)


def test_same_seed_same_network():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(create_model("tokenpose_nano", image_size=(64, 48)))
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(name="tokenpose_nanno"),
            "there is no model 'tokenpose_nanno'; nearest names: tokenpose_nano",
        ),
        (dict(name="tokenpose_nano", dept=3), "no setting 'dept'; nearest names: depth"),
        (dict(name="tokenpose_nano", depth=0), "depth is 0; it must be greater than 0"),
        (dict(name="tokenpose_nano", heads=7), "does not divide into 7 heads"),
        (
            dict(name="tokenpose_nano", head="dott"),
            "head is 'dott'; it must be one of mlp, dot, regression",
        ),
        (dict(name="tokenpose_nano", width="wide"), "width is 'wide'; it must be a valid integer"),
        (
            dict(name="tokenpose_nano", image_size=(130, 96)),
            "does not divide into patches of 16 x 16 pixels",
        ),
        (    # HRNet halves its map twice and doubles it again, whatever patches are cut from it
            dict(name="tokenpose_b", image_size=(64, 36), patch_size=(4, 3)),
            "64 x 36 pixels does not divide by 16, which backbone='hrnet_w32' needs",
        ),
        (
            dict(name="tokenpose_t", image_size=(66, 50), patch_size=(3, 5)),
            "does not divide by 4, which a heatmap of a quarter of its size needs",
        ),
        (
            dict(name="tokenpose_nano", image_size=128),
            "image_size is 128; it must be two whole numbers",
        ),
        (
            dict(name="tokenpose_nano", image_size=("tall", 96)),
            "image_size is ('tall', 96); it must be two whole numbers",
        ),
        (
            dict(name="tokenpose_nano", mlp_ratio=math.inf),
            "mlp_ratio is inf; it must be a finite number",
        ),
        (
            dict(name="ppt_nano", reduce="merged"),
            "reduce is 'merged'; it must be one of prune, random, first, merge",
        ),
        (dict(name="tokenpose_l_d6", depth=4), "4 layers do not divide into 3 stages"),
        (dict(name="tokenpose_t", head="dot"), "choose backbone='stem'"),
        (
            dict(name="ppt_s", depth=9),
            "prune_at names layer 9, but the 9 layers are counted from 0",
        ),
        (dict(name="ppt_s", prune_at=(1.5,)), "prune_at is (1.5,); it must be a list of layers"),
        (dict(name="tokenpose_s_v1", keep_ratio=0.5), "tokenpose_s_v1 drops no patches"),
        (
            dict(name="ppt_nano", keep_ratio=1.2),
            "keep_ratio is 1.2; it must be less than or equal to 1",
        ),
    ],
)
def test_wrong_settings_are_refused_with_a_sentence(arguments, message):
    with pytest.raises(ValueError) as error: create_model(**arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_macs_of_a_half_precision_network_and_its_modes():
    model = create_model("tokenpose_nano", image_size=(64, 48))
    counted = macs(model)
    model.train()
    model.backbone.eval()
    assert macs(model.bfloat16()) == counted
    assert model.training and not model.backbone.training


def test_pictures_that_were_not_normalised_are_refused():
    model = create_model("tokenpose_nano", image_size=(64, 48))
    with pytest.raises(ValueError, match="normalize"):
        model(torch.zeros(1, 3, 64, 48, dtype=torch.uint8))


def test_a_head_that_points():
    "Shares of the picture become peaks that every decoder finds, as high as the head is sure."
    model = create_model("sdpose_reg", 2, SIZE)
    with torch.no_grad():
        raw = model(images_for(model), logits=True)
        # a fresh head points at the middle
        assert raw.shape == (2, 2, 4) and (raw[..., :2] - 0.5).abs().max() < 0.3
        told = torch.tensor([[[0.52, 0.41, -4.0, -4.0], [0.3, 0.6, 0.0, 0.0]]])
        heatmaps = model.head.heatmaps(told)
    joints, scores = decode_dark(
        heatmaps, torch.tensor([[23.5, 31.5]]), torch.tensor([[48 / 200, 64 / 200]]), kernel=3
    )
    assert (joints[0] - (told[0, :, :2] * torch.tensor([48.0, 64.0]) - 0.5)).abs().max() < 0.75
    assert scores[0, 0] > 0.9 and 0.4 < scores[0, 1] <= 0.5


def test_hooks_are_called_in_inference_too(monkeypatch):
    "Counters of operations and recorders of features hook to parts; all images in one call."
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model = random_network("tokenpose_s_v1", (256, 192))
    images, called = images_for(model, 3), {}
    with torch.no_grad(): answer = model(images)
    parts = {n: m for n, m in model.named_modules() if "conv" in n or n in ("backbone", "tokens")}
    def note(name): return lambda module, given, made: called.setdefault(name, []).append(len(made))
    hooks = [part.register_forward_hook(note(name)) for name, part in parts.items()]
    with torch.no_grad(): hooked = model(images)
    assert {name: called[name] for name in parts if name != "backbone"} == {
        name: [3] for name in parts if name != "backbone"
    } and called["backbone"] == [1]    # a list of one map
    torch.testing.assert_close(hooked, answer, rtol=1e-3, atol=1e-4 * answer.abs().max().item())
    for hook in hooks: hook.remove()
    called.clear()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, given, made: called.update({module: True})
    )
    with hook, torch.no_grad(): model(images)
    assert all(part in called for part in parts.values())


def test_weights_that_a_hook_makes_are_those_of_today():
    "PyTorch's pruning makes the weights of a convolution when it is called."
    from torch.nn.utils import prune
    model = random_network("tokenpose_s_v1", (64, 48), patch_size=(4, 4))
    conv, images = model.backbone.layer1[0].conv2, images_for(model, 1)
    prune.l1_unstructured(conv, "weight", 0.5)
    with torch.no_grad():
        conv.weight_orig.mul_(-1)
        answer = model(images)
    torch.testing.assert_close(answer, model(images))


def test_a_record_is_asked_from_the_end_too():
    model = random_network("ppt_nano", (64, 48))
    trace = model.trace(images_for(model, 2))
    for layer in range(4):
        for cycle in (0, -1):
            assert torch.equal(trace.column_owner(layer - 4, cycle), trace.column_owner(layer))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_released_checkpoint_fills_a_network_of_another_precision(dtype):
    model = create_model("tokenpose_nano", 5, (64, 48))
    state = {"module.pos_embedding": model.tokens.code[:, 5:].clone(), **model.state_dict()}
    other = load_released(create_model("tokenpose_nano", 5, (64, 48)).to(dtype), state)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value.to(other.state_dict()[name].dtype))


def test_a_head_of_ones_own_gets_the_maps_in_inference_too(monkeypatch):
    "What a head is trained with it is given when it is used; a head need not say that it reads."
    class Mean(torch.nn.Module):
        def forward(self, keypoint_tokens, patch_tokens, maps, owner=None):
            share = keypoint_tokens.mean(2)[..., None, None] * maps[0].mean()
            return share.expand(-1, -1, 16, 12)
        def heatmaps(self, logits): return logits
    monkeypatch.setitem(HEADS, "mean", lambda config, backbone: Mean())
    model = random_network("tokenpose_nano", (64, 48), head="mean")
    images = images_for(model, 2)
    with torch.no_grad(): answer = model(images)
    torch.testing.assert_close(answer, model(images))

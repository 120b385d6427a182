"""PoseTransformer: the released networks number for number, and every row of the table put to work."""
import dataclasses
import json
import math
import pickle
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dppt_nb.heatmaps import encode_heatmaps
from dppt_nb.tokenpose import Attention, PoseConfig, PoseTransformer, create_model, list_models, load_released, macs, parameters_count

COUNTS = {"tokenpose_s_v1": (6_620_736, 2.726), "tokenpose_b": (13_465_216, 6.276), "tokenpose_l_d24": (27_482_400, 12.193)}


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
    return {key: torch.from_numpy(drawn_value(key, shape)) for key, shape in keys.items() if not key.endswith(fixed)}


@pytest.mark.parametrize("name", COUNTS)
def test_released_networks_number_for_number(shared, name):
    folder = shared / "reference"
    model = load_released(create_model(name), drawn_checkpoint(folder, name)).eval()
    images = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 3, 256, 192)).astype(np.float32))
    wanted = torch.from_numpy(np.load(folder / f"{name}.npz")["heatmaps"])
    with torch.no_grad(): answers = model(images), model.trace(images).heatmaps[0]
    for answer in answers: assert (answer - wanted).abs().max() < 1e-4
    assert (model(images) - wanted).abs().max() < 1e-4          # with gradients


@pytest.mark.parametrize("name", COUNTS)
def test_counts_equal_the_released_networks(name):
    with torch.device("meta"): model = create_model(name)
    parameters, billions = COUNTS[name]
    assert parameters_count(model) == parameters
    assert round(macs(model).total / 1e9, 3) == billions


@pytest.mark.parametrize("name, keypoints, size, parameters, linear, total", [   # counted on the released code at MPII's and the large size
    ("tokenpose_t", 17, (256, 192), 5.82, 1.26, 1.60), ("tokenpose_s_v2", 17, (256, 192), 6.23, 4.65, 7.49),
    ("tokenpose_l_d6", 17, (256, 192), 20.82, 9.69, 9.87), ("tokenpose_s_v1", 16, (256, 256), 7.76, 2.78, 3.12),
    ("tokenpose_b", 16, (256, 256), 14.43, 7.51, 7.85), ("tokenpose_l_d6", 16, (256, 256), 21.44, 12.72, 12.89),
    ("tokenpose_l_d24", 17, (384, 288), 29.81, 23.15, 24.01)])
def test_counts_of_other_sizes(name, keypoints, size, parameters, linear, total):
    with torch.device("meta"): model = create_model(name, keypoints, size)
    count = macs(model)
    assert round(parameters_count(model) / 1e6, 2) == parameters
    assert abs(count.conv_linear / 1e9 - linear) <= 0.0051 and abs(count.total / 1e9 - total) <= 0.0051


@pytest.fixture(scope="module", params=list_models())
def network(request):
    torch.manual_seed(0)
    return create_model(request.param, num_keypoints=5, image_size=(128, 96), init="residual").eval()


def images_for(model, batch=2): return torch.randn(batch, 3, *model.image_size, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("batch", [1, 5])
def test_fast_path_equals_traced_path(network, batch):
    images = images_for(network, batch)
    with torch.no_grad(): answer, trace = network(images), network.trace(images)
    scale = answer.abs().max()
    assert answer.shape == (batch, 5, 32, 24) and answer.isfinite().all()
    assert (answer - trace.heatmaps[0]).abs().max() < 1e-4 * scale
    assert (network(images) - answer).abs().max() < 1e-4 * scale
    config, patches = network.config, math.prod(network.config.grid)
    for layer in range(config.depth):
        assert trace.keypoint_tokens[0][layer].shape == (batch, 5, config.width)
        assert trace.patch_tokens[0][layer].shape == (batch, patches, config.width)
        assert trace.attention[0][layer].shape == (batch, config.heads, 5 + patches, 5 + patches)
        assert torch.allclose(trace.attention[0][layer].sum(-1), torch.ones(()), atol=1e-5)
        assert torch.equal(trace.kept[0][layer], torch.arange(patches).expand(batch, -1))


def test_one_person_does_not_depend_on_the_others(network):
    images = images_for(network, 5)
    with torch.no_grad(): assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-4, rtol=1e-4)


def test_every_parameter_learns(network):
    model = create_model(network.config.name, 5, (128, 96))
    model.trace(images_for(model)).heatmaps[0].square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not still


def test_saved_and_restored_from_its_config(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    config = PoseConfig(**json.loads(json.dumps(dataclasses.asdict(network.config))))
    restored = load_released(PoseTransformer(config), tmp_path / "weights.safetensors").eval()
    images = images_for(network)
    with torch.no_grad(): assert torch.equal(restored(images), network(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(network, dtype):
    images = images_for(network, 1)
    half = load_released(create_model(network.config.name, 5, (128, 96)), network.state_dict()).eval().to(dtype)
    with torch.no_grad():
        full, answer, traced = network(images), half(images.to(dtype)).float(), half.trace(images.to(dtype)).heatmaps[0].float()
    assert (answer - full).abs().max() < 0.15 * full.abs().max() and (traced - full).abs().max() < 0.15 * full.abs().max()


def test_autocast_keeps_attention_rows_whole(network):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(): trace = network.trace(images_for(network))
    assert trace.attention[0][0].dtype == torch.float32
    assert torch.allclose(trace.attention[0][0].sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 128, 96), (1, 3, 96, 128), (1, 3, 256, 192), (3, 128, 96)])
def test_wrong_images_are_refused(network, shape):
    for run in (network, network.trace):
        with pytest.raises(ValueError, match=r"takes images \(batch, 3, 128, 96\), not"): run(torch.zeros(shape))


def test_fused_and_written_out_attention_have_the_same_gradient():
    attention, x = Attention(32, 4), torch.randn(2, 9, 32)
    gradients = []
    for fuse in (True, False):
        attention.fuse = lambda _, fuse=fuse: fuse
        attention.zero_grad()
        attention(x)[0].square().sum().backward()
        gradients.append(attention.qkv.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-5)


def test_dot_head_for_every_backbone_that_has_maps():
    for name in ("tokenpose_s_v1", "tokenpose_s_v2", "tokenpose_b", "tokenpose_l_d6"):
        model = create_model(name, 5, (128, 96), head="dot", init="residual").eval()
        with torch.no_grad(): answer = model(images_for(model))
        assert answer.shape == (2, 5, 32, 24)
        assert torch.allclose(answer.sum((2, 3)), torch.tensor(8 * math.pi), rtol=1e-4)


def test_ideal_answer_of_the_dot_head_looks_like_its_target():
    for sigma in (1.0, 2.0):
        model = create_model("tokenpose_nano", 3, (128, 96), head_sigma=sigma)
        targets, _ = encode_heatmaps(torch.tensor([[[11.0, 15.0], [7.3, 20.2], [12.5, 9.9]]]), torch.ones(1, 3), (32, 24), sigma)
        answer = model.head.heatmaps((targets + 1e-20).log())
        assert (answer - targets).abs().max() < 0.01
        assert abs(answer[0, 0].max().item() - 1) < 0.01


def test_pyramid_depth_is_a_setting():
    counts = [parameters_count(create_model("tokenpose_nano", 14, (128, 96), pyramid_blocks=blocks)) for blocks in (1, 2, 3)]
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
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_same_seed_same_network():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(create_model("tokenpose_nano", image_size=(64, 48)))
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models)))


@pytest.mark.parametrize("arguments, message", [
    (dict(name="tokenpose_nanno"), "there is no model 'tokenpose_nanno'; nearest names: tokenpose_nano"),
    (dict(name="tokenpose_nano", dept=3), "no setting 'dept'; nearest names: depth"),
    (dict(name="tokenpose_nano", depth=0), "depth is 0; it must be positive"),
    (dict(name="tokenpose_nano", heads=7), "does not divide into 7 heads"),
    (dict(name="tokenpose_nano", head="dott"), "head is 'dott'; it must be one of mlp, dot"),
    (dict(name="tokenpose_nano", width="wide"), "width is 'wide'; it must be a whole number"),
    (dict(name="tokenpose_nano", image_size=(130, 96)), "does not divide into patches of 16 x 16 pixels"),
    (dict(name="tokenpose_nano", image_size=128), "image_size is 128; it must be two numbers"),
    (dict(name="tokenpose_l_d6", depth=4), "4 layers do not divide into 3 stages"),
    (dict(name="tokenpose_t", head="dot"), "choose backbone='stem'")])
def test_wrong_settings_are_refused_with_a_sentence(arguments, message):
    with pytest.raises(ValueError) as error: create_model(**arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def released_layout(keys_file):
    "Zeros in a released layout, with the fixed code that the model adds."
    return {name: torch.zeros(shape) for name, shape in json.loads(keys_file.read_text()).items()}


@pytest.mark.parametrize("prefix, wrapped, suffix", [("", False, ".safetensors"), ("module.", False, ".safetensors"), ("module.", True, ".pth"), ("", True, ".pt"), ("", False, ".pth")])
def test_released_files_are_read(shared, tmp_path, prefix, wrapped, suffix):
    keys = shared / "reference" / "tokenpose_s_v1.keys.json"
    model = create_model("tokenpose_s_v1")
    state = {prefix + name: value for name, value in released_layout(keys).items()}
    state[prefix + "features.pos_embedding"] = model.tokens.code[:, 17:].contiguous()
    path = tmp_path / f"released{suffix}"
    if suffix == ".safetensors": save_file(state, path)
    else: torch.save({"state_dict": state, "epoch": 300} if wrapped else state, path)
    load_released(model, path)
    load_released(model, str(path))
    assert all((p == 0).all() for p in model.parameters())


def test_what_does_not_fit_is_named(shared):
    keys = shared / "reference" / "tokenpose_s_v1.keys.json"
    state = {name: value for name, value in released_layout(keys).items() if not name.endswith("pos_embedding")}
    for change, message in (
            (lambda s: s.pop("features.mlp_head.3.bias"), "head.3.bias is missing"),
            (lambda s: s.update({"features.extra": torch.zeros(1)}), "features.extra is unknown"),
            (lambda s: s.update({"features.conv1.weight": torch.zeros(64, 1, 3, 3)}), "features.conv1.weight has shape (64, 1, 3, 3) instead of (64, 3, 3, 3)"),
            (lambda s: s.update({"features.pos_embedding": torch.zeros(1, 256, 192)}), "not the fixed 2-D sine code"),
            (lambda s: s.update({"features.pos_embedding": torch.zeros(1, 99, 192)}), "position code of shape (1, 99, 192)")):
        model, broken = create_model("tokenpose_s_v1"), dict(state)
        before = model.head[3].bias.clone()
        change(broken)
        with pytest.raises(ValueError) as error: load_released(model, broken)
        assert message in str(error.value) and "\n" not in str(error.value)
        assert torch.equal(model.head[3].bias, before)                       # nothing half loaded


def test_bad_checkpoint_files(tmp_path):
    model = create_model("tokenpose_nano", image_size=(64, 48))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"): load_released(model, tmp_path / "none.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("not a checkpoint")
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint"): load_released(model, tmp_path / name)
    with open(tmp_path / "code.pth", "wb") as file: pickle.dump({"state_dict": print}, file)
    with pytest.raises(ValueError, match="cannot be read|can be read safely"): load_released(model, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no parameters"): load_released(model, tmp_path / "list.pth")

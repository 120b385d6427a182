"""Networks and losses inside somebody else's research code: in double precision, on the meta
device, with parts exchanged, under other defaults of PyTorch."""
import copy
import warnings
from collections import namedtuple
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from dppt_nb import export
from dppt_nb.augmentation import augment_batch, nominal_window
from dppt_nb.backbones import conv_norm
from dppt_nb.checks import DataError
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.crops import box_to_center_scale
from dppt_nb.cycles import PoseObjective, heatmap_cycle_loss, token_loss
from dppt_nb.distillation import Teacher, attention_loss, feature_loss
from dppt_nb.heatmaps import (
    blur_kernel,
    divergence,
    encode_heatmaps,
    heatmap_coordinates,
    heatmap_cross_entropy_loss,
    heatmap_mse_loss,
    masked_mean,
    normalize_heatmaps,
    photo_joints,
    rescale_joints,
)
from dppt_nb.inference import pose_boxes
from dppt_nb.keypoints import COCO17
from dppt_nb.merging import REDUCERS
from dppt_nb.models import create_model
from dppt_nb.optim import Average
from dppt_nb.pruning import KeepRandom, keep_first, keep_patches, keep_top, prune, whole_grid
from dppt_nb.recipes import get_recipe
from dppt_nb.rle import ResidualFlow, rle_loss
from dppt_nb.store import from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.tokenpose import Attention, PoseTransformer
from dppt_nb.tokens import sine_position_code
from dppt_nb.training import Loop

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


# ---- weights from elsewhere

def small(name="tokenpose_s_v1", seed=0, **changes):
    torch.manual_seed(seed)
    return create_model(name, 3, SIZE, **{**dict(depth=1, init="residual"), **changes}).eval()


@pytest.mark.parametrize("way", ["to_empty", "wrapped", "assign", "assign double"])
def test_a_network_from_the_meta_device_has_its_position_code(way):
    "It is no weight, so no file brings it; memory that nobody wrote to would be taken for it."
    model, images = small(), torch.randn(2, 3, *SIZE)
    with torch.device("meta"): other = create_model("tokenpose_s_v1", 3, SIZE, depth=1).eval()
    if way == "assign double": model, images = model.double(), images.double()
    if way == "to_empty": other.to_empty(device="cpu")
    if way == "wrapped": nn.ModuleDict({"net": other}).to_empty(device="cpu")
    other.load_state_dict(model.state_dict(), assign="assign" in way)
    assert torch.equal(other(images), model(images)) and other.tokens.code.dtype == images.dtype
    assert other.tokens.code.sum() != 0 and "tokens.code" not in other.state_dict()


class Reflected(nn.Conv2d):
    "A convolution of somebody's own."
    def forward(self, x): return super().forward(x) + 1


def with_forward(part):
    "As accelerate's hooks do it."
    part.forward = partial(type(part).forward, part)
    return part


EXCHANGED = {
    "group norm": (nn.Conv2d(3, 4, 3, bias=False), nn.GroupNorm(2, 4)),
    "no weights": (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)),
    "no memory": (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, track_running_stats=False)),
    "bias": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "padding": (nn.Conv2d(3, 4, 3, 1, 1, bias=False, padding_mode="reflect"), nn.BatchNorm2d(4)),
    "own class": (Reflected(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
    "row": (nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)),
    "forward": (with_forward(Reflected(3, 4, 3, bias=False)), nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_parts_that_somebody_exchanged_do_in_inference_what_they_do_in_training(name):
    conv, norm = EXCHANGED[name]
    x = torch.randn(5, 3, 8, 8)
    norm(conv(x))    # statistics of its own
    norm.eval()
    with torch.no_grad(): torch.testing.assert_close(conv_norm(conv, norm, x), norm(conv(x)))


def test_a_whole_backbone_with_group_norms_answers():
    model = small()
    for part in list(model.modules()):
        for name, norm in list(part.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, nn.GroupNorm(4, norm.num_features).eval())
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad(): answer = model(images)
    torch.testing.assert_close(answer, model(images))


@pytest.mark.parametrize("way", ["adapting", "without memory"])
def test_norms_that_look_at_the_batch_see_all_of_it(way, monkeypatch):
    "In inference on a CPU a network is given a few images at a time; here they would be two."
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2 * SIZE[0] * SIZE[1] / 2**17)
    model, images = small("tokenpose_nano"), torch.randn(5, 3, *SIZE)
    for part in model.modules():
        if not isinstance(part, nn.BatchNorm2d): continue
        if way == "adapting": part.train()
        else: part.running_mean = part.running_var = None
    other = copy.deepcopy(model)
    with torch.no_grad(): answer = model(images)
    torch.testing.assert_close(answer, other(images))
    assert all(map(torch.equal, model.buffers(), other.buffers()))


def test_a_network_that_torchscript_traced_takes_batches_of_any_size():
    model = create_model("tokenpose_nano", 3).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")    # what depends on a shape is the same for all batches
        traced = torch.jit.trace(model, torch.randn(1, 3, 256, 192), check_trace=False)
        images = torch.randn(5, 3, 256, 192)
        torch.testing.assert_close(traced(images), model(images))


# ---- other defaults

@contextmanager
def default_dtype(kind):
    torch.set_default_dtype(kind)
    try: yield
    finally: torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_another_default_number_format_changes_no_numbers(kind):
    maps = torch.rand(2, 3, 16, 12)
    tokens = whole_grid(torch.randn(2, 20, 8), torch.zeros(1, 20, 8), 4)
    head = small("sdpose_reg").head
    makers = {
        "code": lambda: [sine_position_code((16, 12), 192)],
        "kernel": lambda: [blur_kernel(11)],
        "window": lambda: nominal_window((288, 216), 1.125, (256, 192)),
        "joints": lambda: heatmap_coordinates(maps),
        "chance": lambda: [KeepRandom()(tokens, None, None, 5).x],
        "drawn": lambda: [head.heatmaps(maps[0, :, :4, :4])],
    }
    plain = {name: make() for name, make in makers.items()}
    with default_dtype(kind): made = {name: make() for name, make in makers.items()}
    for name, wanted in plain.items():
        for one, other in zip(made[name], wanted):
            assert one.dtype == torch.float32 and torch.equal(one, other), name


def test_a_network_of_another_default_format_has_the_code_of_float32():
    with default_dtype(torch.bfloat16): model = small()
    assert torch.equal(model.tokens.code, small().tokens.code.bfloat16())
    assert model(torch.randn(1, 3, *SIZE).bfloat16()).isfinite().all()


def test_another_default_device_changes_no_training():
    "As `torch.set_default_device` says it; on this one nothing can be computed."
    people = from_synthetic(make_people(9, COCO17, SIZE, seed=1, margin=1.5))
    content = [encode_crop(image.permute(1, 2, 0).numpy()) for image in people.images]
    crops = EncodedCrops(content, tuple(people.images.shape[2:]), "jpeg", "here")
    recipe = get_recipe("tokenpose_nano", image_size=SIZE, batch_size=4, train_people=8).change(
        overrides=dict(width=32, depth=2, heads=2, prune_at=(1,), reduce="random")
    )
    def train():
        loop = Loop(recipe, people, "cpu")
        return loop.train_epoch(), loop.model.state_dict(), crops[1:3]
    losses, weights, pictures = train()
    with torch.device("meta"): other = train()
    assert other[0] == losses and torch.equal(other[2], pictures)
    assert all(map(torch.equal, weights.values(), other[1].values()))


@pytest.mark.parametrize("way", ["format", "part", "weights", "another"])
def test_an_average_follows_a_model_whose_tensors_were_exchanged(way):
    "A model that goes to the CPU to be saved, and back, has other running means than before."
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = Average(model, 0.5)
    average.update_parameters(model)
    if way == "format": model.double().float()
    if way == "part": model[1] = nn.BatchNorm1d(3)
    if way == "weights": model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    if way == "another": model = copy.deepcopy(model)
    with torch.no_grad(): model[0].bias.fill_(100)
    for _ in range(99): model(torch.randn(8, 3))
    for _ in range(30): average.update_parameters(model)
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], msg=name)


# ---- losses and teachers

MAP, JOINT = torch.rand(1, 3, 4, 4), torch.ones(1, 3)
UNFIT = {
    "weights as MMPose has them": lambda: heatmap_mse_loss(MAP, MAP, JOINT[..., None]),
    "targets of one joint": lambda: heatmap_mse_loss(MAP, MAP[:, :1], JOINT),
    "weights of one person": lambda: masked_mean(JOINT.expand(2, 3), JOINT),
    "weights of entropy": lambda: heatmap_cross_entropy_loss(MAP, MAP, JOINT[..., None]),
    "targets of entropy": lambda: heatmap_cross_entropy_loss(MAP, MAP[:, :1], JOINT),
    "weights of a cycle": lambda: heatmap_cycle_loss(MAP, MAP, JOINT[..., None]),
    "shares": lambda: divergence(MAP, MAP[:, :1]),
    "attention": lambda: attention_loss(MAP, MAP[..., :1], "mse"),
    "flags": lambda: encode_heatmaps(MAP[..., 0, :2], JOINT[..., None]),
    "a likelihood's weights": lambda: rle_loss(MAP[..., 0], MAP[..., 0, :2], JOINT[..., None],
                                               ResidualFlow(1, 4)),
}


@pytest.mark.parametrize("name", UNFIT)
def test_shapes_that_pytorch_would_stretch_are_refused(name):
    with pytest.raises(ValueError, match="has shape .*; it must be "): UNFIT[name]()


def test_a_mean_with_small_weights_is_a_mean():
    each, weights = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.25, 0.25]])
    assert masked_mean(each, weights) == 2 and masked_mean(each, 0 * weights) == 0


UNKNOWN = {
    "kl, mse": lambda: attention_loss(SHARES, SHARES, "MSE"),
    "mean or each": lambda: attention_loss(SHARES, SHARES, heads="all"),
    "mse or cross_entropy": lambda: heatmap_cycle_loss(MAPS, MAPS, WEIGHTS, "MSE"),
    "head or model": lambda: Attention(8, 2, "heads"),
    "all or last": lambda: PoseObjective(small(), supervise="first"),
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_a_way_that_there_is_not_is_no_other_way(words):
    with pytest.raises((ValueError, DataError), match=words.split(",")[0]): UNKNOWN[words]()


def test_a_teacher_looks_again_at_images_that_were_written_to():
    "A batch may keep its place, as under CUDA graphs, and get other people."
    teacher, images = Teacher(small("tokenpose_nano")), torch.randn(2, 3, *SIZE)
    batch = SimpleNamespace(images=images.clone())
    first = teacher(batch)
    assert teacher(batch) is first
    batch.images.copy_(-images)
    second = teacher(batch)
    torch.testing.assert_close(second.logits[0], teacher.network(-images, logits=True))
    assert second is not first
    with torch.inference_mode(): assert teacher(SimpleNamespace(images=images * 2)).logits


def test_a_teacher_answers_for_a_batch_that_takes_no_notes():
    batch = namedtuple("Batch", "images")(torch.randn(2, 3, *SIZE))
    assert len(Teacher(small("tokenpose_nano"))(batch).logits) == 1


def test_weights_that_are_tied_are_saved(tmp_path):
    model, images = small("tokenpose_nano", depth=2), torch.randn(1, 3, *SIZE)
    model.encoder.blocks[1] = model.encoder.blocks[0]
    model.save_pretrained(tmp_path / "tied")
    again = PoseTransformer.from_pretrained(tmp_path / "tied")
    assert torch.equal(again(images), model(images))


def test_one_window_size_serves_people_at_several_places():
    joints, centers, scales = torch.rand(3, 5, 2), torch.rand(3, 2), torch.ones(1, 2)
    found = photo_joints(joints, centers, scales, (64, 48))
    assert torch.equal(found, photo_joints(joints, centers, scales.repeat(3, 1), (64, 48)))


def test_a_constant_made_while_a_function_is_functionalized_is_not_kept():
    joints, sizes = torch.ones(1, 2, 2), ((40, 30), (10, 7))
    torch.func.functionalize(lambda x: rescale_joints(x, *sizes))(joints)
    assert rescale_joints(joints, *sizes).tolist()    # that of the function held no numbers


# ---- boxes and crops

@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_boxes_with_a_score_behind_each_are_refused(kind):
    "Of four rows of five numbers would come five boxes."
    boxes = kind([[10.0, 20, 30, 40, 0.5]] * 4)
    with pytest.raises(ValueError, match="x, y, w, h each, not an array .4, 5."):
        box_to_center_scale(boxes)
    with pytest.raises(ValueError, match="x, y, w, h each, not an array .4, 5."):
        pose_boxes(np.zeros((5, 17, 2)), np.ones((5, 17)), boxes)


def test_crops_and_joints_are_of_the_same_people():
    images, joints = torch.zeros(2, 3, 96, 72, dtype=torch.uint8), torch.zeros(2, 17, 2)
    seen = torch.ones(2, 17)
    for given in ((images[:1], joints, seen), (images, joints, seen[:1]),
                  (images, joints, seen[..., None]), (images, joints[:1], seen[:1])):
        with pytest.raises(ValueError, match="are not of the same people"):
            augment_batch(*given, COCO17, 1.5, (64, 48))


# ---- what is set on a network

def least(tokens, attention, keys, count):
    "A reducer of somebody's own: the patches that are attended to least stay."
    scores = attention[..., tokens.num_keypoints:].mean(1).sum(1)
    return keep_patches(tokens, keep_top(-scores, count))


def pruner(**changes):
    return small("tokenpose_nano", depth=3, patch_size=(1, 1), prune_at=(1,), **changes)


def test_a_reducer_and_layers_that_were_set_are_saved(tmp_path):
    model, images = pruner(), torch.randn(2, 3, *SIZE)
    model.encoder.reducer, model.encoder.prune_at, model.keep_ratio = keep_first, (1, 2), 0.4
    model.save_pretrained(tmp_path / "set")
    again = PoseTransformer.from_pretrained(tmp_path / "set")
    assert torch.equal(again(images), model(images))
    assert (again.config.reduce, again.config.prune_at) == ("first", (1, 2))
    assert model.config.reduce == "prune"    # how it was built


def test_a_reducer_of_ones_own_is_saved_by_its_row(tmp_path, monkeypatch):
    model, images = pruner(), torch.randn(2, 3, *SIZE)
    model.encoder.reducer = least
    with pytest.raises(ValueError, match="the reducer least is no row of REDUCERS"):
        model.save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own" / "config.json").exists()
    monkeypatch.setitem(REDUCERS, "least", least)
    model.save_pretrained(tmp_path / "own")
    assert torch.equal(PoseTransformer.from_pretrained(tmp_path / "own")(images), model(images))
    copied = copy.deepcopy(pruner(reduce="random"))
    copied.save_pretrained(tmp_path / "copy")
    copied.encoder.reducer = KeepRandom(3)
    with pytest.raises(ValueError, match="is no row of REDUCERS"): copied.config_now


def test_a_cached_export_is_of_the_reducer_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "cache_folder", lambda: tmp_path)
    model, cached = small("tokenpose_nano", depth=2, prune_at=(1,)), []
    monkeypatch.setattr(export, "describe_network", lambda *given: dict(model="m"))
    monkeypatch.setattr(export, "export_onnx", lambda network, keys, path, form: path)
    for reducer in (prune, prune, keep_first, least, least):
        model.encoder.reducer = reducer
        cached.append(export.cached_onnx(model, None))
    assert cached[0] == cached[1] and len(set(cached)) == 4


def test_heatmaps_that_were_looked_at_without_gradients_are_drawn_again_with_them():
    "A score that is taken before the loss must not take its gradient away."
    model, images = small("tokenpose_nano"), torch.randn(1, 3, *SIZE)
    trace = model.trace(images)
    with torch.no_grad(): looked = trace.heatmaps
    with torch.inference_mode(): assert trace.heatmaps is looked
    assert trace.heatmaps[0].requires_grad and torch.equal(trace.heatmaps[0], looked[0])
    assert trace.heatmaps is trace.heatmaps
    with torch.no_grad(): plain = model.trace(images)
    assert plain.heatmaps is plain.heatmaps


def test_losses_of_one_name_are_added_up():
    "Two teachers may speak of the same thing; the second must not take the first one's word."
    people = from_synthetic(make_people(4, COCO17, SIZE, seed=1, margin=1.5))
    recipe = get_recipe("tokenpose_nano", image_size=SIZE, batch_size=4, precision="fp32").change(
        overrides=dict(width=32, depth=1, heads=2)
    )
    first, second = (lambda trace, batch, now, by=by: {"mine": by * trace.logits[0].square().mean()}
                     for by in (1, 2))
    once, both = (Loop(recipe, people, "cpu", objectives=o) for o in ([first], [first, second]))
    torch.testing.assert_close(both.train_epoch()["mine"], 3 * once.train_epoch()["mine"])

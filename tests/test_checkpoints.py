"""The only way in and out of a network: released layouts, ImageNet backbones, saved networks."""
import copy
import dataclasses
import errno
import io
import json
import pickle
import shlex
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from sampling import sample, sampled_models
from torch import nn
from torch.nn.utils import parametrizations, prune
from weights import same_weights

from dppt_nb.backbones import conv_step
from dppt_nb.checkpoints import (
    FORMAT,
    build_network,
    load_network,
    load_teacher,
    network_files,
    results_folder,
    save_network,
    shipped_networks,
    shrink_weights,
    start_from,
    widen_weights,
)
from dppt_nb.checks import DataError
from dppt_nb.cropset import known_people, unpack_marks
from dppt_nb.evaluation import learned_from
from dppt_nb.files import digest_of
from dppt_nb.forms import recipe_of
from dppt_nb.hrnet import HRModule, HRNet
from dppt_nb.keypoints import COCO17, LSP14, MPII16, build_keypoint_set
from dppt_nb.models import VARIANTS, create_model
from dppt_nb.recipes import LESSONS, Lesson, Recipe, get_recipe, teach
from dppt_nb.released import load_backbone, load_released, read_checkpoint
from dppt_nb.runner import check_sources, train_recipe
from dppt_nb.store import load_people
from dppt_nb.tokenpose import PoseTransformer
from dppt_nb.tokens import Bottleneck

SIZE = (64, 48)    # small pictures: 4 x 3 patches


def images_for(model, batch=2):
    return torch.randn(batch, 3, *model.image_size, generator=torch.Generator().manual_seed(batch))


@pytest.fixture
def no_connection(monkeypatch):
    "Whoever opens a connection, or asks for an address, fails."
    def refuse(*_, **__): raise AssertionError("nothing here needs a connection")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", sampled_models())
def test_saved_and_found_again(name, tmp_path, no_connection):
    """A folder, without a connection: the same configuration, the same numbers, and nobody's random
    draws disturbed."""
    torch.manual_seed(0)
    network = create_model(name, 5, SIZE, init="residual").eval()
    network.save_pretrained(tmp_path)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    restored = PoseTransformer.from_pretrained(tmp_path)
    assert torch.equal(torch.rand(2), wanted)
    assert (
        restored.config == network.config
        and not restored.training
        and isinstance(restored, PyTorchModelHubMixin)
    )
    images = images_for(network)
    with torch.no_grad(): assert torch.equal(restored(images), network(images))
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "README.md",
    }
    assert "license: apache-2.0" in (tmp_path / "README.md").read_text()


def released_layout(keys_file):
    "Zeros in a released layout, with the fixed code that the model adds."
    return {name: torch.zeros(shape) for name, shape in json.loads(keys_file.read_text()).items()}


@pytest.mark.parametrize(
    "prefix, wrapped, suffix",
    [
        ("", False, ".safetensors"), ("module.", False, ".safetensors"), ("module.", True, ".pth"),
        ("", True, ".pt"), ("", False, ".pth"),
    ],
)
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


@pytest.mark.parametrize(
    "name", ["tokenpose_b", "tokenpose_l_d24", "ppt_s", "sdpose_t", "sdpose_s_v2"]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_released_layout_is_read(shared, name, prefix):
    state = released_layout(shared / "reference" / f"{name}.keys.json")
    model = create_model(name)
    for key in state:
        if key.endswith("pos_embedding"): state[key] = model.tokens.code[:, 17:]
    load_released(
        model, {"state_dict": {prefix + key: value for key, value in state.items()}, "meta": {}}
    )
    assert all((p == 0).all() for p in model.parameters())


def test_what_does_not_fit_is_named(shared):
    keys = shared / "reference" / "tokenpose_s_v1.keys.json"
    state = {
        name: value
        for name, value in released_layout(keys).items()
        if not name.endswith("pos_embedding")
    }
    for change, message in (
        (lambda s: s.pop("features.mlp_head.3.bias"), "head.3.bias is missing"),
        (lambda s: s.update({"features.extra": torch.zeros(1)}), "features.extra is unknown"),
        (
            lambda s: s.update({"features.conv1.weight": torch.zeros(64, 1, 3, 3)}),
            "features.conv1.weight has shape (64, 1, 3, 3) instead of (64, 3, 3, 3)",
        ),
        (
            lambda s: s.update({"features.pos_embedding": torch.zeros(1, 256, 192)}),
            "of shape (1, 256, 192) with other values than the fixed 2-D sine code which",
        ),
        (
            lambda s: s.update({"features.pos_embedding": torch.zeros(1, 99, 192)}),
            "position code of shape (1, 99, 192) instead of (1, 256, 192), that of the fixed 2-D",
        ),
    ):
        model, broken = create_model("tokenpose_s_v1"), dict(state)
        before = model.head[3].bias.clone()
        change(broken)
        with pytest.raises(ValueError) as error: load_released(model, broken)
        assert message in str(error.value) and "\n" not in str(error.value)
        assert torch.equal(model.head[3].bias, before)                       # nothing half loaded


def test_bad_checkpoint_files(tmp_path):
    model = create_model("tokenpose_nano", image_size=(64, 48))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_released(model, tmp_path / "none.pth")
    said = {"text.pth": "is not a checkpoint", "text.safetensors": "is damaged"}
    for name, words in said.items():
        (tmp_path / name).write_text("not a checkpoint")
        with pytest.raises(ValueError, match=f"{name} {words}"):
            load_released(model, tmp_path / name)
    with open(tmp_path / "code.pth", "wb") as file: pickle.dump({"state_dict": print}, file)
    with pytest.raises(ValueError, match="cannot be read|can be read safely"):
        load_released(model, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no parameters"):
        load_released(model, tmp_path / "list.pth")


def test_a_zip_that_would_grow_says_why_it_is_not_read(tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"a": torch.zeros(100)}, path)
    assert list(read_checkpoint(path)) == ["a"]
    with zipfile.ZipFile(path) as whole: members = {n: whole.read(n) for n in whole.namelist()}
    with zipfile.ZipFile(packed := tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items(): file.writestr(name, content)
    with pytest.raises(DataError, match=r"packed\.pth .*\(its members are compressed, which"):
        read_checkpoint(packed)
    # the directory at the end says a size that the file cannot hold
    told, place = path.read_bytes(), path.read_bytes().rindex(b"PK\1\2")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(told[:place + 24] + (10**6).to_bytes(4, "little") + told[place + 28:])
    with pytest.raises(DataError, match=r"broken\.pth .*\(it declares more than it holds\)"):
        read_checkpoint(broken)


@pytest.mark.parametrize("name", ["pose.onnx", "pose.pt2"])
def test_an_exported_network_is_called_one(tmp_path, name):
    (tmp_path / name).write_bytes(b"some bytes")
    with pytest.raises(DataError, match="is an exported network: dppt_nb.export.OnnxNetwork"):
        load_network(tmp_path / name)


def test_checkpoints_of_training_code(tmp_path):
    model, other = (create_model("tokenpose_s_v1", image_size=(64, 48)) for _ in range(2))
    released = {"features.conv1.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="does not fit"): load_released(model, released)
    ours = {k: v for k, v in other.state_dict().items()}
    # a score beside the weights
    torch.save({"state_dict": ours, "perf": np.float64(72.5)}, tmp_path / "checkpoint.pth")
    assert read_checkpoint(tmp_path / "checkpoint.pth")["perf"] == 72.5
    for wrong in ({"state_dict": [1, 2]}, {"epoch": 7}):
        with pytest.raises(ValueError, match="save the state_dict alone"):
            load_released(model, wrong)


def hrnet_classifier(width):
    """The layout of HRNet's ImageNet release: to the fourth stage, then the classifier. Numbers
    only where the backbone has a place."""
    with torch.device("meta"):
        layout = nn.ModuleDict(
            {
                "transition3": nn.ModuleList(
                    [nn.Identity()] * 3 + [nn.Sequential(conv_step(4 * width, 8 * width))]
                ),
                "stage4": nn.Sequential(*(HRModule(width, 4, 4) for _ in range(3))),
                "incre_modules": nn.ModuleList(
                    nn.Sequential(Bottleneck(width << b, 32 << b)) for b in range(4)
                ),
                "downsamp_modules": nn.ModuleList(
                    nn.Sequential(nn.Conv2d(128 << b, 256 << b, 3, 2, 1), nn.BatchNorm2d(256 << b))
                    for b in range(3)
                ),
                "final_layer": nn.Sequential(nn.Conv2d(1024, 2048, 1), nn.BatchNorm2d(2048)),
                "classifier": nn.Linear(2048, 1000),
            }
        ).state_dict()
        whole, backbone = HRModule(width, 3, 3).state_dict(), HRNet(width).state_dict()
    layout |= {
        f"stage3.3.{name}": value for name, value in whole.items() if name.startswith("fuse_layers")
    }
    generator = torch.Generator().manual_seed(width)
    state = {name: torch.zeros(()).expand(value.shape) for name, value in layout.items()}
    return state | {
        name: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.tensor(7)
        for name, value in backbone.items()
    }


@pytest.fixture(scope="module")
def imagenet(): return {width: hrnet_classifier(width) for width in (32, 48)}


@pytest.mark.parametrize(
    "name, width, prefix, wrapped, file",
    sample([
        ("tokenpose_b", 32, "", False, True),
        ("ppt_b", 32, "module.", True, True),
        ("ppt_l_d6", 48, "backbone.", True, False),
        ("tokenpose_l_d6", 48, "module.backbone.", False, False),
    ], 1, 3),
)
def test_imagenet_weights_of_hrnet(imagenet, tmp_path, capsys, name, width, prefix, wrapped, file):
    state, model = imagenet[width], create_model(name, image_size=SIZE)
    rest = copy.deepcopy(
        {k: v for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    )
    source = {prefix + k: v for k, v in state.items()}
    source = {"state_dict": source, "meta": {"epoch": 100}} if wrapped else source
    if file:
        torch.save(source, tmp_path / "hrnet.pth")
        source = tmp_path / "hrnet.pth"
    assert load_backbone(model, source) is model
    own = model.backbone.state_dict()
    assert same_weights(own, state)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in rest.items())
    told = capsys.readouterr().out
    assert (
        told.count("\n") == 1 and f"{len(own)} tensors loaded into the backbone of {name}" in told
    )
    counts = dict(pair.split() for pair in told.split("for them: ")[1].strip().split(", "))
    assert sum(map(int, counts.values())) == len(state) - len(own) and counts["classifier"] == "2"
    assert counts.keys() == {
        "transition3", "stage4", "incre_modules", "downsamp_modules", "final_layer", "classifier",
        "stage3",
    }


@pytest.mark.parametrize(
    "name, change, message",
    [
        (
            "tokenpose_s_v1", None,
            "tokenpose_s_v1 has the backbone 'stem', which is trained from scratch",
        ),
        ("tokenpose_nano", None, "which is trained from scratch"),
        (
            "sdpose_b", None,
            "size than the backbone of sdpose_b, with 64 channels in stage 1 instead of 32;",
        ),
        (
            "tokenpose_l_d6", None,
            "of tokenpose_l_d6, with 32 channels in the finest branch instead of 48;",
        ),
        (
            "tokenpose_b",
            lambda s: s.pop("stage3.2.branches.1.0.conv1.weight"),
            "(1 parameters): stage3.2.branches.1.0.conv1.weight is missing",
        ),
        (
            "tokenpose_b",
            lambda s: s.update({"bn1.weight": torch.zeros(3)}),
            "bn1.weight has shape (3,) instead of (64,)",
        ),
        (
            "tokenpose_b",
            lambda s: s.update({"layer1.4.conv1.weight": torch.zeros(3)}),
            "layer1.4.conv1.weight is unknown",
        ),
        ("tokenpose_b", lambda s: s.clear(), "conv1.weight is missing; "),
        ("tokenpose_b", lambda s: s.update(epoch=3), "holds a int where a tensor should be"),
        (
            "tokenpose_b", lambda s: s.update({"bn1.weight": s["bn1.weight"].to_sparse()}),
            "holds a Tensor without plain numbers where a tensor should be",
        ),
    ],
)
def test_imagenet_weights_that_do_not_fit(imagenet, name, change, message):
    state, model = dict(imagenet[32]), create_model(name, image_size=SIZE)
    before = copy.deepcopy(model.state_dict())
    if change: change(state)
    with pytest.raises(ValueError) as error: load_backbone(model, state)
    assert message in str(error.value) and "\n" not in str(error.value)
    # nothing half loaded
    assert same_weights(model, before)


def test_narrow_weights_fit_the_narrow_stage():
    "A backbone of SDPose's own B models, whose stage 1 works in 32 channels, fits them."
    model, other = (create_model("sdpose_b", image_size=SIZE) for _ in range(2))
    load_backbone(
        model, {f"backbone.{name}": value for name, value in other.backbone.state_dict().items()}
    )
    assert all(
        torch.equal(a, b) for a, b in zip(model.backbone.parameters(), other.backbone.parameters())
    )


@pytest.fixture
def folder(tmp_path):
    model = create_model("ppt_nano", 5, SIZE, width=32, heads=2)
    model.about = {"recipe": {"model": "ppt_nano", "image_size": SIZE}, "words": "é"}
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_refused_network_leaves_the_earlier_one(folder, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = PoseTransformer.from_pretrained(folder)
    good = dict(model.about)
    for about, words in (
        ({"recipe": {"model": "ppt_nano", "image_size": [128, 96]}}, "image_size"),
        ({"recipe": {"epochs": "many"}}, "epochs"),
        ({"note": object()}, "what stands beside the network cannot be kept in config.json"),
    ):
        model.about = good | about
        with pytest.raises(DataError, match=words): model.save_pretrained(folder)
    model.about = None
    with pytest.raises(DataError, match="`about` is None; give a dict"):
        model.save_pretrained(folder)
    model.about = good
    with torch.no_grad(): next(model.parameters()).flatten()[0] = float("nan")
    with pytest.raises(DataError, match="not finite"): model.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(DataError, match="not finite"): model.save_pretrained(folder / "new")
    assert not (folder / "new").exists()


@pytest.mark.parametrize("full", ["model.safetensors", "config.json", "README.md"])
def test_a_full_disk_leaves_the_earlier_network(folder, monkeypatch, full):
    (folder / "README.md").write_text("my own")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = PoseTransformer.from_pretrained(folder)
    with torch.no_grad(): next(model.parameters()).zero_()
    opened, asdict = io.open, dataclasses.asdict
    def opens(path, mode="r", *given, **named):
        if full in str(path) and set(mode) & set("wx"):
            raise OSError(errno.ENOSPC, "No space left")
        return opened(path, mode, *given, **named)
    with monkeypatch.context() as patch:
        for place in ("builtins.open", "io.open"): patch.setattr(place, opens)
        with pytest.raises(DataError, match="No space left"): model.save_pretrained(folder)
        if full != "README.md":
            with pytest.raises(DataError, match="No space left"):
                save_network(folder, model.state_dict(), dict(config=asdict(model.config)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my own"
    assert not next(PoseTransformer.from_pretrained(folder).parameters()).any()


def test_a_folder_keeps_the_ratio_in_use_and_what_stands_beside(folder):
    model = PoseTransformer.from_pretrained(str(folder))
    assert model.about == {"recipe": {"model": "ppt_nano", "image_size": [*SIZE]}, "words": "é"}
    model.keep_ratio = 0.5
    model.bfloat16().save_pretrained(folder / "deep" / "down")
    again = PoseTransformer.from_pretrained(folder / "deep" / "down")
    assert again.keep_ratio == again.config.keep_ratio == 0.5 and again.about == model.about
    assert dataclasses.replace(again.config, keep_ratio=0.7) == model.config
    assert (
        load_file(folder / "deep" / "down" / "model.safetensors")["tokens.embed.weight"].dtype
        == torch.bfloat16
    )
    assert all(torch.equal(a, b.float()) for a, b in zip(again.parameters(), model.parameters()))


def test_a_network_in_the_cache_of_the_hub(folder, tmp_path):
    "What huggingface_hub keeps of an earlier download is found by name, without a connection."
    cache = tmp_path / "cache"
    home = cache / "models--owner--net"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes((folder / name).read_bytes())
    known = dict(cache_dir=cache, local_files_only=True)
    for name, hub in (("hub:owner/net", False), ("owner/net", True)):
        model = PoseTransformer.from_pretrained(name, hub=hub, **known)
        assert model.config.name == "ppt_nano"
    with pytest.raises(FileNotFoundError, match="Hub gives no network owner/other"):
        PoseTransformer.from_pretrained("hub:owner/other", **known)
    with pytest.raises(DataError, match="hub:owner/name"):
        PoseTransformer.from_pretrained("hub:../net", **known)


def rewrite(folder, **changes):
    "config.json with other fields of its configuration; None takes one away."
    values = json.loads((folder / "config.json").read_text())
    values["config"] = {k: v for k, v in (values["config"] | changes).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))


def edit(folder, **changes):
    "config.json with other fields; None takes one away."
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {k: v for k, v in values.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "model.safetensors is missing, though config.json is there",
        ),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json"),
        (
            lambda f: (f / "config.json").write_text("[1]"),
            "config.json must hold named fields",
        ),
        (
            lambda f: (f / "config.json").write_text('{"architectures": ["BertModel"]}'),
            "it is of another library",
        ),
        (lambda f: rewrite(f, dept=3), "config: unknown field 'dept'; nearest names: depth"),
        (lambda f: rewrite(f, depth="deep"), "config: depth is 'deep'; it must be a valid integ"),
        (lambda f: rewrite(f, heads=7), "config: a width of 32 does not divide into 7 heads"),
        (lambda f: edit(f, config=[1]), "config: it must be a dictionary of fields"),
        (lambda f: edit(f, config=None), "lacks the 'config' that builds the network"),
        (lambda f: edit(f, recipe={"model": "ppt_nano", "lr": "fast"}), "recipe: lr"),
        (
            lambda f: edit(f, keypoint_set=COCO17.to_dict()),
            "config has 5 keypoints, keypoint_set 17",
        ),
        (lambda f: edit(f, format=FORMAT + 1), "this program reads up to"),
        (lambda f: edit(f, format="2"), "'format' is '2', no format of a network"),
        (lambda f: edit(f, weights="sha256:1"), "weights: String should match"),
        (lambda f: edit(f, epoch=-1), "epoch: Input should be greater"),
        (lambda f: rewrite(f, depth=5), "model.safetensors does not fit its config.json"),
        (lambda f: rewrite(f, depth=10_000), "larger than its weights"),
        (lambda f: rewrite(f, pyramid_blocks=60_000), "larger than its weights"),
        (lambda f: rewrite(f, image_size=[60_000, 60_000]), "config has image_size"),
        (lambda f: rewrite(f, width=4096), "larger than its weights"),
        (lambda f: rewrite(f, mlp_ratio=1e300), "mlp_ratio is 1e+300; it must be less"),
        (lambda f: rewrite(f, head_channels=10 ** 18), "it must be less than or equal to 65536"),
        (lambda f: rewrite(f, depth=3, prune_at=(1,)), ".weight is unknown"),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            "model.safetensors is not the file that its config.json was written with",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(pickle.dumps(print)),
            "model.safetensors is not the file that its config.json was written with",
        ),
    ],
)
def test_folders_that_cannot_be_read(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError) as error: PoseTransformer.from_pretrained(folder)
    assert (
        message in str(error.value)
        and str(folder) in str(error.value)
        and "\n" not in str(error.value)
    )


@pytest.mark.parametrize("field", ["reduce", "backbone", "head"])
def test_a_row_that_other_code_adds_is_no_damage(folder, field):
    rewrite(folder, **{field: "mine"})
    with pytest.raises(DataError) as error: PoseTransformer.from_pretrained(folder)
    said = str(error.value)
    assert f"config.json: {field} is 'mine'" in said and "import the code" in said
    assert "damaged" not in said and "another copy" not in said


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.update(extra=torch.zeros(1)), "extra is unknown"),
        (lambda w: w["tokens.embed.bias"].fill_(torch.nan), "embed.bias holds NaN or infinity"),
        (
            lambda w: w.update({"tokens.embed.bias": torch.zeros(32, dtype=torch.int64)}),
            "tokens.embed.bias holds numbers of type torch.int64 instead of torch.float32",
        ),
        (
            lambda w: w.update({"tokens.embed.bias": 1e300 * torch.ones(32).double()}),
            "tokens.embed.bias holds NaN or infinity",
        ),
        (lambda w: w.update(extra=torch.zeros(20_000_000)), "is larger than the network"),
    ],
)
def test_weights_that_are_another_networks(folder, change, message):
    "Without a digest, as in files of the first format, the numbers themselves are looked at."
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match="is not the file|is larger than the network"):
        PoseTransformer.from_pretrained(folder)
    edit(folder, weights=None, format=None)
    with pytest.raises(DataError) as error: PoseTransformer.from_pretrained(folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_one_flipped_bit_is_noticed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="a copy is damaged"):
        PoseTransformer.from_pretrained(folder)


def test_a_large_configuration_takes_no_memory(folder):
    rewrite(folder, depth=10_000_000)
    code = (
        "import resource, sys; from dppt_nb.tokenpose import PoseTransformer\n"
        "PoseTransformer.from_pretrained('tokenpose_nano')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: PoseTransformer.from_pretrained(sys.argv[1])\n"
        "except ValueError: print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100_000    # KiB


def test_a_field_that_is_newer_than_the_file_has_its_default(folder):
    rewrite(folder, pyramid_blocks=None)
    assert PoseTransformer.from_pretrained(folder).config.pyramid_blocks == 2


@pytest.mark.parametrize(
    "name", ["nothing", "./not/there", "/not/there/at/all", "owner/name", "tokenpose_nan", "a/b/c"]
)
def test_a_name_with_a_mistake_opens_no_connection(name, no_connection):
    for load in (PoseTransformer.from_pretrained, load_network, network_files):
        with pytest.raises(FileNotFoundError) as error: load(name)
        text = str(error.value)
        assert f"there is no folder {name};" in text and "hub:" in text and "\n" not in text
    assert "tokenpose_nano" in text
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_teacher(get_recipe("dppt_nano", teacher=name), COCO17)


def saved(folder, recipe=None, keypoints=COCO17, **overrides):
    "A folder as a training writes it."
    recipe = recipe or get_recipe("ppt_nano", image_size=SIZE, overrides=overrides)
    torch.manual_seed(1)
    model = create_model(recipe.model, len(keypoints), recipe.image_size, **recipe.overrides)
    folder.mkdir(parents=True)
    config = dataclasses.asdict(model.config)
    info = dict(config=config, recipe=recipe.to_dict(), keypoint_set=keypoints.to_dict(), epoch=1)
    save_network(folder, model.state_dict(), info)
    return model.eval()


def test_a_network_is_built_from_what_is_saved_beside_it(tmp_path, monkeypatch):
    "Not from the recipe, and not from the table as it is today."
    model = saved(tmp_path / "run", width=32, heads=2)
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    values["config"]["keep_ratio"] = 0.93    # stopped while the ratio was annealed
    (tmp_path / "run" / "config.json").write_text(json.dumps(values))
    row = VARIANTS["ppt_nano"] | dict(prune_at=(0,), depth=7)
    monkeypatch.setitem(VARIANTS, "ppt_nano", row)
    model.keep_ratio = 0.93
    network, recipe, keypoints = load_network(tmp_path / "run")
    assert network.keep_ratio == 0.93 and recipe.model == "ppt_nano" and keypoints == COCO17
    images = images_for(model)
    with torch.no_grad():
        assert torch.allclose(network(images), model(images), atol=1e-5)
        again = PoseTransformer.from_pretrained(tmp_path / "run")
        assert torch.equal(again(images), model(images))
    monkeypatch.delitem(VARIANTS, "ppt_nano")
    assert load_network(tmp_path / "run")[0].keep_ratio == 0.93


def test_an_older_folder_is_built_from_its_recipe_with_a_note(tmp_path, capsys):
    model = saved(tmp_path / "run", width=32, heads=2, keep_ratio=0.5)
    edit(tmp_path / "run", config=None, format=None, weights=None)
    network, _, _ = load_network(tmp_path / "run")
    assert network.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), model.parameters()))
    assert "older format" in capsys.readouterr().out
    edit(tmp_path / "run", recipe=get_recipe("ppt_nano").change(model="gone").to_dict())
    with pytest.raises(DataError, match="recipe: there is no model 'gone'"):
        load_network(tmp_path / "run")


def test_folders_and_files_by_every_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = saved(tmp_path / "nano-0.5", width=32, heads=2)
    lone = tmp_path / "lone"
    lone.mkdir()
    weights = (tmp_path / "nano-0.5" / "model.safetensors").read_bytes()
    (lone / "nano.v2.safetensors").write_bytes(weights)
    for path in ("nano-0.5", "nano-0.5/model.safetensors", tmp_path / "nano-0.5"):
        assert load_network(path)[0].config == model.config
    with pytest.raises(DataError, match="lone/config.json is missing"):
        load_network("lone/nano.v2.safetensors")
    (lone / "config.json").write_bytes((tmp_path / "nano-0.5" / "config.json").read_bytes())
    assert load_network("lone/nano.v2.safetensors")[0].config == model.config
    assert network_files("lone/nano.v2.safetensors")[1].name == "nano.v2.safetensors"


def test_nothing_but_a_network_hides_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(shipped_networks()) >= {"tokenpose_nano", "ppt_nano_d12"}
    (tmp_path / "tokenpose_nano").mkdir()
    (tmp_path / "tokenpose_nano" / "results.json").write_text("{}")
    wanted = shipped_networks()["tokenpose_nano"] / "config.json"
    assert network_files("tokenpose_nano")[0] == wanted
    assert results_folder("tokenpose_nano", "lspet").as_posix() == "results/tokenpose_nano-lspet"
    assert results_folder("hub:a/net", "coco").as_posix() == "results/net-coco"
    (tmp_path / "x.pth").write_bytes(b"")
    assert results_folder("x.pth", "coco").as_posix() == "results/x-coco"
    saved(tmp_path / "run", width=32, heads=2)
    assert results_folder(tmp_path / "run", "coco") == tmp_path / "run"
    assert results_folder(tmp_path / "run" / "model.safetensors", "coco") == tmp_path / "run"
    saved(tmp_path / "ppt_nano_d12", width=32, heads=2)
    assert load_network("ppt_nano_d12")[0].config.width == 32


def test_every_shipped_network_names_its_digest():
    for folder in shipped_networks().values():
        told = json.loads((folder / "config.json").read_text())
        assert 2 <= told["format"] <= FORMAT
        assert told["weights"] == digest_of((folder / "model.safetensors").read_bytes())


def test_saved_networks_of_others(shared):
    "Folders that earlier versions wrote."
    places = [p.parent for p in (shared / "results").glob("**/model.safetensors")]
    assert len(places) >= 5
    for folder in places:
        network, recipe, keypoints = load_network(folder)
        assert network.num_keypoints == len(keypoints) and recipe.image_size == network.image_size


def test_what_is_not_saved_whole_is_not_saved(tmp_path):
    model = create_model("tokenpose_nano", image_size=SIZE)
    with pytest.raises(DataError, match="'config' that builds it"):
        save_network(tmp_path, model.state_dict(), {"recipe": Recipe().to_dict()})
    config = dataclasses.asdict(model.config)
    with pytest.raises(DataError, match="recipe: lr"):
        save_network(tmp_path, model.state_dict(), {"config": config, "recipe": {"lr": "fast"}})
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(DataError, match="has no 'recipe', which judging needs"):
        load_network(tmp_path / "bare")


@pytest.mark.parametrize("change, odd", [
    (lambda n: prune.l1_unstructured(n.encoder.blocks[0].mlp[0], "weight", 0.5), "weight_orig"),
    (lambda n: parametrizations.weight_norm(n.tokens.embed), "parametrizations.weight.original0"),
    (lambda n: setattr(n, "head", torch.nn.Identity()), "head.query.0.weight"),
])
def test_weights_that_the_configuration_does_not_have_are_not_saved(change, odd, tmp_path):
    "The folder could not be read again; an earlier network in it stays."
    model = create_model("tokenpose_nano", 5, SIZE, depth=1)
    model.save_pretrained(tmp_path)
    change(model)
    draws = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=f"{odd} is not as the configuration of tokenpose_nano"):
        model.save_pretrained(tmp_path)
    assert torch.equal(draws, torch.random.get_rng_state())
    PoseTransformer.from_pretrained(tmp_path)
    if "weight_orig" not in odd: return
    prune.remove(model.encoder.blocks[0].mlp[0], "weight")
    model.save_pretrained(tmp_path)
    again = PoseTransformer.from_pretrained(tmp_path).state_dict()
    assert same_weights(model, again)


def test_the_class_alone_saves_and_loads(tmp_path):
    "`tokenpose` knows no files and no data, and its class brings them when they are asked for."
    code = (
        "import sys; from dppt_nb.tokenpose import PoseTransformer\n"
        "parts = {m.split('.')[1] for m in sys.modules if m.startswith('dppt_nb.')}\n"
        "assert not parts & {'store', 'datasets', 'checkpoints', 'recipes'}, parts\n"
        "model = PoseTransformer.from_pretrained('tokenpose_nano')\n"
        f"model.save_pretrained({str(tmp_path / 'copy')!r})\n"
        f"PoseTransformer.from_pretrained({str(tmp_path / 'copy')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def as_released(model, prefix="features."):
    "Our network of S or T size in the layout of the TokenPose release."
    rules = {
        "tokens.keypoint_tokens": "keypoint_token", "tokens.embed": "patch_to_embedding",
        "backbone.": "", "head.": "mlp_head.", "encoder.blocks.": "transformer.layers.",
        ".attention_norm": ".0.fn.norm", ".mlp_norm": ".1.fn.norm",
        ".attention.qkv": ".0.fn.fn.to_qkv", ".attention.out": ".0.fn.fn.to_out.0",
        ".mlp.0": ".1.fn.fn.net.0", ".mlp.2": ".1.fn.fn.net.3",
    }
    def rename(name):
        for ours, released in rules.items(): name = name.replace(ours, released)
        return prefix + name
    state = {rename(name): value for name, value in model.state_dict().items()}
    return state | {f"{prefix}pos_embedding": model.tokens.code[:, model.num_keypoints:]}


@pytest.mark.parametrize(
    "name, keypoints, size, protocol",
    [
        ("tokenpose_s_v1", COCO17, (256, 192), "unbiased"),
        ("ppt_s", MPII16, (256, 256), "unbiased"),
        ("sdpose_t", COCO17, (256, 192), "flip_shift"),
    ],
)
def test_a_released_checkpoint_and_its_model(tmp_path, name, keypoints, size, protocol):
    torch.manual_seed(0)
    model = create_model(name, len(keypoints), size, init="residual").eval()
    state = as_released(model, "module.features.")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "x.safetensors")
    for path in (tmp_path / "x.pth", tmp_path / "x.safetensors"):
        network, recipe, known = load_network(path, model=name)
        assert known == keypoints and recipe.image_size == size and getattr(recipe, protocol)
        assert recipe_of(network) == recipe    # by which it is exported
        network.save_pretrained(tmp_path / "saved")
        assert load_network(tmp_path / "saved")[1:] == (recipe, known)
        with torch.no_grad():
            images = images_for(model, 1)
            assert torch.allclose(network(images), model(images), atol=1e-4)
    with pytest.raises(DataError, match="--model"): load_network(tmp_path / "x.pth")
    with pytest.raises(DataError, match="does not fit tokenpose_t"):
        load_network(tmp_path / "x.pth", model="tokenpose_t")
    with pytest.raises(ValueError, match="there is no model 'tokenpose_x'"):
        load_network(tmp_path / "x.pth", model="tokenpose_x")
    with pytest.raises(DataError, match="no keypoint tokens"):
        torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "y.pth")
        load_network(tmp_path / "y.pth", model=name)


def test_two_names_of_one_parameter_are_refused():
    model = create_model("tokenpose_s_v1", image_size=SIZE)
    state = as_released(model) | {"module.features.conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(DataError, match="holds both"): load_released(model, state)


def test_weights_in_whole_numbers_are_near_and_small(tmp_path):
    model = create_model("ppt_nano", image_size=SIZE)
    small = shrink_weights(model.state_dict())
    wide = widen_weights(small)
    assert wide.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        if small[name].dtype != torch.int8: continue
        step = value.flatten(1).abs().amax(1) / 127
        apart = (wide[name] - value).flatten(1).abs().amax(1)
        assert (apart <= 0.501 * step + 1e-9).all(), name
    save_network(tmp_path, small, {"config": dataclasses.asdict(model.config)})
    numbers = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.3 * numbers
    again = build_network(tmp_path / "config.json", tmp_path / "model.safetensors")[0]
    assert all(p.dtype == torch.float32 for p in again.parameters())
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad(): apart = (again(images) - model.eval()(images)).abs().max()
    assert apart < 0.1 * model(images).abs().max()


def test_a_scale_without_its_weight_is_refused():
    small = shrink_weights({"linear.weight": torch.randn(64, 64)})
    with pytest.raises(DataError, match="scale without its weight"):
        widen_weights({"linear.weight.scale": small["linear.weight.scale"]})
    with pytest.raises(DataError, match="scale without its weight"):
        widen_weights({**small, "linear.weight.scale": torch.ones(3)})
    with pytest.raises(DataError, match="does not fit"):
        shrink_weights({"bias": torch.tensor([1e9])})


def test_shipped_networks_are_small_and_have_cards():
    folders = shipped_networks()
    assert sum(f.stat().st_size for folder in folders.values() for f in folder.iterdir()) < 30e6
    of_photographs = [folder for name, folder in folders.items() if name.endswith("_lspet")]
    assert len(of_photographs) == 7
    for name, folder in folders.items():
        card = (folder / "README.md").read_text()
        for words in (name, "How well it does", "mirrored", "Meant for", "represented", "Terms"):
            assert words in card, name
    for folder in of_photographs:
        network, recipe, keypoints = load_network(folder)
        assert len(keypoints) == 14 and "/" not in recipe.teacher
        assert len(unpack_marks(network.about)) == 7700    # whom it learned from


@pytest.mark.soak
@pytest.mark.parametrize("split, known", [("train", 7700), ("val", 0), ("test", 0)])
def test_shipped_networks_know_whom_they_learned_from(shared, split, known):
    people = load_people("lspet", shared / "data/lspet_dataset.zip", (split,), (64, 48))[split]
    for name, folder in shipped_networks().items():
        if not name.endswith("_lspet"): continue
        about = load_network(folder)[0].about
        # joints that come back from crops of another size are off by rounding, so one may be missed
        assert known - 5 <= known_people(about, people) <= known, name
        assert ("trained on" in learned_from(about, people, "test")) == bool(known)


def test_a_start_of_another_shape_says_which_options_fit_it():
    "The options in the sentence, given to another recipe, build a network that takes the weights."
    network, recipe, keypoints = load_network("dppt_s_lspet")
    nano = create_model("tokenpose_nano", 14)
    with pytest.raises(DataError, match="another shape") as refused:
        start_from(nano, "dppt_s_lspet", keypoints)
    words = shlex.split(str(refused.value).split("takes the options ")[1])
    options = dict(zip(words[::2], words[1::2]))
    size = tuple(map(int, options["--image-size"].split("x")))
    overrides = json.loads(options["--overrides"])
    fitting = start_from(
        create_model(options["--model"], 14, size, **overrides), "dppt_s_lspet", keypoints
    )
    for name, weight in network.state_dict().items():
        assert torch.equal(fitting.state_dict()[name], weight)
    assert (float(options["--sigma"]), int(options["--kernel"])) == (recipe.sigma, recipe.kernel)


@pytest.mark.parametrize("changes", [{"depth": 1}, {"heads": 8}, {"attention_scale": "model"}])
def test_a_start_whose_weights_would_be_lost_or_mean_something_else_is_refused(changes, tmp_path):
    recipe = get_recipe("finetune_nano", epochs=1, overrides=changes)
    with pytest.raises(DataError, match=f"has {next(iter(changes))} = .*lost, or read in another"):
        train_recipe(recipe, out=tmp_path / "run", device="cpu", bars=False, people=8)
    assert not (tmp_path / "run").exists()
    check_sources(get_recipe("finetune_nano"), begin=True)


@pytest.mark.parametrize("recipe, said", [
    (get_recipe("tokenpose_nano", keypoint_cycles=0.1), "cycles is 1; a cycle that teaches"),
    (get_recipe("tokenpose_nano", loss="mse"), "gives probabilities, which loss 'mse' is not of"),
    (get_recipe("tokenpose_nano", guide=0.3, teacher="tokenpose_nano"), "drops no patches, so"),
    (get_recipe("dppt_nano", teacher="dppt_nano_lspet"), "drops patches itself"),
    (get_recipe("dppt_nano", teacher="dppt_s_lspet"), "has image_size .256, 192., the student"),
    (get_recipe("dppt_nano", teacher="tokenpose_nano", match="depth", overrides={"depth": 5}),
     "match='depth' needs equal depths"),
])
def test_lessons_that_cannot_be_given_are_refused_before_people_are_read(recipe, said, tmp_path):
    draws = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=said):
        train_recipe(recipe, "coco", tmp_path / "nowhere", tmp_path / "run", "cpu", bars=False)
    assert not (tmp_path / "run").exists() and torch.equal(draws, torch.random.get_rng_state())


def test_a_start_is_read_once_before_the_run_and_not_checked_where_none_begins(monkeypatch):
    read = []
    noted = lambda name: read.append(name) or load_network(name)
    monkeypatch.setattr("dppt_nb.runner.load_network", noted)
    check_sources(get_recipe("finetune_nano"), begin=True)
    assert len(read) == len({*read}) and get_recipe("finetune_nano").start in read
    misfit = get_recipe("finetune_nano", overrides={"depth": 1})
    check_sources(misfit)    # one that goes on has its own weights
    with pytest.raises(DataError, match="has depth = "): check_sources(misfit, begin=True)


def test_a_start_that_drops_other_patches_is_taken_and_said(capsys):
    _, _, keypoints = load_network("dppt_nano_lspet")
    start_from(create_model("tokenpose_nano", 14), "dppt_nano_lspet", keypoints)
    said = capsys.readouterr().out
    assert "prune_at was (1, 2, 3) in the start, and is () now" in said and "cycles" not in said


def test_a_start_whose_layers_are_lost_or_read_otherwise_is_said(capsys):
    "In Python, where nobody has called `check_start`."
    _, _, keypoints = load_network("tokenpose_nano")
    start_from(create_model("tokenpose_nano", depth=2, heads=8), "tokenpose_nano", keypoints)
    said = capsys.readouterr().out
    assert "depth was 4 in the start, and is 2 now" in said
    assert "heads was 4 in the start, and is 8 now" in said and "attention_scale" not in said


def respelt(keypoints, write):
    "A keypoint set with the same joints in another spelling."
    return build_keypoint_set("mine", tuple(write(name) for name in keypoints.names), ())


@pytest.mark.parametrize(
    "write", [lambda n: n.replace("_", " ").title(), lambda n: n.replace("_", "-")]
)
def test_joints_in_another_spelling_begin_with_their_tokens_and_may_have_a_teacher(write, capsys):
    mine, trained = respelt(COCO17, write), load_network("tokenpose_nano")[0]
    started = start_from(create_model("tokenpose_nano", 17), "tokenpose_nano", mine)
    assert "joints that are new to it: none\n" in capsys.readouterr().out
    tokens = [network.tokens.keypoint_tokens for network in (started, trained)]
    assert torch.equal(*tokens)
    recipe = get_recipe("dppt_nano", teacher="tokenpose_nano")
    assert load_teacher(recipe, mine)
    turned = respelt(replace(COCO17, names=COCO17.names[::-1]), write)
    with pytest.raises(DataError, match="take a teacher of its kind"): load_teacher(recipe, turned)


def test_a_joint_of_two_names_begins_with_its_token_and_a_middle_of_two_is_new(capsys):
    started = start_from(create_model("tokenpose_nano", 16), "dppt_nano_lspet", MPII16)
    assert "new to it: pelvis, thorax\n" in capsys.readouterr().out
    tokens = load_network("dppt_nano_lspet")[0].tokens.keypoint_tokens
    ours = started.tokens.keypoint_tokens[:, MPII16.names.index("upper_neck")]
    assert torch.equal(ours, tokens[:, LSP14.names.index("neck")])


@pytest.mark.parametrize("name", [None, 5, "", ["tokenpose_nano"]])
def test_what_names_no_network_is_refused(name):
    with pytest.raises(DataError, match="a network is named by a folder or a name"):
        load_network(name)


def test_a_release_is_no_teacher_of_other_joints_and_draws_nothing(tmp_path):
    "It does not say which joints it finds; of seventeen they are COCO's."
    named = dict(teacher=str(tmp_path / "a.pth"), teacher_model="tokenpose_nano")
    recipe = get_recipe("dppt_nano", **named)
    turned = replace(COCO17, names=COCO17.names[::-1])
    with pytest.raises(DataError, match="take a teacher of its kind"): load_teacher(recipe, turned)
    before = torch.get_rng_state()
    with pytest.raises(FileNotFoundError, match="a.pth"): load_teacher(recipe, COCO17)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_lesson_that_other_code_added_is_taught_like_ours(monkeypatch):
    monkeypatch.setitem(LESSONS, "small", Lesson(lambda *given: None, cross_entropy=0.25))
    recipe = get_recipe("tokenpose_nano", loss="cross_entropy", lessons={})
    taught = teach(recipe, "small", "patch_cycles")
    assert taught == recipe.change(lessons={"small": 0.25}, patch_cycles=0.1)
    assert teach(recipe.change(lessons={"other": 1.0}), "small").lessons == dict(
        other=1.0, small=0.25
    )


def test_a_lesson_or_model_that_is_unknown_is_named():
    with pytest.raises(DataError, match="no lesson is called 'atention'; near it: attention"):
        teach(get_recipe("ppt_nano"), "atention")
    with pytest.raises(DataError, match="no model is called 'ppt_nan'; near it: ppt_nano"):
        teach(get_recipe("ppt_nano").change(model="ppt_nan"), "attention")

"""Thousands of damaged networks, checkpoints and records: each is read whole or answered with one
sentence. A hundred of each kind by default, more with DPPT_FUZZ=10000."""
import copy
import dataclasses
import json
import os
import random
import warnings
from pathlib import Path

import pytest
import torch
from fuzzing import Tally, how_many
from weights import same_weights

from dppt_nb.checkpoints import load_network, save_network
from dppt_nb.checks import DataError
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model
from dppt_nb.recipes import get_recipe
from dppt_nb.released import load_released
from dppt_nb.runs import RunFolder

INPUTS, SENTENCES = how_many(100), (DataError, FileNotFoundError)
ODD = (
    None, True, -1, 0, 1, 3, 7, 10 ** 7, 10 ** 30, -10 ** 30, 0.5, 1e308, float("nan"), "", "stem",
    "../x", "\x1b[31m", [], [1], [[1, 2], [3]], [10 ** 9, 10 ** 9], {}, {"a": {"b": 1}},
    "9" * 5000,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    "The files of a small network, of a checkpoint and of a run, as bytes."
    folder = tmp_path_factory.mktemp("sound")
    recipe = get_recipe(
        "ppt_nano", image_size=(32, 48), overrides=dict(width=16, heads=2, depth=2, prune_at=[1])
    )
    torch.manual_seed(0)
    model = create_model("ppt_nano", 17, (32, 48), **recipe.overrides)
    info = dict(
        config=dataclasses.asdict(model.config), recipe=recipe.to_dict(),
        keypoint_set=COCO17.to_dict(), epoch=1, data="synthetic",
    )
    save_network(folder, model.state_dict(), info)
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, folder / "x.pth")
    state = {"model.a": torch.ones(3)}
    RunFolder(folder / "run").write(dict(info, step=3, history=[{"epoch": 1}]), state)
    names = ("config.json", "model.safetensors", "x.pth", "run/training.json")
    return model, {name: (folder / name).read_bytes() for name in names}, folder


def places(values, path=()):
    "Every place in nested lists and dictionaries."
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)): yield from places(value, (*path, key))


def change_values(content, rng):
    "Another value, name or place somewhere in JSON."
    values = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        *way, last = rng.choice(list(places(values)))
        inner = values
        for key in way: inner = inner[key]
        what = rng.randrange(4)
        if what == 0: del inner[last]
        elif what == 1 and isinstance(inner, dict):
            inner[str(rng.choice(ODD))[:20]] = inner.pop(last)
        else: inner[last] = copy.deepcopy(rng.choice(ODD))
        if not isinstance(values, dict) or not values: break
    return json.dumps(values).encode()


def change_bytes(content, rng):
    "Some other bits, a piece lost or doubled, an end cut, a head in front."
    content, what = bytearray(content), rng.randrange(6)
    # heads and ends say more than what lies between them
    end = rng.choice((64, 2048, len(content)))
    place = rng.randrange(min(end, len(content)))
    if rng.random() < 0.3: place = len(content) - 1 - place
    if what <= 1: content[place] ^= 1 << rng.randrange(8)
    elif what == 2: del content[place:place + rng.randrange(1, 300)]
    elif what == 3: content[place:place] = content[place:place + rng.randrange(1, 300)]
    elif what == 4: content = content[:place]
    else: content[:0] = rng.randbytes(rng.randrange(1, 16))
    return bytes(content)


def answered(read):
    "What was read, or None where one sentence said why not."
    tally = Tally("one")
    found = tally.take(0, read, SENTENCES)
    tally.check()
    return found


def all_sound(network): return all(v.isfinite().all() for v in network.state_dict().values())


@pytest.mark.parametrize("known", [True, False], ids=["digest", "no digest"])
def test_damaged_networks(sound, tmp_path, known):
    model, files, _ = sound
    rng = random.Random(f"network {known}")
    tally = Tally(f"networks, {'with' if known else 'without'} digest")
    config = json.loads(files["config.json"])
    if not known: config = {k: v for k, v in config.items() if k not in ("weights", "format")}
    for number in range(INPUTS):
        content = {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": files["model.safetensors"],
        }
        name = rng.choice(tuple(content))
        change = rng.choice((change_values, change_bytes)) if "json" in name else change_bytes
        content[name] = change(content[name], rng)
        for file, data in content.items(): (tmp_path / file).write_bytes(data)
        found = tally.take(number, lambda: load_network(tmp_path), SENTENCES)
        if found is None: continue
        assert all_sound(found[0]), number
        if name == "config.json" or known and "weights" in json.loads(content["config.json"]):
            own = found[0].state_dict()
            assert same_weights(model, own), number
    # some fields may be missing or others, and the network is the same
    tally.check()
    assert tally.counts["read"] and tally.counts["refused"]


def test_damaged_checkpoints(sound, tmp_path):
    _, files, _ = sound
    rng, tally = random.Random("checkpoint"), Tally("released checkpoints")
    model = create_model("ppt_nano", 17, (32, 48), width=16, heads=2, depth=2, prune_at=(1,))
    for number in range(INPUTS):
        content = files["x.pth"]
        for _ in range(rng.choice((1, 1, 3))): content = change_bytes(content or b"x", rng)
        (tmp_path / "x.pth").write_bytes(content)
        tally.take(number, lambda: load_released(model, tmp_path / "x.pth"), SENTENCES)
        assert all_sound(model)
    tally.check()


def test_damaged_records_of_runs(sound):
    _, files, folder = sound
    rng, run, tally = random.Random("run"), folder / "run", Tally("records of runs")
    for number in range(INPUTS):
        change = rng.choice((change_values, change_bytes))
        (run / "training.json").write_bytes(change(files["run/training.json"], rng))
        found = tally.take(number, RunFolder(run).read, SENTENCES)
        assert found is None or found[1].keys() == {"model.a"}
    tally.check()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file(sound, tmp_path, name):
    "A pipe, a folder, a link to nothing or to itself in place of a file: nothing hangs."
    _, files, _ = sound
    for file in ("config.json", "model.safetensors"): (tmp_path / file).write_bytes(files[file])
    place = tmp_path / name
    makers = (
        lambda: os.mkfifo(place), place.mkdir, lambda: place.symlink_to("nowhere"),
        lambda: place.symlink_to(name),
    )
    for make in makers:
        place.rmdir() if place.is_dir() else place.unlink(missing_ok=True)
        make()
        assert answered(lambda: load_network(tmp_path)) is None


def test_a_pth_of_another_kind(tmp_path):
    "Objects, tensors without numbers, and sizes that the file does not hold."
    import zipfile
    model = create_model("ppt_nano", 17, (32, 48), width=16, heads=2, depth=2, prune_at=(1,))
    state = model.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = (
            torch.zeros(1).expand(10 ** 9), torch.zeros(2, 2).to_sparse(),
            torch.zeros(1, device="meta"), torch.zeros(3) * 1j,
            torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8),
            7, None, [1], {"a": 1}, "words",
        )
        for value in odd:
            torch.save(state | {"tokens.embed.bias": value}, tmp_path / "x.pth")
            assert answered(lambda: load_released(model, tmp_path / "x.pth")) is None
    torch.save(state | {3: torch.zeros(1)}, tmp_path / "x.pth")
    assert answered(lambda: load_released(model, tmp_path / "x.pth")) is None
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert answered(lambda: load_released(model, tmp_path / "x.pth")) is model
    torch.save(state, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(
        Path(tmp_path / "y.pth"), "w", zipfile.ZIP_LZMA
    ) as new:
        for name in old.namelist(): new.writestr(name, old.read(name))
    assert answered(lambda: load_released(model, tmp_path / "y.pth")) is None

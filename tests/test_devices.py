"""Several processes, and batches in parts: what is learned is what one process learns at once."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices_fixture import CASES, SIZE, TINY, all_steps, fed_and_not, one_step, some_people
from safetensors.torch import load_file

from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.devices import LOST, Team, free_port, launch
from dppt_nb.recipes import Recipe
from dppt_nb.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def alone():
    "The steps of one process, each batch at once."
    return all_steps(Team("cpu"))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    "The same of two processes that meet over gloo; one start for all recipes."
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    out, port = tmp_path_factory.mktemp("devices") / "found", free_port()
    place = dict(os.environ, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                 LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    script = Path(__file__).with_name("devices_fixture.py")
    both = [
        subprocess.Popen(
            [sys.executable, script, out, "1", "2"], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=dict(place, RANK=rank, LOCAL_RANK=rank),
        )
        for rank in "01"
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return {number: load_file(f"{out}-{number}.safetensors") for number in (1, 2)}


def compare(found, wanted, case):
    """Losses and gradients one by one, within 1e-5, small gradients within 1e-8 of the whole one.
    What is zero by its nature (a bias before a norm, a shift of all logits) is noise, as large as
    the threads make it, and held to the rounding of the whole gradient, 1e-7."""
    names = [name for name in wanted if name.startswith(f"{case}: ")]
    assert len(names) > 20 and {*names} == {n for n in found if n.startswith(f"{case}: ")}
    length = torch.stack([wanted[name].norm() for name in names if "gradient" in name]).norm()
    for name in names:
        apart, scale = (found[name] - wanted[name]).norm(), wanted[name].norm()
        share = 1e-2 if scale < 1e-6 * length else 1e-3
        if "gradient" in name: scale = max(scale, length * share)
        assert apart <= 1e-5 * scale, (name, apart)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does(alone, two_processes, case):
    compare(two_processes[1], alone, case)
    compare(two_processes[2], alone, case)    # and each in two parts


@pytest.fixture(scope="module")
def in_parts(): return all_steps(Team("cpu", accumulate=2))


@pytest.mark.parametrize("case", CASES)
def test_a_batch_in_two_parts_is_the_batch(alone, in_parts, case): compare(in_parts, alone, case)


@pytest.mark.parametrize("way", [(1, 1), (1, 2), (2, 1), (2, 2)], ids="{0[0]} by {0[1]}".format)
def test_crops_of_parts_are_fetched_ahead_and_learn_the_same_bits(way, request):
    "By `feed`, and of a batch only what this process computes; as if each step fetched its own."
    processes, accumulate = way
    found = (fed_and_not(Team("cpu", accumulate)) if processes == 1
             else request.getfixturevalue("two_processes")[accumulate])
    # of 13 people in batches of 5, 4 and 4 the first process has the first half
    assert found["handed"].tolist() == ([5, 4, 4] if processes == 1 else [3, 2, 2]) * 2
    names = [name.removeprefix("fed: ") for name in found if name.startswith("fed: ")]
    assert sum(name.startswith("loss") for name in names) == 2 and len(names) > 100
    for name in names: assert torch.equal(found[f"fed: {name}"], found[f"former: {name}"]), name


def test_the_parts_are_not_weighed_by_chance(alone, monkeypatch):
    "With parts that count the same, and not by what they hold, the losses would differ."
    monkeypatch.setattr("dppt_nb.loop.part_shares", lambda team, parts: [(0.5, 0.5)] * 2)
    recipe, changes = CASES["plain"]
    other = one_step(Team("cpu", accumulate=2), recipe, changes)
    other = {f"plain: {name}": value for name, value in other.items()}
    with pytest.raises(AssertionError, match="plain: "): compare(other, alone, "plain")


def test_a_run_in_parts_goes_on_as_one_in_parts_only(tmp_path):
    recipe = Recipe(image_size=SIZE, overrides=TINY, epochs=2, batch_size=6)
    def run(accumulate):
        team = Team("cpu", accumulate)
        return Trainer(recipe, some_people(), None, tmp_path, bars=False, team=team)
    run(2).fit(epochs=1)
    with pytest.raises(DataError, match="accumulate = 2, not 1"): run(1).fit(resume=True)
    run(2).fit(resume=True)
    with pytest.raises(DataError, match="6 people cannot be cut into 7 parts"):
        Trainer(recipe, some_people(), bars=False, team=Team("cpu", 7)).fit()


def test_other_random_numbers_are_not_asked_for(monkeypatch):
    "Making a network asks no GPU for its state, however many there are."
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: asked.append(1) or 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *a: asked.append(2))
    Trainer(Recipe(image_size=SIZE, overrides=TINY), some_people(), device="cpu", bars=False)
    assert not asked


def test_more_gpus_than_there_are_are_refused():
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    there = torch.cuda.device_count()
    with pytest.raises(DataError, match=f"this machine has {there} GPUs"):
        launch(["models"], there + 1, "cuda")


@pytest.mark.soak
def test_two_machines_train_one_run(tmp_path):
    "Two launchers with an address each, as on two hosts that see one disk."
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    port, words = free_port(), [
        "-m", "dppt_nb", "train", "tokenpose_nano", "--people", "16", "--epochs", "1",
        "--image-size", "64x48", "--batch-size", "8", "--device", "cpu", "--no-report",
        "--overrides", '{"width": 32, "depth": 1, "heads": 2}', "--out", str(tmp_path / "run"),
    ]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node",
             "1", "--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port",
             str(port), "--local-addr", f"127.0.0.{rank + 1}", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]
    said = [host.communicate()[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert "on 2 devices" in said[0] and "PCK" in said[0] and "PCK" not in said[1]


def test_more_processes_than_a_cpu_has_room_for_are_not_started(monkeypatch):
    monkeypatch.setattr("dppt_nb.devices.start_process", lambda *given: pytest.fail("started"))
    with pytest.raises(DataError, match="--devices is 100000, and on a CPU each takes a process"):
        launch(["train", "tokenpose_nano"], 100_000, "cpu")


@pytest.mark.parametrize("ends, code, shown", [
    ((LOST, 1), 1, "of 1"), ((1, LOST), 1, ""), ((2, 1), 2, ""), ((LOST, LOST), LOST, "of 1"),
], ids=str)
def test_the_error_of_the_process_that_failed_by_itself_is_shown(
    ends, code, shown, monkeypatch, capfd
):
    "Not that of process 0, which only could not reach the other any more."
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    def start(words, rank, count, port, errors):
        line = f"import sys; print('of {rank}', file=sys.stderr); sys.exit({ends[rank]})"
        return subprocess.Popen([sys.executable, "-c", line], stderr=errors if rank else None)
    monkeypatch.setattr("dppt_nb.devices.start_process", start)
    assert launch(["train"], 2, "cpu") == code
    assert capfd.readouterr().err.split("\n")[1] == shown


def test_a_process_that_lost_the_others_ends_with_a_code_of_its_own(capsys):
    def broken(*given): raise RuntimeError("Connection closed by peer")
    with pytest.raises(SystemExit) as end: Team("cpu")._with_all(broken, 1)
    assert end.value.code == LOST
    assert "cannot be reached (Connection closed by peer)" in capsys.readouterr().err


@pytest.mark.parametrize("leads, entered", [(True, 1), (False, 0)])
def test_who_waits_for_the_data_of_a_process_that_ended_says_so(leads, entered, capsys):
    "The first process prepares, and tells the others; they wait before they read."
    def broken(): raise RuntimeError("Connection closed by peer")
    team, came = Team("cpu"), []
    team.accelerator = SimpleNamespace(is_local_main_process=leads, wait_for_everyone=broken)
    with pytest.raises(SystemExit) as end:
        with team.first(): came.append("entered")
    assert end.value.code == LOST and len(came) == entered
    assert "cannot be reached (Connection closed by peer)" in capsys.readouterr().err


def test_two_processes_with_a_tracker_are_judged_at_the_end(tmp_path, monkeypatch, capfd):
    "Closing the tracker leaves the processes together, and parting them again is no error."
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    pytest.importorskip("tensorboard", reason="needs dppt-nb[dev]")
    words = [
        "train", "tokenpose_nano", "--people", "16", "--epochs", "1", "--image-size", "64x48",
        "--batch-size", "8", "--device", "cpu", "--no-report", "--no-samples", "--devices", "2",
        "--overrides", '{"width": 32, "depth": 1, "heads": 2, "pyramid_blocks": 1}',
        "--track", "tensorboard", "--out", str(tmp_path / "run"),
    ]
    monkeypatch.setattr(sys, "argv", ["dppt", *words])    # of which the two take what to do
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as end: main(words, prog_name="dppt")
    said = capfd.readouterr().err
    assert end.value.code == 0 and "Traceback" not in said, said
    assert json.loads((tmp_path / "run" / "validation.json").read_text())["scores"]
    assert list((tmp_path / "run" / "track").iterdir())


def test_no_process_makes_a_tensor_on_the_first_gpu(monkeypatch):
    "Accelerate gives each its own; who looks for a GPU before that makes nothing there."
    monkeypatch.setattr("dppt_nb.devices.pick_device", lambda name: pytest.fail("made a tensor"))
    own = SimpleNamespace(process_index=1, device=torch.device("cuda:1"))
    library = SimpleNamespace(
        utils=SimpleNamespace(InitProcessGroupKwargs=lambda **how: how),
        Accelerator=lambda **how: own,
    )
    monkeypatch.setattr("dppt_nb.devices.load_accelerate", lambda: library)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Team("cuda").device == own.device and Team().rank == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="device 'cuda' cannot be used here"): Team("cuda")


def test_a_notebook_starts_two_processes(tmp_path):
    "The lines that the last lesson shows, on a CPU and on a few small people."
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    page = json.loads((ROOT / "nbs/14_train.ipynb").read_text())
    cell, = (c for c in page["cells"] if c.get("id") == "14de0a03")
    lines = "".join(cell["source"]).split("```python\n")[1].split("```")[0]
    few = 'image_size=(64, 48), epochs=1, batch_size=8, warmup_steps=1, precision="fp32"'
    for told, tried in (
        ('get_recipe("tokenpose_nano")', f'get_recipe("tokenpose_nano", {few})'),
        ('"lspet", "stores/lspet", "runs/lspet"',
         f'"synthetic", None, {str(tmp_path / "run")!r}, "cpu", people=16, report=False'),
    ):
        assert lines.count(told) == 1
        lines = lines.replace(told, tried)
    script = tmp_path / "cells.py"
    script.write_text(lines)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "training.json").read_text())["devices"] == 2


def test_the_line_for_torchrun_with_a_start():
    "It takes what begins like an option of its own, unless two dashes stand before the command."
    run = pytest.importorskip("torch.distributed.run")
    page = (ROOT / "nbs" / "machinery" / "devices.ipynb").read_text()
    line, = re.findall("`torchrun (--nproc-per-node 2 -m -- dppt_nb train [^`]*--start NAME)", page)
    words = line.split()
    told = run.get_args_parser().parse_args(words)
    assert (told.training_script, told.training_script_args) == ("dppt_nb", words[5:])
    with pytest.raises(SystemExit):
        run.get_args_parser().parse_args([word for word in words if word != "--"])

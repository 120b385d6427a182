"""Runs that are killed, stopped and raced: each ends as the one that nobody touched, to the bit."""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import click
import pytest
from click.testing import CliRunner
from forked import Command
from safetensors.torch import load_file

from dppt_nb.cutting import _undisturbed
from dppt_nb.terminal import Sentences, termination

KILLS = 30 if os.environ.get("DPPT_SOAK") else 5
WORDS = [
    "train", "tokenpose_nano", "--people", "32", "--epochs", "8", "--image-size", "64x48",
    "--batch-size", "11", "--overrides", '{"width": 32, "depth": 1, "heads": 2}', "--device", "cpu",
    # a state after every step, so that most kills hit the inside of an epoch
    "--eval-every", "4", "--save-minutes", "0", "--no-report", "--no-samples",
]


def start(out, *more):
    "A training in a process of its own, on one thread; of endless people only a few an epoch."
    few = dict(train=32, val=16) if "endless" in more else None
    return Command(*WORDS, "--out", out, *more, people=few)


def record_of(out): return json.loads((out / "training.json").read_text())


def steps_in(out):
    "How many steps the folder holds."
    return record_of(out)["step"] if (out / "training.json").exists() else 0


def finish(out, *more):
    process = start(out, *more, *(["--resume"] if (out / "training.json").exists() else []))
    said = process.end()
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    "A run that nobody stops."
    out = tmp_path_factory.mktemp("untouched") / "run"
    finish(out)
    return out


def same(one, two):
    "Weights, averages and moments are equal to the bit, and so are losses and scores."
    files = ["model.safetensors", record_of(one)["state"]]
    for name in files:
        mine, theirs = load_file(one / name), load_file(two / name)
        assert mine.keys() == theirs.keys()
        for key in mine: assert mine[key].equal(theirs[key]), (name, key)
    rows = [record_of(out)["history"] for out in (one, two)]
    plain = [[{k: v for k, v in r.items() if "seconds" not in k} for r in row] for row in rows]
    assert plain[0] == plain[1] and len(plain[0]) == 8
    scores = [json.loads((out / "validation.json").read_text())["scores"] for out in (one, two)]
    assert scores[0] == scores[1]


def kill_and_finish(untouched, folder, kills, *more):
    "Kill a run again and again at random moments, each time a little later, and let it end."
    chance = random.Random(2026)
    for round_ in range(-(-kills // 10)):    # ten kills a run, so that some hit every epoch
        out = folder / f"run{round_}"
        for _ in range(min(kills - 10 * round_, 10)):
            before = steps_in(out)
            process = start(out, *more, *(["--resume"] if before else []))
            goal = min(before + chance.randint(0, 6), 21)
            process.wait_for(lambda: steps_in(out) >= goal and out.exists())
            time.sleep(chance.random() * 0.3)
            process.kill()
            process.end()
        finish(out, *more)
        same(untouched, out)


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(untouched, tmp_path):
    kill_and_finish(untouched, tmp_path, KILLS)


# two processes take the sums of a step in another order than one does; endless people are others
@pytest.mark.soak
@pytest.mark.parametrize("more", [("--devices", "2"), ("--people", "endless")], ids="-".join)
def test_so_it_does_on_two_devices_and_with_endless_people(tmp_path, more):
    if more[0] == "--devices": pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    finish(tmp_path / "untouched", *more)
    kill_and_finish(tmp_path / "untouched", tmp_path, 10, *more)


def test_a_stop_by_hand_ends_the_step_and_saves_it(untouched, tmp_path):
    """Ctrl-C, then, after going on, the signal that ends a program; also where states are otherwise
    saved at the end of an epoch only."""
    out = tmp_path / "run"
    for number, code, goal in ((signal.SIGINT, 130, 6), (signal.SIGTERM, 143, 15)):
        process = start(out, "--save-minutes", "60", *(["--resume"] if out.exists() else []))
        process.wait_for(lambda: steps_in(out) >= goal)
        process.send_signal(number)
        said = process.end()
        assert process.returncode == code, said
        assert "Traceback" not in said and " is saved in " in said.splitlines()[-1]
        assert not list(out.rglob("*.tmp*"))
        stopped = record_of(out)
        done = (stopped["under_way"] or {"done": 0})["done"]
        assert stopped["step"] == 3 * len(stopped["history"]) + done > goal
    finish(out)
    same(untouched, out)


@pytest.mark.soak
def test_two_devices_end_after_the_same_step(tmp_path):
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    two = ("--devices", "2")
    finish(tmp_path / "untouched", *two)
    process = start(tmp_path / "run", *two, "--save-minutes", "60")
    process.wait_for(lambda: steps_in(tmp_path / "run") >= 6)
    process.send_signal(signal.SIGTERM)
    said = process.end()
    assert process.returncode == 143 and "Traceback" not in said, said
    assert "batch" in said.splitlines()[-1] or "the last whole one" in said.splitlines()[-1]
    one = start(tmp_path / "run", "--resume")
    assert "devices = 2, not 1" in one.end() and one.returncode == 1
    finish(tmp_path / "run", *two)
    same(tmp_path / "untouched", tmp_path / "run")


def test_of_two_that_want_one_folder_one_trains(untouched, tmp_path):
    "The other ends at once, and says who holds the folder."
    out = tmp_path / "run"
    both = [start(out), start(out)]
    said = [process.end() for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], said
    loser = said[[process.returncode for process in both].index(1)]
    assert "Traceback" not in loser and str(out) in loser
    same(untouched, out)


@pytest.fixture
def heard():
    "Ctrl-C is heard, also where this process runs in the background of a shell that ignores it."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX systems")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_while_a_worker_is_started(heard, number):
    "Also where another thread, which masks nothing, takes the signal."
    steps, over = [], threading.Event()
    other = threading.Thread(target=over.wait, daemon=True)
    other.start()
    with pytest.raises(KeyboardInterrupt), termination():
        with _undisturbed():
            os.kill(os.getpid(), number)
            for _ in range(1000): time.sleep(0)    # time enough to be interrupted
            steps.append("started")
        steps.append("not reached")
    over.set()
    assert steps == ["started"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")
@pytest.mark.parametrize("number, code, words", [
    (signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "stopped by SIGTERM"),
])
def test_a_stop_that_a_library_swallows_is_still_one(heard, number, code, words):
    "Such as a module that is half imported when the signal comes, and lacks a name later."
    @click.group(cls=Sentences)
    def group(): pass

    @group.command()
    def work():
        try: os.kill(os.getpid(), number)
        except KeyboardInterrupt: pass
        raise AttributeError("module 'numpy' has no attribute 'matrix'")

    done = CliRunner().invoke(group, ["work"])
    assert (done.exit_code, done.output.strip()) == (code, words)


def test_ctrl_c_while_pandas_is_loaded_is_a_stop(tmp_path):
    "pyarrow loads it within a call, and swallows what comes meanwhile."
    (tmp_path / "pandas.py").write_text("raise KeyboardInterrupt")
    write = """
import torch
from dppt_nb.keypoints import COCO17
from dppt_nb.shards import StoreHeader
from dppt_nb.store import crop_rows, from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.writing import write_store
people = from_synthetic(make_people(2, COCO17, (64, 48), seed=1, margin=1.5))
header = StoreHeader("coco", COCO17, tuple(people.images.shape[2:]), 1.5)
"""
    write += f"write_store({str(tmp_path / 'store')!r}, header, crop_rows(people))"
    read = f"from dppt_nb.store import read_store; read_store({str(tmp_path / 'store')!r})"
    swallowed = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for words in (write, read):
        command = [sys.executable, "-c", words]
        stopped = subprocess.run(command, env=swallowed, capture_output=True, text=True)
        assert stopped.returncode != 0 and "KeyboardInterrupt" in stopped.stderr, stopped
        if words is write: assert not (tmp_path / "store/manifest.json").exists()
        exec(words, {})    # alone it does its work, which the next one reads

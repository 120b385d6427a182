"""Runs that are killed, stopped and raced: each ends as the one that nobody touched, to the bit."""
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

KILLS = 50 if os.environ.get("DPPT_SOAK") else 5
WORDS = [
    "train", "tokenpose_nano", "--people", "32", "--epochs", "12", "--image-size", "64x48",
    "--batch-size", "16", "--overrides", '{"width": 32, "depth": 1, "heads": 2}', "--device", "cpu",
    "--eval-every", "4",
]


def start(out, *more):
    "A training in a process of its own, on one thread."
    return subprocess.Popen(
        [sys.executable, "-c", "from dppt_nb.cli import main; main()", *WORDS, "--out", out, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        # a test run that was itself sent to the background hands on that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def epochs_in(out):
    "How many epochs the folder holds."
    record = out / "training.json"
    return len(json.loads(record.read_text())["history"]) if record.exists() else 0


def wait_for(process, ready):
    "Until something is there, or the process has ended."
    while process.poll() is None and not ready(): time.sleep(0.002)


def finish(out):
    process = start(out, *(["--resume"] if (out / "training.json").exists() else []))
    said = process.communicate()[0]
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    "A run that nobody stops."
    out = tmp_path_factory.mktemp("untouched") / "run"
    finish(out)
    return out


def same(one, two):
    "Weights, averages and moments are equal to the bit, and so are losses and scores."
    files = ["model.safetensors", json.loads((one / "training.json").read_text())["state"]]
    for name in files:
        mine, theirs = load_file(one / name), load_file(two / name)
        assert mine.keys() == theirs.keys()
        for key in mine: assert mine[key].equal(theirs[key]), (name, key)
    rows = [json.loads((out / "training.json").read_text())["history"] for out in (one, two)]
    plain = [[{k: v for k, v in r.items() if "seconds" not in k} for r in row] for row in rows]
    assert plain[0] == plain[1] and len(plain[0]) == 12
    scores = [json.loads((out / "validation.json").read_text())["scores"] for out in (one, two)]
    assert scores[0] == scores[1]


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(untouched, tmp_path):
    chance = random.Random(2026)
    for round_ in range(-(-KILLS // 10)):    # ten kills a run, so that some hit every epoch
        out, kills = tmp_path / f"run{round_}", 0
        while kills < min(KILLS - 10 * round_, 10):
            before = epochs_in(out)
            process = start(out, *(["--resume"] if before else []))
            goal = min(before + chance.randint(0, 2), 11)
            wait_for(process, lambda: epochs_in(out) >= goal and out.exists())
            time.sleep(chance.random() * 0.3)
            process.kill()
            process.communicate()
            kills += 1
        finish(out)
        same(untouched, out)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_by_hand_ends_with_a_sentence(untouched, tmp_path, number, code):
    out = tmp_path / "run"
    process = start(out)
    wait_for(process, lambda: epochs_in(out) >= 2)
    process.send_signal(number)
    said = process.communicate()[0]
    assert process.returncode == code, said
    assert "Traceback" not in said and "the last whole one, is saved in" in said.splitlines()[-1]
    assert not list(out.rglob("*.tmp*"))
    finish(out)
    same(untouched, out)


def test_of_two_that_want_one_folder_one_trains(untouched, tmp_path):
    "The other ends at once, and says who holds the folder."
    out = tmp_path / "run"
    both = [start(out), start(out)]
    said = [process.communicate()[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], said
    loser = said[[process.returncode for process in both].index(1)]
    assert "Traceback" not in loser and str(out) in loser
    same(untouched, out)

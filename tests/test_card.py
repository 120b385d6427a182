"""What is run where there is a GPU: tools/card.py and tools/gpu.sh, as far as a CPU can tell."""
import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
FEW = "--recipe tokenpose_nano --batch 4 --people 8 --rounds 1 --steps 2 --device cpu"


@pytest.fixture
def card(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("card")


def run(card, out, words):
    "What is printed, and the parts in the file."
    done = CliRunner().invoke(card.main, [*words.split(), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return done.output, json.loads((out / "card.json").read_text())["parts"]


def test_a_way_is_timed_and_its_losses_are_compared(card, tmp_path):
    "On a CPU a recorded step is the eager one, to the bit."
    said, (speed, losses) = run(card, tmp_path, f"{FEW} --way recorded")
    assert (speed["part"], speed["aim"]) == ("speed", 8000)
    assert [row["way"] for row in speed["rows"]] == ["eager", "recorded"]
    assert [row["apart"] for row in losses["rows"]] == [0, 0]
    assert all(row["peak_gib"] > 0 for row in losses["rows"])
    assert losses["rows"][0]["first"] != losses["rows"][0]["last"]
    assert "this is no NVIDIA GPU" in said and "MORE THAN" not in said


def test_losses_that_part_are_said(card, tmp_path, monkeypatch):
    found = {"eager": [4.0, 2.0], "recorded": [4.0, 2.1]}
    monkeypatch.setattr(card, "losses_of", lambda recipe, way, *rest: (found[way], 1.0))
    monkeypatch.setattr(card, "check_speed", lambda *given: None)    # is another test's
    said, parts = run(card, tmp_path, f"{FEW} --way recorded")
    assert parts[-1]["rows"][1]["apart"] == pytest.approx(0.05)
    assert "5.0e-02 from eager, peak 1.0 GiB   MORE THAN 0.01" in said


def test_losses_that_are_no_numbers_are_said(card, tmp_path, monkeypatch):
    "Also where the first ones are alike."
    found = {"eager": [4.0, 2.0, 1.0], "recorded": [4.0, 2.0, float("nan")]}
    monkeypatch.setattr(card, "losses_of", lambda recipe, way, *rest: (found[way], 1.0))
    monkeypatch.setattr(card, "check_speed", lambda *given: None)    # is another test's
    said, parts = run(card, tmp_path, f"{FEW} --way recorded")
    assert parts[-1]["rows"][1]["apart"] is None    # as JSON has it
    assert "at most nan from eager, peak 1.0 GiB   MORE THAN 0.01" in said


def test_no_part_begins_when_the_time_is_over(card, tmp_path):
    said, parts = run(card, tmp_path, f"{FEW} --minutes 0")
    assert [part["part"] for part in parts] == ["not begun"] * 2
    assert said.count("not begun, the time is over") == 2


def test_what_waits_is_found(card, monkeypatch):
    "PyTorch's own check is stood in for: it raises where a step waits."
    people, modes = card.load_people("synthetic", None, ("train",), (128, 96), False, 8), []
    recipe_of = card.recipe_of    # of few people a step: two dozen steps are run
    monkeypatch.setattr(card, "recipe_of", lambda name: recipe_of(name, batch=8))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    cpu = torch.device("cpu")
    assert card.waits("tokenpose_nano", people["train"], cpu) == {"eager": "", "recorded": ""}
    assert modes == ["error", "default"] * 2
    steps = card.runs_of
    def waiting(loop, batch):
        run = steps(loop, batch)
        def step(i):
            if modes[-1] == "error": raise RuntimeError("called a synchronizing CUDA operation\n")
            return run(i)
        return step
    monkeypatch.setattr(card, "runs_of", waiting)
    found = card.waits("tokenpose_nano", people["train"], cpu)
    assert set(found.values()) == {"called a synchronizing CUDA operation"}
    assert modes[-1] == "default"


def test_a_recipe_without_an_aim_is_refused(card, tmp_path):
    done = CliRunner().invoke(card.main, ["--recipe", "ppt_nano", "--out", str(tmp_path / "x")])
    assert done.exit_code and "ppt_nano has no aim; those with one: tokenpose_nano" in done.output
    assert not (tmp_path / "x").exists()


def test_fewer_people_than_a_step_takes_are_refused_in_a_sentence(card, tmp_path):
    words = "--recipe tokenpose_nano --batch 9 --people 8 --device cpu --out".split()
    done = CliRunner().invoke(card.main, [*words, str(tmp_path)])
    assert done.exit_code == 1 and "8 people are no batch of 9; say --people or" in done.output


PYTHON = """#!/bin/sh
echo "$@" >> {log}
case "$@" in
  *card.py*) touch {out}/card.json ;;
  *--seed\\ 1\\ --rows\\ tokenpose\\ *) exit {code} ;;
esac
"""


def prepared(tmp_path, minutes, code=0):
    "What the script calls, in order; a stand-in for Python notes it."
    log, out, python = tmp_path / "log", tmp_path / "out", tmp_path / "python"
    python.write_text(PYTHON.format(log=log, out=out, code=code))
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "tools/gpu.sh", tmp_path, out, str(minutes)],
        capture_output=True, text=True, env=os.environ | {"PYTHON": str(python)},
    )
    return done, log.read_text().splitlines()


def test_the_prepared_script_goes_through_its_parts(tmp_path):
    done, calls = prepared(tmp_path, 9)
    assert done.returncode == 0, done.stderr
    assert calls[0].startswith("tools/card.py") and calls[0].rstrip().endswith("--minutes 6")
    rows = [call.split("study ")[1].split(" --teacher")[0].split(" --data")[0]
            for call in calls[1:]]
    assert rows == [f"{study} --seed {n} --rows {row}" for n in range(3) for study, row in (
        ("sdpose", "tokenpose"), ("sdpose", "ppt,dppt,sdpose,sd_dppt"),
        ("dppt", "tokenpose_taught"),
    )]
    assert all("--base tokenpose_s " in call for call in calls[1:])
    _, calls = prepared(tmp_path, 9)    # what is checked once is not checked again
    assert sum("card.py" in call for call in calls) == 1
    done, calls = prepared(tmp_path, 0)
    assert done.stdout.count("not begun, the time is over") == 9


def test_the_prepared_script_ends_with_a_row_that_fails(tmp_path):
    done, calls = prepared(tmp_path, 9, code=3)
    assert done.returncode == 1 and "--seed 1 --rows tokenpose " in calls[-1]

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
    said, (losses, speed) = run(card, tmp_path, f"{FEW} --way recorded")
    assert (speed["part"], speed["aim"]) == ("speed", 8000)
    assert [row["way"] for row in speed["rows"]] == ["eager", "recorded"]
    assert [row["apart"] for row in losses["rows"]] == [0, 0]
    assert all(row["peak_gib"] > 0 for row in losses["rows"])
    assert losses["rows"][0]["first"] != losses["rows"][0]["last"]
    assert "this is no NVIDIA GPU" in said and "MORE THAN" not in said


def test_losses_that_part_are_said(card, tmp_path, monkeypatch):
    found = {"eager": [4.0, 2.0], "recorded": [4.0, 2.1]}
    monkeypatch.setattr(card, "losses_of", lambda recipe, way, *rest: (found[way], 1.0))
    monkeypatch.setattr(card, "find_speed", lambda *given: {})    # is another test's
    said, parts = run(card, tmp_path, f"{FEW} --way recorded")
    assert parts[0]["rows"][1]["apart"] == pytest.approx(0.05)
    assert "5.0e-02 from eager, peak 1.0 GiB   MORE THAN 0.01" in said


def test_losses_that_are_no_numbers_are_said(card, tmp_path, monkeypatch):
    "Also where the first ones are alike."
    found = {"eager": [4.0, 2.0, 1.0], "recorded": [4.0, 2.0, float("nan")]}
    monkeypatch.setattr(card, "losses_of", lambda recipe, way, *rest: (found[way], 1.0))
    monkeypatch.setattr(card, "find_speed", lambda *given: {})    # is another test's
    said, parts = run(card, tmp_path, f"{FEW} --way recorded")
    assert parts[0]["rows"][1]["apart"] is None    # as JSON has it
    assert "at most nan from eager, peak 1.0 GiB   MORE THAN 0.01" in said


def test_no_part_begins_when_the_time_is_over(card, tmp_path):
    said, parts = run(card, tmp_path, f"{FEW} --minutes 0")
    assert [part["part"] for part in parts] == ["not begun"] * 2
    assert said.count("not begun, the time is over") == 2


@pytest.fixture
def noted(card, monkeypatch):
    "Which parts are begun; of those in `bad` comes an error."
    begun, bad = [], set()
    def stand_in(kind):
        def find(name, batch, *rest):
            begun.append((kind, name, batch))
            if begun[-1] in bad: raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")
            return dict(rows=[])
        return find
    for kind in ("alike", "speed"): monkeypatch.setattr(card, f"find_{kind}", stand_in(kind))
    monkeypatch.setattr(card, "load_people", lambda *given: {"train": None})
    monkeypatch.setattr(card, "check_batch", lambda crops, batch: None)
    return begun, bad


def test_losses_come_first_and_then_what_is_wanted_most(card, tmp_path, noted):
    begun, _ = noted
    run(card, tmp_path, "--people 8 --device cpu")
    assert begun == [("alike", *job) for job in card.ALIKE] + [
        ("speed", *job[:2]) for job in card.AIMS]
    assert begun[5] == ("speed", "dppt_s_coco", 128) and begun[-1][1:] == ("tokenpose_nano", 64)
    assert ("alike", "dppt_nano", 64) in begun


def test_a_part_that_fails_ends_no_other_and_is_tried_again(card, tmp_path, noted):
    begun, bad = noted
    bad.add(("alike", "dppt_s_coco", 128))
    said, parts = run(card, tmp_path, "--people 8 --device cpu")
    assert "alike of dppt_s_coco, 128: failed (CUDA out of memory. Tried more)" in said
    assert [part["part"] for part in parts].count("failed") == 1 and len(begun) == len(parts) == 9
    bad.clear()
    del begun[:]
    said, parts = run(card, tmp_path, "--people 8 --device cpu")    # the same command once more
    assert begun == [("alike", "dppt_s_coco", 128)] and "failed" not in said
    assert len(parts) == 9 and {part["part"] for part in parts} == {"alike", "speed"}


def test_a_run_without_time_left_goes_on_later(card, tmp_path, noted):
    begun, _ = noted
    run(card, tmp_path, "--people 8 --device cpu --minutes 0")
    assert not begun
    _, parts = run(card, tmp_path, "--people 8 --device cpu")
    assert len(begun) == len(parts) == 9


def test_what_was_found_with_other_options_is_not_gone_on_with(card, tmp_path, noted):
    run(card, tmp_path, "--people 8 --device cpu")
    words = "--people 8 --device cpu --rounds 2 --out".split()
    done = CliRunner().invoke(card.main, [*words, str(tmp_path)])
    assert done.exit_code == 1 and "card.json was found with rounds = 5, not 2;" in done.output


@pytest.mark.parametrize("name", ["dppt_s_coco", "dppt_nano"])
def test_patches_are_dropped_in_the_steps_that_are_checked(card, name):
    "The papers' recipes drop none in their first ten epochs."
    recipe = card.recipe_of(name, 8).change(model="dppt_nano", image_size=(128, 96))
    crops = card.load_people("synthetic", None, ("train",), (128, 96), False, 8)["train"]
    loop = card.Loop(recipe, crops, "cpu", teacher=card.make_teacher(recipe, crops))
    loop.begin_step()
    assert loop.model.keep_ratio == 0.7


def test_every_way_has_the_same_teacher_who_is_not_the_student(card):
    recipe = card.recipe_of("dppt_nano", 8)
    crops = card.load_people("synthetic", None, ("train",), (128, 96), False, 8)["train"]
    cpu = torch.device("cpu")
    one, other = (card.losses_of(recipe, way, crops, cpu, 1)[0] for way in ("eager", "recorded"))
    assert one == other
    teacher = card.make_teacher(recipe, crops)
    student = card.Loop(recipe, crops, cpu, teacher=teacher).model
    theirs = dict(teacher.named_parameters())
    same = [torch.equal(p, theirs[name]) for name, p in student.named_parameters() if p.ndim > 1]
    assert len(same) > 10 and not any(same)


def test_what_waits_is_found(card, monkeypatch):
    "PyTorch's own check is stood in for: it raises where a step waits."
    people, modes = card.load_people("synthetic", None, ("train",), (128, 96), False, 8), []
    recipe_of = card.recipe_of    # of few people a step: two dozen steps are run
    monkeypatch.setattr(card, "recipe_of", lambda name, batch=8: recipe_of(name, batch))
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


def test_a_recipe_that_is_not_checked_is_refused(card, tmp_path):
    done = CliRunner().invoke(card.main, ["--recipe", "ppt_nano", "--out", str(tmp_path / "x")])
    said = "ppt_nano is not checked here; those that are: tokenpose_nano, dppt_nano,"
    assert done.exit_code and said in done.output
    assert not (tmp_path / "x").exists()


def test_fewer_people_than_a_step_takes_are_refused_in_a_sentence(card, tmp_path):
    words = "--recipe tokenpose_nano --batch 9 --people 8 --device cpu --out".split()
    done = CliRunner().invoke(card.main, [*words, str(tmp_path)])
    assert done.exit_code == 1 and "8 people are no batch of 9; say --people or" in done.output


PYTHON = """#!/bin/sh
echo "$@" >> {log}
case "$@" in
  *card.py*) echo one part of several > {out}/card.json ;;
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
    _, calls = prepared(tmp_path, 9)    # the file may hold some parts only, which card.py knows
    assert sum("card.py" in call for call in calls) == 2
    done, calls = prepared(tmp_path, 0)
    assert done.stdout.count("not begun, the time is over") == 9


def test_the_prepared_script_ends_with_a_row_that_fails(tmp_path):
    done, calls = prepared(tmp_path, 9, code=3)
    assert done.returncode == 1 and "--seed 1 --rows tokenpose " in calls[-1]

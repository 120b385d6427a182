"""How a run is carried out: saved within an epoch, kept, planned, shown, reported."""
import gc
import json
import math
import re
import shutil
import signal
import sys
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_fixture
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sampling import sample
from weights import same_weights

from dppt_nb import loop as loop_module
from dppt_nb import runs
from dppt_nb.checkpoints import load_network, load_teacher
from dppt_nb.checks import DataError
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.devices import Team
from dppt_nb.endless import EndlessPeople, endless_people
from dppt_nb.evaluation import conditions, score_joints
from dppt_nb.keypoints import COCO17
from dppt_nb.locks import HOST
from dppt_nb.progress import Pace, Show, make_plan, start_tracker
from dppt_nb.recipes import Recipe, get_recipe
from dppt_nb.report import TWO_SCORES, write_report
from dppt_nb.runner import Settings, plan_of, train_recipe
from dppt_nb.runs import CANNOT, RECORD, WEIGHTS, RunFolder, state_name
from dppt_nb.runs import Stops as HearsStops
from dppt_nb.shards import StoreHeader
from dppt_nb.store import crop_rows, from_synthetic, load_people, read_store
from dppt_nb.synthetic import make_people
from dppt_nb.trainer import Trainer
from dppt_nb.training import Loop
from dppt_nb.writing import write_store

SIZE = (64, 48)
TINY = Recipe(image_size=SIZE, overrides=tiny_fixture.TINY, epochs=3, batch_size=8, warmup_steps=3)


@pytest.fixture(scope="module")
def people(): return from_synthetic(make_people(24, COCO17, SIZE, seed=1, margin=1.5))


class Stops(torch.nn.Module):
    "Somebody asks for an end in the middle of a step."
    cycles, look = 1, ()

    def __init__(self, run, step):
        super().__init__()
        self.run, self.step = run, step

    def forward(self, trace, batch, progress):
        if progress.step == self.step: self.run.stops.note(2, None)
        return {"nothing": trace.logits[0].sum() * 0}


def trainer(people, out=None, stop_at=None, recipe=TINY, **settings):
    run = Trainer(recipe, people, people, out, "cpu", bars=False, **settings)
    run.objectives.append(Stops(run, stop_at))
    return run


@pytest.fixture(scope="module")
def through(people):
    "A trainer at the end of its run, whom nobody stopped; it is only looked at."
    run = trainer(people)
    run.fit()
    return run


@pytest.fixture(scope="module")
def kept_run(people, tmp_path_factory):
    "The folder of a run of which the states of all three epochs are kept; it is only read."
    folder = tmp_path_factory.mktemp("kept") / "run"
    trainer(people, RunFolder(folder, keep=3)).fit()
    return folder


@pytest.fixture
def kept(kept_run, tmp_path):
    "A copy of that folder."
    return shutil.copytree(kept_run, tmp_path / "run")


def test_a_run_goes_on_with_its_start_and_teacher_wherever_they_lie(people, tmp_path):
    "A folder that moved, or another name of it, is the same; another network's weights are not."
    for name, seed in (("wise", 0), ("other", 1)):
        Trainer(
            TINY.change(epochs=1, seed=seed), people, None, tmp_path / name, "cpu", bars=False
        ).fit()

    def run(start, teacher, out=tmp_path / "run"):
        recipe = TINY.change(start=str(start), teacher=str(teacher), output=1.0)
        taught_by = load_teacher(recipe, people.keypoint_set)
        return Trainer(recipe, people, None, out, "cpu", bars=False, teacher=taught_by)
    wise, other, moved = (tmp_path / name for name in ("wise", "other", "moved"))
    through = run(wise, wise, None).fit()
    run(wise, wise).fit(epochs=1)
    wise.rename(moved)
    for name, places in (("start", (other, moved)), ("teacher", (moved, other))):
        with pytest.raises(DataError, match=f"holds a run with {name} = '{wise}', not '{other}'"):
            run(*places).fit(resume=True)
    ended = run(moved, moved).fit(resume=True)
    assert same_weights(through, ended)
    record = json.loads((tmp_path / "run" / RECORD).read_text())
    assert record["recipe"]["start"] == record["recipe"]["teacher"] == str(moved)


@pytest.mark.parametrize("changes", [{}, dict(precision="fp16"), dict(ema=0.0, optimizer="adam")])
def test_stopped_within_an_epoch_it_goes_on_to_the_bit(people, tmp_path, changes):
    # three batches of two: fp16 takes long on a CPU
    people, recipe = people.select(torch.arange(6)), TINY.change(epochs=2, batch_size=2, **changes)
    through = trainer(people, recipe=recipe)
    network = through.fit()
    with pytest.raises(KeyboardInterrupt, match="epoch 2 up to batch 2 is saved .* --resume"):
        trainer(people, tmp_path, 4, recipe).fit()
    saved = json.loads((tmp_path / "training.json").read_text())
    assert saved["under_way"]["done"] == 2 and saved["step"] == 5
    resumed = trainer(people, tmp_path, recipe=recipe)
    again = resumed.fit(resume=True)
    assert same_weights(network, again)
    plain = lambda run: [{k: v for k, v in row.items() if "seconds" not in k}
                         for row in run.history]
    assert plain(resumed) == plain(through)


def test_a_stop_while_people_are_judged_does_not_wait_and_loses_nothing(
    people, through, tmp_path, monkeypatch
):
    run = trainer(people, tmp_path)
    monkeypatch.setattr(
        "dppt_nb.trainer.predict_together", lambda *a, **k: run.stops.note(2, None)
    )
    with pytest.raises(KeyboardInterrupt, match="epoch 1 up to batch 3 is saved"): run.fit()
    monkeypatch.undo()
    resumed = trainer(people, tmp_path)
    again = resumed.fit(resume=True)
    assert same_weights(through.network(), again)
    assert all(row["lr"] > 0 and "score" in row for row in resumed.history[:2])


def test_stopped_without_a_folder_the_same_trainer_goes_on_to_the_bit(people, through):
    stopped = trainer(people, stop_at=4)
    with pytest.raises(KeyboardInterrupt, match="nothing is saved, but another fit.. of this"):
        stopped.fit()
    again = stopped.fit()
    assert stopped.step == through.step and len(stopped.history) == len(through.history)
    assert same_weights(through.network(), again)
    losses = [[{k: v for k, v in row.items() if "seconds" not in k} for row in run.history]
              for run in (stopped, through)]
    assert losses[0] == losses[1]


def test_a_trainer_that_was_ended_within_a_step_does_not_go_on(people):
    "Half a step is done: of its weights some have moved."
    class End(torch.nn.Module):
        def forward(self, trace, batch, progress):
            if progress.step == 1: raise KeyboardInterrupt
            return {"nothing": trace.logits[0].sum() * 0}

    run = trainer(people)
    run.objectives.append(End())
    with pytest.raises(KeyboardInterrupt, match="what was trained is lost"): run.fit()
    with pytest.raises(DataError, match="ended in the middle of epoch 1 .*; make another one"):
        run.fit()


def test_back_at_the_end_of_an_epoch_nothing_is_under_way(people, tmp_path):
    with pytest.raises(KeyboardInterrupt): trainer(people, RunFolder(tmp_path, keep=3), 4).fit()
    run = trainer(people, RunFolder(tmp_path))
    run.resume()
    assert run.begun.done == 2
    run.resume(epoch=1)
    assert run.begun is None and run.step == 3


def test_a_state_that_was_not_written_is_not_called_saved(people, tmp_path, monkeypatch):
    "A second Ctrl-C comes while the first one's state is written."
    run = trainer(people, tmp_path, 4)
    plain = runs.write_tensors
    def write(path, tensors, *more):
        if any(name.startswith("epoch.") for name in tensors): run.stops.note(2, None)
        return plain(path, tensors, *more)
    monkeypatch.setattr(runs, "write_tensors", write)
    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 3, the last whole one, is saved"):
        run.fit()
    assert json.loads((tmp_path / "training.json").read_text())["step"] == 3


def test_a_report_that_is_asked_for_later_is_written(tmp_path):
    how = dict(out=tmp_path, device="cpu", people=16, bars=False)
    train_recipe(TINY, **how)
    assert not (tmp_path / "report.html").exists()
    scores = lambda: json.loads((tmp_path / "validation.json").read_text())["scores"]
    first = scores()
    train_recipe(TINY, resume=True, settings=Settings(report=True), **how)
    assert (tmp_path / "report.html").exists() and scores() == first


def test_the_loop_that_was_planned_with_leaves_the_memory(people, tmp_path, monkeypatch):
    made = []
    def plan(loop, *more):
        loop.loss_function = loop.losses_of    # kept within, as a step keeps it
        made.append(weakref.ref(loop))
        return "a plan"
    monkeypatch.setattr("dppt_nb.runner.make_plan", plan)
    gc.disable()
    try: plan_of(trainer(people, tmp_path), Settings(plan=True))
    finally: gc.enable()
    assert made[0]() is None


def test_a_tracker_is_closed_where_the_plan_fails(tmp_path, monkeypatch):
    ended = []
    def fail(trainer, settings): raise DataError("no plan")
    monkeypatch.setattr("dppt_nb.runner.plan_of", fail)
    monkeypatch.setattr(Show, "end", lambda show: ended.append(show))
    with pytest.raises(DataError, match="no plan"):
        train_recipe(TINY, out=tmp_path, device="cpu", people=16, bars=False,
                     settings=Settings(plan=True))
    assert len(ended) == 1


def test_as_many_states_stay_as_were_asked_for(tmp_path):
    "Also where the best epoch is the first one."
    folder = RunFolder(tmp_path, keep=3)
    for done in range(1, 7):
        history = [dict(epoch=n, score=10.0 - n) for n in range(1, done + 1)]
        folder.write(dict(history=history, step=done, recipe={}), {"a": torch.zeros(1)})
    left = {int(path.stem[-4:]) for path in tmp_path.glob("state*")}
    assert left == {1, 4, 5, 6}


def test_states_of_the_last_epochs_and_of_the_best_stay(people, tmp_path):
    folder = RunFolder(tmp_path, keep=2)
    run = trainer(people, folder)
    run.fit()
    scores = [row["score"] for row in run.history]
    best = 1 + scores.index(max(scores))
    names = {f"state-{n:04d}.safetensors" for n in (best, 2, 3)}
    assert {path.name for path in tmp_path.glob("state*")} == names
    back = trainer(people, tmp_path)
    back.resume(epoch=2)
    assert (back.epoch, back.step) == (2, 6)
    with pytest.raises(DataError, match="no state of epoch 9; there are those of"):
        back.resume(epoch=9)


def looks(monkeypatch, *scores):
    "Validations find these scores, one after the other."
    given = iter(scores)
    monkeypatch.setattr(Trainer, "look", lambda run, number: next(given))


def best_of(folder):
    "The epoch whose network lies in `best`, and its weights; nothing where nobody's does."
    if not (folder / "best" / "config.json").exists(): return None, {}
    network, _, _ = load_network(folder / "best")
    return network.about["epoch"], network.state_dict()


def test_a_run_that_goes_back_leaves_no_best_network_of_what_it_left(
    people, tmp_path, monkeypatch
):
    "`best` is written anew from the state of the epoch that is the best one now."
    recipe = TINY.change(epochs=6)
    looks(monkeypatch, 10, 20, 50, 15, 14, 13)
    second = trainer(people, RunFolder(tmp_path, keep=6), recipe=recipe)
    second.fit(epochs=2)
    there, about = best_of(tmp_path), (tmp_path / "best" / "config.json").read_text()
    trainer(people, tmp_path, recipe=recipe).fit(resume=True)
    assert there[0] == 2 and best_of(tmp_path)[0] == 3
    looks(monkeypatch, 12, 11, 10, 9)
    run = trainer(people, tmp_path, recipe=recipe.change(lr=1e-4))
    run.fit(resume=True, from_epoch=2)
    assert [row["score"] for row in run.history] == [10, 20, 12, 11, 10, 9]
    again = best_of(tmp_path)
    assert again[0] == 2 and same_weights(again[1], there[1])
    assert (tmp_path / "best" / "config.json").read_text() == about    # with the rate of then


def test_the_best_network_goes_where_its_epoch_was_not_kept(
    people, tmp_path, monkeypatch, capsys
):
    "Epoch 1 is the best one again, but the states of epochs 2, 3 and 4 are those that were kept."
    recipe = TINY.change(epochs=4)
    looks(monkeypatch, 20, 10, 15, 50)
    trainer(people, RunFolder(tmp_path, keep=3), recipe=recipe).fit()
    assert best_of(tmp_path)[0] == 4
    looks(monkeypatch, 12, 30)
    run = trainer(people, tmp_path, recipe=recipe)
    run.resume(epoch=2)
    assert run.epoch == 2 and best_of(tmp_path)[0] is None
    said = "best is removed: it was of epoch 4, and no state was kept of epoch 1, the best one"
    assert said in capsys.readouterr().out
    run = trainer(people, tmp_path, recipe=recipe)
    run.fit(resume=True, from_epoch=2)
    epoch, weights = best_of(tmp_path)
    assert epoch == 4 and same_weights(weights, run.network().state_dict())


def broken(folder, *epochs):
    "Give states of these epochs a tensor that no network has; their records are as they were."
    for path in (folder / state_name(epoch) for epoch in epochs):
        with safe_open(path, "pt") as file: about = file.metadata()
        record = json.loads(about["record"])
        about["record"] = json.dumps(dict(record, tensors=record["tensors"] + 1))
        save_file(load_file(path) | {"model.more": torch.zeros(1)}, path, about)


def test_the_best_network_stays_until_the_run_has_gone_back(people, tmp_path, monkeypatch, capsys):
    "And it is said where the best epoch's state is there but unfit."
    recipe = TINY.change(epochs=4)
    looks(monkeypatch, 10, 20, 15, 50)
    trainer(people, RunFolder(tmp_path, keep=4), recipe=recipe).fit()
    there = best_of(tmp_path)
    broken(tmp_path, 2)
    with pytest.raises(DataError, match="from another state with --resume --from-epoch 1, or"):
        trainer(people, tmp_path, recipe=recipe).resume(epoch=2)
    assert best_of(tmp_path)[0] == there[0] == 4 and same_weights(best_of(tmp_path)[1], there[1])
    assert not capsys.readouterr().out
    run = trainer(people, tmp_path, recipe=recipe)
    run.resume(epoch=3)    # its best epoch is the second
    assert "and no state can be read of epoch 2, the best one" in capsys.readouterr().out
    third = {k.removeprefix("model."): v for k, v in load_file(tmp_path / state_name(3)).items()}
    assert run.epoch == 3 and same_weights(run.model.state_dict(), third)


@pytest.mark.parametrize("damage", ["cut", "gone", "broken"])
def test_where_the_last_state_is_unfit_an_older_one_is_named(people, kept, damage):
    last = kept / state_name(3)
    if damage == "cut": last.write_bytes(last.read_bytes()[:1000])
    if damage == "gone": last.unlink()
    if damage == "broken": broken(kept, 3)
    with pytest.raises(DataError, match="--from-epoch 2, or start again in another --out"):
        trainer(people, kept).fit(resume=True)
    trainer(people, kept).fit(resume=True, from_epoch=2)    # as it was told
    trainer(people, kept).fit(resume=True)


@pytest.mark.parametrize("damage", ["{\"history\"", "[]", "{}"])
def test_where_the_record_is_damaged_a_state_is_named_that_has_its_own(
    people, kept_run, kept, damage
):
    folder = kept
    (folder / RECORD).write_text(damage)
    with pytest.raises(DataError, match="--resume --from-epoch 3, or start again in another --out"):
        trainer(people, folder).fit(resume=True)
    (folder / state_name(3)).unlink()
    with pytest.raises(DataError, match="--resume --from-epoch 2, or start"):
        trainer(people, folder).fit(resume=True)
    trainer(people, folder).fit(resume=True, from_epoch=2)    # as it was told
    assert same_weights(load_file(folder / WEIGHTS), load_file(kept_run / WEIGHTS))
    (folder / RECORD).write_text(damage)
    for state in folder.glob("state-*"): state.unlink()
    with pytest.raises(DataError, match=f"{RECORD}.*{CANNOT}"):
        trainer(people, folder).fit(resume=True)


@pytest.mark.parametrize("lost", ["optimizer.", "optimizer.0.0.exp_avg", "average."])
def test_a_state_without_some_of_its_tensors_is_not_gone_on_with(people, kept, lost):
    path = kept / state_name(2)
    with safe_open(path, "pt") as file: about = file.metadata()
    left = {k: v for k, v in load_file(path).items() if not k.startswith(lost)}
    save_file(left, path, about)
    words = rf"state-0002.safetensors holds {len(left)} tensors, not the \d+ that were written"
    with pytest.raises(DataError, match=words): trainer(people, kept).resume(epoch=2)


def test_half_written_files_of_a_killed_run_are_removed_below_its_folder(people, tmp_path):
    trainer(people, tmp_path).fit(epochs=1)
    names = ("best/.config.json", "samples/.epoch-0001.png", ".training.json")
    ended = [tmp_path / f"{name}.{HOST}-{2 ** 22 + 1}-0123abcd.tmp" for name in names]
    (tmp_path / "samples").mkdir(exist_ok=True)
    for path in ended: path.touch()
    trainer(people, tmp_path).fit(resume=True)
    assert not [path for path in ended if path.exists()]


def went_back(people, folder, monkeypatch, epochs=None):
    """A run that went back to its first epoch and trained to `epochs`; its record and its last
    state as they were before."""
    looks(monkeypatch, 10, 50, 20)
    trainer(people, RunFolder(folder, keep=3)).fit()
    before = {name: (folder / name).read_bytes() for name in ("training.json", state_name(3))}
    looks(monkeypatch, 11, 12)
    trainer(people, folder).fit(resume=True, from_epoch=1, epochs=epochs)
    return before


def test_a_state_of_what_came_later_is_not_taken_for_the_best_epochs(
    people, tmp_path, monkeypatch
):
    "A run that went back was killed when it had written it over the one of the same number."
    before = went_back(people, tmp_path, monkeypatch, epochs=2)
    for name, content in before.items(): (tmp_path / name).write_bytes(content)
    shutil.rmtree(tmp_path / "best")
    run = trainer(people, tmp_path)
    run.resume()    # of its history epoch 2 is the best one
    assert [row["score"] for row in run.history] == [10, 50, 20]
    assert best_of(tmp_path)[0] is None


def test_a_state_is_not_gone_on_with_under_the_history_of_another(people, tmp_path, monkeypatch):
    "A run that went back was killed between its last state and the record that names it."
    before = went_back(people, tmp_path, monkeypatch)
    written = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_bytes(before["training.json"])
    run = trainer(people, tmp_path)
    run.resume()
    assert [row["score"] for row in run.history] == [10, 11, 12]
    assert run.history == written["history"]
    assert best_of(tmp_path)[0] == 3


def test_a_stop_between_state_and_network_does_not_lose_the_best_one(
    people, tmp_path, monkeypatch
):
    looks(monkeypatch, 10, 20, 50, 15)
    recipe, written = TINY.change(epochs=4), RunFolder.write_network
    def full(folder, *given):
        if folder.epoch == 3: raise OSError(28, "No space left on device")
        written(folder, *given)
    monkeypatch.setattr(RunFolder, "write_network", full)
    run = trainer(people, tmp_path, recipe=recipe)
    with pytest.raises(OSError): run.fit()
    third = {k: v.clone() for k, v in run.network().state_dict().items()}
    assert best_of(tmp_path)[0] == 2
    monkeypatch.setattr(RunFolder, "write_network", written)
    network = trainer(people, tmp_path, recipe=recipe).fit(resume=True)
    there = best_of(tmp_path)
    assert there[0] == 3 and same_weights(there[1], third)
    looks(monkeypatch, 10, 20, 50, 15)
    assert same_weights(trainer(people, recipe=recipe).fit().state_dict(), network.state_dict())


def test_a_run_that_goes_on_keeps_as_many_states_as_it_began_with(people, tmp_path):
    trainer(people, RunFolder(tmp_path, keep=3)).fit(epochs=2)
    names = {f"state-{n:04d}.safetensors" for n in (1, 2)}
    assert {path.name for path in tmp_path.glob("state*")} == names
    trainer(people, tmp_path).fit(resume=True)
    assert {path.name for path in tmp_path.glob("state*")} == names | {"state-0003.safetensors"}
    record = tmp_path / "training.json"
    record.write_text(record.read_text().replace('"keep": 3', '"keep": "three"'))
    with pytest.raises(DataError, match="keep"): RunFolder(tmp_path).holds_run(True)


@pytest.mark.parametrize("step", [3, 5])
def test_what_becomes_no_number_in_epoch_2_is_said_in_epoch_2(people, tmp_path, step):
    "In its first step and in its last."
    class Bad(torch.nn.Module):
        def forward(self, trace, batch, progress):
            return {"bad": trace.logits[0].sum() * (math.nan if progress.step == step else 0)}
    run = trainer(people, tmp_path, save_minutes=0.0)
    run.objectives.append(Bad())
    with pytest.raises(DataError, match=f"in step {step + 1}, in epoch 2; epoch .* is good"):
        run.fit()
    assert run.epoch == 1
    tensors = RunFolder(tmp_path).read()[1]
    assert all(v.isfinite().all() for v in tensors.values() if v.is_floating_point())


def test_a_long_epoch_says_how_far_it_is_whenever_it_is_saved(people, tmp_path, capsys):
    run = Trainer(TINY, people, None, tmp_path, "cpu", save_minutes=0.0)
    run.fit()
    said = re.findall(r"epoch (\d)/3   saved at step (\d) of 3   .* s a step   .* left",
                      capsys.readouterr().out)
    assert said == [(str(epoch), str(step)) for epoch in (1, 2, 3) for step in (1, 2, 3)]


def test_in_a_terminal_no_line_is_glued_to_the_bar(people, tmp_path, capsys, monkeypatch):
    "What comes after the last return covers what was written before it."
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    Trainer(TINY.change(epochs=1), people, None, tmp_path, "cpu", save_minutes=0.0).fit()
    for step, line in enumerate(capsys.readouterr().out.split("\n")[:3], 1):
        *covered, shown = line.split("\r")
        assert shown.startswith(f"epoch 1/1   saved at step {step} of 3   ")
        assert any("|" in text for text in covered) and len(shown) >= max(map(len, covered))


def test_the_plan_says_what_is_left_and_changes_nothing(people):
    run, copy = Loop(TINY, people, "cpu"), Loop(TINY, people, "cpu")
    before = torch.get_rng_state()
    plan = make_plan(copy, people, begun=1, measure=3)
    assert (plan.epochs, plan.steps, plan.looks, plan.measured) == (2, 6, 2, 3)
    assert plan.step_seconds > 0 and plan.memory > 1e8 and plan.disk > 1e5
    assert "people/s" in str(plan) and torch.equal(before, torch.get_rng_state())
    untouched = Loop(TINY, people, "cpu").model.state_dict()
    assert same_weights(run.model.state_dict(), untouched)
    assert "people/s" not in str(make_plan(run, None, measure=0))
    last = str(make_plan(copy, people, begun=2, measure=1))
    assert "plan: 1 epoch of" in last and "1 validation of" in last and "1 measured step)" in last


def test_what_is_new_to_a_start_is_said_once_with_a_plan_too(people, tmp_path, capsys):
    Trainer(TINY.change(epochs=1), people, None, tmp_path / "wise", "cpu", bars=False).fit()
    capsys.readouterr()
    recipe = TINY.change(start=str(tmp_path / "wise"))
    run = Trainer(recipe, people, None, tmp_path / "run", "cpu", bars=False)
    assert plan_of(run, Settings(plan=True)).startswith("plan: 3 epochs")
    assert capsys.readouterr().out.count("starting from ") == 1


def test_a_run_goes_on_though_its_start_was_removed(people, tmp_path, capsys):
    "To the bit as with it; whom the start has learned from is remembered, and what it was."
    named = replace(people, name="photographs")
    half, wise = named.select(slice(12)), tmp_path / "wise"
    Trainer(TINY.change(epochs=1), half, None, wise, "cpu", bars=False).fit()
    recipe, others = TINY.change(start=str(wise)), named.select(slice(12, 24))
    go = lambda out: Trainer(recipe, others, None, out, "cpu", bars=False)
    with_it = go(None).fit()
    go(tmp_path / "run").fit(epochs=1)
    read = lambda name: json.loads((tmp_path / "run" / name).read_text())
    record, config = read(RECORD), read("config.json")
    wise.rename(tmp_path / "gone")
    capsys.readouterr()
    without = go(tmp_path / "run").fit(resume=True)
    assert capsys.readouterr().out.count(f"start {wise} cannot be read: whether it is what ") == 1
    assert same_weights(with_it, without)
    assert record["began_with"] and read(RECORD)["began_with"] == record["began_with"]
    assert config["people_marks"] and read("config.json")["people_marks"] == config["people_marks"]
    with pytest.raises((DataError, OSError), match="there is no folder"): go(tmp_path / "new")
    # one that is there is compared
    Trainer(TINY.change(epochs=1, seed=1), half, None, tmp_path / "other", "cpu", bars=False).fit()
    another = recipe.change(start=str(tmp_path / "other"))
    with pytest.raises(DataError, match="holds a run with start = "):
        Trainer(another, others, None, tmp_path / "run", "cpu", bars=False).fit(resume=True)
    narrow = TINY.change(epochs=1, overrides=dict(TINY.overrides, width=8))
    Trainer(narrow, half, None, wise, "cpu", bars=False).fit()
    with pytest.raises(DataError, match="cannot be the start of this network"):
        go(tmp_path / "run").fit(resume=True)


def test_a_command_goes_on_without_its_start_and_plans_without_it(tmp_path, capsys):
    "A folder that holds no run still needs its start, before anybody is cut."
    few = load_people("synthetic", None, "train", SIZE, False, 16)["train"]
    Trainer(TINY.change(epochs=1), few, None, tmp_path / "wise", "cpu", bars=False).fit()
    recipe, plan = TINY.change(start=str(tmp_path / "wise"), epochs=1), Settings(plan=True)
    go = lambda out, **more: train_recipe(
        recipe, out=tmp_path / out, device="cpu", bars=False, people=16, **more
    )
    go("run")
    (tmp_path / "wise").rename(tmp_path / "gone")
    capsys.readouterr()
    assert go("run", resume=True, settings=plan)["scores"]
    said = capsys.readouterr().out
    assert "plan: all epochs are trained already" in said and "cannot be read: whether" in said
    with pytest.raises(OSError, match="there is no folder"): go("new")
    assert not (tmp_path / "new").exists()


def test_the_plan_counts_new_people_for_every_epoch(monkeypatch):
    "Those who are here already cost nothing; a resumed run makes those of its first epoch too."
    monkeypatch.setattr(EndlessPeople, "time_renewal", lambda self: 50.0)
    crops, recipe = endless_people(0, 0, 16, (64, 48)), TINY.change(epochs=10)
    plan_from = lambda begun: make_plan(Loop(recipe, crops, "cpu"), None, begun, measure=2)
    plans = {begun: plan_from(begun) for begun in (0, 8)}
    assert [plan.renewals for plan in plans.values()] == [9, 2]
    for plan in plans.values():
        assert plan.seconds == plan.steps * plan.step_seconds + plan.renewals * 50
    assert ", new people for 9 epochs of 50 s (by 2 measured steps)" in str(plans[0])
    other = make_plan(Loop(recipe.change(seed=1), crops, "cpu"), None, measure=0)
    assert other.renewals == 10 and "new people" not in str(other)    # nothing was timed
    assert crops.epoch == (0, 0)


def test_a_plan_does_not_take_the_time_of_compiling_for_that_of_a_step(people, monkeypatch):
    "A clock by hand: 40 s for each size of a batch that is new to the compiler, a second a step."
    clock, seen = [0.0], set()
    def compiled(losses):
        def run(now, images, *fields):
            clock[0] += 1 if len(images) in seen else 40
            seen.add(len(images))
            return losses(now, images, *fields)
        return run
    monkeypatch.setattr(loop_module, "compiled", compiled)
    fake = SimpleNamespace(perf_counter=lambda: clock[0], time=time.time)
    monkeypatch.setattr("dppt_nb.progress.time", fake)
    recipe = TINY.change(compile=True, batch_size=10, precision="fp32")
    loop = Loop(recipe, people.select(slice(21)), "cpu")
    plan = make_plan(loop, None, measure=6)
    assert seen == {10, 11} and plan.measured == 6 and plan.step_seconds == 1


def test_steps_are_timed_with_what_is_fetched_meanwhile(people, monkeypatch):
    contents = [encode_crop(image.permute(1, 2, 0).numpy()) for image in people.images]
    encoded = EncodedCrops(contents, tuple(people.images.shape[2:]), "jpeg", "this test")
    fetched, plainly = [], loop_module.feed
    monkeypatch.setattr(loop_module, "feed", lambda *a, **k: fetched.append(1) or plainly(*a, **k))
    plan = make_plan(Loop(TINY, replace(people, images=encoded), "cpu"), None, measure=2)
    assert plan.measured == 2 and fetched == [1]


def test_a_pace_says_what_comes_on_top():
    for looks, renews, said in ((False, False, "steps)"), (False, True, "; new people come on top"),
                                (True, True, "; validations and new people come on top")):
        ends = iter(range(60, 70))
        pace = Pace(torch.device("cpu"), looks, renews, clock=lambda: next(ends))
        assert [pace.note(99) for _ in range(10)][-1].endswith(said)


def test_a_pace_is_told_once_and_only_where_there_is_something_to_wait_for():
    "By the steps after the first, which is slow; one that is saved in between is as well."
    def told(left):
        ends = iter([60.0, *range(61, 66), *range(100, 104)])    # when ten steps are done
        pace = Pace(torch.device("cpu"), clock=lambda: next(ends))
        return [pace.note(left - step) for step in range(12)]
    line = "about 3 min to train: 1000 ms a step (by the first 10 steps)"
    assert told(200) == [""] * 9 + [line] + [""] * 2
    assert not any(told(28)) and any(told(29))


def test_a_short_run_says_after_ten_steps_how_long_it_takes(tmp_path, capsys, monkeypatch):
    "And learns the same; a longer one was measured before, on a copy."
    monkeypatch.setattr(Pace, "LEAST", 0.0)
    recipe, said = TINY.change(batch_size=2, epochs=2), {}
    for plan in (False, True):
        train_recipe(recipe, "synthetic", None, tmp_path / str(plan), "cpu", people=24,
                     settings=Settings(plan=plan))
        said[plan] = capsys.readouterr().out.split(" a step (by the first 10 steps)")
    assert [len(said[plan]) for plan in (False, True)] == [1, 2]
    assert said[True][1].startswith("; validations come on top\n") and "epoch 1" in said[True][1]
    network, same = (load_network(tmp_path / str(plan))[0].state_dict() for plan in (False, True))
    assert all(torch.equal(weight, same[name]) for name, weight in network.items())


def test_a_run_that_was_measured_before_times_no_steps_of_its_own(people, tmp_path):
    for epochs, timed in ((333, True), (334, False)):
        run = trainer(people, tmp_path, recipe=TINY.change(epochs=epochs))
        assert ("by 10 measured" in plan_of(run, Settings(plan=True))) != timed
        assert bool(run.pace) == timed


@pytest.mark.parametrize("changes", [
    dict(optimizer="adam"), dict(optimizer="adamw", ema=0.9), dict(optimizer="muon", ema=0.0),
    dict(features=1.0),
])
def test_the_disk_is_counted_alike_before_a_first_step_and_after_it(people, changes):
    "As large as what is saved: an optimiser has no moments before its first step."
    recipe = TINY.change(**changes)
    wider = TINY.change(overrides=TINY.overrides | dict(width=32))    # its lesson learns too
    teacher = Loop(wider, people, "cpu").network() if "features" in changes else None
    before, after = (Loop(recipe, people, "cpu", teacher=teacher) for _ in range(2))
    assert bool(len(before.beside)) == ("features" in changes)
    plans = make_plan(before, None, measure=0), make_plan(after, None, measure=1)
    assert not any(name.startswith("optimizer.") for name in before.tensors())
    state = sum(t.nbytes for t in after.tensors().values())
    network = sum(t.nbytes for t in after.model.state_dict().values())
    assert [plan.disk for plan in plans] == [3 * state + 2 * network] * 2


def test_a_run_that_shows_everything(tmp_path, capsys):
    settings = Settings(plan=True, samples=True, report=True)
    results = train_recipe(TINY, out=tmp_path, device="cpu", people=16, settings=settings)
    said = capsys.readouterr().out
    assert "plan: 3 epochs of 16 people, 6 steps" in said
    assert re.search(r"epoch 2/3   pose \d.*people/s   .* left", said)
    assert len(list((tmp_path / "samples").glob("epoch-*.png"))) == 3
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 16 and "left_wrist" in page and "<svg" in page
    fetched = re.findall(r'(?:src|href)="(?!data:|#)|url\((?!#)|@import|<link|<script', page)
    assert not fetched
    assert results["conditions"]["devices"] == 1
    only = Settings(plan_only=True)
    assert train_recipe(TINY, out=tmp_path / "no", device="cpu", people=16, settings=only) == {}
    assert not (tmp_path / "no" / "training.json").exists()


@pytest.mark.parametrize("mirror", [True, False])
def test_the_report_says_where_its_two_scores_differ(people, tmp_path, mirror):
    recipe, joints = TINY.change(mirror=mirror), people.photo_joints
    results = dict(
        conditions=conditions(recipe, "synthetic", "val", people, "cpu", 1.0),
        scores=score_joints(joints, people), history=[dict(epoch=1, pose=1.0, score=50.0)],
    )
    write_report(tmp_path / "report.html", results, recipe, people, joints)
    page = (tmp_path / "report.html").read_text()
    assert (TWO_SCORES in page) == mirror and "percent of the longer side of the box, " in page


@pytest.mark.parametrize("field, value", [
    ("keep", 2.5), ("keep", "2"), ("keep", 0), ("keep", True), ("accumulate", 2.0),
    ("accumulate", 0), ("accumulate", None), ("from_epoch", 1.5), ("from_epoch", 0),
    ("save_minutes", "5"), ("save_minutes", -1), ("save_minutes", math.nan), ("sync_norm", 1),
    ("plan", "no"), ("plan_only", None), ("samples", 0), ("report", "yes"), ("track", None),
])
def test_how_a_run_is_carried_out_is_checked_when_it_is_said(field, value):
    with pytest.raises(DataError, match=f"^{field} is {value!r}; it must be ") as error:
        Settings(**{field: value})
    assert "\n" not in str(error.value)


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path):
    settings = Settings(keep=np.int64(3), accumulate=np.int64(2), save_minutes=np.int64(5))
    assert settings == Settings(keep=3, accumulate=2, save_minutes=5.0)
    train_recipe(TINY, out=tmp_path, device="cpu", people=16, bars=False, settings=settings)
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["keep"], record["accumulate"]) == (3, 2)
    found = replace(settings, from_epoch=np.int64(2))
    assert type(found.from_epoch) is type(found.keep) is int


def test_a_recipe_may_be_named(tmp_path, monkeypatch):
    "As the base of a study may be; a name that there is not is answered with the nearest."
    planned = []
    def plan(trainer, settings): planned.append(trainer.recipe)
    monkeypatch.setattr("dppt_nb.runner.plan_of", plan)
    only = Settings(plan_only=True)
    how = dict(out=tmp_path / "run", device="cpu", people=16, bars=False, settings=only)
    assert train_recipe("tokenpose_nano", **how) == {}
    assert planned == [get_recipe("tokenpose_nano")]
    with pytest.raises(DataError, match="there is no recipe 'tokenpose_nan'; nearest names: tok"):
        train_recipe("tokenpose_nan", **how)
    with pytest.raises(DataError, match="there is no recipe None"): train_recipe(None, **how)
    people = load_people("synthetic", people=16, image_size=(128, 96), bars=False)["train"]
    assert Trainer("tokenpose_nano", people, device="cpu").recipe == get_recipe("tokenpose_nano")
    for wrong in ("tokenpose_nan", None, {}):
        with pytest.raises(DataError, match="there is no recipe"): Trainer(wrong, people)


def test_an_epoch_to_go_back_to_is_of_a_run_that_goes_on(people, tmp_path):
    with pytest.raises(DataError, match="from_epoch is 5, .* resume"):
        train_recipe(TINY, out=tmp_path / "a", people=16, settings=Settings(from_epoch=5))
    with pytest.raises(DataError, match="from_epoch is 5, .* resume"):
        trainer(people, tmp_path / "b").fit(from_epoch=5)
    assert not any(tmp_path.iterdir())


def test_no_plan_is_told_of_an_epoch_that_was_not_kept(people, tmp_path):
    trainer(people, RunFolder(tmp_path, keep=2)).fit()
    run = trainer(people, RunFolder(tmp_path))
    with pytest.raises(DataError, match="no state of epoch 9; there are those of 2, 3"):
        plan_of(run, Settings(plan=True, from_epoch=9))
    assert "plan: 1 epoch of " in plan_of(run, Settings(plan=True, from_epoch=2))


@pytest.mark.parametrize("epochs", [0, -1, 4, 1.0, "1"])
def test_an_early_stop_is_within_the_recipe(people, epochs):
    "Past its end the rates would follow no schedule."
    run = trainer(people)
    with pytest.raises(DataError, match=f"epochs is {epochs!r}"): run.fit(epochs=epochs)
    assert run.step == 0


def test_a_run_without_a_folder_cannot_go_on(people):
    with pytest.raises(DataError, match="resume .* out"): trainer(people).fit(resume=True)


def test_a_tracker_gets_every_epoch(tmp_path):
    pytest.importorskip("accelerate", reason="needs dppt-nb[devices]")
    with pytest.raises(DataError, match="there is no tracker 'papers'"):
        start_tracker("papers", Team("cpu"), tmp_path, TINY)
    pytest.importorskip("tensorboard", reason="needs dppt-nb[dev]")
    show = Show(tracker=start_tracker("tensorboard", Team("cpu"), tmp_path, TINY))
    for epoch in (1, 2): show.track(dict(epoch=epoch, pose=2.0 / epoch))
    show.end()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "track")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("pose")] == [(1, 2.0), (2, 1.0)]


def test_other_pixels_of_the_same_people_are_another_run(tmp_path):
    drawn = make_people(12, COCO17, SIZE, seed=1, margin=1.5)
    size = tuple(round(1.5 * side) for side in SIZE)
    def stored(name, change=0):
        crops = from_synthetic(drawn)
        crops.images[5, :, :9] += change
        write_store(tmp_path / name, StoreHeader("coco", COCO17, size, 1.5), crop_rows(crops))
        crops.images[5, :, :9] -= change
        return read_store(tmp_path / name, "train", progress=False)
    people, same, other = stored("a"), stored("b"), stored("c", 40)
    assert people.pixels == same.pixels != other.pixels and people.digest == other.digest
    assert people.select([0, 1]).pixels == other.select([0, 1]).pixels != people.pixels
    streamed = read_store(tmp_path / "a", "train", progress=False, streamed=True)
    assert streamed.pixels == people.pixels == people.to("cpu").pixels
    out, recipe = tmp_path / "run", TINY.change(epochs=2)
    Trainer(recipe, people, None, out, "cpu", bars=False).fit(epochs=1)
    begun = json.loads((out / "training.json").read_text())
    assert begun["pixels_digest"] == people.pixels
    with pytest.raises(DataError, match="the same people, other pixels; give it the pictures"):
        Trainer(recipe, other, None, out, "cpu", bars=False).fit(resume=True)
    Trainer(recipe, same, None, out, "cpu", bars=False).resume()
    Trainer(recipe, other, None, out, "cpu", bars=False).resume(allow_drift=True)
    begun.pop("pixels_digest")    # a run from before this was noted
    (out / "training.json").write_text(json.dumps(begun))
    run = Trainer(recipe, other, None, out, "cpu", bars=False)
    run.fit(resume=True)
    assert run.epoch == 2


def test_a_run_goes_on_with_the_mirror_pairs_that_it_began_with(people, tmp_path):
    "`--flip-pairs` forgotten, or another, with `--resume`: who is mirrored how is learned, too."
    def set_of(pairs): return replace(people, keypoint_set=replace(COCO17, flip_pairs=pairs))
    none, turned = set_of(()), set_of(tuple((b, a) for a, b in COCO17.flip_pairs[::-1]))
    out = tmp_path / "run"
    Trainer(TINY, none, None, out, "cpu", bars=False).fit(epochs=1)
    with pytest.raises(DataError, match=r"holds a run with flip_pairs = \[\], not \[\[1, 2\]"):
        Trainer(TINY, people, None, out, "cpu", bars=False).resume(allow_drift=True)
    Trainer(TINY, none, None, out, "cpu", bars=False).resume()
    Trainer(TINY, people, None, tmp_path / "other", "cpu", bars=False).fit(epochs=1)
    Trainer(TINY, turned, None, tmp_path / "other", "cpu", bars=False).resume()
    begun = json.loads((out / RECORD).read_text())
    begun.pop("flip_pairs")    # a run from before this was noted
    (out / RECORD).write_text(json.dumps(begun))
    Trainer(TINY, people, None, out, "cpu", bars=False).resume()


@pytest.mark.parametrize("module", ["torch._inductor.exc", "builtins"])
def test_a_compiler_that_was_stopped_too_is_a_stop(module):
    "Ctrl-C and `timeout` signal the whole group; other errors after a stop are still said."
    broken = type("CppCompileError", (RuntimeError,), {"__module__": module})
    stopped = module.startswith("torch._")
    with pytest.raises(KeyboardInterrupt if stopped else broken):
        with HearsStops() as stops:
            stops.asked = signal.SIGINT
            raise broken("g++ ended by a signal")
    with pytest.raises(broken), HearsStops(): raise broken("nobody asked to stop")


def test_results_of_another_training_are_not_taken_for_the_last_ones(tmp_path, monkeypatch):
    "Also where a stop came between a run's last epoch and its judging."
    how = dict(out=tmp_path, device="cpu", people=24, bars=False)
    train_recipe(TINY, settings=Settings(keep=3), **how)
    def stop(*given): raise KeyboardInterrupt
    monkeypatch.setattr("dppt_nb.runner.judge_run", stop)
    slower = TINY.change(lr=TINY.lr / 10)
    with pytest.raises(KeyboardInterrupt):
        train_recipe(slower, resume=True, settings=Settings(from_epoch=1), **how)
    monkeypatch.undo()
    trained = json.loads((tmp_path / "training.json").read_text())["history"]
    results = train_recipe(slower, resume=True, **how)
    assert results["history"] == trained
    assert json.loads((tmp_path / "validation.json").read_text())["history"] == trained


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory):
    "A run that is trained and judged, which each test below copies; and its results."
    folder = tmp_path_factory.mktemp("judged") / "run"
    return folder, train_recipe(TINY, out=folder, device="cpu", people=16, bars=False)


ROW = dict(mean=1.0, joints={}, people=1, left_out=0)    # of a measure


@pytest.mark.parametrize("damaged", sample([
    "{", 5, dict(PCK=5), dict(PCK={}), dict(PCK=dict(ROW, people="1")),
    dict(PCK=dict(ROW, interval=[1.0])), dict(PCK=dict(ROW, joints=[1.0])),
    dict(PCK=dict(ROW, unknown="neck")),
], 0, 1, 5))
def test_a_damaged_judging_is_done_again(judged_run, tmp_path, damaged):
    trained, results = judged_run
    folder = shutil.copytree(trained, tmp_path / "run")
    file = folder / "validation.json"
    whole = json.dumps(dict(json.loads(file.read_text()), scores=damaged))
    file.write_text(damaged if damaged == "{" else whole)
    again = train_recipe(TINY, out=folder, device="cpu", people=16, bars=False, resume=True)
    assert again["scores"] == results["scores"]
    assert "scores" in json.loads(file.read_text())


def test_a_report_of_an_earlier_judging_does_not_stay(tmp_path, capsys):
    how = dict(out=tmp_path, device="cpu", people=16, bars=False)
    train_recipe(TINY, settings=Settings(keep=3, report=True), **how)
    report = tmp_path / "report.html"
    again = Settings(from_epoch=2, report=False)
    capsys.readouterr()
    train_recipe(TINY, resume=True, settings=again, **how)
    assert not report.exists() and f"{report} is removed" in capsys.readouterr().out


"""Files of runs and studies that were cut, edited by hand or taken from another run: one sentence
that names file and field, whoever reads them."""
import json
import shutil
from pathlib import Path

import pytest

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.judged import finished_runs
from dppt_nb.keypoints import COCO17
from dppt_nb.recipes import Recipe
from dppt_nb.runs import RATES, RunFolder, check_state, read_record
from dppt_nb.store import from_synthetic
from dppt_nb.studies import format_runs, read_judged, read_runs, run_folder
from dppt_nb.synthetic import make_people
from dppt_nb.together import is_whole
from dppt_nb.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
SIZE = (64, 48)
TINY = Recipe(
    image_size=SIZE, overrides=dict(width=32, depth=1, heads=2), epochs=2, batch_size=8,
    warmup_steps=1,
)


@pytest.fixture(scope="module")
def people(): return from_synthetic(make_people(8, COCO17, SIZE, seed=1, margin=1.5))


def trainer(people, out, **changes):
    return Trainer(TINY.change(**changes), people, None, out, "cpu", bars=False)


@pytest.fixture(scope="module")
def runs(people, tmp_path_factory):
    "One epoch of two runs that differ in their seed, and a whole one."
    root = tmp_path_factory.mktemp("runs")
    for name, seed, epochs in (("one", 0, 1), ("other", 1, 1), ("whole", 0, 2)):
        trainer(people, root / name, seed=seed).fit(epochs=epochs)
    return root


@pytest.fixture
def run(runs, tmp_path): return Path(shutil.copytree(runs / "one", tmp_path / "study/ppt-seed0"))


def refused(action, *words):
    with pytest.raises(DataError) as error: action()
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    for word in words: assert word in text, text


@pytest.mark.parametrize("change, field", [
    (dict(history=None), "history"), (dict(history={}), "history"),
    (dict(history=[1]), "history.0"),
    (dict(history=[dict(seconds="long")]), "history.0.seconds"), (dict(recipe=[]), "recipe"),
    (dict(step=-1), "step"), (dict(step="2"), "step"), (dict(step=True), "step"),
    (dict(state=5), "state"), (dict(state="../other/state-0001.safetensors"), "state"),
    (dict(state="state-0001.pt"), "state"), (dict(under_way=dict(done=1)), "under_way.seconds"),
    (dict(scaler=[1]), "scaler"), (dict(recipe=dict(colour_of_hair=1)), "recipe"),
    (dict(recipe=dict(epochs="12")), "recipe"), ("history", "history"), ("state", "state"),
    ("recipe", "recipe"),
])
def test_a_damaged_record_is_named_by_all_who_read_it(people, run, change, field):
    file = run / "training.json"
    record = json.loads(file.read_text())
    if isinstance(change, str): del record[change]
    else: record |= change
    file.write_text(json.dumps(record))
    study, name = run.parent, "ppt"
    for read in (
        lambda: read_record(file), lambda: RunFolder(run).read(), lambda: is_whole(run, TINY),
        lambda: trainer(people, run).fit(resume=True),
        lambda: format_runs(study, "protocol", (0,), (name,)),
    ): refused(read, "training.json is damaged", f": {field}: ")


def test_the_list_of_a_study_shows_how_far_the_run_is(run):
    assert run == run_folder(run.parent, "ppt", 0)
    assert format_runs(run.parent, "protocol", (0,), ("ppt",)).endswith("epoch 1 of 2")


@pytest.mark.parametrize("swapped", ["training.json", "state-0001.safetensors"])
def test_a_file_of_another_run_is_not_gone_on_with(people, runs, run, swapped):
    shutil.copy(runs / "other" / swapped, run / swapped)
    other = trainer(people, run, seed=int(swapped == "training.json"))    # as the record has it
    refused(lambda: other.fit(resume=True), f"{run}/state-0001.safetensors is not of the run")
    record = read_record(run / "training.json")
    words = "state-0001.safetensors is not of the run", "seed is another"
    refused(lambda: check_state(record, run / "state-0001.safetensors"), *words)
    record["recipe"] |= dict(seed=1 - record["recipe"]["seed"])
    check_state(record, run / "state-0001.safetensors")    # and is, where it is the same
    record["recipe"] |= dict.fromkeys(RATES, 1e-4)
    check_state(record, run / "state-0001.safetensors")    # whose rate may change


def test_a_network_of_another_run_does_not_pass_for_a_finished_ones(people, runs, tmp_path):
    whole = Path(shutil.copytree(runs / "whole", tmp_path / "whole"))
    before = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    trainer(people, whole).fit(resume=True)
    assert before == {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    trainer(people, tmp_path / "other", seed=1).fit()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "other" / name, whole / name)
    trainer(people, whole).fit(resume=True)
    assert (whole / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert load_network(whole)[1].seed == 0


def test_a_lost_record_is_not_advised_away(people, run):
    (run / "training.json").unlink()
    refused(lambda: trainer(people, run).fit(resume=True), "copy it back, or name another --out")
    empty = run.parent / "empty"
    refused(lambda: trainer(people, empty).fit(resume=True), "or leave --resume out to start one")
    trainer(people, empty).fit(epochs=1)    # as it was told


@pytest.fixture(scope="module")
def judged():
    runs = read_runs(ROOT / "nbs/results/study_lspet_nano/runs.json")
    return next(run for run in runs if (run["row"], run["seed"]) == ("ppt", 0))


@pytest.mark.parametrize("change, field", [
    (dict(score=None), "score"), (dict(score="good"), "score"), (dict(seed="0"), "seed"),
    (dict(interval=[1]), "interval"), (dict(shape=[3]), "shape"),
    (dict(conditions=[]), "conditions"), (dict(conditions={}), "conditions"),
    (dict(shape=[10**9, 10**9]), "do not fit 'shape'"), (dict(hits="AAAA"), "do not fit 'shape'"),
    (dict(hits="x"), "base64"), (dict(recipe=None), "recipe"), (dict(row=1), "row"),
    (dict(photos="1 x"), "photos"), (dict(photos="0 1"), "'photos' and 'shape'"),
    (dict(macs="many"), "macs"), (dict(macs=1.5), "macs"), (dict(words=5), "words"),
    (dict(trained_on=[1]), "trained_on"), (dict(taught_by=1), "taught_by"),
    (dict(trained_pixels={}), "trained_pixels"), (dict(cycles=[dict(cycle=1)]), "cycles.0.score"),
    (dict(cycles=[dict(cycle=1, score=5.0, hits="AAAA")]), "do not fit 'shape'"),
    (dict(recipe=dict(colour_of_hair=1)), "recipe: recipe has no field 'colour_of_hair'"),
    (dict(recipe=dict(epochs="12")), "recipe: epochs is '12'"),
    (dict(score=50.0), "'score' is 50.0, and its 'hits' give "),
    (dict(interval=[90.0, 1.0]), "'interval' ends before it begins"),
])
def test_a_damaged_result_is_named(judged, tmp_path, change, field):
    file = tmp_path / "study/ppt-seed0/judged.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(judged))
    assert read_judged(file) == judged and len(finished_runs(tmp_path / "study")) == 1
    file.write_text(json.dumps(judged | change))
    for read in (
        lambda: read_judged(file), lambda: finished_runs(tmp_path / "study"),
        lambda: format_runs(tmp_path / "study", "protocol", (0,), ("ppt",)),
    ): refused(read, "judged.json is damaged", field, "remove it, and the run is judged again")
    (tmp_path / "runs.json").write_text(json.dumps([judged, judged | change]))
    refused(lambda: read_runs(tmp_path / "runs.json"), "runs.json is damaged: 1", field)


def test_a_results_file_of_something_else_is_named(tmp_path):
    for content in ([5], [[]], ["x"], [{}]):
        (tmp_path / "runs.json").write_text(json.dumps(content))
        refused(lambda: read_runs(tmp_path / "runs.json"), "runs.json is damaged: 0")
    (tmp_path / "runs.json").write_text("[]")
    refused(lambda: read_runs(tmp_path / "runs.json"), "runs.json holds no run; name the runs.json")


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
], ids=["machine", "gpu"])
def test_a_run_that_finds_no_memory_is_not_damaged(tmp_path, error):
    with pytest.raises(type(error)) as raised, RunFolder(tmp_path).damage_in_words():
        raise error
    assert raised.value is error


def test_damage_without_a_word_is_named_by_its_kind(tmp_path):
    with pytest.raises(DataError, match="AssertionError"):
        with RunFolder(tmp_path).damage_in_words(): raise AssertionError

"""Runs that stand side by side: the same base, people and teacher, whatever their rows change; all
else is refused in one sentence, in tables, in differences and in a study's folder."""
import json
import shutil
from pathlib import Path

import pytest

from dppt_nb.alike import check_alike, check_seeds, teacher_is
from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.claims import of_epochs
from dppt_nb.judged import difference, format_study, of_row, run_study, show_study
from dppt_nb.recipes import get_recipe
from dppt_nb.runner import train_recipe
from dppt_nb.store import load_people
from dppt_nb.studies import STUDIES, Row, find_rows, read_runs, row_recipe
from dppt_nb.study import each_seed

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results"
ROWS = {row.name: row for rows in STUDIES.values() for row in rows}
TOY = get_recipe(
    "tokenpose_nano", image_size=(64, 48), overrides=dict(width=32, heads=2), epochs=2,
    batch_size=16, warmup_steps=2,
)


def run_of(row, base="tokenpose_nano", epochs=None, protocol=None, seed=0, **more):
    "A run as far as its recipe goes."
    recipe = row_recipe(row, base, seed, epochs, "teacher", protocol)
    return dict(row=row.name, seed=seed, recipe=recipe.to_dict(), **more)


@pytest.mark.parametrize("protocol", [None, "tokenpose", "mmpose"])
@pytest.mark.parametrize("base", ["tokenpose_nano", "tokenpose_s_v1_coco", "tokenpose_l_d6_mpii"])
@pytest.mark.parametrize("epochs", [None, 1, 12])
def test_rows_of_one_base_are_alike_whatever_they_change(base, protocol, epochs):
    check_alike([run_of(row, base, epochs, protocol) for row in ROWS.values()])


@pytest.mark.parametrize("name, changes", [
    ("epochs", dict(epochs=31)), ("sigma", dict(sigma=1.5)), ("lr", dict(lr=1e-4)),
    ("image_size", dict(image_size=(64, 48))), ("overrides.depth", dict(overrides={"depth": 2})),
    ("flip", dict(flip=0.1)), ("model", dict(model="tokenpose_b")), ("kernel", dict(kernel=7)),
])
def test_another_base_is_seen_in_every_row(name, changes):
    base = get_recipe("tokenpose_nano")
    plain = run_of(ROWS["tokenpose"], base)
    for row in ROWS.values():
        if name.removeprefix("overrides.") in row.changes.get("overrides", {}): continue
        with pytest.raises(DataError, match=rf"{name} is .*; take apart what differs") as said:
            check_alike([plain, run_of(row, base.change(**changes))])
        assert "'tokenpose' of seed 0" in str(said.value) and repr(row.name) in str(said.value)


def test_who_was_taught_by_whom_and_on_whom_belongs_to_it():
    one, two = (run_of(ROWS[name]) for name in ("ppt", "dppt"))
    for field, words in (("trained_on", "trained on other people"),
                         ("trained_pixels", "trained on other pictures"),
                         ("taught_by", "had other teachers")):
        with pytest.raises(DataError, match=words):
            check_alike([one | {field: "aa"}, two | {field: "bb"}])
        check_alike([one | {field: "aa"}, two | {field: None}])    # of an older run it is not known
    taught = [dict(run_of(ROWS["dppt"], seed=s), taught_by=f"teacher {s}") for s in (0, 1)]
    check_alike(taught)    # a seed may have a teacher of its own
    few = [run_of(ROWS["photos_100"], trained_on="aa"), run_of(ROWS["photos_1000"], trained_on="b")]
    check_alike(few)       # and a row other people


def test_teachers_of_one_kind_teach_a_table():
    small, large = (dict(model=f"tokenpose_{size}", epochs=30) for size in ("nano", "s_v1"))
    one, two = (dict(run_of(ROWS["dppt"], seed=s), taught_by=f"teacher {s}") for s in (0, 1))
    both = [one | dict(teacher_is=small), two | dict(teacher_is=small)]
    check_seeds(both)
    check_alike([*both, run_of(ROWS["ppt"])])
    for check in (check_seeds, check_alike):
        with pytest.raises(DataError, match="teacher's model is 'tokenpose_nano' in the first"):
            check([both[0], two | dict(teacher_is=large)])
    check_seeds([both[0], two])    # of an older run it is not known


def test_what_a_teacher_is_comes_from_its_folder(tmp_path):
    assert teacher_is(get_recipe("tokenpose_nano")) == {}
    taught = row_recipe(ROWS["dppt"], "tokenpose_nano", 0, 12, "tokenpose_nano_lspet")
    kind = teacher_is(taught)
    assert kind == dict(
        model="tokenpose_nano", overrides={}, epochs=30, train_people=0, data="lspet"
    )
    assert teacher_is(taught.change(teacher=str(tmp_path / "gone"))) == {}
    # the epoch that happened to be the best is luck
    network, _, _ = load_network("tokenpose_nano_lspet")
    network.about["epoch"] = 21
    network.save_pretrained(tmp_path / "best")
    assert teacher_is(taught.change(teacher=str(tmp_path / "best"))) == kind


def test_people_who_are_drawn_are_the_same_in_every_row():
    one, two = (run_of(ROWS[name], trained_on=who) for name, who in
                (("photos_100", "aa"), ("synthetic_100", "bb")))
    with pytest.raises(DataError, match="trained on other people"): check_alike([one, two])
    check_alike([one, dict(two, seed=1), run_of(ROWS["photos_1000"], trained_on="cc")])


def test_of_a_row_from_outside_only_its_people_are_compared():
    outside = Row("mine", "wide targets", dict(model="tokenpose_nano", sigma=2.0))
    judges = dict(conditions=dict(data="lspet", split="test", people=900))
    runs = [run_of(outside, epochs=1) | judges, run_of(ROWS["ppt"]) | judges]
    check_alike(runs)
    with pytest.raises(DataError, match="epochs is 1 in the first, 30"):
        check_alike(runs, [outside])
    runs[0] = runs[0] | dict(conditions=dict(judges["conditions"], split="val"))
    with pytest.raises(DataError, match="split is 'val' in the first, 'test'"): check_alike(runs)


@pytest.fixture(scope="module")
def budget(): return read_runs(RESULTS / "study_lspet_nano_budget" / "runs.json")


def test_runs_of_other_lengths_are_not_compared_by_anybody(budget):
    "One row of 30 epochs, another of 60, from one results file."
    length = lambda run: 30 if run["row"] == "ppt" else 60
    mixed = [run for run in budget if run["recipe"]["epochs"] == length(run)]
    rows = find_rows("dppt", ["ppt", "dppt"])
    for compare in (
        lambda: difference(mixed, "dppt", "ppt"), lambda: each_seed(mixed, "dppt", "ppt"),
        lambda: format_study(mixed, rows), lambda: format_study(mixed, rows, against=()),
        lambda: show_study(mixed, rows),
    ):
        with pytest.raises(DataError, match="epochs is (30|60) in the first, (30|60) in the"):
            compare()
    assert difference(of_epochs(budget, 30), "dppt", "ppt")["seeds"] == 3


def test_seeds_of_other_lengths_are_not_averaged(budget):
    dppt = [run for run in budget if run["row"] == "dppt"]
    mixed = [run for run in dppt if run["recipe"]["epochs"] == (30 if run["seed"] == 0 else 60)]
    assert len(mixed) > 1
    for ask in (lambda: of_row(mixed, "dppt"), lambda: check_seeds(mixed)):
        with pytest.raises(DataError, match="'dppt' of seed 0 and 'dppt' .* epochs is 30"): ask()


def study(out, names, **more):
    settings = dict(data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, out=out)
    return run_study("protocol", names=names, **settings | more)


@pytest.mark.parametrize("more, words", [
    (dict(epochs=1), "epochs is 2 in the first, 1"),
    (dict(protocol="mmpose"), "is .* in the first"),
    (dict(base=TOY.change(sigma=2.0)), "sigma is 1.0 in the first, 2.0"),
    (dict(epochs=1, seeds=(1,)), "'tokenpose' of seed 0 and 'ppt' of seed 1"),
])
def test_another_row_of_another_study_is_refused_before_it_is_trained(tmp_path, toy, more, words):
    with pytest.raises(DataError, match=f"{words}.*; {toy} holds another study, so name another"):
        study(toy, ("ppt",), **more)
    assert not list(toy.glob("ppt-*"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "A study with one row."
    out = tmp_path_factory.mktemp("alike") / "toy"
    study(out, ("tokenpose",))
    return out


def test_another_teacher_of_another_row_is_refused(tmp_path):
    for seed in (0, 1):
        train_recipe(
            TOY.change(seed=seed, epochs=1), out=tmp_path / str(seed), device="cpu", bars=False,
            people=16,
        )
    settings = dict(data="synthetic", base=TOY, device="cpu", people=16, epochs=1,
                    out=tmp_path / "study")
    run_study("dppt", teacher=tmp_path / "0", names=("output",), seeds=(0,), **settings)
    with pytest.raises(DataError, match="output-seed0 holds a run that another teacher taught"):
        run_study("dppt", teacher=tmp_path / "1", names=("features",), seeds=(0,), **settings)
    assert not (tmp_path / "study" / "features-seed0").exists()


def test_a_row_judges_only_the_network_that_its_study_would_train(toy, tmp_path):
    "Whatever lies in the folder of the row that it names: of another length, or copied there."
    from dppt_nb.judged import run_row
    row, = find_rows("protocol", ["argmax"])
    crops = load_people("synthetic", None, ("test",), TOY.image_size, False, 16)["test"]
    def judge(out, **more):
        recipe = row_recipe(row, TOY, 0, **more)
        return run_row(row, recipe, "synthetic", None, out, crops, device="cpu")
    with pytest.raises(DataError, match="tokenpose-seed0 holds a network with epochs = 2, not 1"):
        judge(toy, epochs=1)
    copied = Path(shutil.copytree(toy, tmp_path / "copied"))
    other = TOY.change(sigma=2.0)
    train_recipe(other, out=tmp_path / "other", device="cpu", bars=False, people=16)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "other" / name, copied / "tokenpose-seed0" / name)
    with pytest.raises(DataError, match="holds a network with sigma = 2.0, not 1.0"): judge(copied)
    assert not list(copied.glob("argmax-*")) and not list(toy.glob("argmax-*"))
    assert judge(toy)["recipe"]["decode"] == "argmax"


def test_a_row_that_judges_has_the_recipe_of_the_one_that_trains():
    biased, unmoved = (row_recipe(ROWS[name], TOY, 0) for name in ("biased", "biased_unmoved"))
    assert biased.change(flip_shift=False) == unmoved and not unmoved.unbiased
    with pytest.raises(DataError, match="row 'x' judges the networks of row 'y', which no study"):
        row_recipe(Row("x", "", {}, of="y"), TOY, 0)


def test_the_stored_studies_are_alike():
    for path in sorted(RESULTS.glob("study_*/runs.json")):
        runs = read_runs(path)
        lengths = {
            "study_lspet_nano_budget": (30, 60), "study_lspet_nano_fresh": (12, 17),
            "study_lspet_nano_fourth": (12, 17),
        }
        for epochs in lengths.get(path.parent.name, (None,)):
            check_alike(of_epochs(runs, epochs) if epochs else runs)
    assert json.loads(path.read_text()) == runs

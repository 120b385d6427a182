"""The study: stopping and going on, packed hits, intervals that know of seeds and of people."""
import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sampling import sample
from tiny_fixture import TINY

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.files import claim_folder
from dppt_nb.judged import (
    combine,
    difference,
    finished_runs,
    format_study,
    mean_hits,
    row_score,
    run_study,
    show_study,
    stored_with_pages,
    unfinished,
)
from dppt_nb.keypoints import COCO17
from dppt_nb.loop import batch_count
from dppt_nb.metrics import mean_rate
from dppt_nb.models import create_model
from dppt_nb.recipes import get_recipe
from dppt_nb.runner import check_sources, train_recipe
from dppt_nb.runs import RECORD, RunFolder
from dppt_nb.store import load_people
from dppt_nb.studies import (
    STUDIES,
    Row,
    beside_stored,
    find_rows,
    format_runs,
    pack_bits,
    read_runs,
    row_recipe,
    unpack_bits,
)
from dppt_nb.study import CLAIMS, verdict
from dppt_nb.together import is_whole, train_runs
from dppt_nb.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
# as deep as the rows that drop patches ask for
TOY = get_recipe(
    "tokenpose_nano", image_size=(64, 48), overrides=TINY | dict(depth=4), epochs=2, batch_size=16,
    warmup_steps=2,
)


def made_up(scores, rows=("a", "b"), people=200, joints=6, seed=0):
    "Judged runs with hits at given rates: scores[row][seed]."
    rng, runs = np.random.default_rng(seed), []
    for row, rates in zip(rows, scores):
        for s, rate in enumerate(rates):
            hits = rng.random((people, joints)) < rate
            counts = np.ones_like(hits)
            runs.append(
                dict(
                    row=row, seed=s, score=float(mean_rate(hits.sum(0), counts.sum(0))),
                    hits=pack_bits(hits), counts=pack_bits(counts), shape=list(hits.shape),
                    macs=10**8,
                )
            )
    return runs


@pytest.mark.parametrize("shape", [(1, 1), (7, 14), (900, 14), (3, 17)])
def test_marks_survive_packing(shape):
    marks = np.random.default_rng(1).random(shape) < 0.3
    assert np.array_equal(unpack_bits(pack_bits(marks), shape), marks)


def test_a_study_is_stopped_and_goes_on_as_if_nothing_had_been(tmp_path):
    train_recipe(TOY, out=tmp_path / "teacher", device="cpu", bars=False, people=32)
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=32,
        teacher=tmp_path / "teacher", names=("ppt", "dppt"),
    )
    whole = run_study("dppt", out=tmp_path / "whole", **settings)
    run_study("dppt", out=tmp_path / "parts", **{**settings, "names": ("dppt",)})
    parts = run_study("dppt", out=tmp_path / "parts", **settings)
    key = lambda run: (run["row"], run["seed"])
    for one, two in zip(sorted(whole, key=key), sorted(parts, key=key)):
        assert key(one) == key(two) and one["hits"] == two["hits"] and one["score"] == two["score"]
    assert len(whole) == 2 and json.loads(
        (tmp_path / "parts" / "runs.json").read_text()
    ) == parts == finished_runs(tmp_path / "parts")
    judged = whole[0]
    assert (
        judged["conditions"]["split"] == "test"
        and judged["recipe"]["epochs"] == 2
        and judged["train_seconds"] > 0
    )
    hits, counts = (unpack_bits(judged[k], judged["shape"]) for k in ("hits", "counts"))
    # the score follows from the marks alone
    assert abs(mean_rate(hits.sum(0), counts.sum(0)) - judged["score"]) < 1e-9


@pytest.mark.parametrize("epochs, together", sample([(2, 1), (1, 1), (2, 2)], 0, 2))
def test_a_stop_between_a_runs_record_and_its_last_network(tmp_path, monkeypatch, epochs, together):
    "The network is restored from the state and judged, not the one of the epoch before."
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=32, epochs=epochs,
        names=("tokenpose",),
    )
    whole, = run_study("dppt", out=tmp_path / "whole", **settings)
    written = RunFolder.write_network
    def full(folder, *given):
        if folder.epoch == epochs: raise OSError(28, "No space left on device")
        written(folder, *given)
    monkeypatch.setattr(RunFolder, "write_network", full)
    with pytest.raises(OSError): run_study("dppt", out=tmp_path / "cut", **settings)
    monkeypatch.undo()
    folder = tmp_path / "cut" / "tokenpose-seed0"
    assert format_runs(tmp_path / "cut", "dppt", (0,), ("tokenpose",)).endswith("not judged")
    assert not is_whole(folder, load_network(tmp_path / "whole" / folder.name)[1])
    cut, = run_study("dppt", out=tmp_path / "cut", together=together, **settings)
    assert (cut["hits"], cut["score"]) == (whole["hits"], whole["score"])
    assert load_network(folder)[0].about["epoch"] == epochs
    for name in ("judged.json", "model.safetensors"): (folder / name).unlink()
    cut, = run_study("dppt", out=tmp_path / "cut", together=together, **settings)
    assert cut["hits"] == whole["hits"] and (folder / "model.safetensors").exists()


def test_a_judged_run_is_not_trained_again_for_what_was_removed_of_it(tmp_path):
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=32, names=("tokenpose",),
        out=tmp_path,
    )
    done = run_study("dppt", **settings)
    folder = tmp_path / "tokenpose-seed0"
    for path in folder.glob("*.safetensors"): path.unlink()
    assert run_study("dppt", together=2, **settings) == done
    assert not [*folder.glob("*.safetensors")]


def test_a_judged_run_in_another_ones_folder_is_named(tmp_path):
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, epochs=1, names=("ppt",),
        out=tmp_path,
    )
    run_study("dppt", **settings)
    copy = tmp_path / "foo-seed3" / "judged.json"
    copy.parent.mkdir()
    shutil.copy(tmp_path / "ppt-seed0" / "judged.json", copy)
    for read in (lambda: run_study("dppt", **settings), lambda: finished_runs(tmp_path)):
        with pytest.raises(DataError, match="row 'ppt' and seed 0, its folder is not") as refused:
            read()
        assert str(refused.value).startswith(f"{copy} is of row")


def test_a_study_has_one_teacher(tmp_path, capsys):
    for seed in (0, 1):
        recipe = TOY.change(seed=seed, epochs=1)
        train_recipe(recipe, out=tmp_path / str(seed), device="cpu", bars=False, people=16)
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, epochs=1,
        names=("output",), out=tmp_path / "study",
    )
    done = run_study("dppt", teacher=str(tmp_path / "0"), **settings)
    assert run_study("dppt", teacher=str(tmp_path / "0"), **settings) == done
    with pytest.raises(DataError, match="another teacher taught"):
        run_study("dppt", teacher=str(tmp_path / "1"), **settings)
    # a finished study is printed without its teacher, and says so
    capsys.readouterr()
    assert run_study("dppt", teacher=str(tmp_path / "gone"), **settings) == done
    assert f"teacher {tmp_path / 'gone'} cannot be read" in capsys.readouterr().out


def test_stored_runs_whose_folders_are_gone_stay(tmp_path):
    "And are held to the people and the recipe of the study as those with a folder are."
    settings = dict(
        data="synthetic", base=TOY, device="cpu", people=16, epochs=1, names=("ppt",), out=tmp_path,
    )
    run_study("dppt", seeds=(0,), **settings)
    shutil.rmtree(tmp_path / "ppt-seed0")
    before, = read_runs(tmp_path / "runs.json")
    done = run_study("dppt", seeds=(1,), **settings)
    assert done == read_runs(tmp_path / "runs.json") and before in done and len(done) == 2
    stored = (tmp_path / "runs.json").read_text()
    for changes, words in ((dict(people=24), "people"), (dict(epochs=2), "holds another study")):
        with pytest.raises(DataError, match=words):
            run_study("dppt", seeds=(2,), **{**settings, **changes})
    assert (tmp_path / "runs.json").read_text() == stored
    again = run_study("dppt", seeds=(0,), **settings)    # run again, it takes its own place
    assert [run["seed"] for run in again] == [0, 1] and again[0]["hits"] == before["hits"]
    (tmp_path / "runs.json").write_text(stored[:100])
    with pytest.raises(DataError, match="runs.json is not JSON"):
        run_study("dppt", seeds=(0,), **settings)
    (tmp_path / "runs.json").write_text("[]")
    with pytest.raises(DataError, match="holds no run; copy it again, or remove it"):
        run_study("dppt", seeds=(0,), **settings)


def test_a_study_goes_on_with_other_threads_where_that_is_allowed(tmp_path, monkeypatch):
    row, = find_rows("dppt", ["ppt"])
    recipe = row_recipe(row, TOY, 0)
    people = load_people("synthetic", None, ("train",), TOY.image_size, False, 16)["train"]
    Trainer(recipe, people, None, tmp_path / "ppt-seed0", "cpu", bars=False).fit(epochs=1)
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, names=("ppt",),
        out=tmp_path,
    )
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)    # more would only be slow
    with pytest.raises(DataError, match="began with threads .* --allow-drift"):
        run_study("dppt", **settings)
    assert len(run_study("dppt", allow_drift=True, **settings)) == 1


def test_a_stored_recipe_without_epochs_is_named(tmp_path):
    runs = json.loads((ROOT / "nbs/results/study_lspet_nano/runs.json").read_text())[:2]
    del runs[1]["recipe"]["epochs"]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    with pytest.raises(DataError, match="runs.json is damaged: 1.*its 'recipe' has no 'epochs'"):
        format_runs(tmp_path, "dppt")


def test_equal_rows_are_not_told_apart_and_different_ones_are():
    same = difference(made_up([(.5, .5, .5), (.5, .5, .5)]), "a", "b")
    assert same["interval"][0] < 0 < same["interval"][1] and same["seeds"] == 3
    apart = difference(made_up([(.7, .7, .7), (.5, .5, .5)]), "a", "b")
    assert apart["interval"][0] > 0 and abs(apart["mean"] - 20) < 4
    assert difference(made_up([(.7, .7), (.5, .5)]), "a", "nobody") is None


def test_luck_of_the_seeds_widens_the_interval():
    steady, lucky = made_up([(.6, .6, .6), (.5, .5, .5)]), made_up([(.5, .6, .7), (.5, .5, .5)])
    width = lambda runs: np.diff(difference(runs, "a", "b")["interval"])[0]
    assert width(lucky) > 2 * width(steady)


def test_only_shared_seeds_are_compared():
    runs = [
        run
        for run in made_up([(0.6, 0.6, 0.9), (0.5, 0.5, 0.5)])
        if (run["row"], run["seed"]) != ("b", 2)
    ]
    assert difference(runs, "a", "b")["seeds"] == 2 and difference(runs, "a", "b")["mean"] < 15


def test_one_seed_has_no_interval_and_says_so():
    runs = made_up([(.6,), (.5,)])
    assert math.isnan(row_score(runs, "a")["interval"][0])
    table = format_study(runs, [row for row in find_rows("dppt")])
    assert table.count("not run") == len(STUDIES["dppt"])
    both = combine([50.0, 52.0, 54.0], (-1, 1))
    assert (
        both["mean"] == 52
        and abs(both["interval"][1] - 52 - math.hypot(4.3027 * 2 / math.sqrt(3), 1)) < 1e-3
    )


def test_mean_hits_average_over_seeds():
    runs = made_up([(1., 0.)], rows=("a",))
    assert (mean_hits(runs) == .5).all()


def test_rows_and_teachers_are_named_or_refused():
    with pytest.raises(DataError, match="no study 'dpt'"): find_rows("dpt")
    with pytest.raises(DataError, match="no row 'pptt'"): find_rows("dppt", ["pptt"])
    with pytest.raises(DataError, match="--teacher"):
        row_recipe(find_rows("dppt", ["dppt"])[0], "tokenpose_nano", 0)
    recipes = [
        row_recipe(row, "tokenpose_nano", 1, 12, "t")
        for study, rows in STUDIES.items()
        if study != "protocol"
        for row in rows
    ]
    for rows in STUDIES.values():    # no two rows of a study are the same run
        assert len(
            {
                (row.of, json.dumps(row_recipe(row, "tokenpose_nano", 1, 12, "t").to_dict()))
                for row in rows
            }
        ) == len(rows)
    # and a name means one thing in all of them
    shared = {row.name: row.changes for rows in STUDIES.values() for row in rows}
    assert all(shared[row.name] == row.changes for rows in STUDIES.values() for row in rows)
    assert {(r.seed, r.batch_size, r.augmentation) for r in recipes} == {
        (1, 64, recipes[0].augmentation)
    }
    # with fewer people as many steps as with all 7,700
    people = lambda recipe: recipe.train_people or 7_700
    steps = [r.epochs * batch_count(people(r), r.batch_size) for r in recipes]
    assert set(steps) == {1440}


@pytest.mark.parametrize("base", sample(
    ["tokenpose_s_v1_coco", "tokenpose_b_mpii", "tokenpose_l_d6_coco"], 0,
))
def test_every_row_is_there_at_the_papers_sizes(base):
    own, built = get_recipe(base), {}
    for rows in STUDIES.values():
        for row in rows:
            recipe = row_recipe(row, base, 0, 12, "t")
            key = recipe.model, str(recipe.overrides)
            if key not in built:
                with torch.device("meta"):
                    built[key] = create_model(
                        recipe.model, 14, recipe.image_size, **recipe.overrides
                    )
            model = built[key]
            pruned = row.changes.get("model", "").startswith(("ppt", "dppt"))
            assert bool(model.config.prune_at) == pruned and (
                recipe.sigma,
                recipe.batch_size if row.name != "large_batch" else 128,
            ) == (own.sigma, 128)
            assert model.config.cycles == (
                row.changes.get("overrides", {}).get("cycles")
                or (2 if row.changes.get("model") == "sdpose_nano" else 1)
            )
            # beside a squared error
            assert not row.changes.get("features") or recipe.features == 5e-4
            assert recipe.one_way == row.changes.get("one_way", False)
    with torch.device("meta"): whole = create_model(own.model, 14, own.image_size)
    assert model.config.attention_scale == whole.config.attention_scale


def test_the_stored_runs_at_s_size_are_what_the_command_runs():
    "Field by field: `dppt study dppt --base tokenpose_s` repeats them."
    runs = json.loads((ROOT / "nbs/results/study_lspet_s/runs.json").read_text())
    for run in runs:
        study, stored = "sdpose" if run["row"] == "sdpose" else "dppt", run["recipe"]
        (row,) = find_rows(study, [run["row"]])
        recipe = row_recipe(row, "tokenpose_s", run["seed"], teacher=stored.get("teacher") or "x")
        ours = json.loads(json.dumps(asdict(recipe)))
        assert stored == {name: ours[name] for name in stored}


def test_a_study_runs_with_the_papers_head(tmp_path):
    small = dict(TINY, patch_size=(1, 1), depth=12)    # its released head is what this is about
    base = get_recipe(
        "tokenpose_s_v1_coco", image_size=(64, 48), epochs=1, batch_size=16, milestones=(),
        kernel=5, sigma=1.0, overrides=small,
    )
    train_recipe(base, out=tmp_path / "teacher", device="cpu", bars=False, people=16)
    runs = run_study(
        "sdpose", data="synthetic", base=base, seeds=(0,), device="cpu", people=16,
        teacher=tmp_path / "teacher", names=("sd_dppt",), out=tmp_path / "study",
    )
    assert [run["recipe"]["model"] for run in runs] == ["ppt_s"]


def test_weights_go_with_the_loss_and_steps_with_the_epochs():
    sdpose, dppt = (find_rows("sdpose", [name])[0] for name in ("sdpose", "dppt"))
    at = lambda row, base, **more: row_recipe(row, base, 0, teacher="t", **more)
    assert (
        at(sdpose, "tokenpose_s_v1_coco").keypoint_cycles == 2.5e-6
        and at(sdpose, "tokenpose_s_v1_coco", protocol="mmpose").keypoint_cycles == 5e-6
    )
    assert at(dppt, get_recipe("tokenpose_nano", overrides={"head": "mlp"})).features == 5e-4
    assert at(dppt, get_recipe("tokenpose_s_v1_coco", loss="cross_entropy")).features == 1.0
    assert at(sdpose, "tokenpose_s_v1_coco", epochs=30).milestones == (20, 26) and at(
        sdpose, "tokenpose_nano", epochs=12
    ).milestones == (200, 260)
    base = get_recipe("tokenpose_s_v1_coco")
    for row in STUDIES["start"]:    # divided at the same share of a run, however long it is
        for epochs in (None, 30):
            recipe = row_recipe(row, base, 0, epochs)
            assert [epoch / recipe.epochs for epoch in recipe.milestones] == pytest.approx(
                [epoch / base.epochs for epoch in base.milestones], abs=0.01
            )
    both = get_recipe("tokenpose_s_v1_coco", protocol="tokenpose")
    assert at(sdpose, both, protocol="mmpose").overrides["attention_scale"] == "head"


def test_another_study_in_the_same_folder_is_refused(tmp_path):
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16,
        names=("tokenpose", "argmax"), out=tmp_path,
    )
    assert run_study("protocol", **settings) == run_study("protocol", **settings)
    with pytest.raises(DataError, match="holds a run with epochs = 2, not 3; name another --out"):
        run_study("protocol", epochs=3, **settings)
    with pytest.raises(DataError, match="holds a run with overrides = .*attention_scale"):
        run_study("protocol", protocol="mmpose", **settings)
    with pytest.raises(DataError, match="holds a run with split = 'test', not 'val'"):
        run_study("protocol", split="val", **settings)


def test_a_teacher_that_is_missing_is_missed_before_anything_is_trained(tmp_path):
    with pytest.raises(DataError, match="--teacher"):
        run_study(
            "sdpose", data="synthetic", base=TOY, seeds=(0,), names=("tokenpose", "dppt"),
            out=tmp_path,
        )
    assert not list(tmp_path.glob("*-seed0"))


def test_what_the_base_overrides_stays():
    recipe = row_recipe(find_rows("sdpose", ["sd_dppt"])[0], TOY, 0, teacher="t")
    assert recipe.overrides == TOY.overrides | {"cycles": 2}


@pytest.mark.parametrize(
    "interval, words",
    [
        ((0.1, 2.0), "a hint"), ((-2.0, -0.1), "a hint"), ((-1.0, 1.0), "open"),
    ],
)
def test_verdicts(interval, words):
    "In the words of the page's legend: without a correction it is a hint at most."
    assert verdict(dict(interval=interval, seeds=3)) == words
    assert verdict(None) == "not run"
    assert verdict(dict(interval=(math.nan, math.nan), seeds=1)) == "one seed"


def test_claims_are_about_rows_that_exist_and_have_a_source():
    rows = {row.name for rows in STUDIES.values() for row in rows}
    for claim in CLAIMS: assert {claim.row, claim.other} <= rows and claim.source


def test_the_figure_shows_every_row_that_was_run():
    rows = find_rows("dppt", ["tokenpose", "ppt", "output"])
    ax = show_study(made_up([(.6, .6), (.5, .5)], rows=("tokenpose", "ppt")), rows)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        rows[0].words,
        rows[1].words,
    ]


def test_command_refuses_with_a_sentence(tmp_path):
    say = lambda *words: CliRunner().invoke(main, ["study", *words, "--out", str(tmp_path)]).output
    assert "write for example 0,1,2" in say("dppt", "--seeds", "0,x")
    assert "there is no study" in say("nothing")
    assert "--teacher" in say("dppt", "--rows", "dppt", "--people", "16")


def test_a_row_from_outside_is_one_entry(tmp_path):
    mine = Row("soft", "wider targets", dict(model="tokenpose_nano", sigma=1.5))
    STUDIES["dppt"].append(mine)
    try:
        (run,) = run_study(
            "dppt", data="synthetic", base=TOY, seeds=(0,), names=("soft",), out=tmp_path,
            device="cpu", people=16, epochs=1,
        )
    finally: STUDIES["dppt"].remove(mine)
    assert run["recipe"]["sigma"] == 1.5 and run["words"] == "wider targets"
    assert run["conditions"]["compute"] in ("fp32", "bf16") and run["conditions"]["threads"] > 0


@pytest.mark.parametrize("second", [dict(people=24), dict(people=24, names=("ppt",))])
def test_a_study_does_not_mix_people(tmp_path, second):
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, epochs=1,
        names=("tokenpose",), out=tmp_path,
    )
    run_study("protocol", **settings)
    with pytest.raises(DataError, match="people = 16, not 24; name another --out"):
        run_study("protocol", **{**settings, **second})
    assert not (tmp_path / "ppt-seed0").exists()    # refused before anything is trained


def test_rows_that_were_taught_on_other_people_are_not_set_side_by_side(tmp_path):
    settings = dict(
        data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, epochs=1,
        names=("tokenpose", "ppt"), out=tmp_path,
    )
    run_study("protocol", **settings)
    judged = tmp_path / "ppt-seed0" / "judged.json"
    judged.write_text(json.dumps(dict(json.loads(judged.read_text()), trained_on="other")))
    with pytest.raises(DataError, match="'ppt' .* and 'tokenpose' .* trained on other people"):
        run_study("protocol", **settings)


def test_runs_side_by_side_are_saved_at_their_end_alone(tmp_path, monkeypatch):
    "However long they take: their rows of the history have losses only then."
    hours, writes = iter(range(0, 10 ** 9, 3600)), []
    monkeypatch.setattr("dppt_nb.trainer.time.time", lambda: float(next(hours)))
    written = RunFolder.write
    def write(folder, record, tensors):
        writes.append(record["under_way"])
        written(folder, record, tensors)
    monkeypatch.setattr(RunFolder, "write", write)
    recipes = {tmp_path / str(n): TOY.change(seed=n, epochs=2) for n in (0, 1)}
    train_runs(recipes, "synthetic", device="cpu", people=32, tell=str)
    assert writes == [None, None]
    for path in recipes:
        assert all("pose" in row for row in RunFolder(path).record()["history"])


def test_runs_side_by_side_are_the_same_runs(tmp_path):
    for seed in (0, 1):
        recipe, teacher = TOY.change(seed=seed), tmp_path / f"teacher{seed}"
        train_recipe(recipe, "synthetic", None, teacher, "cpu", bars=False, people=32)
    settings = dict(
        data="synthetic", base=TOY, seeds=(0, 1), device="cpu", people=32,
        teacher=tmp_path / "teacher{seed}", names=("dppt",),
    )
    alone = run_study("dppt", out=tmp_path / "alone", **settings)
    stored = tmp_path / "alone" / "runs.json"
    together = run_study(
        "dppt", out=tmp_path / "together", together=3, stored=stored, **settings
    )
    for one, two in zip(alone, together):
        for name in ("row", "seed", "hits", "score", "taught_by", "trained_on"):
            assert one[name] == two[name]
        assert one["train_seconds"] is not None and two["train_seconds"] is None
    teachers = {run["seed"]: run["taught_by"] for run in alone if run["row"] == "dppt"}
    assert len(set(teachers.values())) == 2


def test_each_cycle_of_a_cycled_network_is_scored(tmp_path):
    runs = run_study(
        "sdpose", "synthetic", None, tmp_path, TOY, (0,), names=("tokenpose", "sdpose"),
        device="cpu", people=32,
    )
    cycles = {run["row"]: run.get("cycles") for run in runs}
    assert cycles["tokenpose"] is None and [c["cycle"] for c in cycles["sdpose"]] == [1, 2]
    deployed = next(run for run in runs if run["row"] == "sdpose")
    assert cycles["sdpose"][0]["hits"] == deployed["hits"]


def test_a_list_of_runs_says_how_far_each_is(tmp_path):
    run_study(
        "dppt", "synthetic", None, tmp_path, TOY, (0,), names=("tokenpose",), device="cpu",
        people=32,
    )
    listed = CliRunner().invoke(
        main, ["study", "dppt", "--list", "--out", str(tmp_path), "--rows", "tokenpose,ppt"]
    ).output.splitlines()
    assert len(listed) == 6 and sum(line.endswith("not run") for line in listed) == 5
    assert listed[0].split()[:3] == ["tokenpose", "seed", "0"] and float(listed[0].split()[3]) >= 0
    (tmp_path / "ppt-seed2").mkdir()
    (tmp_path / "ppt-seed2" / "training.json").write_text(
        json.dumps(dict(
            history=[{}], recipe=dict(epochs=3), step=1, state="state-0001.safetensors",
        ))
    )
    assert format_runs(tmp_path, "dppt", (2,), ("ppt",)).endswith("epoch 1 of 3")


@pytest.mark.parametrize("words", [
    ["--epochs", "3"], ["--base", "tokenpose_nano"], ["--together", "1"], ["--annotations", "a"],
    ["--stored", "runs.json"], ["--protocol", "mmpose"],
])
def test_a_list_of_runs_refuses_what_it_does_not_heed(tmp_path, words):
    done = CliRunner().invoke(main, ["study", "dppt", "--list", "--out", str(tmp_path), *words])
    assert done.exit_code == 1 and f"{words[0]} is of runs that are trained" in done.output


def listed(*words):
    "What `dppt study --list` says, line by line."
    done = CliRunner().invoke(main, ["study", *map(str, words), "--list"])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_one_run_is_named_by_only_and_seed(tmp_path):
    line, head, *folders = listed("dppt", "--only", "ppt", "--seed", "1", "--out", tmp_path)
    assert line.split() == ["ppt", "seed", "1", "not", "run"]
    assert head.startswith("nothing was run here") and all("--out" in line for line in folders)


def test_where_nothing_was_run_the_list_says_where_stored_runs_are(tmp_path, monkeypatch, root):
    monkeypatch.chdir(root)
    for words, name in (((), "nano"), (("dppt",), "nano_h200"), (("why",), "nano_head")):
        *lines, head = "\n".join(listed(*words, "--out", tmp_path)).partition("nothing was run")
        assert "--out" not in lines[0]
        folders = dict(re.findall(r"--out (\S+) +(\d+)", head))
        assert next(iter(folders)) == f"nbs/results/study_lspet_{name}" and len(folders) > 1
        for folder, count in folders.items():
            rows = {row.name for study in words or STUDIES for row in find_rows(study)}
            runs = read_runs(f"{folder}/runs.json")
            assert int(count) == sum(run["row"] in rows for run in runs)
    shown = listed("why", "--out", next(iter(folders)))    # as the line says
    assert any("judged and stored" in line for line in shown) and "--out" not in shown[-1]
    assert "/study_lspet_nano_start " in listed("start", "--out", tmp_path)[-1]
    (tmp_path / "ppt-seed0").mkdir()    # a run of another row was begun
    assert "--out" not in listed("dppt", "--only", "dppt", "--out", tmp_path)[-1]
    # an installed package has no results
    assert stored_with_pages({"ppt"}, tmp_path) == ""


def test_without_a_name_the_runs_of_all_studies_are_listed(tmp_path):
    lines = listed("--out", tmp_path)
    heads = [line for line in lines if line.endswith(f", in {tmp_path}")]
    assert [head.partition(",")[0] for head in heads] == list(STUDIES)
    runs, stored = [line for line in lines if " seed " in line], lines[-1]
    assert len(runs) == 3 * sum(map(len, STUDIES.values())) and stored.startswith("    --out ")
    refused = CliRunner().invoke(main, ["study", "--list", "--rows", "ppt"])
    assert refused.exit_code == 1 and "name the study too" in refused.output
    assert "name a study, or see all of them with --list" in CliRunner().invoke(
        main, ["study"]
    ).output


def test_stored_runs_are_listed_as_judged(monkeypatch, tmp_path):
    """Also where a row and seed has several lengths, and where the seeds are others than 0, 1 and
    2. The results file is read once."""
    read = []
    noted = lambda path: read.append(path) or read_runs(path)
    monkeypatch.setattr("dppt_nb.studies.read_runs", noted)
    results = Path(__file__).resolve().parent.parent / "nbs" / "results"
    for study in ("study_lspet_nano", "study_lspet_nano_fresh", "study_lspet_nano_budget"):
        runs = json.loads((results / study / "runs.json").read_text())
        lines = listed("dppt", "--out", results / study, "--only", "ppt")
        seeds = sorted({run["seed"] for run in runs})
        assert [int(line.split()[2]) for line in lines] == seeds
        for seed, line in zip(seeds, lines):
            for run in runs:
                if (run["row"], run["seed"]) != ("ppt", seed): continue
                epochs = run["recipe"]["epochs"]
                assert f"{run['score']:.2f}, judged and stored (epochs: {epochs})" in line
    # a study that is under way has more to run than what is stored
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "ppt-seed7").mkdir()
    assert len(listed("dppt", "--out", tmp_path, "--only", "ppt")) == 3
    assert len(read) == len({*read}) == 4


def test_a_teacher_that_no_row_learns_from_is_said_to_be_idle(tmp_path, capsys):
    settings = dict(data="synthetic", base=TOY, seeds=(0,), device="cpu", people=16, epochs=1)
    run_study("dppt", names=("tokenpose",), teacher="nowhere", out=tmp_path, **settings)
    said = "none of these rows learns from a teacher: nowhere is not used"
    assert said in capsys.readouterr().out
    with pytest.raises(OSError, match="nowhere"):
        run_study("dppt", names=("output",), teacher="nowhere", out=tmp_path, **settings)
    assert said not in capsys.readouterr().out


def test_a_run_is_compared_with_the_stored_one():
    same = dict(row="ppt", recipe=dict(epochs=12), conditions=dict(split="test"))
    stored = [dict(same, seed=0, score=50.0, interval=[48.0, 52.0])]
    here = lambda score, seed=0: beside_stored(dict(same, seed=seed, score=score), stored)
    assert "within its interval 48.0 to 52.0" in here(51.9)
    assert "outside of its interval" in here(52.1)
    assert here(51.9, seed=1) == "51.90   stored: no run of this row and seed"
    assert beside_stored(dict(same, seed=1, score=51.9), []) == "51.90"
    for mine, theirs, other in (("a", "b", True), ("a", "a", False), ("a", None, False)):
        judged = dict(same, seed=0, score=50.0, trained_pixels=mine)
        known = [dict(run, trained_pixels=theirs) for run in stored]
        assert ("but from other pixels" in beside_stored(judged, known)) == other


def test_a_network_starts_from_another_and_learns_from_some_people(tmp_path, capsys):
    train_recipe(TOY, "synthetic", None, tmp_path / "first", "cpu", bars=False, people=32)
    recipe = TOY.change(start=str(tmp_path / "first"), train_people=20, epochs=1, seed=1)
    train_recipe(recipe, "synthetic", None, tmp_path / "second", "cpu", bars=False, people=32)
    record = json.loads((tmp_path / "second" / "training.json").read_text())
    assert record["people"] == 20 and record["steps_per_epoch"] == 2
    assert "\n20 people to learn from, 2 batches" in capsys.readouterr().out
    with pytest.raises(DataError, match="has 32 of them"):
        train_recipe(
            recipe.change(train_people=33), "synthetic", None, tmp_path / "third", "cpu",
            bars=False, people=32,
        )


def test_a_study_reads_as_a_training_does(tmp_path, monkeypatch):
    "Files of any name, one of several categories: the options go with every run."
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    points = [v for j in range(17) for v in (10 + 2 * j, 5 + 4 * j, 2)]
    kinds = [dict(id=i, name=f"kind{i}", keypoints=list(COCO17.names)) for i in (1, 2)]
    for name, numbers in (("a", range(1, 5)), ("b", range(5, 11))):
        images = [dict(id=i, file_name=f"{i}.png", width=60, height=80) for i in numbers]
        for i in images: Image.new("RGB", (60, 80)).save(tmp_path / i["file_name"])
        people = [
            dict(id=i, image_id=i, category_id=1 + i % 2, bbox=[5, 5, 50, 70], area=2000,
                 iscrowd=0, keypoints=points) for i in numbers
        ]
        content = dict(images=images, annotations=people, categories=kinds)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    reader = dict(annotations=["train=a.json", "val=b.json"], category=["kind2"])
    judged, = run_study(
        "protocol", data="coco", root=tmp_path, base=TOY, seeds=(0,), device="cpu", epochs=1,
        split="val", names=("tokenpose",), out=tmp_path / "study", **reader,
    )
    assert judged["conditions"]["people"] == 3      # of six in b.json
    trained = load_people("coco", tmp_path, ("train",), TOY.image_size, bars=False, **reader)
    assert len(trained["train"]) == 2 and judged["trained_on"] == trained["train"].digest
    again = lambda **more: run_study(
        "protocol", data="coco", root=tmp_path, base=TOY, seeds=(0,), device="cpu", epochs=1,
        split="val", names=("tokenpose",), out=tmp_path / "study", **reader, **more,
    )
    assert again() == [judged]
    for pairs in ("left_eye:right_eye", "none"):    # the same people, mirrored in another way
        with pytest.raises(DataError, match="holds a run with flip_pairs = .*name another --out"):
            again(flip_pairs=pairs)
    without = dict(content, categories=[dict(k, keypoints=[f"p{i}" for i in range(17)])
                                         for k in kinds])
    (tmp_path / "c.json").write_text(json.dumps(without))
    with pytest.raises(DataError, match="have no left shoulder and right hip"):
        run_study("protocol", data="coco", root=tmp_path, base=TOY, device="cpu", split="val",
                  out=tmp_path / "points", annotations=["val=c.json"])
    words = ["study", "protocol", "--data", "coco", "--root", tmp_path, "--out", tmp_path / "other"]
    done = CliRunner().invoke(main, [*map(str, words), "--annotations", "train=none.json"])
    assert done.exit_code == 1 and "none.json" in done.output


def test_a_study_asks_for_the_start_of_a_run_that_begins_alone(tmp_path):
    row, = find_rows("dppt", ["ppt"])
    plan = [(row, row_recipe(row, TOY, seed).change(start=str(tmp_path / "gone")))
            for seed in (0, 1)]
    (tmp_path / "ppt-seed0").mkdir()
    (tmp_path / "ppt-seed0" / RECORD).touch()
    begun, fresh = (unfinished(plan, tmp_path, begun) for begun in (True, False))
    assert [recipe.seed for recipe in (*begun, *fresh)] == [0, 1]
    check_sources(*begun)
    with pytest.raises(OSError, match="there is no folder"): check_sources(*fresh, begin=True)


def test_runs_side_by_side_refuse_a_folder_of_another_run_or_of_another_writer(tmp_path):
    words = dict(data="synthetic", device="cpu", people=32)
    train_runs({tmp_path / "run": TOY}, **words)
    assert is_whole(tmp_path / "run", TOY) and not is_whole(tmp_path / "run", TOY.change(lr=1e-4))
    with pytest.raises(DataError, match="sigma"):
        train_runs({tmp_path / "run": TOY.change(sigma=2.0)}, **words)
    with claim_folder(tmp_path / "held"), pytest.raises(DataError, match="held"):
        train_runs({tmp_path / "held": TOY}, **words)

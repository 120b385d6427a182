"""Claims: probabilities agree with intervals, several questions are corrected, and what stands on
the page is made from the results files."""
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from dppt_nb.claims import (
    OWN_CLAIMS,
    PRIMARY,
    answer_of,
    corrected,
    format_budget,
    format_primary,
    of_epochs,
    table_of_claims,
)
from dppt_nb.judged import combine, difference, format_interval, format_study, of_row, row_score
from dppt_nb.studies import STUDIES
from dppt_nb.study import CLAIMS, holm, p_value, seeds_needed

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results"


def stored(name):
    return json.loads((RESULTS / name / "runs.json").read_text())


@pytest.mark.parametrize("seed", range(12))
def test_an_interval_leaves_zero_out_where_the_p_value_is_below_a_twentieth(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.uniform(0, 3), 0.8, 4)
    people = (values.mean() - 1.0, values.mean() + 1.0)
    result = combine(list(values), people)
    low, high = result["interval"]
    assert (low > 0 or high < 0) == (p_value(result) < 0.05)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([math.nan, 0.02])[0]) and holm([math.nan, 0.02])[1] == 0.02


def test_as_many_seeds_as_are_needed_tell():
    "Made-up studies of so many seeds leave zero out about as often as was promised."
    known = dict(mean=1.2, seeds=3, spread=0.8, people=[0.6, 1.8])
    count, rng = seeds_needed(known), np.random.default_rng(0)
    told = 0
    for _ in range(400):
        shift = rng.normal(0, 0.6 / 1.96)
        values = rng.normal(1.2 + shift, 0.8, count)
        low, high = combine(list(values), (values.mean() - 0.6, values.mean() + 0.6))["interval"]
        told += low > 0 or high < 0
    assert 0.7 < told / 400 < 0.95
    assert seeds_needed(dict(known, seeds=1)) is None
    assert seeds_needed(dict(known, mean=0.1)) is None


def test_the_verdicts_of_the_stored_studies():
    cpu, gpu, large = map(stored, ("study_lspet_nano", "study_lspet_nano_h200", "study_lspet_s"))
    both = cpu + [dict(run, seed=run["seed"] + 10) for run in gpu]
    lines = format_primary(both).splitlines()[1:]
    assert [line[:len(words)] for line, words in zip(lines, PRIMARY)] == list(PRIMARY)
    answers = dict(zip(PRIMARY, lines))
    assert "  yes" in answers["a teacher improves the pruned network"]
    assert "  open" in answers["a second cycle improves the first"]
    # two studies on two machines agree
    one, other = (difference(runs, "dppt", "ppt")["mean"] for runs in (cpu, gpu))
    assert abs(one - other) < 0.5
    assert format_study(gpu, STUDIES["dppt"]).count("not run") == 1
    assert difference(large, "tokenpose", "ppt")["interval"][0] > 0


def both_sizes():
    cpu, gpu, large = map(stored, ("study_lspet_nano", "study_lspet_nano_h200", "study_lspet_s"))
    return {"nano": cpu + [dict(run, seed=run["seed"] + 10) for run in gpu], "S": large}


def test_one_table_has_all_claims_and_the_five_that_count():
    studies = both_sizes()
    head, rule, *lines = table_of_claims(studies).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    claims = CLAIMS + OWN_CLAIMS
    assert head == "| claim | printed | nano | S | verdict | caveat |" and rule.count("---") == 6
    assert [row[0].strip("*") for row in cells] == [claim.words for claim in claims]
    bold = {frozenset((c.row, c.other)) for c, row in zip(claims, cells) if "**" in row[0]}
    assert bold == {frozenset(pair) for pair in PRIMARY.values()}
    assert all(claim.caveat and row[-1] == claim.caveat for claim, row in zip(claims, cells))


def test_the_table_says_of_a_question_what_its_own_line_says():
    "Also where a claim is the question turned around: the same p, the other answer."
    turned = {"holds": "yes", "does not hold": "yes", "open": "open", "one seed": "one seed"}
    for runs in both_sizes().values():
        lines = dict(zip(PRIMARY, format_primary(runs).splitlines()[1:]))
        values = corrected(runs)
        for claim in CLAIMS + OWN_CLAIMS:
            rows = frozenset((claim.row, claim.other))
            result = difference(runs, claim.row, claim.other)
            if rows not in values or result is None: continue
            said = answer_of(result, values[rows])
            line = next(lines[words] for words, pair in PRIMARY.items() if set(pair) == rows)
            assert f"  {turned[said.split(' (')[0]]}" in line, (said, line)
            if "p = " in said: assert said.split("p = ")[1][:5] in line


def test_an_answer_follows_p_and_without_it_the_interval():
    known = dict(mean=1.0, seeds=3, spread=0.4, people=[0.4, 1.6], interval=[0.1, 1.9])
    other = dict(known, mean=-1.0, interval=[-1.9, -0.1])
    assert answer_of(known) == "holds, not corrected"
    assert answer_of(other) == "does not hold, not corrected"
    assert answer_of(dict(known, interval=[-0.1, 2.1])) == "open"
    # the correction leaves it open, although the interval leaves zero out
    assert answer_of(known, 0.2).startswith("open (p = 0.200; ")
    assert answer_of(known, 0.01) == "holds (p = 0.010)"
    assert answer_of(other, 0.0004) == "does not hold (p < 0.001)"
    assert answer_of(None) == "not run" and answer_of(dict(known, seeds=1)) == "one seed"


def test_the_page_shows_the_table_that_the_results_give():
    page = json.loads((RESULTS.parent / "13_study.ipynb").read_text())
    outputs = [out for cell in page["cells"] for out in cell.get("outputs", [])]
    tables = ["".join(out.get("data", {}).get("text/markdown", "")) for out in outputs]
    assert table_of_claims(both_sizes()) in tables


def test_stored_runs_say_who_taught_and_on_what():
    for name in ("study_lspet_nano_h200", "study_lspet_s"):
        for run in stored(name):
            assert run["conditions"]["device"] == "NVIDIA H200"
            assert bool(run["taught_by"]) == bool(run["recipe"]["teacher"])
            # side by side nobody knows what one of them took
            assert run.get("train_seconds") is None


def test_a_budget_has_a_column_of_its_own():
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    pairs = {"taught over not": ("dppt", "ppt"), "nothing": ("deep", "ppt")}
    head, taught, nothing = format_budget(runs, pairs).splitlines()
    assert head.split() == ["12", "epochs", "30", "epochs", "60", "epochs"]
    # one seed has square brackets: of other people alone
    assert taught.count("(") == 2 and taught.count("[") == 1
    assert nothing.split() == ["nothing", "-", "-", "-"]
    assert len(of_epochs(runs, 30)) == 10 and len(of_epochs(runs, 60)) == 5


def test_the_teachers_that_lie_beside_the_results_are_those_that_taught():
    from dppt_nb.checkpoints import load_network
    from dppt_nb.runs import weights_print
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    for seed in range(3):
        teacher, _, _ = load_network(RESULTS / "teachers" / f"tokenpose_nano_lspet_seed{seed}")
        taught = {run["taught_by"] for run in runs if run["seed"] == seed and run["taught_by"]}
        assert taught == {weights_print(teacher)}


def in_short():
    "The list at the top of the study's page, a line each, by its bold words."
    page = json.loads((RESULTS.parent / "13_study.ipynb").read_text())
    texts = ["".join(cell["source"]) for cell in page["cells"]]
    text = next(text for text in texts if "## In short" in text).split("## In short")[1]
    lines = [line for line in text.splitlines() if line.startswith("- **")]
    return {line.split("**")[1]: line for line in lines}


def test_the_answer_in_short_is_what_the_results_say():
    both, large = both_sizes().values()
    gpu, longer, why, start = map(stored, (
        "study_lspet_nano_h200", "study_lspet_nano_budget", "study_lspet_nano_why",
        "study_lspet_nano_start",
    ))
    begun = start + [dict(run, row="photos_all") for run in gpu if run["row"] == "tokenpose"]
    said, found = in_short(), difference

    def said_of(line, mean, sign, seeds):
        "Whether the line has so many seeds beside the mean, in one part of a sentence."
        words = "one seed" if seeds == 1 else "two seeds"
        return re.search(rf"{re.escape(f'{mean:{sign}.1f}')}[^;]*?\({words}", line)

    def holds(line, result, sign="", seeds=None):
        "Mean and, where there are seeds for it, interval stand in the line."
        assert f"{result['mean']:{sign}.1f}" in line, (line, result)
        if seeds:
            assert result["seeds"] == seeds
            assert said_of(line, result["mean"], sign, seeds), line
        else: assert "{:{s}.1f} to {:{s}.1f}".format(*result["interval"], s=sign) in line, line

    teacher, of_size = said["A teacher"], format_interval(found(large, "dppt", "ppt"), sign=True)
    holds(teacher, found(both, "dppt", "ppt"), "+")
    assert f"S {of_size[:-1]}, open)" in teacher
    everyday = json.loads((RESULTS / "transfer.json").read_text())["runs"]
    for runs in (stored("study_lspet_nano_keep"), everyday):
        for ratio in (0.5, 0.3):
            gain = found(runs, f"dppt_{ratio}", f"ppt_{ratio}")
            holds(teacher, gain, "+")
            assert gain["seeds"] == 3 and gain["interval"][0] > 0
    holds(teacher, found(of_epochs(longer, 30), "dppt", "ppt"), seeds=2)
    holds(teacher, found(of_epochs(longer, 60), "dppt", "ppt"), seeds=1)
    taught = said["A TokenPose taught in the same way"]
    fair = found(gpu, "tokenpose_taught", "dppt")
    assert "stands {:.1f} above".format(fair["mean"]) in taught
    assert "({:+.1f} to {:+.1f}, open)".format(*fair["interval"]) in taught
    holds(taught, found(large, "tokenpose_taught", "dppt"), seeds=1)
    alone = {row: found(gpu, row, "ppt") for row in ("attention", "features", "output")}
    signals = said["Which signal"]
    of_both = found(gpu, "output_attention", "ppt")
    for result in (*alone.values(), of_both): holds(signals, result, "+")
    apart = found(gpu, "attention", "output")["interval"]
    assert "which of the two is more is open" in signals and apart[0] < 0 < apart[1]
    assert alone["features"]["interval"][0] < 0 < alone["features"]["interval"][1]
    for study in (both, large): holds(said["Pruning"], found(study, "tokenpose", "ppt"))
    cycle = said["A second cycle"]
    holds(cycle, found(both, "sdpose", "tokenpose"), "+")
    holds(cycle, found(both, "sd_dppt", "dppt"), "+")
    gains = [
        of_row(why, "sdpose_mlp")[seed]["score"] - of_row(why, "tokenpose_mlp")[seed]["score"]
        for seed in (0, 1)
    ]
    assert "two seeds gained {:.1f} and {:.1f}".format(*gains) in cycle
    people = said["Starting from synthetic people"]
    holds(people, found(begun, "synthetic_all", "photos_all"), seeds=1)
    holds(people, found(begun, "synthetic_100", "photos_100"), seeds=2)


def test_fewer_patches_still_are_what_the_results_say():
    "The runs share people and teacher with those beside them; prose has the scores."
    page = json.loads((RESULTS.parent / "13_study.ipynb").read_text())
    texts = ["".join(cell["source"]) for cell in page["cells"]]
    text = next(text for text in texts if "loses little more with fewer patches" in text)
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_keep")
    for name in ("ppt", "dppt"):
        rows = [of_row(runs, name + end) for end in ("", "_0.5", "_0.3")]
        for seed in (0, 1, 2):
            same = [row[seed] for row in rows]
            assert len({run["trained_on"] for run in same}) == 1
            assert len({run["taught_by"] for run in same}) == 1
        shown = [f"{row_score(runs, name + end)['mean']:.1f}" for end in ("", "_0.5", "_0.3")]
        assert re.search("{}, {} and {} %".format(*map(re.escape, shown)), text)
    for pair in (("tokenpose", "ppt_0.3"), ("dppt_0.3", "ppt_0.3"), ("dppt_0.5", "ppt_0.5")):
        gap = difference(runs, *pair)
        assert gap["seeds"] == 3 and gap["interval"][0] > 0 and f"{gap['mean']:.1f}" in text
    lost = [difference(runs, name, f"{name}_0.3")["interval"] for name in ("ppt", "dppt")]
    assert all(low < 0 < high for low, high in lost)
    runs = {run["row"]: run for run in runs}
    share = runs["ppt_0.3"]["macs"] / runs["ppt"]["macs"]
    assert f"{share:.0%}".replace("%", " %") in text

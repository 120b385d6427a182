"""Claims: probabilities agree with intervals, several questions are corrected, and what stands on
the page is made from the results files."""
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.claims import (
    FRESH,
    HEADS,
    OWN_CLAIMS,
    PRIMARY,
    WEAKER,
    answer_of,
    columns_of_claims,
    corrected,
    costs_of,
    cycles_apart,
    format_budget,
    format_cycles,
    format_primary,
    fresh_runs,
    holm,
    longer_apart,
    of_epochs,
    once,
    p_value,
    people_width,
    seeds_needed,
    show_forest,
    table_of_claims,
)
from dppt_nb.judged import (
    combine,
    difference,
    format_interval,
    format_study,
    half_width,
    of_row,
    row_score,
)
from dppt_nb.metrics import bootstrap_interval
from dppt_nb.recipes import Recipe
from dppt_nb.runs import weights_print
from dppt_nb.studies import STUDIES, photos_of, unpack_bits
from dppt_nb.study import CLAIMS, each_seed

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results"
pytestmark = pytest.mark.usefixtures("drawn_once")


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


def test_what_single_networks_make_of_single_people_averages_out():
    "The interval over people of more seeds is foretold from that of few."
    cpu, gpu = both_sizes()["nano"]
    runs = cpu + [dict(run, seed=run["seed"] + 10) for run in gpu]  # all six: it asks of people
    for pair in (("sdpose", "tokenpose"), ("dppt", "ppt")):
        few = difference([run for run in runs if run["seed"] in (0, 1, 10)], *pair)
        low, high = difference(runs, *pair)["people"]
        assert few["seeds"] == 3 and few["one_seed"] > people_width(few, 3)
        assert people_width(few, 3) == pytest.approx((few["people"][1] - few["people"][0]) / 2)
        assert people_width(few, 6) == pytest.approx((high - low) / 2, rel=0.15)


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
    lines = format_primary(gpu).splitlines()[1:]
    assert [line[:len(words)] for line, words in zip(lines, PRIMARY)] == list(PRIMARY)
    answers = [re.split(r"\s{2,}", line)[3] for line in lines]
    # the teacher's interval leaves zero out by itself, its p does not after the correction
    assert answers == ["not decided", "open", "open", "open", "open"]
    # with the study that suggested the questions
    known = corrected([cpu, gpu])
    assert known[frozenset(("dppt", "ppt"))] < 0.05 < known[frozenset(("sdpose", "tokenpose"))]
    # two studies on two machines agree
    one, other = (difference(runs, "dppt", "ppt")["mean"] for runs in (cpu, gpu))
    assert abs(one - other) < 0.5
    assert format_study(gpu, STUDIES["dppt"]).count("not run") == 1
    assert difference(large, "tokenpose", "ppt")["interval"][0] > 0


def both_sizes():
    cpu, gpu, large = map(stored, ("study_lspet_nano", "study_lspet_nano_h200", "study_lspet_s"))
    return {"nano": [cpu, gpu], "S": [large]}


def test_runs_of_one_seed_count_once():
    cpu, gpu = both_sizes()["nano"]
    pair = ("dppt", "ppt")
    joined, alone = once([cpu, gpu], *pair), [difference(runs, *pair) for runs in (cpu, gpu)]
    assert joined["seeds"] == 3
    assert joined["mean"] == pytest.approx(sum(gain["mean"] for gain in alone) / 2)
    # a study without the rows says nothing, and without any nothing is known
    pair = ("tokenpose_taught", "dppt")
    assert once([cpu, gpu], *pair) == difference(gpu, *pair)
    assert once([cpu, gpu], "nobody", "ppt") is None


def test_studies_of_other_seeds_are_not_taken_together():
    "Their runs would be paired by their places, as if the first seeds were one."
    cpu, gpu = both_sizes()["nano"]
    other = [dict(run, seed=run["seed"] + 7) for run in gpu]
    with pytest.raises(DataError, match="dppt and ppt were run with the seeds .* same seeds"):
        once([cpu, other], "dppt", "ppt")


def test_one_table_has_all_claims_and_the_five_that_count():
    studies = both_sizes()
    head, rule, *lines = table_of_claims(studies).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    claims = CLAIMS + OWN_CLAIMS
    assert head == "| claim | printed | nano | S | caveat |" and rule.count("---") == 5
    assert [row[0] for row in cells] == [claim.words for claim in claims]
    with_p = {frozenset((c.row, c.other)) for c, row in zip(claims, cells) if "p = " in row[2]}
    assert with_p == {frozenset(pair) for pair in PRIMARY.values()}
    assert all(claim.caveat and row[-1] == claim.caveat for claim, row in zip(claims, cells))


def test_the_table_makes_every_difference_once(monkeypatch):
    "Also those that are corrected together, which stand in a line of their own too."
    from dppt_nb import claims
    made = []
    def counted(runs, *rows): return made.append(rows) or difference(runs, *rows)
    monkeypatch.setattr(claims, "difference", counted)
    table_of_claims({"S": both_sizes()["S"]})
    assert made and len(set(made)) == len(made)


def test_the_table_says_of_a_question_what_its_own_line_says():
    "Also where a claim is the question turned around: the same p, the other answer."
    turned = {"yes": "yes", "no": "yes", "open": "open", "one seed": "one seed",
              "not decided": "not decided"}
    _, gpu = both_sizes()["nano"]
    for runs in (gpu, both_sizes()["S"][0]):
        lines = dict(zip(PRIMARY, format_primary(runs).splitlines()[1:]))
        values = corrected([runs])
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
    assert answer_of(known) == "a hint"
    assert answer_of(other) == "a hint"
    assert answer_of(dict(known, interval=[-0.1, 2.1])) == "open"
    # the correction leaves it undecided, although the interval leaves zero out
    assert answer_of(known, 0.2).startswith("not decided (p = 0.200; ")
    assert answer_of(dict(known, interval=[-0.1, 2.1]), 0.2).startswith("open (p = 0.200; ")
    # a study that suggested the question helps to answer it
    assert answer_of(known, 0.01, asked_before=False) == "a hint (p = 0.010)"
    assert answer_of(known, 0.01) == "yes (p = 0.010)"
    assert answer_of(other, 0.01, mark=" *") == "no * (p = 0.010)"
    assert answer_of(other, 0.0004) == "no (p < 0.001)"
    assert answer_of(None) == "not run" and answer_of(dict(known, seeds=1)) == "one seed"


def test_seeds_that_are_there_are_not_asked_for():
    "A question that the correction leaves undecided is not told to want as many seeds as it has."
    _, gpu = both_sizes()["nano"]
    line = format_primary(gpu).splitlines()[1]
    assert "not decided" in line and line.endswith("these, but for the correction")
    known = difference(gpu, "dppt", "ppt")
    assert known["seeds"] == 3 >= seeds_needed(known)
    assert answer_of(known, 0.074) == "not decided (p = 0.074; these, but for the correction)"
    other = dict(known, mean=-known["mean"])
    assert answer_of(other, 0.01, asked_before=False) == "a hint (p = 0.010)"


def test_the_machinerys_page_has_the_numbers_of_the_study():
    "Its teacher is judged on the crops of its rows, and the seeds that it tells are both studies'."
    cells = json.loads((RESULTS.parent / "machinery/claims.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert "thin and hollow" not in source and "hollow mark and no bar" in source
    assert "teacher=teacher)" in source and "tokenpose_nano_lspet_seed0/results.json" in source
    cpu, gpu = both_sizes()["nano"]
    for words, pair in (("A second cycle", ("sdpose", "tokenpose")),
                        ("cycles on top of a teacher", ("sd_dppt", "dppt"))):
        alone, both = (seeds_needed(once(some, *pair)) for some in ([gpu], [cpu, gpu]))
        told = re.search(rf"{words} (?:would|more)[^;.]*[;.]", source)[0]
        assert str(alone or "more than 200") in told and f" {both} " in told


def test_the_page_shows_the_table_that_the_results_give():
    page = json.loads((RESULTS.parent / "papers.ipynb").read_text())
    outputs = [out for cell in page["cells"] for out in cell.get("outputs", [])]
    tables = ["".join(out.get("data", {}).get("text/markdown", "")) for out in outputs]
    columns = columns_of_claims(RESULTS)
    sizes = both_sizes()
    assert (columns["nano, two studies"], columns["S"]) == (sizes["nano"], sizes["S"])
    assert table_of_claims(columns, questions={"nano, fresh": [FRESH, HEADS]}) in tables


def test_the_table_marks_its_weaker_answers_as_the_study_does():
    "A dagger with a teacher, a star at S; every answer is a word that the pages explain."
    columns = columns_of_claims(RESULTS)
    table = table_of_claims(columns, questions={"nano, fresh": [FRESH, HEADS]})
    rows = dict(zip([c.words for c in CLAIMS + OWN_CLAIMS], map(cells, table.splitlines()[2:])))
    teacher, costs = rows["a teacher improves the pruned network"], rows["pruning costs accuracy"]
    assert "), yes \u2020 (p = " in teacher[3] and "), open (p = " in teacher[4]
    assert "), yes (p = " in costs[3] and "), yes * (p = " in costs[4]
    taught = rows["the taught pruned network beats a taught TokenPose"]
    assert "), no \u2020 (p = " in taught[3]
    # a mark stands at answers of its own column alone
    assert not any(mark in row[2] for row in rows.values() for mark in ("\u2020", "*"))
    assert WEAKER.keys() < columns.keys()
    # the papers' head is a family of questions of its own, corrected for the two
    p = corrected([fresh_runs(RESULTS)], HEADS)[frozenset(("sdpose_mlp", "tokenpose_mlp"))]
    assert rows["a second cycle improves the first, the papers' head"][3].endswith(
        f"), yes (p = {p:.3f})"
    )
    answers = {
        told.partition("), ")[2].split(" (")[0].rstrip(" *\u2020")
        for row in rows.values() for told in row[2:5] if "), " in told
    }
    assert answers == {"yes", "no", "open", "a hint"}
    page, glossary = ((RESULTS.parent / f"{p}.ipynb").read_text() for p in ("papers", "glossary"))
    assert all(page.count(f"| *{word}* |") == 1 for word in answers)
    assert "| open, yes, no, a hint |" in glossary


def test_stored_runs_say_who_taught_and_on_what():
    for name in ("study_lspet_nano_h200", "study_lspet_s"):
        for run in stored(name):
            assert run["conditions"]["device"] == "NVIDIA H200"
            assert bool(run["taught_by"]) == bool(run["recipe"]["teacher"])
            # side by side nobody knows what one of them took
            assert run.get("train_seconds") is None


def test_runs_of_several_budgets_are_no_row():
    "Else one run of a seed would silently stand for another."
    runs = stored("study_lspet_nano_budget")
    with pytest.raises(ValueError, match="two runs of ppt share a seed.*epochs"):
        of_row(runs, "ppt")
    assert len(of_row(of_epochs(runs, 30), "ppt")) == 3


def test_a_budget_has_a_column_of_its_own():
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    pairs = {"cycled over not": ("sdpose", "tokenpose"), "nothing": ("deep", "ppt")}
    head, cycled, nothing = format_budget(runs, pairs).splitlines()
    assert head.split() == ["12", "epochs", "30", "epochs", "60", "epochs"]
    # one seed has square brackets: of other people alone
    assert cycled.count("(") == 2 and cycled.count("[") == 1
    assert nothing.split() == ["nothing", "-", "-", "-"]
    # 30 epochs: two seeds of two rows, three of four; 60: one of two, three of four
    assert len(of_epochs(runs, 30)) == 16 and len(of_epochs(runs, 60)) == 14


def test_the_end_of_an_interval_tells_its_side_of_zero():
    "Else one that holds zero would read as one that begins there."
    ends = {-0.003: "-0.003", 0.003: "+0.003", -0.03: "-0.03", 0.0: "+0.0", -0.4: "-0.4"}
    for end, words in ends.items():
        result = dict(mean=1.0, interval=[end, 2.0], people=[end, 2.0], seeds=2)
        assert format_interval(result, sign=True) == f"+1.0 ({words} to +2.0)"
    near = next(
        line for line in format_cycles(stored("study_lspet_nano_why")).splitlines()
        if line.startswith("sdpose_wide")
    )
    assert "[-0.03 to +0.5]" in near


def test_a_picture_of_differences_names_its_study_also_where_the_first_was_not_run():
    runs = stored("study_lspet_nano_h200")
    pairs = {"not run": ("nothing", "ppt"), "one": ("dppt", "ppt"), "two": ("sdpose", "ppt")}
    axes = show_forest(runs, pairs, label="signals")
    assert axes.get_legend_handles_labels()[1] == ["signals"]


def test_what_is_said_of_a_taught_tokenpose_that_trains_longer():
    "Its gain, and by how much more the pruned network gains by its teacher."
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    text = next(text for text in texts_of_the_study() if "**From length to length**" in text)
    gains = [difference(of_epochs(runs, n), "tokenpose_taught", "tokenpose") for n in (12, 30, 60)]
    low, high = gains[1]["interval"]
    said = "gains {:.1f} points at 12 epochs, {:.1f} at 30 ({:+.1f} to {:+.1f}, open) and {:.1f}"
    assert said.format(
        gains[0]["mean"], gains[1]["mean"], low, high, gains[2]["mean"]
    ) in text
    score = lambda row, seed: of_row(of_epochs(runs, 30), row)[seed]["score"]
    more = np.array([
        score("dppt", s) - score("ppt", s) - score("tokenpose_taught", s) + score("tokenpose", s)
        for s in range(3)
    ])
    half = 4.303 * more.std(ddof=1) / 3 ** 0.5    # Student's t, two degrees of freedom
    assert "by seed {:.1f}, {:.1f} and {:.1f} points".format(*more) in text
    assert "{:+.1f} ({:+.1f} to {:+.1f})".format(
        more.mean(), more.mean() - half, more.mean() + half
    ) in text
    over = difference(of_epochs(runs, 30), "tokenpose_taught", "dppt")
    assert over["interval"][0] < 0
    assert f"stands {over['mean']:.1f} above DPPT at 30 epochs (open" in text


def test_how_the_teachers_gain_changes_is_told_alike():
    "From length to length, and as pruning has it of taught and of untaught networks."
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    study, rows = (
        (RESULTS.parent / name).read_text() for name in ("13_study.ipynb",
                                                         "machinery/study_rows.ipynb")
    )
    def ends(values):
        half = half_width(np.std(values, ddof=1), len(values), 0)
        return np.mean(values), np.mean(values) - half, np.mean(values) + half
    def falls(row, other):
        gains = {n: np.array(each_seed(of_epochs(runs, n), row, other)) for n in (12, 30, 60)}
        return [ends(gains[n] - gains[late]) for n, late in ((12, 30), (30, 60), (12, 60))]
    teacher, unpruned = falls("dppt", "ppt"), falls("tokenpose_taught", "tokenpose")
    lead, pruning = falls("dppt", "tokenpose"), falls("tokenpose", "ppt")
    # of twelve four leave zero out, and the page has these
    clear = [low > 0 for _, low, _ in (*teacher, *unpruned, *lead, *pruning)]
    assert clear == [0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0]
    span = "from 12 to 60 ({:.1f} to {:.1f})."
    for words, fall in (
        ("falls by {:.1f} points from 30 to 60 epochs ({:.1f} to {:.1f})", teacher[1]),
        ("falls by {:.1f} points from 12 to 30 ({:.1f} to {:.1f})", lead[0]),
        ("by {:.1f} " + span, unpruned[2]), ("by {:.1f} " + span, lead[2]),
    ):
        assert words.format(*fall) in study, words
    lesson = (RESULTS.parent / "08_distillation.ipynb").read_text()
    assert "falls by {:.1f} points ({:.1f} to {:.1f};".format(*teacher[1]) in lesson
    assert "drop from 12 to 60 is a hint, that from 12 to 30 is open" in rows
    assert "looks smaller with longer training, a hint" in rows
    # in the fresh seeds, and with each teacher counted once
    fresh = fresh_runs(RESULTS)
    more = np.array(each_seed(fresh, "dppt", "ppt")) - each_seed(
        fresh, "tokenpose_taught", "tokenpose"
    )
    whole, once_each = ends(more), ends([*more[:2], more[2:].mean()])
    assert "by {:+.1f} ({:+.1f} to {:+.1f}): a hint".format(*whole) in rows and whole[1] > 0
    assert "open ({:+.1f}, {:+.1f} to {:+.1f})".format(*once_each) in rows and once_each[1] < 0


def test_the_teachers_that_lie_beside_the_results_are_those_that_taught():
    from dppt_nb.checkpoints import load_network
    from dppt_nb.runs import weights_print
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    for seed in range(3):
        teacher, _, _ = load_network(RESULTS / "teachers" / f"tokenpose_nano_lspet_seed{seed}")
        taught = {run["taught_by"] for run in runs if run["seed"] == seed and run["taught_by"]}
        assert taught == {weights_print(teacher)}


def texts_of_the_study():
    "The cells of the study's page, and of that with all its rows."
    pages = (RESULTS.parent / name for name in ("13_study.ipynb", "machinery/study_rows.ipynb"))
    cells = [cell for page in pages for cell in json.loads(page.read_text())["cells"]]
    return ["".join(cell["source"]) for cell in cells]


def cells(line):
    "The cells of a table's row."
    return [cell.strip() for cell in line.strip("|").split("|")]


def with_open(result, sign=""):
    "Mean and interval as the table has them, with `open` where it holds zero."
    low, high = result["interval"]
    mean = f"{result['mean']:{sign}.1f}"
    if result["seeds"] == 1: return f"{mean} (one seed)"
    span = f"{low:{sign}.1f} to {high:{sign}.1f}"
    return f"{mean} ({span}, open)" if low < 0 < high else f"{mean} ({span})"


def test_the_answer_in_short_is_what_the_results_say():
    large, = both_sizes()["S"]
    cpu, gpu, longer, why, start, keep = map(stored, (
        "study_lspet_nano", "study_lspet_nano_h200", "study_lspet_nano_budget",
        "study_lspet_nano_why", "study_lspet_nano_start", "study_lspet_nano_keep",
    ))
    everyday = json.loads((RESULTS / "transfer.json").read_text())["runs"]
    begun = start + [dict(run, row="photos_all") for run in gpu if run["row"] == "tokenpose"]
    found, head = difference, stored("study_lspet_nano_head")

    # the columns of both sizes
    two = [cpu, gpu]
    small = corrected(two)
    fresh = of_epochs(stored("study_lspet_nano_fresh"), 12)
    asked_again = {
        "A teacher": ("dppt", "ppt"), "Pruning": ("tokenpose", "ppt"),
        "A TokenPose taught in the same way": ("tokenpose_taught", "dppt"),
    }
    again = corrected([fresh], asked_again)
    for words, pair in asked_again.items():
        assert found(fresh, *pair)["mean"] > 0 and again[frozenset(pair)] < 0.05
    told = list(small.values())
    low, high = found(gpu, "attention", "output")["interval"]
    everywhere = " ".join(texts_of_the_study())
    assert "Which signal it is cannot be told" in everywhere and low < 0 < high
    parts = ("output", "features", "attention", "output_features", "output_attention",
             "features_attention")
    assert min(holm([p_value(found(gpu, row, "ppt")) for row in parts])) > 0.05

    # what to know
    numbers = {1: "one seed", 2: "two seeds", 3: "three seeds"}
    for runs in (keep, everyday):
        for ratio in (0.5, 0.3):
            gain = found(runs, f"dppt_{ratio}", f"ppt_{ratio}")
            assert gain["seeds"] == 3 and gain["interval"][0] > 0
            assert any(with_open(gain, "+") in text for text in texts_of_the_study())
    for pair in asked_again.values():
        gain = found(everyday, *pair)
        (low, high), taught = gain["interval"], pair == ("dppt", "ppt")
        assert gain["seeds"] == 4 and gain["mean"] > 0 and (low > 0) == taught
        parts = f"{gain['mean']:+.1f}", f"{low:+.1f} to {high:+.1f}"
        if taught: assert f"pruned network {parts[0]} ({parts[1]};" in everywhere
    both = once(two, "sd_dppt", "dppt")
    assert f"{format_interval(both, sign=True)} with *signals* too" in everywhere
    cycles = {"papers": ("sdpose_mlp", "tokenpose_mlp"), "ours": ("sdpose", "tokenpose")}
    answers = corrected([head + fresh], cycles)
    assert answers[frozenset(cycles["papers"])] < 0.05 < answers[frozenset(cycles["ours"])]
    for people, words in (("all", "{:.1f} with all of them"), ("1000", "{:.1f} with 1,000"),
                          ("100", "{:.0f} points with 100 photographs")):
        gain = found(begun, f"synthetic_{people}", f"photos_{people}")
        low, high = gain["interval"]
        known = f" ({low:+.1f} to {high:+.1f}, {numbers[gain['seeds']]})"
        assert words.format(gain["mean"]) + known in everywhere
    of_30 = [run["score"] for run in of_row(of_epochs(longer, 30), "tokenpose").values()]
    assert all(
        run["score"] < min(of_30) for run in of_row(begun, "synthetic_all").values()
    )
    of_30 = [dict(r, row="photos_30") for r in of_epochs(longer, 30) if r["row"] == "tokenpose"]
    more = found(begun + of_30, "photos_30", "synthetic_all")
    assert more["seeds"] == 3
    assert f"The difference is {format_interval(more, sign=True)} in three seeds" in everywhere
    mixed = [found(cpu, *pair)["mean"] for pair in (("moved", "tokenpose"),
                                                    ("biased_unmoved", "biased"))]
    for words, mean in zip(("moving it costs", "*not* moving it costs"), mixed):
        assert f"{words} {-mean:.1f}" in everywhere

    # below the table
    second, said_below = corrected([gpu]), " ".join(texts_of_the_study())
    assert all(p > 0.05 for p in second.values())
    assert f"its corrected p is {second[frozenset(('dppt', 'ppt'))]:.3f}" in said_below
    assert [p < 0.05 for p in told] == [True, False, False, False, True]
    assert f"the teacher (p {told[0]:.3f}) and what pruning costs ({told[-1]:.3f})" in said_below
    saved = [
        1 - of_row(runs, "ppt")[0]["macs"] / of_row(runs, "tokenpose")[0]["macs"]
        for runs in (large, cpu)
    ]
    assert [f"{share:.0%}" for share in saved] == ["20%", "7%"]
    assert "a fifth of the arithmetic at S" in said_below
    assert "At nano it saves 7 % of the arithmetic" in said_below


def spread_inside(studies, row, other):
    "A difference in two studies with the spread that seeds have inside one, in three lines."
    each = [each_seed(some, row, other) for some in studies]
    yield "   ".join(" ".join(f"{d:.1f}" for d in seeds) for seeds in each)
    spread = math.sqrt(np.mean([np.var(seeds, ddof=1) for seeds in each]))
    people, middle = once(studies, row, other)["people"], np.mean(each)
    for free in (4, 2):
        # that of a mean of six, with fewer degrees of freedom
        alike = spread * math.sqrt((free + 1) / 6)
        half = half_width(alike, free + 1, (people[1] - people[0]) / 2)
        p = p_value(dict(mean=middle, seeds=free + 1, spread=alike, people=people))
        yield (f"{free} degrees of freedom: {middle:+.1f} ({middle - half:+.1f} to "
               f"{middle + half:+.1f})   p {p:.4f}, times five {5 * p:.3f}")


def test_the_five_questions_stand_beside_the_study_of_signals():
    "All tables of its README; the page has the answers in short."
    first, gpu, large = map(stored, ("study_lspet_nano", "study_lspet_nano_h200", "study_lspet_s"))
    told = (RESULTS / "study_lspet_nano_h200" / "README.md").read_text()
    lines = format_primary(gpu, seeds=False).splitlines()
    results = {words: once([first, gpu], *pair) for words, pair in PRIMARY.items()}
    known = {f"nano: {words}": p_value(result) for words, result in results.items()}
    lines += [
        f"{words:<52}{format_interval(result, sign=True):<25}{p:.3f}"
        for (words, result), p in zip(results.items(), holm([*known.values()]))
    ]
    of_s = {f"S: {words}": difference(large, *pair) for words, pair in PRIMARY.items()}
    known |= {words: p_value(result) for words, result in of_s.items() if result}
    lines += [
        f"{words:<58}" + ("one seed" if math.isnan(p) else f"p {p:.4f}, corrected {together:.3f}")
        for (words, p), together in zip(known.items(), holm([*known.values()]))
    ]
    for pair in (("tokenpose", "ppt"), ("dppt", "ppt")):
        lines += spread_inside([first, gpu], *pair)
    for line in lines: assert line in told, line


def each_teacher_once(runs, pair):
    "The differences of seeds 3 to 6, with one for the two that share a teacher; and of people."
    gains = each_seed(runs, *pair)
    if pair != ("tokenpose", "ppt"): gains = [*gains[:2], (gains[2] + gains[3]) / 2]
    return gains, difference(runs, *pair)["people"]


def test_the_first_table_of_the_page_is_what_the_results_say():
    "Nano is answered by its fresh seeds, S by its three."
    large, = both_sizes()["S"]
    nano = fresh_runs(RESULTS)
    values = {
        "nano": corrected([nano], FRESH) | corrected([nano], HEADS), "S": corrected([large]),
    }
    # of a taught row: with each teacher counted once p is above the limit
    taught = [pair for pair in FRESH.values() if pair != ("tokenpose", "ppt")]
    once_each = holm([p_value(combine(*each_teacher_once(nano, pair))) for pair in FRESH.values()])
    assert [p > 0.05 for p in once_each] == [pair in taught for pair in FRESH.values()]
    p = f"{max(once_each):.4f}"
    for said in (f"come to the limit: p {p}", f"with a taught network have p {p}"):
        assert any(said in text for text in texts_of_the_study()), said
    text = next(text for text in texts_of_the_study() if text.startswith("| question |"))
    rows = {line.split("**")[1]: cells(line) for line in text.splitlines() if "| **" in line}
    asked = {
        "A teacher": ("dppt", "ppt"), "Pruning": ("tokenpose", "ppt"),
        "A TokenPose that is taught the same": ("tokenpose_taught", "dppt"),
        "In as much time": ("dppt", "ppt_17"),
        "A second cycle": ("sdpose", "tokenpose"),
        "With the papers' head": ("sdpose_mlp", "tokenpose_mlp"),
    }
    assert list(rows) == list(asked)
    for words, pair in asked.items():
        for told, name, runs in zip(rows[words][1:], ("nano", "S"), (nano, large), strict=True):
            result = difference(runs, *pair)
            if result is None or result["seeds"] == 1:
                assert told == (with_open(result, "+") if result else "not run"), words
                continue
            p = values[name].get(frozenset(pair), math.nan)
            # a star: a yes of S is the weaker one, a dagger: for these teachers, as the words
            # below the table say
            yes = "yes *" if name == "S" else "yes \u2020" if pair in taught else "yes"
            said = yes if p < 0.05 else "open"
            assert told == f"{format_interval(result, sign=True)}, {said}", words


def test_fewer_patches_still_are_what_the_results_say():
    "The runs share people and teacher with those beside them; prose has the scores."
    text = next(t for t in texts_of_the_study() if "loses with fewer patches is open" in t)
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


def test_what_is_said_with_the_teachers_epochs_counted():
    "Rows of other lengths beside each other: the untaught one has as many epochs in all, or fewer."
    runs = stored("study_lspet_nano_h200") + stored("study_lspet_nano_budget")
    def over(plain, long, taught, short):
        named = [dict(run, row="plain") for run in of_epochs(runs, long) if run["row"] == plain]
        named += [dict(run, row="taught") for run in of_epochs(runs, short) if run["row"] == taught]
        return difference(named, "plain", "taught")
    six = [
        over("ppt", 30, "dppt", 12), over("tokenpose", 30, "tokenpose_taught", 12),
        over("tokenpose", 60, "tokenpose_taught", 30), over("ppt", 60, "dppt", 30),
        over("tokenpose", 30, "dppt", 12), over("tokenpose", 60, "dppt", 30),
    ]
    assert all(gain["seeds"] == 3 and gain["mean"] > 0 for gain in six)
    assert sum(gain["interval"][0] > 0 for gain in six) == 5
    text = " ".join(texts_of_the_study())
    assert "[six comparisons]" in text and "The six were chosen afterwards" in text
    assert "stands higher** in all six; in five of them zero lies outside, hints." in text


def test_the_fresh_seeds_are_those_that_were_written_down():
    "Four seeds, each taught by a teacher of another; the page and the README say what they gave."
    runs, teachers = stored("study_lspet_nano_fresh"), {3: 1, 4: 2, 5: 0, 6: 0}
    fresh, longer = of_epochs(runs, 12), of_epochs(runs, 17)
    rows = ("dppt", "ppt", "tokenpose", "tokenpose_taught")
    assert sorted((run["row"], run["seed"]) for run in fresh) == sorted(
        (row, seed) for row in rows for seed in teachers
    )
    assert [run["row"] for run in longer] == ["ppt"] * 4 and len(runs) == 20
    gpu = stored("study_lspet_nano_h200")
    prints = {r["seed"]: r["taught_by"] for r in gpu if r["row"] == "dppt"}
    for row in ("dppt", "tokenpose_taught"):
        for run in of_row(fresh, row).values():
            assert run["taught_by"] == prints[teachers[run["seed"]]]
    both, page = fresh_runs(RESULTS), " ".join(texts_of_the_study())
    for pair in FRESH.values():
        gain = difference(both, *pair)
        low, high = gain["interval"]
        span = f"({low:+.1f} to {high:+.1f}"
        assert gain["seeds"] == 4 and span in page, pair


def cell_of(page, code):
    "The code cell of a page that has such a line."
    cells = json.loads((RESULTS.parent / page).read_text())["cells"]
    found = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return next(source for source in found if code in source)


def test_the_papers_page_makes_its_table_of_the_results(monkeypatch):
    columns = columns_of_claims(RESULTS)
    table = table_of_claims(columns, questions={"nano, fresh": [FRESH, HEADS]})
    monkeypatch.chdir(RESULTS.parent)
    names = dict(
        Path=Path, columns_of_claims=columns_of_claims, table_of_claims=table_of_claims,
        FRESH=FRESH, HEADS=HEADS, CLAIMS=CLAIMS, Markdown=str,
    )
    exec(cell_of("papers.ipynb", "columns_of_claims("), names)
    assert names["table"] == table


def test_claims_of_cost_are_counted_and_timed(monkeypatch):
    "Their table is made of the results; what it says below them is what it shows."
    monkeypatch.chdir(RESULTS.parent)
    source = cell_of("papers.ipynb", "COST_CLAIMS = [")
    *lines, shown = source.splitlines()
    names = dict(columns=columns_of_claims("results"), costs_of=costs_of)
    exec("\n".join(lines), names)
    assert shown == 'Markdown("\\n".join(lines))'
    page = json.loads(Path("papers.ipynb").read_text())
    outputs = [out for cell in page["cells"] for out in cell.get("outputs", [])]
    stored = ["".join(out.get("data", {}).get("text/markdown", "")) for out in outputs]
    assert "\n".join(names["lines"]) in stored
    pruned, taught, cycled = (cells(line)[2:] for line in names["lines"][2:])
    changes = [int(re.search(r"\(([+-]\d+) %\)", cell)[1]) for cell in pruned]
    # GMACs fall at both sizes, milliseconds at the papers' alone, by about a sixth
    assert changes[0] < 0 < changes[1] and changes[2] < 0 and -20 < changes[3] < -14
    assert all("(+0 %)" in cell for cell in taught + cycled)


def test_what_was_not_run_is_called_so():
    table = table_of_claims({"S": both_sizes()["S"]})
    assert "not run" in table and "| - |" not in table


def test_whose_choice_of_patches_is_what_the_results_say():
    "Own choices give the scores of the study, and the page says what the other judges gave."
    known, runs = json.loads((RESULTS / "choice.json").read_text()), []
    for run in known["runs"]:
        runs.append(run)
        who, judge = run["row"].split(", kept by ")
        if who != judge: continue
        study = of_row(of_epochs(stored("study_lspet_nano_fresh"), 12), who)
        assert run["score"] == pytest.approx(study[run["seed"]]["score"], abs=0.05)
    page = " ".join(texts_of_the_study())
    page = page.replace(" (", ", ")    # an interval stands in brackets, or within some
    said = lambda gain: "{:+.1f}, {:+.1f} to {:+.1f}".format(gain["mean"], *gain["interval"])
    on_better = difference(runs, "ppt, kept by dppt", "ppt, kept by ppt")
    assert on_better["seeds"] == 4 and said(on_better) in page
    for judge in ("nobody", "ppt"):
        gain = difference(runs, f"dppt, kept by {judge}", f"ppt, kept by {judge}")
        assert said(gain) in page, judge
    gain = difference(runs, "dppt, kept by ppt", "ppt, kept by ppt")["mean"]
    own = difference(runs, "dppt, kept by dppt", "ppt, kept by ppt")["mean"]
    assert gain / own == pytest.approx(0.5, abs=0.02)
    kept = re.compile(r"DPPT (?:keeps|loses) half of its gain")
    pages = [(RESULTS.parent / name).read_text() for name in (
        "13_study.ipynb", "machinery/study_rows.ipynb", "08_distillation.ipynb",
    )]
    assert all(len(kept.findall(text)) == 1 for text in pages)
    for who in ("ppt", "dppt"):    # the study's table; the lesson has the main scores
        found = [f"{row_score(runs, f'{who}, kept by {judge}')['mean']:.1f}"
                 for judge in ("ppt", "dppt", "teacher", "nobody")]
        assert f"| {who.upper()} finds | {' | '.join(found)} |" in pages[0]
    scores = [row_score(runs, f"dppt, kept by {judge}")["mean"] for judge in ("ppt", "dppt")]
    assert "it finds {:.1f} % in place of {:.1f}".format(*scores) in pages[2]
    for judge in ("teacher", "nobody"):
        low, high = difference(runs, f"dppt, kept by {judge}", "dppt, kept by dppt")["interval"]
        assert low < 0 < high and high < 1
    share, = known["shares"]
    kept = {who: f"{part:.0f}" for who, part in share["joints_kept"].items()}
    told = "DPPT keeps {dppt} %{}, PPT {ppt}, chance 35"
    assert told.format(" to the end", **kept) in pages[0] and told.format("", **kept) in pages[2]
    told = "{dppt} % of them, PPT {ppt}, the teacher would keep {teacher}"
    assert told.format(**kept) in pages[1] and f"{17 / 48:.0%}" == "35%"


def test_the_table_of_distillation_is_what_the_results_say():
    page = json.loads((RESULTS.parent / "08_distillation.ipynb").read_text())
    texts = ["".join(cell["source"]) for cell in page["cells"]]
    text, = [text for text in texts if "## What it gains on photographs" in text]
    rows = {line.split("|")[1].strip(): cells(line) for line in text.splitlines() if "|" in line}
    longer = stored("study_lspet_nano_budget")
    studies = {
        "12 epochs, four fresh seeds": of_epochs(stored("study_lspet_nano_fresh"), 12),
        "another trial: 12 epochs, three earlier seeds": stored("study_lspet_nano_h200"),
        "30 epochs, the same three": of_epochs(longer, 30),
        "60 epochs, the same three": of_epochs(longer, 60),
        "S, 14 epochs": stored("study_lspet_s"),
    }
    pairs = (
        ("dppt", "ppt"), ("dppt", "tokenpose"), ("tokenpose_taught", "tokenpose"),
        ("tokenpose_taught", "dppt"),
    )
    for words, runs in studies.items():
        assert rows[words][1] == f"{row_score(runs, 'ppt')['mean']:.1f}", words
        for told, pair in zip(rows[words][2:], pairs, strict=True):
            result = difference(runs, *pair)
            if result["seeds"] == 1: assert told == f"{result['mean']:+.1f}, one seed", words
            else: assert told.removesuffix(", two seeds") == format_interval(result, sign=True)
            assert ("two seeds" in told) == (result["seeds"] == 2), words
    # what the four networks find, and what is a yes
    for row, told in (("ppt", "PPT ({:.1f} %)"), ("dppt", "DPPT ({:.1f} %)"),
                      ("tokenpose", "| TokenPose ({:.1f} %)"),
                      ("tokenpose_taught", "taught TokenPose ({:.1f} %)")):
        mean = row_score(studies["12 epochs, four fresh seeds"], row)["mean"]
        assert told.format(mean) in text, row
    mean = row_score(studies["12 epochs, four fresh seeds"], "dppt")["mean"]
    told = (RESULTS.parent / "10_training.ipynb").read_text()
    assert f"({mean:.1f} % after 12 epochs), beside PPT and TokenPose" in told
    fresh = fresh_runs(RESULTS)
    p = dict(zip(FRESH, holm([p_value(difference(fresh, *pair)) for pair in FRESH.values()])))
    told = "PPT's gain (p {:.3f}) and the distance of the two that were taught (p {:.3f})"
    answers = "a teacher improves the pruned network", "a taught TokenPose is better than DPPT"
    assert told.format(*(p[words] for words in answers)) in text
    # which of the signals
    signals = stored("study_lspet_nano_h200")
    gains = {name: difference(signals, name, "ppt") for name in (
        "features", "output", "attention", "features_attention", "output_features",
        "output_attention", "dppt",
    )}
    means = {name: gain["mean"] for name, gain in gains.items()}
    assert min(means, key=means.get) == "features" and max(means, key=means.get) == "dppt"
    least, most = (f"{means[name]:+.1f}" for name in ("features", "dppt"))
    told = f"stand highest** ({most}), features alone lowest ({least})"
    assert any(told in text for text in texts)
    assert "nowhere below 0.05" in text
    assert min(holm([p_value(gain) for gain in gains.values()][:6])) > 0.05
    of_all = holm([p_value(difference(signals, *pair)) for pair in PRIMARY.values()])[0]
    assert any(f"just missed 0.05 (p {of_all:.2f})" in text for text in texts) and of_all > 0.05
    teachers = [json.loads(path.read_text())["scores"]["PCK@0.2 torso"]["mean"] for path in (
        RESULTS / "teachers").glob("*_seed[012]/results.json")]
    assert len(teachers) == 3 and "find about 56 %" in text
    assert all(abs(score - 56) < 1 for score in teachers)
    # the teacher's own epochs counted
    for told, row, taught in (
        ("PPT of 30 epochs finds {:.1f} points more ({:+.1f} to {:+.1f})", 30, 12),
        ("PPT of 60 finds {:.1f} more than a DPPT of 30 ({:+.1f} to {:+.1f}, open", 60, 30),
    ):
        plain, pupil = (
            [dict(run, row=name) for run in of_epochs(signals + longer, epochs) if run["row"] == of]
            for name, of, epochs in (("plain", "ppt", row), ("taught", "dppt", taught))
        )
        gain = difference(plain + pupil, "plain", "taught")
        assert told.format(gain["mean"], *gain["interval"]) in text
    # the top of the page
    gain = difference(studies["12 epochs, four fresh seeds"], "dppt", "ppt")
    assert f"gains {gain['mean']:.1f} points of PCK@0.2" in texts[0]
    assert "({:+.1f} to {:+.1f})".format(*gain["interval"]) in texts[0]


def test_the_second_cycle_with_the_papers_head_is_what_the_results_say():
    "Six fresh seeds with the papers' head, four with ours; page, README and results say the same."
    head = stored("study_lspet_nano_head")
    both = head + of_epochs(stored("study_lspet_nano_fresh"), 12)
    rows = {name: sorted(of_row(head, name)) for name in ("sdpose_mlp", "tokenpose_mlp", "sdpose")}
    assert rows == {
        "sdpose_mlp": [3, 4, 5, 6, 7, 8], "tokenpose_mlp": [3, 4, 5, 6, 7, 8],
        "sdpose": [3, 4, 5, 6],
    }
    root = RESULTS.parent.parent
    page, cycles = " ".join(texts_of_the_study()), (root / "nbs/09_cycles.ipynb").read_text()
    told = (RESULTS / "study_lspet_nano_head" / "README.md").read_text()
    for pair in (("sdpose_mlp", "tokenpose_mlp"), ("sdpose", "tokenpose")):
        gain = difference(both, *pair)
        span = "{:+.1f} to {:+.1f}".format(*gain["interval"])
        by_seed = [f"{one:.1f}" for one in each_seed(both, *pair)]
        seeds = f"{', '.join(by_seed[:-1])} and {by_seed[-1]}"
        assert seeds in told and span in page and span in told and span in cycles, (seeds, span)
    more = np.array(each_seed(both, "sdpose_mlp", "tokenpose_mlp")[:4])
    more -= each_seed(both, "sdpose", "tokenpose")
    half = half_width(more.std(ddof=1), 4, 0)
    span = "{:+.1f} to {:+.1f}".format(more.mean() - half, more.mean() + half)
    told = f"larger by {more.mean():.1f} points ({span}, other seeds alone), a hint"
    assert told in cycles, told
    of_three = [run for run in fresh_runs(RESULTS) if run["seed"] in (3, 4, 5)]
    for pair in (("deep", "tokenpose"), ("sdpose", "deep"), ("sdpose", "tokenpose")):
        gain = difference(of_three, *pair)
        told = "{:+.1f} ({:+.1f} to {:+.1f})".format(gain["mean"], *gain["interval"])
        assert gain["seeds"] == 3 and told in cycles, told
    gain = difference(stored("study_lspet_nano_h200"), "sdpose_heatmaps", "sdpose")
    told = "({:+.1f} points, {:+.1f} to {:+.1f},".format(gain["mean"], *gain["interval"])
    assert told in cycles, told


def test_cycles_are_compared_over_seeds_and_people():
    "The last cycle over the first, as `difference` has two rows; of one seed over people alone."
    gpu = stored("study_lspet_nano_h200")
    mine = of_row(gpu, "sdpose")
    gains = [mine[seed]["cycles"][1]["score"] - mine[seed]["cycles"][0]["score"] for seed in mine]
    counts = unpack_bits(mine[0]["counts"], mine[0]["shape"])
    first, last = (
        np.mean([unpack_bits(r["cycles"][i]["hits"], r["shape"]) for r in mine.values()], axis=0)
        for i in (0, 1)
    )
    assert photos_of(*mine.values()) is None
    expected = combine(gains, bootstrap_interval(last, counts, first))
    both = cycles_apart(gpu, "sdpose")
    result = difference(both, "last", "first")
    assert result["interval"] == pytest.approx(expected["interval"])
    few = [dict(run, cycles=None) if run["seed"] else run for run in gpu]
    head, line, *others = format_cycles(gpu).splitlines()
    words = line.split()
    assert words[:2] == ["sdpose", "3"] and format_interval(result, sign=True) in line
    assert words[-3:] == [f"{gain:+.1f}" for gain in gains] and len(others) == 3
    alone = next(ln for ln in format_cycles(few).splitlines() if ln.startswith("sdpose "))
    low, high = difference(cycles_apart(few, "sdpose"), "last", "first")["people"]
    assert alone.split()[1] == "1" and f"[{low:+.1f} to {high:+.1f}]" in alone
    assert format_cycles(stored("study_lspet_nano")) == head    # no cycle was scored


def test_what_is_said_of_each_cycles_answer_is_what_the_results_say():
    longer, fresh = stored("study_lspet_nano_budget"), fresh_runs(RESULTS)
    large = stored("study_lspet_s")
    nano = (
        stored("study_lspet_nano_h200"), of_epochs(longer, 30), of_epochs(longer, 60), fresh,
        stored("study_lspet_nano_why"),
    )
    told, each = {}, []
    for number, runs in enumerate(nano):
        for name in {run["row"] for run in runs if run.get("cycles")}:
            both = cycles_apart(runs, name)
            told[number, name] = difference(both, "last", "first")
            each += each_seed(both, "last", "first")
    page = "\n".join(texts_of_the_study())
    text = page.partition("### Each cycle's own answer")[2].partition("\n## ")[0]
    most = max(map(abs, each))
    assert f"at most {most:.1f} points apart" in text
    assert any(f"differ by at most {most:.1f} points" in page for page in texts_of_the_study())
    known = {key: result for key, result in told.items() if result["seeds"] > 1}
    clear = [key for key, result in known.items() if np.prod(result["interval"]) > 0]
    assert len(known) == 10 and "Of the ten intervals of nano for other seeds one leaves" in text
    assert clear == [(0, "sdpose_ppt")]
    shown = lambda result: format_interval(result, sign=True).replace(" (", ", ").rstrip(")")
    assert f"with pruning ({shown(known[0, 'sdpose_ppt'])})" in text
    for name in ("deep", "sdpose"): assert format_interval(known[3, name], sign=True) in text
    without = each_seed(cycles_apart(fresh, "deep"), "last", "first")    # no token losses
    cycles = (RESULTS.parent / "09_cycles.ipynb").read_text()
    assert "| nano, our head, three seeds | no | at most {:.1f} points apart |".format(
        max(map(abs, without))
    ) in cycles and len(without) == 3
    by_seed = each_seed(cycles_apart(large, "sdpose"), "last", "first")
    told = "better by {:.1f} and {:.1f} in the two seeds".format(*by_seed)
    assert told.replace("better", "better,") in text and told in page


def test_the_large_student_beside_its_teacher_on_everyday_photographs():
    "Of as many epochs on both data sets; the network that ships is another row."
    everyday = json.loads((RESULTS / "transfer.json").read_text())["runs"]
    large = [run for run in stored("study_lspet_s") if run["seed"] == 0]
    alike, = of_row(everyday, "dppt_s").values()
    ships, = of_row(everyday, "dppt_s_further").values()
    assert alike["hits"] != ships["hits"] and ships["network"] == "dppt_s_lspet"
    assert alike["conditions"]["compute"] == "fp32"    # as of its teacher
    judged = json.loads((RESULTS / "one_pass.json").read_text())["runs"]
    lspet = {run["network"]: run["score"] for run in judged if run["data"] == "lspet"}
    gaps = (
        difference(everyday, "dppt_s", "tokenpose_s"), difference(large, "dppt", "tokenpose"),
        difference(everyday, "dppt_s_further", "tokenpose_s"),
    )
    here, there, further = (
        "{:+.1f} [{:+.1f} to {:+.1f}".format(gap["mean"], *gap["people"]) for gap in gaps
    )
    text = next(text for text in texts_of_the_study() if "The one taught network" in text)
    assert f"on these people ({here}])" in text and f"does not ({there}];" in text
    assert f"above its teacher here: {further}]" in text
    assert abs(lspet["dppt_s_lspet"] - lspet["tokenpose_s_lspet"] - 1.1) < 0.05
    # paired differences of one pass, as the README has them
    readme = (RESULTS.parent.parent / "README.md").read_text()
    for words, told in (
        ("on athletes by 1.1 (-0.05 to +2.2), open", "it is open: +1.1 [-0.05 to +2.2]"),
        ("on COCO's people by 4.4 points (1.0 to 8.2)", "One pass here: +4.4 [+1.0 to +8.2]"),
    ):
        assert words in readme and told in text


def test_what_a_wider_correction_leaves():
    "Of nine questions six are yes; corrected together two stay below the limit."
    fresh, large = fresh_runs(RESULTS), stored("study_lspet_s")
    asked = [difference(fresh, *pair) for pair in (FRESH | HEADS).values()]
    of_s = [difference(large, *pair) for pair in PRIMARY.values()]
    of_s = [p for p in map(p_value, filter(None, of_s)) if not math.isnan(p)]
    six = [*map(p_value, asked)]
    assert sum(p < 0.05 for p in holm(six)) == 5 and len(six) == 6
    nine = holm(six + of_s)
    assert len(nine) == 9 and sum(p < 0.05 for p in nine) == 2
    assert sum(f"{p:.3f}" == "0.059" for p in nine) == 4
    assert any("four of these six come to p 0.059" in text for text in texts_of_the_study())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("study_*/runs.json")),
                         ids=lambda path: path.parent.name)
def test_runs_that_do_not_know_their_people_say_so(path):
    runs = json.loads(path.read_text())
    blind = [run for run in runs if not run["conditions"].get("people_digest")]
    assert [run for run in runs if not run.get("trained_on")] == blind
    told = path.with_name("README.md").read_text()
    assert ("no `people_digest`" in told) == bool(blind)
    if blind: assert re.search(rf"\b{len(blind)} runs (of seed 0 )?have no `people_digest`", told)


def test_the_teacher_at_s_that_ships_is_rounded():
    "Its print is not the one that the students noted; the README beside them has both."
    runs = of_row(stored("study_lspet_s"), "dppt")
    told = (RESULTS / "study_lspet_s/README.md").read_text()
    network, recipe, _ = load_network("tokenpose_s_lspet")
    assert weights_print(network) in told and runs[0]["taught_by"] in told
    teacher = of_row(stored("study_lspet_s"), "tokenpose")[0]
    assert recipe == Recipe.from_dict(teacher["recipe"])


def test_a_fourth_teacher_is_what_its_runs_say():
    "Seed 7 has a teacher of its own; the page and the README beside the runs have the numbers."
    runs = longer_apart(stored("study_lspet_nano_fourth"))
    earlier = fresh_runs(RESULTS)
    assert {run["seed"] for run in runs} == {7} and len(runs) == 5
    taught = {run["taught_by"] for run in runs if run["row"] in ("dppt", "tokenpose_taught")}
    assert len(taught) == 1 and not taught & {run["taught_by"] for run in earlier}
    gains = [each_seed(runs, *pair)[0] for pair in FRESH.values()]
    assert all(gain > 0 for gain in gains)
    told = "{:+.1f}, {:+.1f}, {:+.1f} and {:+.1f}".format(*gains)
    pages = texts_of_the_study()
    assert any(told in text for text in pages)
    readme = (RESULTS / "study_lspet_nano_fourth" / "README.md").read_text()
    values = []
    for pair in FRESH.values():
        by_seed = [*each_seed(earlier, *pair), *each_seed(runs, *pair)]
        if pair != ("tokenpose", "ppt"):
            by_seed = [*by_seed[:2], (by_seed[2] + by_seed[3]) / 2, by_seed[4]]
        people = difference(earlier + runs, *pair)["people"]
        values.append(p_value(combine(by_seed, people)))
    for gain, p in zip(gains, holm(values)):
        assert p < 0.02 and f"| {gain:+.1f} |" in readme and f"| {p:.3f} |" in readme
    assert any("{:.3f} and {:.3f}".format(*holm(values)[:2]) in text for text in pages)


def test_the_second_cycle_after_thirty_epochs_is_what_the_results_say():
    "Six seeds with the papers' head, the first three alone at first; study, lesson, README agree."
    longer, pair = stored("study_lspet_nano_head_longer"), ("sdpose_mlp", "tokenpose_mlp")
    assert {run["recipe"]["epochs"] for run in longer} == {30}
    assert [sorted(of_row(longer, row)) for row in pair] == [[3, 4, 5, 6, 7, 8]] * 2
    written = "{:+.1f} ({:+.1f} to {:+.1f})"
    first = difference([run for run in longer if run["seed"] < 6], *pair)
    gain, by_seed = difference(longer, *pair), each_seed(longer, *pair)
    told = written.format(gain["mean"], *gain["interval"])
    assert gain["interval"][0] < 0 < gain["interval"][1]    # open
    before = np.array(each_seed(fresh_runs(RESULTS), *pair))
    less = before - by_seed
    half = half_width(less.std(ddof=1), len(less), 0)
    fell = f"{less.mean():.1f}", f"({less.mean() - half:+.1f} to {less.mean() + half:+.1f}"
    root = RESULTS.parent.parent
    of_folder = (RESULTS / "study_lspet_nano_head_longer" / "README.md").read_text()
    for name in ("README.md", "nbs/09_cycles.ipynb", "nbs/13_study.ipynb"):
        assert told in (root / name).read_text(), name
    for name in ("nbs/09_cycles.ipynb", "nbs/13_study.ipynb"):
        page = (root / name).read_text()
        assert f"{fell[0]} smaller than" in page or f"by {fell[0]} points {fell[1]}" in page
        assert fell[1] in page
    p = p_value(gain)
    assert f"| {told} | {p:.3f} | {2 * p:.3f} | open |" in of_folder
    assert written.format(first["mean"], *first["interval"]) in of_folder
    assert "{:.1f}, {:.1f}, {:.1f}, {:.1f}, {:.1f} and {:.1f}".format(*by_seed) in of_folder
    assert any("{:.1f}, {:.1f} and {:.1f}".format(*by_seed[3:]) in t for t in texts_of_the_study())

"""Numbers of the README, and of the pages that it sends to, are those of the results files."""
import json
import math
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from dppt_nb.claims import fresh_runs, of_epochs
from dppt_nb.judged import difference, format_ends, row_score

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results"
README = (ROOT / "README.md").read_text()


def stored(name): return json.loads((RESULTS / name / "runs.json").read_text())


def span(interval, sign=""): return "{:{s}.1f} to {:{s}.1f}".format(*interval, s=sign)


def line_of(beginning, text=README):
    "The cells of the one line of a table that begins so, of the README or of another text."
    found = [line for line in text.splitlines() if line.startswith(f"| {beginning}")]
    assert len(found) == 1, (beginning, found)
    return [cell.strip() for cell in found[0].strip("|").split("|")]


def one_pass():
    runs = json.loads((RESULTS / "one_pass.json").read_text())["runs"]
    return {
        (run["network"], run["data"]): run for run in runs if run["network"].endswith("_lspet")
    }


def mirrored(name):
    "Data set -> score with the mirrored test, as the network's own file has it."
    judged = json.loads((ROOT / "dppt_nb/weights" / name / "config.json").read_text())["judged"]
    return {row["data"]: row["scores"]["PCK@0.2 torso"]["mean"] for row in judged}


@pytest.mark.parametrize("name", sorted({network for network, _ in one_pass()}))
def test_the_table_of_networks(name):
    size = "128" if "nano" in name else "256"
    cells = line_of(f"`{name}`, {size}")
    for place, data in ((1, "lspet"), (2, "coco")):
        run = one_pass()[name, data]
        assert cells[place] == f"{run['score']:.1f} ({span(run['interval'])})"


def test_what_the_mirrored_picture_brings():
    "From the smallest to the largest gain of the networks in the table, as they are printed."
    brought = {"lspet": [], "coco": []}
    for (name, data), run in one_pass().items():
        brought[data].append(round(mirrored(name)[data], 1) - round(run["score"], 1))
    athletes, everyday = ((min(gains), max(gains)) for gains in brought.values())
    told = "{:.1f} to {:.1f} points more on athletes, {:.1f} to {:+.1f} on COCO's people"
    assert told.format(*athletes, *everyday) in page("machinery/peers")
    name = "dppt_s_lspet"
    gains = [round(mirrored(name)[data], 1) - round(one_pass()[name, data]["score"], 1)
             for data in brought]
    for told, where in (
        ("`dppt_s_lspet` gains {:.1f} points (LSPET) and {:.1f} (COCO)", "11_inference"),
        ("**Mirrored test.** {:.1f} points (LSPET) and {:.1f} (COCO)", "11_inference"),
        ("`dppt_s_lspet`: {:.1f} points more on athletes, {:.1f} on", "machinery/commands"),
    ):
        assert told.format(*gains) in page(where), told


def test_what_the_start_for_products_finds_as_it_is():
    runs = json.loads((RESULTS / "one_pass.json").read_text())["runs"]
    once = {run["data"]: run["score"] for run in runs if run["network"] == "tokenpose_nano"}
    both = [scores[data] for scores in (once, mirrored("tokenpose_nano"))
            for data in ("lspet", "coco")]
    told = (
        "{:.0f} % of the joints of LSPET's athletes and {:.0f} % of those of COCO's people (one "
        "pass; with the mirrored picture {:.0f} and {:.0f}"
    ).format(*both)
    for where in ("index", "11_inference", "14_train"): assert told in page(where), where


def test_what_the_card_of_the_pruned_nano_network_says_of_its_time():
    times = [{(row["network"], row["way"]): row["milliseconds"] for row in rows}
             for part, rows in json.loads((RESULTS / "peers.json").read_text()).items()
             if part.startswith("timing")]
    more = [100 * (ms / timed["tokenpose_nano_lspet", way] - 1) for timed in times
            for (name, way), ms in timed.items() if name == "dppt_nano_lspet" and "bf" not in way]
    card = (ROOT / "dppt_nb/weights/dppt_nano_lspet/README.md").read_text()
    assert f"it took {min(more):.0f} to {max(more):.0f} % more time than TokenPose nano" in card


def test_differences_between_networks_of_the_table():
    "Paired, of the same runs as the table; README and the page with its notes."
    for name in ("tokenpose_s_lspet", "tokenpose_lite_lspet"):
        everyday, athletes = (one_pass()[name, data]["beside"] for data in ("coco", "lspet"))
        assert {row["network"] for row in (everyday, athletes)} == {"dppt_s_lspet"}
        (few, ends), (less, ends_of_less) = (
            (f"{-row['difference']:.1f}", [-end for end in row["interval"][::-1]])
            for row in (everyday, athletes)
        )
        assert ends[0] > 0 > ends_of_less[0]    # on athletes it is open
        told = format_ends(*ends_of_less, True)
        gap = f"COCO's people by {few} points ({span(ends)}), on athletes by {less} ({told}), open"
        assert gap in README
        assert (
            f"`{name}` found {few} points fewer than `dppt_s_lspet` on COCO's people "
            f"({span(ends)}), on athletes {less} fewer ({told}, open)"
        ) in page("machinery/peers")


def test_the_time_of_the_network_that_was_timed_later():
    name = "tokenpose_lite_lspet"

    def shares(part):
        "Of the first network's time, in PyTorch and as ONNX; what both take, as printed."
        took = taken(part)
        its, first = ([took[network, way] for way in ("PyTorch", "ONNX int8", "ONNX float32")]
                      for network in (name, "dppt_s_lspet"))
        return its[0] / first[0], its[2] / first[2], [*its[:2], *first[:2]]

    *parts, times = shares("timing AVX512, again")
    told = "{:.0f} / {:.0f} in a later run, where the first row takes {:.0f} / {:.0f}"
    assert line_of(f"`{name}`, 256")[3] == told.format(*times)
    elsewhere = shares("timing AVX512, Xeon")[:2]
    assert parts == pytest.approx([1 / 3, 1 / 4], abs=0.05)
    assert elsewhere == pytest.approx((1 / 2, 1 / 3), abs=0.05)
    told = "in a third of its time in PyTorch and a quarter of it as ONNX in float32 (on the Xeon "
    assert told + "half and a third)" in page("machinery/peers")
    assert "In a third of the time of `dppt_s_lspet` it found less" in README


def gains_over(row):
    "What `finetune_nano` finds more than a row, division by division."
    runs = json.loads((RESULTS / "start_coco.json").read_text())["runs"]
    divisions = [[run for run in runs if run["seed"] == seed]
                 for seed in sorted({run["seed"] for run in runs})]
    return [difference(division, "pruned_gentle", row) for division in divisions]


def test_what_further_training_brings_on_a_few_people():
    "Of three divisions; the shipped network is judged as it is on the same people."
    gains = gains_over("pruned_start")
    means, lows = zip(*((gain["mean"], gain["people"][0]) for gain in gains))
    told = page("14_train")
    assert f"Training adds {min(means):.1f} to {max(means):.1f} points to it" in told
    assert sum(low < 0 for low in lows) == 2 and "Two of the three intervals include zero" in told
    division = lows.index(max(lows)) + 1    # as the picture above counts
    assert f"that of division {division} begins at {max(lows):.1f}" in told


def test_what_further_training_on_the_same_people_brings():
    "Row by row of the record; the share of the mean is the one that the validation people chose."
    tries = json.loads((RESULTS / "further_s.json").read_text())["tries"]
    beginnings = ("three epochs", "eight epochs", "a mean: a fifth of the", "eight more epochs,")
    for beginning, tried in zip(beginnings, tries, strict=True):
        gains = {
            (row["data"], row["split"]): f"{row['difference']:+.1f} ({span(row['interval'], '+')})"
            for row in tried["results"]
        }
        cells = line_of(beginning, page("machinery/starts"))[1:]
        places = ("lspet", "val"), ("lspet", "test"), ("coco", "all")
        assert cells == [gains.get(place, "not judged") for place in places]
    chosen = tries[2]["chosen"]["of"]
    before, after = tries[1]["results"][0]["scores"][::-1]
    told = f"({max(chosen.values()):.1f} %, beside {before:.1f} and {after:.1f})"
    assert told in page("machinery/starts") and max(chosen, key=chosen.get) == "0.8"


def test_how_well_joints_are_learned_that_the_start_did_not_know():
    "Nose, eyes and ears, joint by joint, of the people held out; lesson and page of starts."
    runs = json.loads((RESULTS / "start_coco.json").read_text())["runs"]
    def of_new(row):
        for run in runs:
            if run["row"] != row: continue
            every = run["all_joints"]["joints"]
            new = [found for name, found in every.items() if name not in run["joints"]]
            assert len(new) == 5
            yield sum(new) / len(new)
    default, other = (sorted(of_new(row)) for row in ("pruned_gentle", "gentle"))
    ends = lambda found: f"{found[0]:.0f} to {found[-1]:.0f}"
    told = page("14_train")
    assert f"of noses, eyes and ears {ends(default)} % were found" in told
    assert "{:.0f}, {:.0f} and {:.0f} % were found in three divisions".format(*default) in told
    started = f"{ends(other)} %, from `dppt_nano_lspet` {ends(default)}."
    assert started in page("machinery/starts")


def test_a_trained_nano_beside_the_large_network_as_it_is():
    "The comparison that decides which of the two is taken; README says that it is not clear."
    gains = gains_over("shipped_s")
    told = "{:+.1f}, {:+.1f} and {:+.1f} points".format(*(gain["mean"] for gain in gains))
    assert "whether a network of one's own is the better one" in README
    assert f"stood {told} from `dppt_s_lspet`: all three open" in page("14_train")
    assert all(gain["people"][0] < 0 < gain["people"][1] for gain in gains)


LOOKS = "PyTorch, MediaPipe's detector, {}{}"
SURER = ", boxes from a score of 0.5"
ELSE = f"{SURER}, the whole picture where it finds nobody"


def test_the_table_of_blazepose():
    peers = json.loads((RESULTS / "peers.json").read_text())
    places = "lspet test", "coco all"
    rows, took = (
        {(row["network"], row["way"], place): row
         for place in places for row in peers[f"{part} {place}"]}
        for part in ("accuracy", "pictures")
    )
    theirs = "BlazePose full", "MediaPipe 0.10.21, with its detector"
    ours = {
        end: [("dppt_s_lspet", LOOKS.format(looks, end)) for looks in ("one look", "two looks")]
        for end in (SURER, "", ELSE)
    }
    nano = "dppt_nano_lspet", LOOKS.format("two looks", "")
    whole = [
        ("dppt_s_lspet", f"PyTorch, the whole picture, {looks}")
        for looks in ("one look", "two looks")
    ]
    alone = taken("timing AVX512")    # of the labelled box
    head = "| network | where it looks | looks | LSPET | COCO | ms, LSPET | ms, COCO |\n"
    lines = page("machinery/peers").partition(head)[2].partition("\n\n")[0].splitlines()[1:]
    same, default = "**the same detector's box, from 0.1**", "the box from 0.5, the default"
    for line, (where, looks, way) in zip(lines, (
        ("**its detector's box, from a score of 0.1**", 1, theirs),
        (same, 1, ours[""][0]), (same, 2, ours[""][1]), (same, 2, nano),
        (default, 1, ours[SURER][0]), (default, 2, ours[SURER][1]),
        ("the box from 0.5, the whole picture where there is none", 2, ours[ELSE][1]),
        ("the whole picture", 1, whole[0]), ("the whole picture", 2, whole[1]),
        ("the labelled box", 1, ("dppt_s_lspet", "PyTorch")),
        ("the labelled box", 1, ("dppt_nano_lspet", "PyTorch")),
    ), strict=True):
        name = "BlazePose" if way == theirs else f"`{way[0]}`"
        scores = [f"{rows[*way, place]['score']:.1f}" for place in places]
        once = alone.get((way[0], "PyTorch, bf16"))
        digits = 1 if "nano" in name else 0
        times = [f"{once:.{digits}f}"] * 2 if way[1] == "PyTorch" else [
            f"{took[*way, place]['processor_ms']:.0f}" for place in places
        ]
        cells = [name, where, str(looks), *scores, *times]
        assert line == f"| {' | '.join(cells)} |", where
    # what is said of the rows on equal terms
    told = "it found {:.1f} points more than two looks of `dppt_s_lspet` on LSPET, which may be " \
           "chance, and {:.1f} more on COCO, in a third of the time or less"
    more = [rows[*theirs, place]["score"] - rows[*ours[""][1], place]["score"] for place in places]
    assert told.format(*more) in page("machinery/peers")
    assert all(
        took[*theirs, place]["processor_ms"] < took[*ours[""][1], place]["processor_ms"] / 3
        for place in places
    )
    nobody = [
        [rows[*ours[end][1], place]["found_nobody"] for place in places] for end in (SURER, "")
    ]
    detectors = page("machinery/detectors")
    for words, counts in (
        ("the detector's boxes from a score of 0.5", nobody[0]), ("from 0.1,", nobody[1]),
    ):
        assert line_of(words, detectors)[1:3] == [str(count) for count in counts]
    told = (
        "boxes, and finds nobody in {} of the 900 pictures of LSPET and in {} of the 227 of COCO, "
        "in place of {} and {};"
    )
    assert told.format(*nobody[1], *nobody[0]) in page("11_inference")
    # more than theirs in no comparison without boxes, and the time
    times = [took[*way, places[0]]["processor_ms"] for way in (theirs, whole[1])]
    assert 0.28 < times[0] / times[1] < 0.38 and "in a third of the time" in README


def test_one_look_and_two_at_the_whole_picture():
    "What the ONNX file finds by itself without a box, and what the second look brings."
    stored = json.loads((RESULTS / "peers.json").read_text())

    def found(way):
        return [f"{row['score']:.1f}" for data in ("lspet test", "coco all")
                for row in stored[f"accuracy {data}"]
                if (row["network"], row["way"]) == ("dppt_s_lspet", way)]

    one, two = (found(f"PyTorch, the whole picture, {n}") for n in ("one look", "two looks"))
    told = (
        "one look at the whole picture found {} % of athletes' joints and {} of everyday people's, "
        "two found {} and {}"
    )
    assert told.format(*one, *two) in page("machinery/export")


def test_the_whole_photographs():
    stored = json.loads((RESULTS / "whole_photos.json").read_text())["rows"]
    detector, other, alone, labelled = (stored[words] for words in (
        "MediaPipe's detector, two looks",
        "MediaPipe's detector, else the whole photo, two looks", "the whole photo, two looks",
        "the labelled box, one look",
    ))
    told = page("machinery/detectors")
    for words, row in (
        ("the detector's boxes from a score of 0.5", detector),
        ("from 0.5, else the whole picture", other), ("the whole picture, no detector", alone),
        ("the labelled box, one look", labelled),
    ):
        assert line_of(words, told)[5] == f"{row['score']:.1f}" and row["people"] == 217, words
    assert "300 whole photographs of LSPET, 217 people of whom can be measured" in told
    assert (
        "In 300 whole photographs of athletes labelled boxes found {:.1f} % of the joints, the "
        "detector with `--or-whole` {:.1f}, the whole photo, looked at twice, {:.1f} ("
    ).format(*(row["score"] for row in (labelled, other, alone))) in README
    low, high = other["over"]["MediaPipe's detector, two looks"]
    gain = other["score"] - detector["score"]
    assert f"{gain:.1f} points more than the detector alone ({low:.1f} to {high:.1f})" in told


@pytest.mark.parametrize("words, row", [
    ("`tokenpose_nano`, 12 epochs", "tokenpose"), ("`ppt_nano`, a third", "ppt"),
    ("`sdpose_nano`, two cycles", "sdpose"), ("`dppt_nano`, pruned like", "dppt"),
    ("`sd_dppt_nano`, both", "sd_dppt"),
])
def test_the_table_of_what_was_measured(words, row):
    rows = page("machinery/study_rows")
    cells = line_of(words, rows)
    score = row_score(stored("study_lspet_nano"), row)
    assert cells[1:3] == [f"{score['mean']:.1f}", span(score["interval"])]
    others = [stored("study_lspet_nano_h200"), of_epochs(stored("study_lspet_nano_fresh"), 12)]
    means = [row_score(runs, row)["mean"] for runs in others if any(r["row"] == row for r in runs)]
    told = re.search(r"these rows lie ([\d.]+) to ([\d.]+) points", rows)
    least, most = map(float, told.groups())
    lower = [round(round(score["mean"], 1) - round(mean, 1), 1) for mean in means]
    assert least <= min(lower) and max(lower) <= most


def test_pruning_and_teacher_in_that_table():
    "They are of another study than the README's, so the two stand beside the table."
    rows = page("machinery/study_rows")
    score = {name: float(line_of(words, rows)[1]) for name, words in (
        ("plain", "`tokenpose_nano`, 12 epochs"), ("pruned", "`ppt_nano`, a third"),
        ("taught", "`dppt_nano`, pruned like"),
    )}
    told = "pruning costs {:.1f} points in this table and a teacher gives {:.1f}".format(
        score["plain"] - score["pruned"], score["taught"] - score["pruned"]
    )
    assert told in rows


def test_what_the_study_found():
    longer, fresh = stored("study_lspet_nano_budget"), fresh_runs(RESULTS)
    gpu, start = stored("study_lspet_nano_h200"), stored("study_lspet_nano_start")
    large, rows = stored("study_lspet_s"), page("machinery/study_rows")
    found = {
        "a pruned nano network {m} points at 12 epochs ({i})": (fresh, "dppt", "ppt"),
        "and {m} at 30 ({i})": (of_epochs(longer, 30), "dppt", "ppt"),
        "costs {m} points at nano ({i})": (fresh, "tokenpose", "ppt"),
        "and {m} at S ({i})": (large, "tokenpose", "ppt"),
        "stands {m} above DPPT ({i})": (fresh, "tokenpose_taught", "dppt"),
        "gains {m} points with the papers' head at nano ({i})":
            (fresh, "sdpose_mlp", "tokenpose_mlp"),
    }
    still_open = {
        "After 60 epochs ({m}, {i})": (of_epochs(longer, 60), "dppt", "ppt"),
        "at S ({m}, {i})": (large, "dppt", "ppt"),
        "told from zero ({m}, {i})": (fresh, "sdpose", "tokenpose"),
    }
    for words, (runs, row, other) in (found | still_open).items():
        gain, sign = difference(runs, row, other), "+" if words in still_open else ""
        assert (gain["interval"][0] > 0) == (words in found)
        told = words.format(m=f"{gain['mean']:{sign}.1f}", i=span(gain["interval"], sign))
        assert told in README, told
    heads = [row_score(fresh, row)["mean"] for row in (
        "tokenpose_mlp", "sdpose_mlp", "tokenpose", "sdpose",
    )]
    told = "find {:.0f} to {:.0f} % of the joints, those with our head {:.0f} to {:.0f}.)"
    assert told.format(*heads) in page("13_study")
    longest = stored("study_lspet_nano_head_longer")
    shares = [row_score(longest, row)["mean"] for row in ("tokenpose_mlp", "sdpose_mlp")]
    told = "TokenPose finds {:.0f} % then, SDPose {:.0f}."
    assert told.format(*shares) in page("13_study")
    few = [row_score(start, f"{name}_100")["mean"] for name in ("synthetic", "photos")]
    begun = start + [dict(run, row="photos_all") for run in gpu if run["row"] == "tokenpose"]
    gain = difference(begun, "synthetic_all", "photos_all")
    assert gain["interval"][0] > 0
    told = "and {:.1f} with all of them ({}, three seeds)"
    assert told.format(gain["mean"], span(gain["interval"], "+")) in rows
    told = "a hundred photographs give {:.0f} % of all 14 in place of {:.0f} %"
    assert told.format(*few) in rows


def test_the_picture_of_what_was_measured_is_made_of_the_results(monkeypatch):
    "Its file tells what it shows; so does the sentence for those who do not see it."
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import measured
    runs = measured.runs_of()
    told = measured.numbers(runs)
    with Image.open(measured.PICTURE) as picture:
        assert json.loads(picture.text["Description"]) == json.loads(json.dumps(told))
    figure = measured.draw(runs)
    shown, = figure.axes
    drawn = [mark.get_xdata()[0] for mark in shown.lines if mark.get_marker() in ("o", "s")]
    assert sorted(round(float(x), 1) for x in drawn) == sorted(known[0] for known in told.values())
    plt.close(figure)
    sentence = re.search(r"!\[(Five differences[^]]*)\]\(nbs/images/measured.png\)", README)[1]
    nano, large = sentence.split("S: ")
    clear, across = nano.split("all clear of zero")
    for words, (mean, *ends) in told.items():
        part = across if "our head, nano" in words else clear
        if words.endswith(", nano"): assert f" {mean}" in part and (ends[0] > 0) == (part == clear)
        elif ends: assert (f" {mean}, clear of zero" in large) == (ends[0] > 0), words


def test_what_the_demo_found():
    rows = json.loads((RESULTS / "demo.json").read_text())["rows"]
    score = {row["model"]: f"{row['PCK@0.2']:.1f}" for row in rows}
    for told in (
        f"found {score['tokenpose_nano']} % (`tokenpose_nano`)",
        f"{score['ppt_nano']} (`ppt_nano`)",
        f"{score['dppt_nano']} (`dppt_nano`)", f"sees nothing, {score['mean pose']},",
        f"learned for longer, {score['teacher, ships with it']} (",
    ):
        assert told in page("machinery/demo"), told


def page(name):
    "The words of a page."
    cells = json.loads((ROOT / f"nbs/{name}.ipynb").read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("name", ["06_tokenpose", "08_distillation", "machinery/tracking"])
def test_pages_say_what_the_network_of_drawn_people_finds_on_photographs(name):
    found = mirrored("tokenpose_nano")
    told = "On photographs it finds {lspet:.0f} % of the joints of athletes and {coco:.0f} % of"
    assert told.format(**found) in page(name)


def test_what_the_two_networks_of_drawn_people_find_on_photographs():
    pruned, tokenpose = mirrored("ppt_nano_d12"), mirrored("tokenpose_nano")
    found = [network[data] for network in (pruned, tokenpose) for data in ("lspet", "coco")]
    assert "On photographs they find about a third of the joints" in page("07_pruning")
    assert all(abs(share - 100 / 3) < 6 for share in found), found
    readme = (RESULTS / "study_lspet_nano_start" / "README.md").read_text()
    assert f"the same network finds {tokenpose['lspet']:.1f} %" in readme
    rows = page("machinery/study_rows")
    assert f"In the photographs as they came it finds {tokenpose['lspet']:.0f} %" in rows


def test_how_many_joints_of_such_a_score_are_right():
    "On the README, the lesson and its answers."
    shares = {}
    for run in json.loads((RESULTS / "scores.json").read_text())["runs"]:
        for name, some in {
            "low": [row for row in run["rows"] if row["start"] < 0.3],
            "drawn": [row for row in run["rows"] if row["start"] >= 0.3],
        }.items():
            right, joints = (sum(row[part] for row in some) for part in ("right", "joints"))
            shares[f"{run['data']}_{name}"] = 100 * right / joints
    drawn = "{lspet_drawn:.0f} % {0}on LSPET and {coco_drawn:.0f} % on COCO"
    assert drawn.format("", **shares) in README
    answers = page("solutions/11_inference")
    assert drawn.format("are right ", **shares) in answers
    assert "below it {lspet_low:.0f} and {coco_low:.0f} %".format(**shares) in answers
    lesson = "{lspet_drawn:.0f} % were right on LSPET's athletes, {coco_drawn:.0f} % on COCO's"
    assert lesson.format(**shares) in page("11_inference")


def test_what_eight_bits_and_the_released_code_cost():
    "Medians of the rounds; with VNNI eight bits take less than half of PyTorch's time."
    peers = json.loads((RESULTS / "peers.json").read_text())
    plain = json.loads((RESULTS / "benchmark_predict.json").read_text())["rows"]
    first, = (row["to_pytorch"] for row in plain if (row["way"], row["batch"]) == ("ONNX int8", 1))
    with_vnni, without = (
        row["to_first"] for part in ("timing AVX512", "timing AVX2") for row in peers[part]
        if row["network"] == "dppt_s_lspet" and row["way"].startswith("ONNX int8")
    )
    assert first < with_vnni < 0.5 < without
    told = page("machinery/peers")
    assert f"In 8 bits it took {first:.2f} of PyTorch's time in float32" in told
    assert f"took {with_vnni:.2f} with VNNI and {without:.2f} with AVX2 alone" in told
    ms = {(row["way"], row["batch"]): row["milliseconds"] for row in plain}
    one, sixteen = (
        [f"{ms[way, batch]:.1f}" for way in ("PyTorch", "ONNX float32", "ONNX int8")]
        for batch in (1, 16)
    )
    assert "{} ms in PyTorch, {} as ONNX, {} in 8 bits".format(*one) in told
    assert "at a batch of 16 {}, {} and {} a person".format(*sixteen) in told
    released = {row["way"]: row for row in peers["released"]}
    theirs, ours = (released[f"{way}, batch 16"] for way in ("the released code", "ours"))
    assert (
        f"the released code takes {theirs['to_ours']:.2f} times as long "
        f"({theirs['milliseconds']:.1f} ms a person beside {ours['milliseconds']:.1f})"
    ) in told
    theirs, ours = (
        released[f"{way}, batch 1"]["milliseconds"] for way in ("the released code", "ours")
    )
    assert f"ours took {ours:.1f} ms, theirs {theirs:.1f}" in told


def taken(part):
    "Network and way -> milliseconds; which people the 8 bits have their ranges from changes none."
    rows = json.loads((RESULTS / "peers.json").read_text())[part]
    return {(row["network"], row["way"].partition(",")[0] + ", bf16" * ("bf16" in row["way"])):
            row["milliseconds"] for row in rows}


ALL_WAYS = "PyTorch", "PyTorch, bf16", "ONNX float32", "ONNX int8"


def test_the_times_of_the_table():
    "Those of one run; and of all runs on the page that tells more."
    for part, ways in (
        ("timing AVX512", ALL_WAYS),
        ("timing AVX2", ("PyTorch", "", "ONNX float32", "ONNX int8")),
        ("timing AVX512, Xeon", ALL_WAYS),
        ("timing AVX512, again", ALL_WAYS),
        ("timing AVX512, 2 threads", ALL_WAYS),
    ):
        took = taken(part)
        for name in sorted({network for network, way in took if way == "ONNX int8"}):
            digits = 1 if "nano" in name else 0
            times = [f"{took[name, way]:.{digits}f}" if way else "none" for way in ways]
            line = f"| `{name}` | {' | '.join(times)} |"
            told = page("machinery/peers").replace(" (38 in another run)", "")
            assert line in told, line
            if part != "timing AVX512": continue
            size = "256" if "_s_" in name else "128"
            assert line_of(f"`{name}`, {size}")[3] == f"{times[0]} / {times[3]}"
    large, plain, small, plain_small = (taken("timing AVX512")[name, "PyTorch"] for name in (
        "dppt_s_lspet", "tokenpose_s_lspet", "dppt_nano_lspet", "tokenpose_nano_lspet",
    ))
    told = page("07_pruning")
    assert f"with our head {large:.0f} ms, the unpruned one {plain:.0f}: a sixth is saved" in told
    assert f"nano network takes {small:.1f} ms, the unpruned one {plain_small:.1f}" in told
    assert abs(1 - large / plain - 1 / 6) < 0.02


def test_what_pruning_saves_on_a_gpu():
    stored = json.loads((RESULTS / "speed_h200.json").read_text())["version_0_1"]["in_use"]
    rate = {(row["model"], row["batch"]): f"{row['images_a_second']:,.0f}"
            for row in stored if row["way"] == "recorded"}
    alone, many = ([rate[name, batch] for name in ("ppt_s", "tokenpose_s_v1")]
                   for batch in (1, 256))
    told = page("13_study")
    assert "PPT-S answered {} pictures a second and TokenPose-S {},".format(*alone) in told
    assert "in batches of 256 {} and {} (".format(*many) in told


def test_what_the_ways_to_run_a_network_take():
    rows = json.loads((RESULTS / "runners.json").read_text())["rows"]
    took = {(row["network"], row["way"]): row for row in rows}
    share = {key: f"{row['to_eager']:.2f}" for key, row in took.items()}
    clear = [name for name, way in took if way == "folded" and took[name, way]["rounds"][1] < 1]
    assert clear == ["dppt_s_lspet", "dppt_nano_lspet"]
    told = page("machinery/export")
    assert "for DPPT-S ({}) and for its nano network ({})".format(
        *(share[name, "folded"] for name in clear)
    ) in told
    compiled = sorted(part for (name, way), part in share.items()
                      if way == "compiled" and name != "dppt_s_lspet")
    assert (f"it took {share['dppt_s_lspet', 'compiled']} of the time of DPPT-S and "
            f"{compiled[0]} to {compiled[-1]} elsewhere") in told


def test_what_a_training_on_people_of_ones_own_takes():
    "Of a step the fastest and the slowest time, without a processor that was told to be another."
    runs = json.loads((RESULTS / "speed_cpu.json").read_text())["runs"]
    took = [run["rows"][1]["step_ms"] / 60_000 for run in runs
            if "told not to" not in run["conditions"]["instructions"]]
    told = []
    for learned in (210, 800):    # of 300 people and of a thousand, 0.3 and 0.2 held out
        steps = 100 * math.ceil(learned / 64)    # of 100 epochs
        told += [f"{steps:,}", *(f"{steps * one:.0f}" for one in (min(took), max(took)))]
    few = "300 labelled people take {1} to {2} minutes (computed)".format(*told)
    assert f"On two cores {few}" in README
    assert "| 300 | 0.3 | 210 | {} | {} to {} minutes |".format(*told[:3]) in page("14_train")
    assert "| 1,000 | 0.2 | 800 | {} | {} to {} minutes |".format(*told[3:]) in page("14_train")


def test_what_compiling_takes_and_brings_on_a_processor():
    runs = json.loads((RESULTS / "compiled_cpu.json").read_text())["runs"]
    (plain, small), (eager, large) = (run["rows"] for run in runs)
    told = page("machinery/training_costs")
    first, later = large["warm_up_s"], 5 * large["step_ms"] / 1e3
    words = f"five steps took {first:.0f} seconds together, where five later ones take {later:.0f}"
    assert words in told
    saved = (eager["step_ms"] - large["step_ms"]) / 1e3
    assert abs(1 - large["step_ms"] / eager["step_ms"] - 1 / 8) < 0.01
    pays = (first - later) / saved
    assert f"is {saved:.1f} s shorter, it pays from some {pays:.0f} steps" in told
    assert small["step_ms"] > plain["step_ms"] and "nano network becomes slower" in told


def test_the_gain_that_shows_with_people_of_ones_own():
    "Scaled from the first division: the distance of the interval's lower end, by people measured."
    first = gains_over("pruned_start")[0]
    runs = json.loads((RESULTS / "start_coco.json").read_text())["runs"]
    measured, = {run["people"] for run in runs if run["seed"] == 0}
    distance = round(first["mean"] - first["people"][0], 1)
    told, apart = page("14_train"), lambda people: distance * math.sqrt(measured / people)
    assert f"its lower end lies {distance} points below the gain" in told
    for labelled, held_out in (("227", 72), ("300", 90), ("500", 150), ("1,000", 200)):
        people = held_out * measured // 72
        shows = f"| {held_out} | {people} | {apart(people) * 2.8 / 1.96:.0f} points |"
        line, = (row for row in told.splitlines() if row.startswith(f"| {labelled} | 0."))
        assert line.endswith(shows), shows
    assert f"{distance} x √({measured} / 57) = {apart(57):.1f} points" in told
    for a_step, of_300, of_400 in (("4.0 s", 20, 27), ("some 10 s", 50, 67)):
        seconds = float(a_step.removeprefix("some ").split()[0])
        assert (round(300 * seconds / 60), round(400 * seconds / 60)) == (of_300, of_400)
        assert f"| {a_step} | {of_300} minutes | {of_400} minutes |" in told


def test_a_taught_step_has_one_price():
    "As it was measured alone, see results/study_lspet_nano_fresh."
    rows = page("machinery/study_rows")
    told = set(re.findall(r"([\d.]+) times the time of a step", rows))
    assert told == {"1.3", "1.5"}    # 1.5: two cycles

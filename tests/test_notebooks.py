"""Every notebook and every page of solutions runs from top to bottom."""
import json
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from matplotlib import rc_context

from dppt_nb.judged import difference, of_row

NBS = Path(__file__).resolve().parent.parent / "nbs"
PAGES = ("*.ipynb", "machinery/*.ipynb", "solutions/*.ipynb")
NOTEBOOKS = [path for pattern in PAGES for path in sorted(NBS.glob(pattern))]
# answers that train for a minute each; the shorter ones are the sample of `make test`
LONG = {f"solutions/{name}.ipynb" for name in (
    "02_crops", "04_metrics", "06_tokenpose", "07_pruning", "08_distillation", "09_cycles",
    "10_training", "11_inference", "12_explore", "13_study", "14_train", "costs", "rle",
    "synthetic", "together",
)}

# pages whose words are the answers: what they store is what they say when they are run
ANSWERS = {"13_study.ipynb", "machinery/study_rows.ipynb"}
# the other lessons: what they print moves with the processor, a little
LESSONS = {path.name for path in NBS.glob("[01]*.ipynb")} - ANSWERS
TIMED = re.compile(
    r"\b(?:ms|seconds?|minutes?|milliseconds)\b|\d s\b|/s\b|of the time|times as fast"
)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def named(path): return str(path.relative_to(NBS))


def run_in_turn(path):
    "A page as a parameter, marked where it is long by nature."
    marks = [pytest.mark.soak] if named(path) in LONG else []
    return pytest.param(path, marks=marks, id=named(path))


def text_of(outputs):
    """What a cell says: its prints joined, however often the kernel sent some of them, and tables.
    Pictures and their stand-ins are left out."""
    said = ["".join(o["text"]) for o in outputs if o.get("name") == "stdout"]
    shown = [o["data"] for o in outputs if "image/png" not in o.get("data", {"image/png": ""})]
    return ["".join(said), *(
        {kind: "".join(text) for kind, text in data.items() if kind.startswith("text/")}
        for data in shown
    )]


def numbers_of(said):
    "All numbers that a cell prints or returns; None where times are among them, which differ."
    text = "\n".join("\n".join(s.values()) if isinstance(s, dict) else s for s in said)
    text = re.sub(r"/\S+|0x\w+", "", text)    # folders and addresses
    if TIMED.search(text): return None
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def moved(fresh, stored):
    "Pairs of numbers that are not alike, and so many that a stored output is an old one."
    ours, theirs = numbers_of(fresh), numbers_of(stored)
    if ours is None or theirs is None: return []
    if len(ours) != len(theirs): return [(f"{len(ours)} numbers", f"{len(theirs)} stored")]
    # another processor may move a short training's result by half
    apart = [(a, b) for a, b in zip(ours, theirs) if abs(a - b) > 0.02 + 0.6 * max(abs(a), abs(b))]
    return apart if len(apart) > len(ours) / 10 else []


@pytest.mark.parametrize("fresh, stored, alike", [
    ("found 12 % of 900", "found 14 % of 900", True), ("found 12 %", "found 31 %", False),
    ("0.1 0.2 0.3", "0.1 0.2", False), ("took 3 ms", "took 9 ms", True),
    ("in /tmp/x12 7e-09", "in /tmp/y 3e-09", True), ("1,460 tokens", "14,600 tokens", False),
])
def test_when_a_stored_output_is_an_old_one(fresh, stored, alike):
    assert (moved([fresh], [stored]) == []) == alike


def compare_outputs(monkeypatch):
    """From now on cells that are run note what they say and had stored: pairs by cell, in the
    dictionary that is returned."""
    from execnb.shell import CaptureShell
    found, run_cell = {}, CaptureShell.cell

    def noting(self, cell, **options):
        stored, cell.outputs = cell.get("outputs", []), []    # of a silent cell they would stay
        run_cell(self, cell, **options)
        # of a cell that ends with a semicolon nothing is caught here
        if cell.cell_type != "code" or cell.source.rstrip().endswith(";"): return
        found[cell.id] = text_of(cell.outputs), text_of(stored)

    monkeypatch.setattr(CaptureShell, "cell", noting)
    return found


@pytest.mark.parametrize("path", map(run_in_turn, NOTEBOOKS))
@pytest.mark.usefixtures("drawn_once")
def test_notebook_runs(path, monkeypatch):
    from nbdev.config import get_config
    from nbdev.test import test_nb

    from dppt_nb.pruning import REDUCERS
    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    found = compare_outputs(monkeypatch) if named(path) in ANSWERS | LESSONS else {}
    # a page that switches gradients off, or puts its own reducer into the table, does so for
    # itself only
    with torch.enable_grad(), mock.patch.dict(REDUCERS):
        passed, seconds = test_nb(path, skip_flags=get_config().tst_flags.split())
    assert passed, f"{path.name} failed after {seconds:.0f} s; its error is printed above"
    for cell, (fresh, stored) in found.items():
        told = fresh != stored if named(path) in ANSWERS else moved(fresh, stored)
        assert not told, f"cell {cell}: {told}; python tools/run_notebooks.py {path} stores it anew"
    assert bool(found) == (named(path) in ANSWERS | LESSONS)


def test_a_lessons_cell_that_is_run_again_breaks_none_behind_it(monkeypatch):
    "The pelvis of metrics' first person alone lies between two rulers, however often it is drawn."
    cells = [
        "".join(c["source"])
        for c in json.loads((NBS / "04_metrics.ipynb").read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code" and "google.colab" not in "".join(c["source"])
    ]
    drawn, names = next(i for i, cell in enumerate(cells) if "predicted = " in cell), {}
    checked = next(i for i, cell in enumerate(cells) if "np.flatnonzero(between)" in cell)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with rc_context():
        for cell in [*cells[:drawn + 1], *cells[drawn:checked + 1]]: exec(cell, names)


def test_the_first_picture_of_the_study_shows_its_answers(monkeypatch):
    "Each mark of the forest stands at its difference, each bar ends where the interval does."
    page = NBS / "13_study.ipynb"
    cells = [
        "".join(c["source"]) for c in json.loads(page.read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code"
    ]
    names, drawn = {}, next(i for i, cell in enumerate(cells) if "show_forest(fresh," in cell)
    monkeypatch.chdir(NBS)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with rc_context():
        for cell in cells[:drawn + 1]:
            if "google.colab" not in cell: exec(cell, names)
    pairs, ax = names["ANSWERS"], names["ax"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(pairs)
    expected = []
    for number, (runs, offset) in enumerate(((names["fresh"], -0.13), (names["large"], 0.13))):
        for row, pair in enumerate(pairs.values()):
            gain = difference(runs, *pair)
            if gain is None: continue
            scores = (of_row(runs, name) for name in pair)
            mine, theirs = ({seed: run["score"] for seed, run in s.items()} for s in scores)
            shared = mine.keys() & theirs.keys()
            mean = sum(mine[seed] - theirs[seed] for seed in shared) / len(shared)
            ends = gain["interval"] if len(shared) > 1 else []
            expected.append((row + offset, mean, *ends))
    shown = []
    for mark, _, bars in ax.containers:
        ends = bars[0].get_segments()[0][:, 0] if bars else []
        shown.append((mark.get_ydata()[0], mark.get_xdata()[0], *ends))
    assert len(shown) > len(pairs) and len(shown) == len(expected)
    for ours, theirs in zip(shown, expected): assert ours == pytest.approx(theirs, abs=1e-6)


def prose(path):
    "The prose cells of a page, one text."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_links_lead_to_pages_that_are_there(path):
    links = re.findall(r"\]\(([^)#\s]+)", prose(path))
    local = [link for link in links if not link.startswith(("http", "attachment:"))]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_pages_are_linked_and_not_numbered(path):
    bare = r"`(?:solutions/)?[01]\d(?:_\w+)?(?:\.ipynb)?`|\b(?:notebook|page|lesson) [01]\d\b"
    assert re.findall(bare, prose(path), re.IGNORECASE) == []

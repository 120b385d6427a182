"""Every notebook and every page of solutions runs from top to bottom."""
import json
import re
from pathlib import Path
from unittest import mock

import pytest
import torch

NBS = Path(__file__).resolve().parent.parent / "nbs"
PAGES = ("*.ipynb", "machinery/*.ipynb", "solutions/*.ipynb")
NOTEBOOKS = [path for pattern in PAGES for path in sorted(NBS.glob(pattern))]
# answers that train for a minute each; the shorter ones are the sample of `make test`
LONG = {f"solutions/{name}.ipynb" for name in (
    "02_crops", "04_metrics", "06_tokenpose", "07_pruning", "08_distillation", "09_cycles",
    "10_training", "11_inference", "12_explore", "13_study", "14_train", "costs", "rle",
    "synthetic",
)}


def named(path): return str(path.relative_to(NBS))


def run_in_turn(path):
    "A page as a parameter, marked where it is long by nature."
    marks = [pytest.mark.soak] if named(path) in LONG else []
    return pytest.param(path, marks=marks, id=named(path))


@pytest.mark.parametrize("path", map(run_in_turn, NOTEBOOKS))
def test_notebook_runs(path, monkeypatch):
    from nbdev.config import get_config
    from nbdev.test import test_nb

    from dppt_nb.pruning import REDUCERS
    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    # a page that switches gradients off, or puts its own reducer into the table, does so for
    # itself only
    with torch.enable_grad(), mock.patch.dict(REDUCERS):
        passed, seconds = test_nb(path, skip_flags=get_config().tst_flags.split())
    assert passed, f"{path.name} failed after {seconds:.0f} s; its error is printed above"


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

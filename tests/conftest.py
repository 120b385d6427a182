"""Shared fixtures. Reference values and real photographs are not part of the project: tests that
need them skip without."""
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOAK = os.environ.get("DPPT_SOAK") == "1"


def pytest_collection_modifyitems(items):
    """Pages come first, since the longest of them would keep one worker busy at the end; what is
    long by nature runs in `make soak` only."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    items[:] = in_shares(items, workers)
    if SOAK: return
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long by nature: `make soak` runs it"))


def in_shares(items, workers):
    """The items in the order in which xdist deals them out, a run of them to each worker: each gets
    its share of the pages first, and then tests that stand beside each other."""
    pages = [item for item in items if item.path.name == "test_notebooks.py"]
    others = [item for item in items if item.path.name != "test_notebooks.py"]
    ends = [len(others) * n // workers for n in range(workers + 1)]
    shares = [pages[n::workers] + others[ends[n]:ends[n + 1]] for n in range(workers)]
    return [item for share in shares for item in share]


@pytest.fixture(scope="session")
def fuzz():
    "How many mutated inputs a test tries: a sample, unless DPPT_FUZZ says how many."
    return int(os.environ.get("DPPT_FUZZ", 200))


@pytest.fixture(scope="session")
def shared():
    """The folder with reference values and real photographs, beside the project or named by
    DPPT_SHARED."""
    folder = Path(os.environ.get("DPPT_SHARED", ROOT.parent / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip(
            f"needs reference values and photographs in {folder}, which are not "
            "distributed with the project"
        )
    return folder


@pytest.fixture(scope="session")
def chromium_program():
    "Where Chromium is; skips, with a sentence, without it or without what drives it."
    pytest.importorskip("playwright", reason="looking at pages needs `pip install playwright`")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if not found: pytest.skip("looking at pages needs Chromium: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def root():
    "The project's root folder."
    return ROOT

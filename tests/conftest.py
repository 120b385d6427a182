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
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
    if SOAK: return
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="long by nature: `make soak` runs it"))


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

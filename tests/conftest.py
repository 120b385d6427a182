"""Shared fixtures. Reference values and real photographs are not part of the project: tests that
need them skip without."""
import hashlib
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from dppt_nb import synthetic

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
    return int(os.environ.get("DPPT_FUZZ", 100))


MAKE_CHUNK = synthetic._make_chunk


@pytest.fixture(autouse=True, scope="session")
def made_once():
    """People by program, made when they are first asked for: hundreds of tests ask for the same few
    of seed 0, 1 or 2, they are made a chunk at a time, and a chunk takes as long as a small
    training. Who asks gets a copy, since chunks are put together anew each time."""
    known, lock = OrderedDict(), Lock()    # some are made by several threads

    def made(index, *asked):
        if index.device.type != "cpu": return MAKE_CHUNK(index, *asked)
        key = repr((int(index[0]), len(index), *asked))
        with lock: found = known.pop(key, None)
        if found is None: found = MAKE_CHUNK(index, *asked)
        with lock:
            known[key] = found    # what was asked for last is forgotten last
            if len(known) > 32: known.popitem(last=False)    # of some 3 MB each
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "_make_chunk", made)
        yield


@pytest.fixture(scope="module")
def made_anew():
    "For tests that look at how people are made: each time they are."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "_make_chunk", MAKE_CHUNK)
        yield


def print_of(part):
    "A digest of an array, or nothing of nothing."
    if part is None: return None
    part = np.ascontiguousarray(part)
    return part.shape, part.dtype.str, hashlib.sha256(part).hexdigest()


@pytest.fixture(scope="session")
def drawn_once():
    """The stored studies' intervals over people, each drawn when it is first asked for: its
    thousand resamples are the same every time, and pages and claims ask for the same rows again
    and again."""
    from dppt_nb import judged
    draw, known = judged.bootstrap_interval, {}

    def drawn(values, counts=None, other=None, photos=None):
        asked = *map(print_of, (values, counts, other, photos)),
        if asked not in known: known[asked] = draw(values, counts, other, photos=photos)
        return known[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged, "bootstrap_interval", drawn)
        yield


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

"""Shared fixtures. Reference values and real photographs are not part of the project: tests that
need them skip without."""
import copy
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
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


@pytest.fixture(autouse=True, scope="session")
def made_once():
    """People by program for small trainings, made when they are first asked for: many tests train
    on the same few, and making them is half of the work of such a training. Each test has a copy;
    that they are the same whenever they are made is held by `test_synthetic.py`."""
    from dppt_nb import store
    make, known = store.make_people, {}

    def made(people, keypoint_set, image_size, **more):
        if people > 128: return make(people, keypoint_set, image_size, **more)    # room is short
        asked = people, keypoint_set.names, tuple(image_size), *map(str, sorted(more.items()))
        if asked not in known: known[asked] = make(people, keypoint_set, image_size, **more)
        return copy.deepcopy(known[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "make_people", made)
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

"""Shared fixtures. Reference values and real photographs are not part of the project: tests that
need them skip without."""
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
def root():
    "The project's root folder."
    return ROOT

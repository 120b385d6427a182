"""Every notebook and every page of solutions runs from top to bottom."""
from pathlib import Path

import pytest
import torch

NBS = Path(__file__).resolve().parent.parent / "nbs"
PAGES = ("*.ipynb", "machinery/*.ipynb", "solutions/*.ipynb")
NOTEBOOKS = [path for pattern in PAGES for path in sorted(NBS.glob(pattern))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(NBS)))
def test_notebook_runs(path, monkeypatch):
    from nbdev.config import get_config
    from nbdev.test import test_nb
    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    with torch.enable_grad():  # a page that switches gradients off does so for itself only
        passed, seconds = test_nb(path, skip_flags=get_config().tst_flags.split())
    assert passed, f"{path.name} failed after {seconds:.0f} s; its error is printed above"

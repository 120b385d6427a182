"""Rows of a test of which `make test` runs some and `make soak` all."""
import pytest

from dppt_nb.models import list_models


def sample(rows, *kept):
    "The rows as parameters; all but those with the numbers `kept` are long by nature."
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    assert set(kept) <= set(range(len(rows)))
    marks = [[] if number in kept else [pytest.mark.soak] for number in range(len(rows))]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks)]


def sampled_models():
    """Every row of the table of networks but DPPT's, which are PPT's. The sample has each kind of
    backbone (of HRNet the wider one), each head, pruning, and cycles."""
    names = [name for name in list_models() if not name.startswith("dppt")]
    return sample(names, 0, 1, 4, 6, 7, 8, 13, 17)

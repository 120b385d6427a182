"""Rows of a test of which `make test` runs some and `make soak` all."""
import pytest


def sample(rows, *kept):
    "The rows as parameters; all but those with the numbers `kept` are long by nature."
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    assert set(kept) <= set(range(len(rows)))
    marks = [[] if number in kept else [pytest.mark.soak] for number in range(len(rows))]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks)]

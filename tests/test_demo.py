"""The demo, small: every network of it is trained, judged, drawn and kept."""
import json

import pytest

import dppt_nb.demo as demo
from dppt_nb.checkpoints import load_network
from dppt_nb.recipes import RECIPES


@pytest.mark.parametrize("fresh", [False, True])
def test_the_demo_trains_judges_draws_and_keeps_its_networks(tmp_path, monkeypatch, capsys, fresh):
    for split, count in {"train": 32, "val": 16, "test": 24}.items():
        monkeypatch.setitem(demo.SYNTHETIC_PEOPLE, split, count)
    taught = []
    real = demo.Trainer
    monkeypatch.setattr(
        demo,
        "Trainer",
        lambda recipe, *args, **more: (
            taught.append((recipe.model, more["teacher"]))
            or real(recipe.change(epochs=1), *args, bars=False, **more)
        ),
    )
    networks, rows = demo.run_demo(tmp_path, "cpu", epochs=1, fresh_teacher=fresh)
    assert list(networks) == list(demo.DEMO) and len(rows) == 2 + len(demo.DEMO)
    assert [name for name, _ in taught[fresh:]] == [
        RECIPES[name].model for name in demo.DEMO
    ] and all(teacher is not None for _, teacher in taught[fresh:])
    assert all(
        (tmp_path / name).is_file() and (tmp_path / name).stat().st_size > 10_000
        for name in ("demo.png", "answers.png")
    )
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["model"] for row in written["rows"]][2:] == list(demo.DEMO) and written[
        "conditions"
    ]["split"] == "test"
    for name in demo.DEMO:
        recipe = load_network(tmp_path / name)[1]
        assert recipe.model == RECIPES[name].model and recipe.overrides == RECIPES[name].overrides
    said = capsys.readouterr().out
    assert "ships with it" in said or fresh


def test_the_shipped_teacher_is_better_than_what_it_teaches_can_be_by_chance():
    network, row = demo.demo_teacher(
        False, {"test": demo.synthetic_people("test", (128, 96), 100)}, "cpu"
    )
    assert row["PCK@0.2"] > 70 and network.config.name == "tokenpose_nano"

"""The demo, small: a picture at once, then every network of it is trained, judged, drawn and kept,
and the page grows."""
import json
import subprocess
import sys

import pytest

import dppt_nb.demo as demo
from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.recipes import RECIPES
from dppt_nb.terminal import Terminated

ALL = demo.DEMO + demo.DEMO_REST


@pytest.fixture
def small(monkeypatch):
    "Few people, one epoch, an opening with small networks; what was trained, in its order."
    monkeypatch.setattr(demo, "DEMO_LEAST", 32)
    for split, count in {"train": 32, "test": 24}.items():
        monkeypatch.setitem(demo.SYNTHETIC_PEOPLE, split, count)
    monkeypatch.setattr(demo, "ON_PHOTOS", demo.ON_SYNTHETIC)
    trained, real = [], demo.Trainer

    def short(recipe, *args, **more):
        trained.append((recipe.model, more["teacher"]))
        return real(recipe.change(epochs=min(2, recipe.epochs)), *args, **(more | {"bars": False}))
    monkeypatch.setattr(demo, "Trainer", short)
    return trained


@pytest.mark.parametrize("names", [
    (demo.DEMO[0], demo.DEMO[-1]), pytest.param(ALL, marks=pytest.mark.soak),
])
def test_the_demo_opens_trains_judges_draws_and_keeps_its_networks(
    tmp_path, small, monkeypatch, capsys, names
):
    pages = []
    real = demo.write_page
    monkeypatch.setattr(
        demo, "write_page",
        lambda *given: (real(*given), pages.append((tmp_path / "index.html").read_text())),
    )
    networks, rows = demo.run_demo(tmp_path, "cpu", epochs=1, names=names)
    assert list(networks) == list(names) and len(rows) == 2 + len(names)
    models = [RECIPES[name].model for name in names]
    assert [model for model, _ in small] == 2 * models, "a trial of each, then each"
    assert all(teacher is not None for _, teacher in small)
    for name in ("opening.png", "demo.png", "answers.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["model"] for row in written["rows"]][2:] == list(names)
    assert written["conditions"]["split"] == "test" and written["conditions"]["trained_on"] == 32
    for name in names:
        recipe = load_network(tmp_path / name)[1]
        assert recipe.model == RECIPES[name].model and recipe.overrides == RECIPES[name].overrides
    check_pages(pages, names)
    said = capsys.readouterr().out
    assert said.index("opening.png") < said.index("minutes") < said.index("training dppt_nano")
    assert "ships with it" in said


def check_pages(pages, names):
    "A picture first, then a row more with each network; only the last page stands still."
    assert "opening.png" in pages[0] and "<pre>" not in pages[0]
    trained = [sum(f"\n{name} " in page for name in names) for page in pages]
    assert trained == sorted(trained) and set(range(len(names) + 1)) <= set(trained)
    assert ["refresh" in page for page in pages] == [True] * (len(pages) - 1) + [False]
    assert all(page.count("<img") == page.count("alt=") for page in pages)
    assert pages[-1].count("<img") == 3


@pytest.mark.parametrize(
    "name", ["index.html", "demo.png", "results.json", "dppt_nano/config.json"]
)
def test_a_demo_writes_over_nothing_that_is_not_a_demos(tmp_path, small, name):
    "Such as a network that somebody trained into a folder of its recipe's name."
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=f"{name.split('/')[0]} is not from a demo.*--out"):
        demo.run_demo(tmp_path, "cpu", epochs=1)
    assert (tmp_path / name).read_text() == "mine" and sorted(tmp_path.rglob("*")) == before


def test_a_demo_that_is_stopped_says_so_on_its_page_too(tmp_path, small, monkeypatch):
    "In a folder of an earlier demo, of which no picture and no table stays."
    demo.write_page(tmp_path, [], "Done.", running=False)
    for name in ("demo.png", "answers.png", "results.json"): (tmp_path / name).write_text("old")
    monkeypatch.setattr(demo, "learning_seconds", lambda *given: 0.01)    # a trial of each
    train = demo.demo_network
    def stopped(name, *rest):
        if name == "dppt_nano": raise Terminated("another fit() of this trainer goes on from here")
        return train(name, *rest)
    monkeypatch.setattr(demo, "demo_network", stopped)
    with pytest.raises(Terminated) as stop:
        demo.run_demo(tmp_path, "cpu", epochs=1, names=("tokenpose_nano", "dppt_nano"))
    assert str(stop.value) == (
        f"stopped before the end; tokenpose_nano can be used, in {tmp_path}; another demo begins "
        "anew"
    )
    page = (tmp_path / "index.html").read_text()
    assert "refresh" not in page and "was stopped" in page and "\ntokenpose_nano " in page
    assert page.count("<img") == 2 and load_network(tmp_path / "tokenpose_nano")
    assert not (tmp_path / "answers.png").exists() and not (tmp_path / "results.json").exists()


def test_as_many_people_and_epochs_as_there_is_time_for():
    (fewest, most), everybody = demo.DEMO_EPOCHS, demo.SYNTHETIC_PEOPLE["train"]
    assert demo.what_fits(1e-6, 1e-6) == (everybody, most)
    assert demo.what_fits(99 / everybody, 0.0, minutes=5) == (everybody, 3)
    assert demo.what_fits(100 / everybody, 50 / everybody, minutes=5) == (everybody, fewest)
    people, epochs = demo.what_fits(0.03, 0.006, minutes=5)
    assert epochs == fewest and people == 4500 and people * (0.006 + fewest * 0.03) <= 300
    assert demo.what_fits(10.0, 1.0) == (demo.DEMO_LEAST, fewest)


@pytest.mark.soak
def test_the_teacher_can_be_trained_too(tmp_path, small):
    _, rows = demo.run_demo(tmp_path, "cpu", epochs=1, names=("dppt_nano",), fresh_teacher=True)
    # a trial, the teacher, the student
    assert [model for model, _ in small] == ["dppt_nano", "tokenpose_nano", "dppt_nano"]
    assert small[1][1] is None and rows[1]["model"].startswith("teacher, ")


def test_the_shipped_teacher_is_better_than_what_it_teaches_can_be_by_chance():
    network, row = demo.demo_teacher(None, demo.synthetic_people("test", (128, 96), 100), "cpu")
    assert row["PCK@0.2"] > 70 and network.config.name == "tokenpose_nano"


def test_the_first_demo_s_results_can_still_be_read(root):
    rows = json.loads((root / "nbs/results/demo.json").read_text())["rows"]
    assert {"mean pose", *demo.DEMO} <= {row["model"] for row in rows}
    assert demo.format_table(rows).count("\n") == len(rows)


def test_the_demo_speaks_before_it_loads_torch():
    "On a busy machine loading takes a minute, and a terminal without a word looks dead."
    code = (
        "import sys\n"
        "from dppt_nb.cli import main\n"
        "class Halt:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] == 'torch': raise SystemExit(7)\n"
        "sys.meta_path.insert(0, Halt())\n"
        "main(['demo'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600,
    )
    assert done.returncode == 7, done.stderr    # torch was to be loaded, and nothing else failed
    assert len(done.stdout.splitlines()) == 1 and "minute" in done.stdout

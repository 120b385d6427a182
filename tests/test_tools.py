"""The programs of the folder tools: asked for help they do nothing else, and what they cannot do is
said in one sentence."""
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dppt_nb.checkpoints import load_network, save_network
from dppt_nb.checks import DataError
from dppt_nb.cropset import known_people, pack_marks
from dppt_nb.keypoints import COCO17
from dppt_nb.metrics import pck
from dppt_nb.models import create_model
from dppt_nb.recipes import get_recipe
from dppt_nb.shards import StoreHeader
from dppt_nb.store import crop_rows, synthetic_people
from dppt_nb.writing import write_store

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
WRITTEN = ROOT / "README.md", TOOLS / "pypi.md", *ROOT.glob("nbs/*.ipynb")


def run(monkeypatch, capsys, name, *words):
    "Exit code and what was said of a tool, run as a program in this process."
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    monkeypatch.syspath_prepend(str(TOOLS))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr()
    code, words = end.value.code, said.out + said.err
    return (1, code) if isinstance(code, str) else (code, words)


PROGRAMS = sorted(
    path.stem for path in TOOLS.glob("*.py") if "__main__" in path.read_text()
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_all_that_is_done(monkeypatch, capsys, name):
    if name == "docs": pytest.importorskip("mkdocs", reason="the site is built with mkdocs")
    stamps = [path.stat().st_mtime_ns for path in WRITTEN]
    code, said = run(monkeypatch, capsys, name, "--help")
    assert code == 0 and said.lower().startswith("usage: ") and "--help" in said
    assert stamps == [path.stat().st_mtime_ns for path in WRITTEN]


@pytest.mark.parametrize("name", sorted(path.name for path in TOOLS.glob("*.sh")))
def test_scripts_of_the_shell_help_too(name):
    done = subprocess.run(["bash", TOOLS / name, "--help"], capture_output=True, text=True)
    head = (TOOLS / name).read_text().splitlines()[1].removeprefix("# ")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(head)


@pytest.mark.parametrize("name, words, sentence", [
    ("browser_page", ["--network", "nowhere=X"], "there is no folder nowhere"),
    ("browser_page", ["--network", "dppt_s_lspet"], "'dppt_s_lspet' is no FOLDER=LABEL"),
    ("answers", ["--network", "dppt_s_lspet"], "name LSPET's folder with --root"),
    ("peers", ["timing"], "no network is named"),
    ("peers", ["accuracy", "--data", "lspet", "--root", "x"], "no network is named"),
    ("peers", ["accuracy", "x", "--data", "coco", "--root", "x", "--split", "vall"],
     "'vall' is not one of 'train', 'val', 'test', 'all'"),
    ("peers", ["accuracy", "x", "--data", "coco", "--root", "x", "--least-score", "0.3"],
     "--least-score goes with --detected and a network"),
    ("peers", ["accuracy", "x", "--data", "nosuch", "--root", "."],
     "there is no data set 'nosuch'"),
    ("scores", ["--root", ".", "--out", "x.json", "--device", "abacus"], "device 'abacus' cannot"),
    ("benchmark", ["forward", "--device", "abacus"], "device 'abacus' cannot"),
    ("pack_network", ["card", "dppt_nano_lspet", "x", "card.json"], "card.json has no 'words'"),
    ("benchmark", ["forward", "--out", "."], "File '.' is a directory"),
    ("benchmark", ["train", "--out", "card.json/x.json"], "cannot write to the folder card.json"),
    ("scores", ["--root", ".", "--out", "card.json/x.json"], "cannot write to the folder card"),
])
def test_what_cannot_be_done_is_one_sentence(
    monkeypatch, capsys, tmp_path, name, words, sentence,
):
    (tmp_path / "card.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    if name == "peers":    # others' networks are timed where their packages are
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, said = run(monkeypatch, capsys, name, *words)
    assert code and sentence in said and "Traceback" not in said and "mistake of dppt" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize("part", ["accuracy", "pictures"])
def test_a_split_without_people_is_answered_with_options_that_peers_has(
    monkeypatch, capsys, tmp_path, part,
):
    people = synthetic_people("val", (32, 24), 4)
    header = StoreHeader("coco", people.keypoint_set, people.images.shape[2:], people.margin)
    write_store(tmp_path / "store", header, crop_rows(people))
    words = [part, "dppt_nano_lspet", "--data", "coco", "--root", tmp_path / "store"]
    code, said = run(monkeypatch, capsys, "peers", *words)
    assert code and "has nobody in split 'test'; name another with --split: val or all" in said


def test_blazepose_is_missed_before_anything_is_judged(monkeypatch, capsys, tmp_path):
    python = tmp_path / "python"
    words = ["accuracy", "--data", "lspet", "--root", tmp_path, "--blazepose", python]
    assert "does not run (No such file" in run(monkeypatch, capsys, "peers", *words)[1]
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert "pip install mediapipe==0.10.21" in run(monkeypatch, capsys, "peers", *words)[1]
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    code, said = run(monkeypatch, capsys, "blazepose", "pictures.npy", "found.npz")
    assert code == 1 and "pip install mediapipe==0.10.21" in said


def test_networks_are_judged_on_the_joints_that_both_know(monkeypatch, capsys):
    "A network of LSP's joints on people of COCO's: twelve count, and the conditions say who."
    monkeypatch.syspath_prepend(str(TOOLS))
    judging = importlib.import_module("judging")
    network, recipe, found = load_network("dppt_nano_lspet")
    crops = synthetic_people("test", recipe.image_size, 6)
    result, people, known = judging.judge_network(
        network, recipe, found, crops, "synthetic", "test"
    )
    assert "judged on the 12 of 17" in capsys.readouterr().out
    assert result["counts"].sum() == (people.visible > 0).sum() < (crops.visible > 0).sum()
    assert (known["data"], known["split"], known["people"]) == ("synthetic", "test", 6)
    assert known["people_digest"] == people.digest != crops.digest


def png(image):
    "The bytes of a picture."
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()


def test_a_network_between_two_others(monkeypatch, capsys, tmp_path):
    pair = "tokenpose_nano_lspet", "sdpose_nano_lspet"    # of one plan but for the cycles
    code, said = run(monkeypatch, capsys, "mix_networks", *pair, 0.5, tmp_path / "out")
    assert code and "are not of one architecture" in said and not (tmp_path / "out").exists()
    other = ROOT / "nbs/results/teachers/tokenpose_nano_lspet_seed1"
    code, _ = run(monkeypatch, capsys, "mix_networks", pair[0], other, 0.25, tmp_path / "out")
    tensors = [load_network(x)[0].state_dict() for x in (pair[0], other, tmp_path / "out")]
    assert code == 0
    for name, mixed in tensors[2].items():
        one, two = tensors[0][name], tensors[1][name]
        between = 0.75 * one + 0.25 * two if mixed.is_floating_point() else two
        assert np.allclose(mixed, between, atol=1e-6), name


def test_a_network_between_two_knows_whom_both_learned_from(monkeypatch, capsys, tmp_path):
    "Else it would be judged on them without a word."
    crops = replace(synthetic_people("test", (64, 48), 6), name="mine")
    network = create_model("tokenpose_nano", image_size=(64, 48))
    recipe = get_recipe("tokenpose_nano", image_size=(64, 48)).to_dict()
    info = dict(
        config=asdict(network.config), recipe=recipe, keypoint_set=COCO17.to_dict(), data="mine"
    )
    for name, some in (("a", slice(0, 2)), ("b", slice(1, 4))):
        (tmp_path / name).mkdir()
        marks = pack_marks(crops.select(some))
        save_network(tmp_path / name, network.state_dict(), info | marks)
    words = tmp_path / "a", tmp_path / "b", 0.5, tmp_path / "out"
    assert run(monkeypatch, capsys, "mix_networks", *words)[0] == 0
    assert known_people(load_network(tmp_path / "out")[0].about, crops) == 4


def test_a_network_that_would_find_nothing_is_not_written(monkeypatch, capsys, tmp_path):
    words = "tokenpose_nano_lspet", "tokenpose_nano_lspet", "nan", tmp_path / "out"
    code, said = run(monkeypatch, capsys, "mix_networks", *words)
    assert code == 1 and "not finite" in said and not (tmp_path / "out").exists()
    code, said = run(monkeypatch, capsys, "mix_networks", *words[:2], 0.5, "")
    assert code == 2 and "it is empty" in said


def test_the_command_that_is_stored_names_the_network_and_the_place(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    from judging import NETWORK, command_of
    (tmp_path / "lspet").mkdir()
    named = command_of("answers", "dppt_nano_lspet", root=tmp_path / "lspet")
    assert named == "python tools/answers.py --root lspet --network dppt_nano_lspet"
    stored = {tool: json.loads((ROOT / f"nbs/results/{file}.json").read_text())["command"]
              for tool, file in (("answers", "answers_lspet"), ("whole_photos", "whole_photos"),
                                 ("second_look", "second_look"))}
    both = dict(lspet="a/lspet_dataset.zip", coco="b/coco_mini/")
    assert stored == dict(
        answers=command_of("answers", NETWORK, root="a/lspet_dataset.zip"),
        whole_photos=command_of("whole_photos", NETWORK, lspet=both["lspet"]),
        second_look=command_of("second_look", NETWORK, **both),
    )
    for tool in stored: assert "command_of(" in (TOOLS / f"{tool}.py").read_text()


def test_answers_of_a_network_of_other_joints_are_those_that_both_know(monkeypatch):
    "As for every other program that judges."
    monkeypatch.syspath_prepend(str(TOOLS))
    import answers
    people = synthetic_people("test", (128, 96), 12)
    monkeypatch.setattr(answers, "load_people", lambda *given: dict(test=people))
    rows = answers.find("tokenpose_nano_lspet", "anywhere")["people"]
    known = [name.rpartition("_")[2] not in ("nose", "eye", "ear") for name in COCO17.names]
    for row in rows:
        assert 0 < row["counts"] == sum(row["visible"]) and not any(
            seen for seen, both in zip(row["visible"], known) if not both
        )


def test_answers_are_drawn_with_the_hits_that_are_stored(monkeypatch):
    "Also where a joint lies so near the limit that rounding its place decides."
    monkeypatch.syspath_prepend(str(TOOLS))
    import answers
    people = synthetic_people("test", (128, 96), 12)
    truth = people.photo_joints
    shoulder, hip = (truth[:, COCO17.index(name)] for name in ("left_shoulder", "right_hip"))
    limit = 0.2 * (shoulder - hip).norm(dim=-1)
    near = truth.clone()
    near[..., 0] += 1.0005 * limit[:, None]    # just outside
    monkeypatch.setattr(answers, "load_people", lambda *given: dict(test=people))
    monkeypatch.setattr(answers, "predict_joints", lambda *given, **more: (near, None))
    for row in answers.find("tokenpose_nano", "anywhere")["people"]:
        true, found = (np.array(row[part]) for part in ("true", "found"))
        judged = pck(found[None], true[None], np.array(row["visible"])[None], COCO17)
        assert judged["hits"].sum() == row["hits"]


def test_a_stored_command_names_the_folder_that_was_given(monkeypatch, tmp_path):
    "Also a folder of another name than ours, and one that was called `.`."
    monkeypatch.syspath_prepend(str(TOOLS))
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    import mean_pose
    import transfer
    row = dict(network="one", score=50.0, measured=1)
    monkeypatch.setattr(transfer, "judge", lambda name, place, root: row | dict(row=name, seed=0))
    monkeypatch.setattr(transfer, "RESULTS", tmp_path / "transfer.json")
    people = dict.fromkeys(("train", "test"), synthetic_people("test", (64, 48), 4))
    monkeypatch.setattr(mean_pose, "load_people", lambda *given: people)
    for tool in (transfer, mean_pose):
        out = tmp_path / f"{tool.__name__}.json"
        words = [] if tool is transfer else ["--out", str(out)]
        tool.main.main(["--root", ".", *words], standalone_mode=False)
        command = json.loads(out.read_text())["command"]
        assert command == f"python tools/{tool.__name__}.py --root mine"
    for tool in ("one_pass", "store_formats", "whose_choice"):
        assert f'command_of("{tool}"' in (TOOLS / f"{tool}.py").read_text()


def test_stored_pictures_are_smaller_and_look_the_same(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    pages = runpy.run_path(str(TOOLS / "run_notebooks.py"))
    smooth = np.linspace(0, 255, 200 * 300 * 3).reshape(200, 300, 3)
    noise = np.random.default_rng(0).normal(0, 4, smooth.shape)
    picture = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    stored = pages["smaller"](png(picture))
    assert len(stored) < len(png(picture)) / 2
    again = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"), float)
    assert np.abs(again - np.asarray(picture, float)).mean() < 4
    assert pages["smaller"](stored) == stored
    seen_through = png(Image.new("RGBA", (50, 50), (255, 0, 0, 90)))
    assert pages["smaller"](seen_through) == seen_through


def test_what_a_cell_prints_is_stored_in_one_piece(monkeypatch):
    import nbformat  # here, since it loads a grammar for seconds
    monkeypatch.syspath_prepend(str(TOOLS))
    pages = runpy.run_path(str(TOOLS / "run_notebooks.py"))
    stream = lambda name, text: nbformat.v4.new_output("stream", name=name, text=text)
    shown = nbformat.v4.new_output("display_data", data={"text/plain": "a picture"})
    cell = nbformat.v4.new_code_cell("", outputs=[
        stream("stdout", "a"), stream("stdout", "b"), shown, stream("stdout", "c"),
        stream("stderr", "d"),
    ])
    words = nbformat.v4.new_markdown_cell("words")
    pages["join_streams"](nbformat.v4.new_notebook(cells=[cell, words]))
    assert [out.get("text", "shown") for out in cell.outputs] == ["ab", "shown", "c", "d"]


def test_of_a_bar_that_has_ended_only_its_words_are_stored(monkeypatch):
    import nbformat
    monkeypatch.syspath_prepend(str(TOOLS))
    pages = runpy.run_path(str(TOOLS / "run_notebooks.py"))
    plain = "<IPython.core.display.HTML object>"
    shown = lambda html, plain=plain: nbformat.v4.new_output(
        "display_data", data={"text/html": html, "text/plain": plain}
    )
    cell = nbformat.v4.new_code_cell("", outputs=[
        shown("\n<style>\n    progress { border: none; }\n</style>\n"), shown(""),
        shown("<div><progress value='0' max='1'></progress> 0.00% [0/1]</div>"),
        shown("epoch 1/2   pose 5.2<p>epoch 2/2   pose 5.1"), shown("<b>a table</b>", "a table"),
    ])
    pages["drop_bars"](nbformat.v4.new_notebook(cells=[cell]))
    assert [out.data["text/plain"] for out in cell.outputs] == [
        "epoch 1/2   pose 5.2\nepoch 2/2   pose 5.1", "a table",
    ]
    assert cell.outputs[0].data["text/html"] == "epoch 1/2   pose 5.2<p>epoch 2/2   pose 5.1"


def test_a_page_that_is_run_keeps_its_folds_and_gets_its_pictures(tmp_path, root):
    "Also where another backend is set, as it is for the tests."
    import nbformat
    folded = nbformat.v4.new_code_cell(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        metadata={"jupyter": {"source_hidden": True}, "scrolled": True},
    )
    page = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[folded]), page)
    subprocess.run(
        [sys.executable, root / "tools/run_notebooks.py", page], check=True,
        env=os.environ | {"MPLBACKEND": "agg"}, capture_output=True,
    )
    cell, = nbformat.read(page, 4).cells
    assert cell.metadata == {"jupyter": {"source_hidden": True}}
    assert "image/png" in cell.outputs[0]["data"]


# Make

def make(folder, *words, **settings):
    "Exit code, and what `make` said in a folder that has the project's Makefile and programs."
    if not shutil.which("make"): pytest.skip("there is no make here")
    for name in ("Makefile", "tools", "pyproject.toml", "requirements.lock"):
        if not (folder / name).exists(): (folder / name).symlink_to(ROOT / name)
    # as if nobody's `make` had started these tests
    outer = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", *words], cwd=folder, capture_output=True, text=True, timeout=600,
        env=outer | settings,
    )
    return done.returncode, done.stdout + done.stderr


def test_make_says_what_can_be_made(tmp_path):
    code, said = make(tmp_path, "help")
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    lines = [re.fullmatch(r"make (\w+) +(\S.*)", line) for line in said.splitlines()]
    assert code == 0 and all(lines)
    assert {line[1] for line in lines} == set(phony) - {"sound"}


def test_make_takes_an_out_with_spaces_and_removes_no_folder_that_somebody_named(tmp_path):
    "`OUT` may come from the environment, where it is another program's."
    (tmp_path / ".venv").mkdir()
    for name in ("out of mine", "out", "demo"): (tmp_path / name).mkdir()
    said = make(tmp_path, "-n", "demo", "--assume-old=.venv/.plain", OUT="out of mine")[1]
    assert '--out "out of mine"' in said
    for name in ("out of mine", "out"): assert make(tmp_path, "distclean", OUT=name)[0] == 0
    assert (tmp_path / "out of mine").is_dir() and (tmp_path / "out").is_dir()
    assert not (tmp_path / "demo").exists() and not (tmp_path / ".venv").exists()


def test_a_python_that_is_not_there_is_one_sentence(tmp_path):
    code, said = make(tmp_path, "export", "PYTHON=python3.99")
    assert code and "not found" not in said
    assert "say which one to use: make export PYTHON=python3.11" in said.splitlines()[0]
    assert not (tmp_path / ".venv").exists()


def test_an_environment_that_is_broken_or_was_moved_is_one_sentence(tmp_path):
    "Without pip; with a Python that is gone; whose package lies elsewhere now."
    sentence = "the environment in .venv is broken or was moved; run make distclean"
    made = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    def refused():
        code, said = make(tmp_path, "export")
        first, *others = [line for line in said.splitlines() if not line.startswith("make: ")]
        return code and first.startswith(sentence) and not others
    assert refused()
    packages = next(made.glob("lib/python*/site-packages"))
    (packages / "pip").mkdir()
    (packages / "pip/__init__.py").touch()
    (packages / "dppt_nb.pth").write_text(f"{tmp_path / 'old'}\n")
    for stamp in (".torch", ".plain", ".dev"): (made / stamp).touch()
    assert refused()
    (tmp_path / "old/dppt_nb").mkdir(parents=True)
    (tmp_path / "old/dppt_nb/__init__.py").touch()
    assert make(tmp_path, "sound") == (0, "")
    (made / "bin/python").unlink()
    (made / "bin/python").symlink_to(tmp_path / "nowhere")
    assert refused()
    assert make(tmp_path, "distclean")[0] == 0 and not made.exists()


def test_new_pins_are_fetched_as_the_first_ones_were(tmp_path):
    """PyTorch's alone would come from the usual index, with gigabytes of CUDA. What is written to
    the lock is installed before, the site's packages too."""
    made = tmp_path / ".venv"
    (made / "bin").mkdir(parents=True)
    stamps = [made / name for name in ("bin/python", ".torch", ".plain", ".dev", ".docs")]
    for stamp in stamps: stamp.touch()
    assert "install" not in make(tmp_path, "-n", "lock")[1]
    for stamp in stamps: os.utime(stamp, (1e9, 1e9))    # older than the lock
    torch, *packages = make(tmp_path, "-n", "lock")[1].split("install -c requirements.lock")
    assert "tools/torch.sh" in torch and len(packages) == 2 and "docs" in packages[1]


def test_a_pip_that_is_not_there_is_not_called_a_lack_of_wheels(tmp_path):
    done = subprocess.run(
        ["bash", TOOLS / "torch.sh", "cpu", tmp_path / "pip"], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout == f"{tmp_path}/pip is no program; name the environment's pip\n"


def test_a_cache_that_cannot_be_made_names_its_variable(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    from website import npm
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(DataError, match="cannot write to the folder .*npm .*DPPT_CACHE"):
        npm.files(*npm.AXE)


def test_whole_epochs_are_timed_too(root, tmp_path):
    "Rows say how long an epoch takes, and the file how long reading the people took."
    out = tmp_path / "speed.json"
    words = (
        "train tokenpose_nano --way eager --way plain --epoch --people 16 --batch 8 --rounds 1 "
        f"--device cpu --set image_size=[64,48] --out {out}"
    ).split()
    done = subprocess.run(
        [sys.executable, root / "tools/benchmark.py", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, = json.loads(out.read_text())["found"]
    assert [row["way"] for row in found["rows"]] == ["eager", "plain"]
    assert found["people"] == 16 and found["load_s"] > 0
    for row in found["rows"]: assert row["epoch_s"] == pytest.approx(2 * row["step_ms"] / 1e3)
    assert "reading and decoding 16 people" in done.stdout


@pytest.mark.parametrize("device, ways", [
    ("cpu", ["plain", "eager"]),
    ("cuda", ["plain", "eager", "recorded", "compiled", "compiled, recorded"]),
])
def test_all_ways_are_timed_and_patches_are_dropped(device, ways, monkeypatch):
    "A recipe whose keep ratio falls slowly would drop none in the steps that are timed."
    monkeypatch.syspath_prepend(str(TOOLS))
    tool, asked = importlib.import_module("training_speed"), []
    def time_ways(recipe, crops, device, ways, *rest):
        asked.append((recipe.anneal, ways))
        raise DataError("enough")
    monkeypatch.setattr(tool, "time_ways", time_ways)
    monkeypatch.setattr(tool, "keep_memory", lambda: False)
    monkeypatch.setattr(tool, "pick_device", torch.device)
    monkeypatch.setattr(tool, "load_people", lambda *given: {"train": range(8)})
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    words = ["dppt_s_coco", "--batch", "8", "--device", device]
    for more in ([], ["--set", "anneal=(0.1, 0.2)"]):
        assert "enough" in CliRunner().invoke(tool.train, words + more).output
    assert asked == [((), ways), ((0.1, 0.2), ways)]

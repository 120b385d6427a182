"""The `dppt` command as a user runs it, with another folder as the present one; where the process
itself matters (streams, pipes, signals), in another process."""
import contextlib
import importlib
import io
import json
import os
import signal as signals
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_fixture
import torch
from click.testing import CliRunner
from data_fixture import coco_file
from PIL import Image
from sampling import sample

from dppt_nb import __version__, terminal
from dppt_nb.checkpoints import shipped_networks
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.models import create_model
from dppt_nb.optim import make_optimizers
from dppt_nb.options import refuse_idle_fields
from dppt_nb.recipes import get_recipe
from dppt_nb.terminal import termination

TINY = [
    "--image-size", "64x48", "--overrides", json.dumps(tiny_fixture.TINY | dict(depth=2)),
    "--batch-size", "32", "--warmup-steps", "5", "--no-report", "--no-samples",
]


def environment(cwd):
    "What a command sees around it: this project's package, and a cache of its own."
    return dict(
        os.environ, PYTHONPATH=str(Path(__file__).resolve().parent.parent),
        DPPT_CACHE=str(cwd / "cache"),
    )


def dppt(*words, cwd):
    """The command in this process, which is spared a start of Python and PyTorch each time; what a
    process has of its own is looked at by `shell`."""
    said, complained = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch, redirect_stdout(said),
        redirect_stderr(complained),
    ):
        patch.setenv("DPPT_CACHE", str(cwd / "cache"))
        try: code = main(list(map(str, words)), prog_name="dppt")
        except SystemExit as end: code = end.code
    return SimpleNamespace(
        returncode=code or 0, stdout=said.getvalue(), stderr=complained.getvalue()
    )


def refused(done, *words):
    "One sentence on standard error, naming `words`, and a non-zero exit."
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.fixture(scope="module")
def zipped(shared, tmp_path_factory):
    """A small LSPET in a zip of the same layout: of its first thousand people every tenth; the
    others have no visible joint, and a grey picture."""
    import scipy.io
    out = tmp_path_factory.mktemp("lspet") / "lspet_dataset.zip"
    whole = zipfile.ZipFile(shared / "data" / "lspet_dataset.zip")
    with whole.open("joints.mat") as file: joints = scipy.io.loadmat(file)["joints"][..., :1000]
    chosen = np.arange(1000) % 10 == 0
    with zipfile.ZipFile(out, "w") as small:
        for number, taken in enumerate(chosen, 1):
            name = f"images/im{number:05d}.jpg"
            small.writestr(name, whole.read(name) if taken else grey_jpeg())
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"joints": joints * chosen})
        small.writestr("joints.mat", buffer.getvalue())
    return out


def grey_jpeg():
    "A picture of 64 x 96 pixels, as a file's bytes."
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 96), "grey").save(jpeg, "JPEG")
    return jpeg.getvalue()


TRAIN_TINY = [
    "train", "tokenpose_nano", "--device", "cpu", "--epochs", 1, "--people", 48, *TINY, "--out",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "The folder in which `run` was trained."
    folder = tmp_path_factory.mktemp("trained")
    done = dppt(*TRAIN_TINY, "run", "--data", "synthetic", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_from_the_zip_to_a_score(zipped, tmp_path):
    store = tmp_path / "store"
    done = dppt(
        "data", "prepare", "lspet", "--root", zipped, "--out", store, "--image-size", "64x48",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    shards = sorted(store.glob("*.parquet"))
    assert shards and all(s.stat().st_size <= 60 * 2**20 for s in shards)
    common = ["--data", "lspet", "--root", store]
    done = dppt(
        "train",
        "tokenpose_nano",
        *common,
        "--out", "run", "--epochs", 1, "--device", "cpu",
        *TINY,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "PCK@0.2" in done.stdout, done.stderr
    done = dppt(
        "eval", "run", "--data", "lspet", "--root", zipped, "--split", "test", "--device", "cpu",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    row = results["scores"]["PCK@0.2 torso"]
    assert len(row["joints"]) == 14 and row["interval"][0] <= row["mean"] <= row["interval"][1]
    assert results["conditions"]["split"] == "test" and results["conditions"]["seed"] == 0


def test_synthetic_train_resume_eval(trained):
    from dppt_nb.recipes import Recipe
    words = [*TRAIN_TINY, "run"]
    refused(dppt(*words, cwd=trained), "--resume")
    refused(dppt(*words, "--resume", "--sigma", "2", cwd=trained), "sigma")
    # a field that nothing reads: a run that began with it goes on
    idle = ["--temperature", Recipe().temperature]
    refused(dppt(*TRAIN_TINY, "new", *idle, cwd=trained), "--temperature is of a teacher")
    done = dppt(*words, "--resume", "--plan", *idle, cwd=trained)
    assert done.returncode == 0, done.stderr
    done = dppt(
        "eval", "run", "--people", 64, "--device", "cpu", "--no-mirror", "--decode", "argmax",
        cwd=trained,
    )
    assert done.returncode == 0 and "95 % interval" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_student_learns_from_a_run_from_the_shipped_network_and_from_a_released_checkpoint(
    trained, tmp_path,
):
    import torch

    from dppt_nb import create_model
    common = [
        "--device", "cpu", "--epochs", 1, "--people", 24, "--warmup-steps", 2, "--batch-size", 8,
    ]
    small = [
        "--image-size", "64x48", "--overrides",
        json.dumps(tiny_fixture.TINY | dict(depth=2, prune_at=[1])), "--no-report", "--no-samples",
    ]
    refused(dppt("train", "dppt_nano", *common, *small, cwd=tmp_path), "--teacher")
    done = dppt(
        "train", "dppt_nano", "--out", "taught", "--teacher", trained / "run", "--guide", 0.3,
        *common,
        *small,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and all(
        word in done.stdout for word in ("output", "features", "attention", "guide")
    ), done.stderr
    refused(
        dppt(
            "train", "dppt_nano", "--out", "other", "--teacher", "tokenpose_nano",
            *common,
            *small,
            cwd=tmp_path,
        ),
        "image_size",
        "(128, 96)",
    )
    refused(
        dppt(
            "train", "dppt_nano", "--out", "other", "--teacher", "nowhere",
            *common,
            *small,
            cwd=tmp_path,
        ),
        "there is no folder nowhere",
        "hub:owner/name",
    )
    released = create_model("tokenpose_s_v1", image_size=(64, 48))
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in released.state_dict().items()}},
        tmp_path / "s.pth",
    )
    refused(
        dppt(
            "train", "dppt_nano", "--out", "other", "--teacher", "s.pth", "--teacher-model",
            "tokenpose_b",
            *common,
            *small,
            cwd=tmp_path,
        ),
        "s.pth",
        "does not fit",
    )
    done = dppt(
        "train", "dppt_nano", "--out", "by-released", "--teacher", "s.pth", "--teacher-model",
        "tokenpose_s_v1",
        *common,
        *small,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "features" in done.stdout, done.stderr


@pytest.mark.slow
def test_coco_gets_ap_and_the_file_that_pycocotools_reads(shared, tmp_path):
    from dppt_nb.metrics import evaluate_coco
    mini, measured = shared / "data" / "coco_mini", []
    for boxes in ([], ["--boxes", mini / "annotations" / "person_detections.json"]):
        done = dppt(
            "eval", "tokenpose_nano", "--data", "coco", "--root", mini, "--split", "all", "--out",
            "judged", "--device", "cpu", "--no-mirror", *boxes, cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        scores = json.loads((tmp_path / "judged" / "results.json").read_text())["scores"]
        rows = json.loads((tmp_path / "judged" / "keypoint-results.json").read_text())
        assert len(rows[0]["keypoints"]) == 51
        direct = evaluate_coco(mini / "annotations" / "person_keypoints.json", rows)
        assert scores["AP"]["mean"] == pytest.approx(100 * direct["AP"], abs=1e-6) and direct["AP"]
        measured.append(scores["PCK@0.2 torso"]["people"])
    assert 0 < measured[1] <= measured[0]    # a detector's boxes show some of the people


@pytest.fixture(scope="module")
def models_said(tmp_path_factory):
    "What the command says of all networks."
    return dppt("models", cwd=tmp_path_factory.mktemp("models")).stdout


def test_models_lists_costs_and_published_scores(models_said):
    line = next(line for line in models_said.splitlines() if line.startswith("tokenpose_s_v1 "))
    assert "6,620,736" in line and "2.38" in line and "72.5" in line


def test_models_ends_with_the_networks_that_ship_and_what_they_found(models_said):
    "By the record in each folder: score, interval, people, data set."
    lines = models_said.split("networks that ship")[1].splitlines()
    for name, folder in shipped_networks().items():
        judged = json.loads((folder / "config.json").read_text())["judged"]
        rows = judged if isinstance(judged, list) else [judged]
        mine = [line for line in lines if line.split()[:1] == [name]]
        assert len(mine) == len(rows)
        for row, line in zip(rows, mine):
            found = row["scores"]["PCK@0.2 torso"]
            assert f"{found['mean']:.1f} ({found['interval'][0]:.1f} to" in line
            assert f"{found['people']} people of {row['data']} {row['split']}" in line


@pytest.mark.parametrize("command", ["predict", "eval", "export", "compare"])
def test_help_names_the_networks_that_ship(command):
    "Also one that is packed tomorrow: the names are read, not typed."
    said = "".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    assert said.split("networkthatships:")[1].split(",") == list(shipped_networks())


def test_wrong_words_are_answered_with_one_sentence(tmp_path):
    train = ["train", "tokenpose_nano", "--device", "cpu"]
    refused(dppt("train", "tokenpose_nan", cwd=tmp_path), "tokenpose_nano")
    refused(dppt(*train, "--data", "lspetx", "--root", tmp_path, cwd=tmp_path), "lspet")
    refused(
        dppt(*train, "--data", "lspet", "--root", tmp_path / "none.zip", cwd=tmp_path), "none.zip"
    )
    refused(dppt(*train, "--epochs", "many", cwd=tmp_path), "--epochs")
    refused(dppt(*train, "--out", "/proc/nowhere", cwd=tmp_path), "/proc/nowhere", "--out")
    refused(
        dppt(
            "data", "prepare", "lspet", "--root", tmp_path / "none.zip", "--out", "/proc/nowhere",
            cwd=tmp_path,
        )
    )
    refused(dppt("eval", tmp_path / "nothing", cwd=tmp_path), "nothing")


def test_a_store_is_what_it_says_and_is_cut_anew_when_the_data_change(tmp_path):
    import shutil

    from dppt_nb.keypoints import COCO17
    root, run = tmp_path / "coco", ["--device", "cpu", "--epochs", 1, *TINY]
    (root / "annotations").mkdir(parents=True)
    person = dict(
        id=1, image_id=1, category_id=1, iscrowd=0, area=3000.0, bbox=[5, 5, 50, 80],
        keypoints=[30, 40, 2] * 17,
    )
    content = dict(
        images=[dict(id=1, file_name="1.jpg", width=64, height=96)],
        annotations=[person],
        categories=[dict(id=1, name="person", keypoints=list(COCO17.names), skeleton=[])],
    )
    for i, part in enumerate(("train", "val"), 1):    # two people, as a data set has them
        someone = content | dict(
            images=[dict(content["images"][0], id=i, file_name=f"{i}.jpg")],
            annotations=[dict(person, id=i, image_id=i)],
        )
        (root / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(someone))
    for i in (1, 2): (root / f"{i}.jpg").write_bytes(grey_jpeg())
    done = dppt(
        "train", "tokenpose_nano", "--data", "coco", "--root", root, "--out", "a",
        *run,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "--split val" in done.stdout, done.stderr
    store = next((tmp_path / "cache").iterdir())
    refused(
        dppt(
            "train", "tokenpose_nano", "--data", "lspet", "--root", store, "--out", "b",
            *run,
            cwd=tmp_path,
        ),
        "coco",
        "lspet",
    )
    done = dppt("eval", "a", "--data", "coco", "--root", store, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0 and "no AP" in done.stdout, done.stderr
    shutil.copytree(store, tmp_path / "half")
    (tmp_path / "half" / "manifest.json").unlink()
    refused(
        dppt(
            "train", "tokenpose_nano", "--data", "coco", "--root", "half", "--out", "c",
            *run,
            cwd=tmp_path,
        ),
        "half",
    )
    person["keypoints"] = [1, 2]
    (root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    refused(
        dppt(
            "train", "tokenpose_nano", "--data", "coco", "--root", root, "--out", "d",
            *run,
            cwd=tmp_path,
        ),
        "person_keypoints_train2017.json",
    )


def test_values_are_refused_before_anything_is_made(tmp_path):
    for words in (
        ["--batch-size", 0], ["--image-size", "128"], ["--betas", "0.9"], ["--overrides", "[1]"],
        ["--seed", -1], ["--decode", "foo"],
    ):
        refused(
            dppt("train", "tokenpose_nano", "--out", "run", *words, cwd=tmp_path),
            words[0].removeprefix("--").replace("-", "_"),
        )
    refused(
        dppt(
            "data", "prepare", "lspet", "--root", tmp_path, "--out", "s", "--image-size", "0x0",
            cwd=tmp_path,
        ),
        "image_size",
    )
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_is_said_before_people_are_read(monkeypatch, tmp_path):
    "Cutting people out may take minutes: a missing teacher or run must not wait for that."
    from click.testing import CliRunner

    from dppt_nb import judged, runner
    from dppt_nb.cli import main
    def read(*words, **options): raise AssertionError("people were read")
    for module in (runner, judged): monkeypatch.setattr(module, "load_people", read)
    out = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    for words, sentence in (
        (["train", "tokenpose_nano", "--resume"], "holds no run to go on with"),
        (["train", "dppt_nano", "--teacher", "runs/gone"], "runs/gone"),
        (["train", "dppt_nano", "--teacher", "gone.pth", "--teacher-model", "tokenpose_nano"],
         "gone.pth"),
        (["train", "finetune_nano", "--start", "tokenpose_nan"], "tokenpose_nan"),
        (["train", "tokenpose_b_coco", "--backbone-weights", "gone.pth"], "gone.pth"),
        (["study", "dppt", "--rows", "dppt", "--teacher", "runs/gone"], "runs/gone"),
    ):
        done = CliRunner().invoke(main, [*words, *out])
        assert done.exit_code == 1 and sentence in done.output, done.output


def test_what_would_come_to_nothing_is_refused(tmp_path):
    root, run = str(tmp_path), str(tmp_path / "run")
    nano = ["train", "tokenpose_nano", "--people", "8", "--device", "cpu", "--out", run]
    Image.new("RGB", (9, 9)).save(tmp_path / "1.jpg")
    (tmp_path / "a.json").write_text(json.dumps(coco_file([], 1)))
    check = ["data", "check", "coco", "--root", root, "--annotations", "a.json"]
    for words, sentence in (
        ([*nano, "--root", root], "goes with a data set on disk; name that with --data"),
        (["eval", "tokenpose_nano", "--root", root, "--people", "8"], "name that with --data"),
        ([*nano, "--teacher", "tokenpose_nano"], "nothing in this recipe (tokenpose_nano) learns"),
        (["export", "tokenpose_nano", "--data", "coco"], "chooses the people of --int8; add that"),
        ([*check, "--images", "a.json"], "a file; name a folder or zip of pictures"),
    ):
        refused(dppt(*words, cwd=tmp_path), sentence)
    small = json.dumps(tiny_fixture.TINY)
    toy = ["--epochs", "1", "--image-size", "64x48", "--overrides", small]
    assert dppt(*nano, *toy, cwd=tmp_path).returncode == 0
    # a plan is refused where the run would be
    refused(dppt(*nano, *toy, "--plan", cwd=tmp_path), "already holds a run")
    longer = [*nano, *toy[2:], "--epochs", 3, "--resume", "--plan"]
    refused(dppt(*longer, cwd=tmp_path), "epochs = 1, not 3")


@pytest.mark.parametrize("words", [
    ["train", "tokenpose_nano"], ["eval", "tokenpose_nano_lspet"],
    ["study", "sdpose", "--rows", "tokenpose"],
])
def test_a_refused_command_leaves_no_folder(tmp_path, words):
    wrong = ["--data", "lspet", "--root", "nowhere", "--device", "cpu", "--out", "runs/one"]
    refused(dppt(*words, *wrong, cwd=tmp_path), "nowhere does not exist")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words, said", [
    (["train", "tokenpose_nano", "--from-epoch", "1"], "say --resume too"),
    (["train", "tokenpose_nano", "--allow-drift"], "say --resume too"),
    (["train", "tokenpose_nano", "--overrides", '{"image_size": [64, 48]}'], "without image_size"),
    (["train", "tokenpose_nano", "--overrides", '{"name": "mine"}'], "and (as model) name"),
    (["train", "tokenpose_nano", "--seed", "9" * 25], "seed is 999"),
    (["compare", "tokenpose_nano", "tokenpose_nano_lspet", "--out", "."], "name a file in it"),
    (["study", "keep", "--seeds", "\u00b2"], "is not a whole number"),
    (["study", "keep", "--rows", ","], "--rows (--only) is ','; name a row"),
    (["data", "prepare", "lspet", "--root", ".", "--out", "s", "--crop-size", "10x10"],
     "--crop-size: image_size is (10, 10)"),
    (["export", "tests", "--model", "ppt_s"], "there is no checkpoint tests"),
    (["export", ".", "--model", "ppt_s"], "is a folder, no checkpoint"),
    (["predict", "dppt_nano_lspet", "x.png", "--model", "tokenpose_b"],
     "belongs to checkpoints of the original releases, not to networks that ship"),
    (["predict", "dppt_nano_lspet", "x.png", "--graph", "--device", "cpu"],
     "Error: --graph needs a CUDA device; the network is on cpu."),
    (["train", "dppt_nano", "--teacher", "tokenpose_nano", "--teacher-model", "tokenpose_nano"],
     "belongs to checkpoints of the original releases, not to networks that ship"),
    (["train", "dppt_nano", "--data", "lspet", "--root", "nowhere"], "learns from a teacher"),
    (["train", "tokenpose_nano", "--people", str(10**12)], "more than this machine can hold"),
    (["eval", "tokenpose_nano", "--people", str(10**12)], "more than this machine can hold"),
    (["train", "tokenpose_nano", "--device", "meta"], "device 'meta' cannot be used here"),
])
def test_what_leads_nowhere_is_refused_before_the_work(tmp_path, words, said):
    refused(dppt(*words, cwd=tmp_path), said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("refused_as, said", [
    ("runner='onnxruntime' runs on the CPU; say device='cpu'",
     "Error: --runner onnxruntime runs on the CPU; say --device cpu"),
    ("batch_size is 0; 'a'='b'", "Error: batch_size is 0; 'a'='b'"),
])
def test_what_python_refuses_is_said_in_the_words_of_the_command(monkeypatch, refused_as, said):
    def from_pretrained(name, **options): raise DataError(refused_as)
    monkeypatch.setattr("dppt_nb.predictor.PosePredictor.from_pretrained", from_pretrained)
    done = CliRunner().invoke(main, ["predict", "tokenpose_nano", "x.png"])
    assert done.output.splitlines()[-1] == said and done.exit_code == 1


def test_a_recording_is_asked_for_by_a_word(monkeypatch, tmp_path):
    "As `graph=True` asks for it; without the word there is none."
    asked = []
    class Asked(Exception): pass
    def from_pretrained(name, **options):
        asked.append(options["graph"])
        raise Asked
    monkeypatch.setattr("dppt_nb.predictor.PosePredictor.from_pretrained", from_pretrained)
    for words in ([], ["--graph"]):
        CliRunner().invoke(main, ["predict", "tokenpose_nano", "x.png", *words])
    assert asked == [False, True]


# a field that is not read, what would read it, and what is said without that
IDLE = [
    ("--teacher-model tokenpose_s_v1", None, "is of a teacher"),
    ("--match even", None, "is of a teacher"),
    ("--temperature 2", None, "is of a teacher"),
    ("--one-way yes", None, "is of the lessons --keypoint-cycles and --patch-cycles"),
    ("--supervise last", "--overrides {\"cycles\":2}", "is of a network with several cycles"),
    ("--anneal 0.1,0.3", "--model ppt_nano", "is of a network that drops patches"),
    ("--anneal-steps 4", "--model ppt_nano --anneal 0.1,0.3", "goes with --anneal"),
    ("--milestones 1", "--schedule steps", "goes with --schedule steps"),
    ("--loss-factor 2", "--overrides {\"head\":\"mlp\"}", "is of a squared error"),
    ("--weight-decay 1", "--optimizer adamw", "is of --optimizer adamw"),
    ("--backbone-weights x.pth --start y", None,
     "is overwritten by the weights of the start"),
    ("--backbone-frozen 2", None, "is of a backbone that was trained before"),
    ("--backbone-lr 0.001", None, "is of a backbone that was trained before"),
    ("--half-body-joints 4", "--half-body 0.3", "goes with --half-body"),
    ("--shift-prob 0.5", "--shift 0.1", "goes with --shift"),
]

@pytest.fixture
def quick_plan(monkeypatch):
    "A plan whose steps are not trained to be timed, where it matters only that there is one."
    monkeypatch.setattr("dppt_nb.progress.time_steps", lambda loop, steps: [0.1] * steps)


def test_weight_decay_beside_muon_is_of_matrices_that_muon_leaves():
    "The head that points has a layer of two rows, which AdamW decays."
    typed = dict(weight_decay=0.1)
    with pytest.raises(DataError, match="fewer than 16 rows or columns, of which this network has"):
        refuse_idle_fields(get_recipe("tokenpose_nano", **typed), typed)
    points = get_recipe("tokenpose_nano", overrides={"head": "regression"}, **typed)
    refuse_idle_fields(points, typed)
    rates = [g["weight_decay"] for o in make_optimizers(create_model(
        points.model, image_size=points.image_size, **points.overrides), points)
        for g in o.param_groups if "weight_decay" in g]
    assert 0.1 in rates
    with pytest.raises(DataError, match="is of --optimizer adamw; take"):
        refuse_idle_fields(points.change(optimizer="adam"), typed)


@pytest.mark.parametrize("words, beside, said", IDLE)
def test_a_field_that_is_not_read_is_refused_and_taken_where_it_is(
    tmp_path, quick_plan, words, beside, said
):
    given = words.split()
    recipe = ["--shift", "0"] if given[0] == "--shift-prob" else []
    plan = ["train", "tokenpose_nano", "--people", "8", "--device", "cpu", "--plan"]
    refused(dppt(*plan, *recipe, *given, cwd=tmp_path), f"{given[0]} {said}")
    if beside is None: return
    done = dppt(*plan, *given, *beside.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_fields_that_other_fields_read_stand_off():
    from dppt_nb.options import refuse_idle_fields
    from dppt_nb.recipes import get_recipe
    for fields, said in (
        (dict(rotation=0, rotation_prob=0.5), "--rotation-prob goes with --rotation"),
        (dict(optimizer="adamw", matrix_lr=0.1), "--matrix-lr goes with --optimizer muon"),
        (dict(teacher="a", match="even", output=1.0), "--match is of the lessons"),
        (dict(teacher="a", features=1.0, temperature=2.0), "--temperature is of distributions"),
        (dict(teacher="a", output=1.0, overrides=dict(head="mlp"), temperature=2.0),
         "--temperature is of distributions"),
        (dict(overrides=dict(head="regression"), loss="mse"), "--loss is of heatmaps"),
        (dict(teacher="a", features=1.0, attention_loss="mse"), "--attention-loss is of the"),
    ):
        with pytest.raises(DataError, match=said):
            refuse_idle_fields(get_recipe("tokenpose_nano", **fields), fields)
        idle = said.split()[0].removeprefix("--").replace("-", "_")
        rest = {name: value for name, value in fields.items() if name != idle}
        refuse_idle_fields(get_recipe("tokenpose_nano", **rest), rest)
    # nothing given; and what `dppt eval` and `dppt predict` read later, whatever the training reads
    later = dict(anneal=(), decode="argmax", kernel=7, mirror=False, flip_shift=False)
    refuse_idle_fields(get_recipe("tokenpose_nano", **later), later)
    # a squared error that is not the pose loss
    for fields in (
        dict(overrides=dict(head="mlp"), loss="cross_entropy", output=1.0, teacher="a"),
        dict(overrides=dict(head="regression", cycles=2), heatmap_cycles=1.0),
    ): refuse_idle_fields(get_recipe("tokenpose_nano", **fields), dict(loss_factor=2.0))


def test_an_empty_place_is_refused_as_an_unset_variable_makes_it(tmp_path, quick_plan):
    for field in ("start", "teacher", "backbone-weights"):
        words = dppt("train", "tokenpose_nano", f"--{field}", "", cwd=tmp_path)
        refused(words, f"--{field} is empty; say what, none, or leave it out")
    plan = ["train", "finetune_nano", "--people", "8", "--device", "cpu", "--plan"]
    done = dppt(*plan, "--start", "none", cwd=tmp_path)
    assert done.returncode == 0 and "starting from" not in done.stdout, done.stderr
    for words in (["train", "tokenpose_nano", "--root="], ["predict", "", "a.jpg"]):
        done = dppt(*words, cwd=tmp_path)
        assert done.returncode == 2 and "it is empty; name a place" in done.stderr


def test_bad_files_are_answered_with_one_sentence(tmp_path):
    import scipy.io

    def lspet(name, joints, images=1, cut=None, mat=True):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            for i in range(1, images + 1):
                file.writestr(f"images/im{i:05d}.jpg", grey_jpeg()[:cut])
            buffer = io.BytesIO()
            scipy.io.savemat(buffer, {"joints": joints})
            if mat: file.writestr("joints.mat", buffer.getvalue())
        return dppt(
            "data", "prepare", "lspet", "--root", tmp_path / name, "--out",
            tmp_path / f"store-{name}", cwd=tmp_path,
        )

    joints = np.zeros((14, 3, 1))
    joints[:, 0, 0] = np.linspace(10, 50, 14)
    joints[:, 1, 0] = np.linspace(10, 80, 14)
    joints[:, 2] = 1
    refused(lspet("nomat.zip", joints, mat=False), "nomat.zip", "joints.mat")
    refused(lspet("cut.zip", joints, cut=200), "im00001.jpg")
    refused(lspet("short.zip", joints[:13]), "joints")
    refused(lspet("missing.zip", np.repeat(joints, 2, 2)), "im00002.jpg")
    broken = joints.copy()
    broken[3, 0] = np.nan
    refused(lspet("nan.zip", broken), "NaN")


def test_a_shipped_network_is_judged_twice(tmp_path):
    "Its results neither go into the package nor hide it from the second time."
    words = ["eval", "tokenpose_nano", "--people", 16, "--device", "cpu", "--no-mirror"]
    said = [dppt(*words, cwd=tmp_path) for _ in range(2)]
    assert [done.returncode for done in said] == [0, 0], said[1].stderr
    assert said[0].stdout == said[1].stdout
    results = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("results.json")]
    assert results == ["results/tokenpose_nano-synthetic/results.json"]


def test_a_released_checkpoint_is_judged_by_the_name_of_its_model(tmp_path):
    import torch

    from dppt_nb import create_model
    torch.manual_seed(0)
    state = create_model("tokenpose_s_v1").state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "x.pth")
    words = ["eval", "x.pth", "--people", 8, "--device", "cpu", "--no-mirror"]
    refused(dppt(*words, cwd=tmp_path), "x.pth", "--model")
    refused(dppt(*words, "--model", "tokenpose_s", cwd=tmp_path), "tokenpose_s_v2")
    refused(dppt(*words, "--model", "ppt_b", cwd=tmp_path), "x.pth", "does not fit ppt_b")
    done = dppt(*words, "--model", "tokenpose_s_v1", cwd=tmp_path)
    assert done.returncode == 0 and "95 % interval" in done.stdout, done.stderr
    assert (tmp_path / "results" / "x-synthetic" / "results.json").is_file()
    teach = ["train", "dppt_nano", "--teacher", "x.pth", "--people", 8, "--device", "cpu"]
    refused(dppt(*teach, cwd=tmp_path), "x.pth", "--teacher-model")


@pytest.mark.parametrize("error", [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    Exception("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"),
], ids=lambda error: type(error).__name__)
def test_too_little_memory_is_no_mistake_of_ours(error):
    assert "mistake" not in terminal.sentence(error)
    assert "--batch-size" in terminal.sentence(error)
    assert "mistake" in terminal.sentence(RuntimeError("an operator failed"))


def test_file_names_do_not_move_the_cursor(tmp_path):
    done = dppt("eval", "a\x1b[31mred\rb", cwd=tmp_path)
    refused(done, "red")
    assert "\x1b" not in done.stderr and "\r" not in done.stderr and "x1b[31mred" in done.stderr


def shell(line, cwd):
    "A line of bash in which `dppt` is the command; a failure within a pipe counts."
    command = f"{sys.executable} -c 'from dppt_nb.cli import main; main(prog_name=\"dppt\")'"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"dppt() {{ {command} \"$@\"; }}; {line}"],
        capture_output=True, text=True, cwd=cwd,
        env=environment(cwd),
    )


def test_a_reader_that_leaves_is_no_error(tmp_path):
    done = shell("dppt models | head -n 1", tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("model ")
    done = shell("dppt models | true; dppt --help | true", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
@pytest.mark.parametrize("words", sample(["--help", "--version", "train --help", "models"], 0, 3))
def test_words_that_a_full_disk_does_not_take_are_one_sentence(tmp_path, words):
    done = shell(f"dppt {words} > /dev/full", tmp_path)
    refused(done, "what the command says cannot be written", "No space left")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_words_that_wait_until_the_end_are_missed_too(tmp_path):
    program = (
        "from dppt_nb.terminal import Sentence\n"
        "Sentence('say', callback=lambda: print('words')).main([])"
    )
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{program}" > /dev/full'], capture_output=True,
        text=True, env=environment(tmp_path) | {"PYTHONUNBUFFERED": ""},
    )
    refused(done, "what the command says cannot be written")


def test_the_version_is_known_where_the_package_is_not_installed():
    "From a clone by `python -m dppt_nb`; the number is that of the code, not of another copy."
    code = (
        "import importlib.metadata as m\n"
        "def nothing(name): raise m.PackageNotFoundError(name)\n"
        "m.version = nothing\n"
        "from dppt_nb.cli import main; main(['--version'], prog_name='dppt')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"dppt, version {__version__}\n"), done.stderr


@pytest.mark.parametrize("signal, code, word", [
    ("INT", 130, "Ctrl-C"), ("TERM", 143, "SIGTERM"), ("HUP", 129, "SIGHUP"),
])
def test_a_stop_by_hand_is_a_sentence_and_a_code(tmp_path, signal, code, word):
    program = (
        "import time, click; from dppt_nb.cli import Sentences\n"
        "def wait(): click.echo('ready'); time.sleep(60)\n"
        "Sentences(commands=[click.Command('wait', callback=wait)]).main(['wait'])"
    )
    by_hand = signals.SIGINT, signals.SIGHUP
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(tmp_path), cwd=tmp_path,
        # a test run that was itself sent to the background hands on what is ignored
        preexec_fn=lambda: [signals.signal(number, signals.SIG_DFL) for number in by_hand],
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signals, f"SIG{signal}"))
    said = process.communicate(timeout=600)[1]
    assert process.returncode == code and said == f"stopped by {word}\n"


@pytest.mark.skipif(not hasattr(signals, "SIGHUP"), reason="signals of POSIX systems")
def test_nohup_is_respected():
    before = signals.signal(signals.SIGHUP, signals.SIG_IGN)
    try:
        with termination() as came: os.kill(os.getpid(), signals.SIGHUP)
        assert came == [] and signals.getsignal(signals.SIGHUP) is signals.SIG_IGN
    finally: signals.signal(signals.SIGHUP, before)


def test_every_option_of_a_recipe_says_what_it_is():
    from dppt_nb.cli import recipe_options
    silent = [option.name for option in recipe_options() if not option.help]
    assert not silent


def test_a_shipped_command_keeps_its_protocol(root):
    sys.path.insert(0, str(root / "tools"))
    try: packer = importlib.import_module("pack_network")
    finally: sys.path.pop(0)
    from dppt_nb.recipes import get_recipe
    recipe = packer.recipe_of("dppt train sdpose_nano --protocol mmpose --epochs 3 --sigma 1.5")
    assert recipe == get_recipe("sdpose_nano", protocol="mmpose", epochs=3, sigma=1.5)
    assert recipe != get_recipe("sdpose_nano", epochs=3, sigma=1.5)


def test_a_stop_while_the_command_is_being_loaded_is_one_sentence():
    "As if Ctrl-C came while `dppt_nb.cli` is imported."
    code = (
        "import sys, signal, os\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"    # ignored in the background
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'dppt_nb.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from dppt_nb.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (130, "stopped by Ctrl-C"), done.stderr


def test_people_who_went_away_while_a_network_was_trained_cost_nothing(monkeypatch):
    from click.testing import CliRunner
    def gone(*given, **options): raise DataError("photos does not exist")
    monkeypatch.setattr("dppt_nb.runner.train_recipe", lambda *given, **options: dict(scores={}))
    monkeypatch.setattr("dppt_nb.store.known_splits", gone)
    words = ["train", "tokenpose_nano", "--data", "coco", "--root", "photos", "--out", "run"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "The network is in run" in done.output
    assert "photos does not exist" in done.output


@pytest.mark.parametrize("given, set_to", [
    ({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
])
def test_threads_wait_briefly_for_each_other(given, set_to):
    "Set before PyTorch is loaded, which reads it then; what somebody has set stays."
    words = (
        "import os, sys; from dppt_nb.__main__ import main, wait_briefly\n"
        "wait_briefly(); assert 'torch' not in sys.modules\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    told = subprocess.run(
        [sys.executable, "-c", words], env=kept | given, text=True, capture_output=True, check=True
    )
    assert told.stdout.strip() == str(set_to)

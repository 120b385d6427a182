"""Our networks beside those of others, on the same people and on the same processor: writes
nbs/results/peers.json.

    python tools/peers.py accuracy dppt_s_lspet --data lspet --root lspet_dataset.zip \\
        --calibrate lspet lspet_dataset.zip --blazepose VENV/bin/python
    python tools/peers.py timing dppt_s_lspet
    python tools/peers.py released PPT

`accuracy --detected` judges ours in the boxes of MediaPipe's person detector too (ai-edge-litert,
and mediapipe==0.10.21 without its dependencies). BlazePose needs an environment of its own, with
mediapipe==0.10.21. ViTPose-B (transformers) and
YOLO11n-pose (ultralytics) are timed where these packages are installed, with drawn weights. The
last line wants a clone of github.com/HowieMa/PPT, and einops."""
import importlib.util
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median

import click
import numpy as np
import torch
from judging import TWELVE, best_joints

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError, refuse_idle
from dppt_nb.costs import time_interleaved
from dppt_nb.crops import PADDING, PIXEL_STD
from dppt_nb.detectors import MediaPipeDetector
from dppt_nb.evaluation import answer_in_terms_of, device_name, predict_joints
from dppt_nb.export import OnnxNetwork, export_onnx, quantise_onnx, read_session
from dppt_nb.files import read_json, write_json
from dppt_nb.forms import make_form
from dppt_nb.judged import stored_score
from dppt_nb.metrics import pck
from dppt_nb.models import create_model
from dppt_nb.optim import compute_name, has_bf16, precision
from dppt_nb.predictor import PosePredictor
from dppt_nb.released import load_released
from dppt_nb.store import known_splits, load_people
from dppt_nb.terminal import Place, Sentences

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "peers.json"
# BlazePose's numbers of the twelve joints that all sets have
LANDMARKS = dict(zip(TWELVE, (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)))


NOBODY = "no network is named; name one that ships, such as dppt_s_lspet, or a run's folder"
BLAZEPOSE, ITS_WAY = "BlazePose full", "MediaPipe 0.10.21, with its detector"
LEAST_SCORE = 0.1  # of a box, as BlazePose is asked in tools/blazepose.py
# from which score boxes count, and when the whole picture is taken
WAYS = (LEAST_SCORE, "never"), (0.5, "never"), (0.5, "else"), (0.5, "only")
WHOLE = ", the whole picture where it finds nobody"


def people_of(data, root, split, image_size):
    "The people of a split. `DataError` names the others: no option here says whose a file is."
    splits = known_splits(data, root, image_size)
    if split not in (*splits, "all"):
        raise DataError(
            f"{root} has nobody in split {split!r}; name another with --split: "
            f"{', '.join(splits)} or all"
        )
    return load_people(data, root, (split,), image_size)[split]


def score(joints, crops):
    """PCK@0.2 of the torso over the twelve joints, and who was hit, in one order for every set; a
    joint that was not found is a miss."""
    names = crops.keypoint_set.names
    counts = torch.tensor([name in LANDMARKS for name in names])
    visible = crops.visible * counts.to(crops.visible)
    joints = torch.as_tensor(joints).float().nan_to_num(-1e6)
    result = pck(joints, crops.photo_joints, visible, crops.keypoint_set)
    columns = [names.index(name) for name in LANDMARKS]
    twelve = {part: result[part][:, columns] for part in ("hits", "counts")}
    return dict(
        **stored_score(result | twelve, crops), people=int(result["n"]),
        left_out=int(result["left_out"]),
    )


def ranges_of(calibrate, image_size):
    "The people whose ranges the 8 bits take."
    data, root = calibrate
    people = 100 if data == "synthetic" else None
    return load_people(data, root, ("val",), image_size, False, people)["val"]


def ways_of(name, folder, calibrate):
    "A network of ours in PyTorch, onnxruntime and 8 bits; its recipe and keypoints."
    eight = "ONNX int8" if calibrate[1] else "ONNX int8, ranges from made people"
    network, recipe, found = load_network(name)
    crops = ranges_of(calibrate, network.image_size)
    plain = export_onnx(network, found, folder / "plain.onnx")
    small = OnnxNetwork(quantise_onnx(plain, folder / "int8.onnx", crops))
    ways = {"PyTorch": network, "ONNX float32": OnnxNetwork(plain), eight: small}
    return ways, recipe, found


def score_ours(name, crops, calibrate):
    "Rows of one network: one pass, without the mirrored picture, in each person's own box."
    with tempfile.TemporaryDirectory() as folder:
        ways, recipe, found = ways_of(name, Path(folder), calibrate)
    rows = []
    for way in [way for way in ways if way != "ONNX float32"]:    # whose answers are PyTorch's
        once = recipe.change(mirror=False)
        joints, _ = predict_joints(ways[way], crops, once, 32, keypoint_set=found)
        joints, people = answer_in_terms_of(crops, joints, found)
        rows.append(dict(network=Path(name).name, way=way, **score(joints, people)))
    return rows


def in_photos(joints, crops):
    "Joints (N, J, 2) from pixels of the stored pictures to pixels of the photographs."
    linear, shift = crops.affine[..., :2], crops.affine[:, None, :, 2]
    return (joints - shift) @ torch.linalg.inv(linear).mT


def look(name, crops, refine, least_score, whole):
    """Of each stored picture what a network finds with MediaPipe's detector; seconds of each.
    `whole` is "never", "else" where the detector finds nobody, or "only" without a detector."""
    finds = {} if whole == "only" else dict(
        detector=MediaPipeDetector(least_score=least_score, threads=1), or_whole=whole == "else"
    )
    predictor = PosePredictor.from_pretrained(name, "cpu", refine=refine, **finds)
    answers, seconds = [], []
    for picture in crops.images.permute(0, 2, 3, 1).numpy():
        start = time.process_time()
        answers.append(predictor(picture))
        seconds.append(time.process_time() - start)
    return predictor, answers, seconds


def way_of(refine, least_score, whole):
    "How a row without given boxes is called."
    looks = "two looks" if refine else "one look"
    if whole == "only": return f"PyTorch, the whole picture, {looks}"
    surer = f", boxes from a score of {least_score}" if least_score > LEAST_SCORE else ""
    return f"PyTorch, MediaPipe's detector, {looks}{surer}{WHOLE * (whole == 'else')}"


def score_detected(name, crops, *how):
    "One network in the same pictures, in the best box of MediaPipe's detector or in the whole."
    predictor, answers, seconds = look(name, crops, *how)
    found = predictor.keypoint_set
    joints = torch.as_tensor(np.stack([best_joints(people) for people in answers]))
    joints, judges = answer_in_terms_of(crops, in_photos(joints, crops), found)
    return dict(
        network=Path(name).name, way=way_of(*how),
        found_nobody=sum(len(people) == 0 for people in answers), least_score=how[1],
        processor_ms=1000 * median(seconds), **score(joints, judges),
    )


def time_pictures(name, crops, *how):
    "What a picture takes whose boxes are not given, and how many there are in it."
    predictor, answers, seconds = look(name, crops, *how)
    return dict(
        network=Path(name).name, way=way_of(*how),
        processor_ms=1000 * median(seconds), mean_ms=1000 * mean(seconds),
        boxes=mean(len(people) for people in answers),
        compute=compute_name(predictor.recipe, predictor.device),
    )


def check_blazepose(python):
    "Refuse a Python without mediapipe before anything is judged; `DataError`."
    try: done = subprocess.run([python, "-c", "import mediapipe"], capture_output=True)
    except OSError as error:
        raise DataError(f"--blazepose {python} does not run ({error.strerror})") from None
    if done.returncode:
        raise DataError(
            f"--blazepose {python} cannot import mediapipe; install it there: pip install "
            "mediapipe==0.10.21, in an environment of its own, since it needs an older numpy"
        )


def ask_blazepose(python, crops):
    "BlazePose's joints (N, 33, 3) in stored pictures, its own detector at work; seconds of each."
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "pictures.npy"), Path(folder, "found.npz")
        np.save(given, crops.images.permute(0, 2, 3, 1).numpy())
        program = ROOT / "tools" / "blazepose.py"
        if subprocess.run([python, program, given, found]).returncode:
            raise DataError(f"BlazePose ended early in {python}; what it said stands above")
        answer = np.load(found)
        return torch.from_numpy(answer["joints"]).float(), answer["seconds"]


def score_blazepose(python, crops):
    "BlazePose on the same people, in a picture of 1.5 times their window."
    points, seconds = ask_blazepose(python, crops)
    joints = torch.full((len(crops), len(crops.keypoint_set), 2), torch.nan)
    for place, name in enumerate(crops.keypoint_set.names):
        if name in LANDMARKS: joints[:, place] = points[:, LANDMARKS[name], :2]
    joints = in_photos(joints, crops)
    nobody = int(points[:, 0, 0].isnan().sum())
    return dict(
        network=BLAZEPOSE, way=ITS_WAY, found_nobody=nobody,
        processor_ms=1000 * float(np.median(seconds)), **score(joints, crops),
    )


def known():
    "The conditions that the rows share."
    def plain(word):
        if word.endswith("bin/python"): return "VENV/bin/python"
        return Path(word).name if "/" in word else word
    words = map(plain, sys.argv[1:])
    return dict(
        command=" ".join(["python tools/peers.py", *words]), device=device_name("cpu"),
        instructions=torch.backends.cpu.get_cpu_capability(),    # "AVX2", "AVX512"
        threads=torch.get_num_threads(), torch=torch.__version__,
        onnxruntime=version("onnxruntime"), python=platform.python_version(),
    )


def keep(part, conditions, rows):
    "Rows of the same network and way are replaced, the others stay."
    results = read_json(RESULTS) if RESULTS.exists() else {"format": 1}
    new = {(row["network"], row["way"]) for row in rows}
    others = [row for row in results.get(part, []) if (row["network"], row["way"]) not in new]
    rows = [row | {"conditions": conditions} for row in rows]
    write_json(RESULTS, results | {part: others + rows})


def keep_judged(kind, rows, data, split, crops, calibrate):
    "Rows of networks that were judged, with who judged them and whose ranges the 8 bits took."
    told = f"{calibrate[0]}, val" if calibrate[1] else "made by program"
    more = dict(data=data, split=split, people=len(crops), calibrated_on=told)
    keep(f"{kind} {data} {split}", known() | more, rows)


@click.group(cls=Sentences)
def main():
    "Our networks beside those of others."


calibrate_option = click.option(
    "--calibrate", nargs=2, default=("synthetic", ""), metavar="DATA ROOT",
    help="people whose ranges the 8 bits take (their val split); made by program unless given",
)


split_option = click.option(
    "--split", type=click.Choice(["train", "val", "test", "all"]), default="test",
    show_default=True,
)


@main.command()
@click.argument("networks", nargs=-1)
@click.option("--data", required=True)
@click.option("--root", type=Place(), required=True)
@split_option
@click.option("--blazepose", type=Place(), help="python of an environment with mediapipe")
@click.option("--detected", is_flag=True, help="judge in the boxes of MediaPipe's detector alone")
@click.option(
    "--least-score", type=float,
    help=f"of --detected: boxes below it are left out; {LEAST_SCORE} unless given",
)
@click.option(
    "--whole", type=click.Choice(["never", "else", "only"]), default="never", show_default=True,
    help="of --detected: take the whole picture where nobody is found, or always",
)
@calibrate_option
def accuracy(networks, data, root, split, blazepose, detected, least_score, whole, calibrate):
    "PCK@0.2 of the torso over twelve joints, on people of a data set."
    if not (networks or blazepose): raise DataError(NOBODY)
    why = "goes with --detected and a network; name both, or leave it out"
    if not (detected and networks):
        refuse_idle({"least-score": least_score, "whole": whole != "never"}, why)
    least_score = LEAST_SCORE if least_score is None else least_score
    if blazepose: check_blazepose(blazepose)
    torch.set_num_threads(1)
    people = partial(people_of, data, root, split)
    rows, crops = [], people((256, 192))
    for name in networks:
        if detected:
            how = least_score, whole
            rows += [score_detected(name, crops, refine, *how) for refine in (False, True)]
        else: rows += score_ours(name, people(load_network(name)[0].image_size), calibrate)
    if blazepose: rows.append(score_blazepose(blazepose, crops))
    for row in rows: print(f"{row['network']}, {row['way']}: {row['score']:.1f} {row['interval']}")
    keep_judged("accuracy", rows, data, split, crops, calibrate)


def boxes_in(crops):
    "Each person's box (N, 4), x, y, w, h in pixels of the stored picture, without padding."
    sides = PIXEL_STD * crops.scales / PADDING
    corners = torch.stack([crops.centers - sides / 2, crops.centers + sides / 2], 1)   # (N, 2, 2)
    linear, shift = crops.affine[..., :2], crops.affine[:, None, :, 2]
    low, high = (corners @ linear.mT + shift).unbind(1)
    return torch.cat([low, high - low], 1)


def files_of(network, found, folder, crops):
    "A network as files that take a photo and boxes, by the words of their rows."
    write = partial(export_onnx, network, found, form="keypoints")
    plain = write(folder / "plain.onnx")
    return {
        "float32": plain, "float16": write(folder / "half.onnx", half=True),
        "int8": quantise_onnx(plain, folder / "int8.onnx", crops),
    }


def score_files(name, crops, calibrate):
    """One network as files of the form `keypoints`, beside the same in PyTorch: the stored picture
    is the photo, and one person's box is given with each."""
    network, _, found = load_network(name)
    ranges = ranges_of(calibrate, network.image_size)
    boxes, rows = boxes_in(crops), []
    module = make_form(network, "keypoints")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        calls = {"PyTorch": lambda photo, box: module(torch.from_numpy(photo), box)[0].numpy()}
        for words, path in files_of(network, found, Path(folder), ranges).items():
            session, _ = read_session(path)
            calls[f"ONNX {words}"] = lambda photo, box, session=session: session.run(
                None, {"photo": photo, "boxes": box.numpy()}
            )[0]
        for way, call in calls.items():
            joints, seconds = [], []
            for person, picture in enumerate(crops.images):
                photo = picture.permute(1, 2, 0).contiguous().numpy()
                start = time.process_time()
                joints.append(torch.as_tensor(call(photo, boxes[person:person + 1])))
                seconds.append(time.process_time() - start)
            joints, judges = answer_in_terms_of(crops, in_photos(torch.cat(joints), crops), found)
            rows.append(dict(
                network=Path(name).name, way=f"{way}, photo and box in",
                processor_ms=1000 * median(seconds), **score(joints, judges),
            ))
    return rows


@main.command()
@click.argument("networks", nargs=-1)
@click.option("--data", required=True)
@click.option("--root", type=Place(), required=True)
@split_option
@calibrate_option
def files(networks, data, root, split, calibrate):
    "The same of files that take a photo and boxes (`dppt export --form keypoints`)."
    if not networks: raise DataError(NOBODY)
    torch.set_num_threads(1)
    crops, rows = people_of(data, root, split, (256, 192)), []
    for name in networks: rows += score_files(name, crops, calibrate)
    for row in rows:
        print(f"{row['network']}, {row['way']}: {row['score']:.1f}, {row['processor_ms']:.1f} ms")
    keep_judged("files", rows, data, split, crops, calibrate)


CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def in_bf16(network, recipe):
    "The network as `PosePredictor` runs it where the processor multiplies bf16."
    recipe = recipe.change(precision="bf16")
    def run(images):
        with precision(recipe, images.device): return network(images)
    return run


def others():
    "Networks of others with drawn weights, where their packages are: name and way -> call."
    ways = {}
    if find_spec("transformers"):
        from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation
        backbone = VitPoseBackboneConfig(out_indices=[12])
        config = VitPoseConfig(backbone_config=backbone, num_labels=17)
        network = VitPoseForPoseEstimation(config).eval()
        ways["ViTPose-B", "PyTorch"] = partial(network, torch.zeros(1, 3, 256, 192))
    if find_spec("ultralytics") and find_spec("torchvision"):
        from ultralytics.nn.tasks import PoseModel
        network = PoseModel("yolo11n-pose.yaml", verbose=False).eval().fuse(verbose=False)
        photo = torch.zeros(1, 3, 640, 640)
        ways["YOLO11n-pose", "PyTorch, a photo of 640 x 640"] = partial(network, photo)
    return ways


@main.command()
@click.argument("networks", nargs=-1)
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="rounds")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--label", help="of another machine, whose rows are to stand apart")
@calibrate_option
def timing(networks, repeats, threads, label, calibrate):
    """Milliseconds for one person: of one thread processor time, all in turn; of several threads
    the time that passes, one after the other, since threads of one library that wait for work slow
    those of another."""
    torch.set_num_threads(threads)
    ways, clock = {}, "processor" if threads == 1 else "wall"
    for name in networks:
        with tempfile.TemporaryDirectory() as folder:
            runners, recipe, _ = ways_of(name, Path(folder), calibrate)
        image = torch.zeros(1, 3, *runners["PyTorch"].image_size)
        if has_bf16("cpu"): runners["PyTorch, bf16"] = in_bf16(runners["PyTorch"], recipe)
        ways |= {(Path(name).name, way): partial(run, image) for way, run in runners.items()}
    ways |= others()
    if not ways: raise DataError(NOBODY)
    groups = [ways] if threads == 1 else [{name: run} for name, run in ways.items()]
    took = {}
    with torch.inference_mode():
        for group in groups: took |= time_interleaved(group, repeats, clock=CLOCKS[clock])
    first = next(iter(took.values()))
    rows = [
        dict(network=name, way=way, milliseconds=1000 * median(seconds),
             to_first=median(a / b for a, b in zip(seconds, first)),
             first_milliseconds=1000 * median(first))
        for (name, way), seconds in took.items()
    ]
    for row in rows: print(row)
    conditions = known() | dict(rounds=repeats, clock=clock)
    more = [f"{threads} threads"] * (threads > 1) + [label] * bool(label)
    keep(", ".join([f"timing {conditions['instructions']}", *more]), conditions, rows)


@main.command()
@click.argument("networks", nargs=-1)
@click.option("--data", required=True)
@click.option("--root", type=Place(), required=True)
@split_option
@click.option("--people", type=click.IntRange(1), default=200, show_default=True, help="the first")
@click.option("--blazepose", type=Place(), help="python of an environment with mediapipe")
def pictures(networks, data, root, split, people, blazepose):
    "Milliseconds of one thread's processor time for a picture in which people have to be found."
    if not (networks or blazepose): raise DataError(NOBODY)
    if blazepose: check_blazepose(blazepose)
    torch.set_num_threads(1)
    crops = people_of(data, root, split, (256, 192))
    crops = crops.select(torch.arange(min(people, len(crops))))
    rows = [
        time_pictures(name, crops, refine, *how) for name in networks
        for how in WAYS for refine in (False, True)
    ]
    if blazepose:
        seconds = ask_blazepose(blazepose, crops)[1]
        rows.append(dict(
            network=BLAZEPOSE, way=ITS_WAY, processor_ms=1000 * float(np.median(seconds)),
            mean_ms=1000 * float(np.mean(seconds)),
        ))
    for row in rows: print(row)
    keep(f"pictures {data} {split}", known() | dict(people=len(crops)), rows)


def released_ppt(folder):
    "PPT-S by its authors' own code, with weights as their code draws them."
    file = Path(folder, "single-view-PPT", "lib", "models", "tokenpose_base.py")
    if not file.is_file():
        raise click.ClickException(f"{file} is not there; FOLDER is a clone of HowieMa/PPT")
    # of timm the file wants one function, which PyTorch has too; timm no longer has it there
    for name in ("timm", "timm.models", "timm.models.layers", "timm.models.layers.weight_init"):
        sys.modules[name] = torch.nn.init
    spec = importlib.util.spec_from_file_location("released_ppt", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # experiments/coco/ppt/ppt_s_v1_256_192_patch43_dim192_depth12_heads8.yaml
    return module.TokenPose_S_base(
        image_size=[256, 192], patch_size=[4, 3], num_keypoints=17, dim=192, depth=12, heads=8,
        mlp_dim=576, channels=256, hidden_heatmap_dim=384, heatmap_dim=3072, heatmap_size=[64, 48],
        pos_embedding_type="sine-full",
    ).eval()


def with_the_same_weights(theirs):
    "Our PPT-S, read from the other network's weights as from a released file."
    state = {f"features.{name}": value for name, value in theirs.state_dict().items()}
    return load_released(create_model("ppt_s"), state).eval()


@main.command()
@click.argument("folder", type=Place())
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="rounds")
def released(folder, repeats):
    "Our PPT-S beside that of its authors, the same weights, in turns."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs = released_ppt(folder)
    ours, rows = with_the_same_weights(theirs), []
    for batch in (1, 16):
        images = torch.randn(batch, 3, 256, 192)
        ways = {"ours": partial(ours, images), "the released code": partial(theirs, images)}
        with torch.inference_mode():
            apart = float((ways["ours"]() - ways["the released code"]()).abs().max())
            took = time_interleaved(ways, repeats, clock=time.process_time)
        assert apart < 1e-4, f"the two networks' heatmaps are {apart:.1e} apart"
        rows += [
            dict(
                network="PPT-S", way=f"{way}, batch {batch}", apart=apart,
                milliseconds=1000 * median(seconds) / batch,
                to_ours=median(a / b for a, b in zip(seconds, took["ours"])),
            ) for way, seconds in took.items()
        ]
    for row in rows: print(row)
    keep("released", known() | dict(rounds=repeats, clock="processor"), rows)


if __name__ == "__main__": main()

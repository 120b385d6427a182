"""Pack a trained network into dppt_nb/weights, so that it travels with the package, with what has
to be known about it and how well the packed network finds people that it never saw.

    python tools/pack_network.py run RUN NAME "dppt train tokenpose_nano ..." [DATA=ROOT ...]
    python tools/pack_network.py card FOLDER NAME CARD.json [DATA=ROOT ...] [--into FOLDER]

`run` takes a finished run on people made by program, which the command that is named repeats, and
rounds its weights to half precision. `card` takes any trained network: its weights become whole
numbers of one byte (see `shrink_weights`), and CARD.json says how it was trained. Each DATA=ROOT is
a data set whose test people (or, where there is no such split, all people) it is judged on. With
`--into` it does not travel with the package, but lies in that folder.
"""
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from dppt_nb import cli
from dppt_nb.checkpoints import load_network, save_network, shrink_weights, write_about
from dppt_nb.checks import DataError
from dppt_nb.evaluation import evaluate_checkpoint
from dppt_nb.files import read_json
from dppt_nb.locks import write_whole
from dppt_nb.models import macs
from dppt_nb.recipes import get_recipe, recipe_fields
from dppt_nb.store import known_splits
from dppt_nb.terminal import Sentences

WEIGHTS = Path(__file__).resolve().parent.parent / "dppt_nb" / "weights"

CARD = """# {name}

{words}

| | |
|---|---|
| finds | {joints} joints: {names} |
| takes | a person's window, {height} x {width} pixels, cut by its box as `dppt_nb.crops` does |
| costs | {gmacs:.2f} billion multiply-accumulates a person, {numbers:.1f} million numbers |
| trained on | {data} |
| how | {how} |
| weights | {weights}; float32 when loaded |

## How well it does

With the mirrored test and DARK decoding; people whose torso (or head) is not labelled are left out.

{scores}

## Meant for

Learning, teaching and comparing; finding the joints of one person in a box. Not for deciding about
people: it says where joints seem to be, and nothing of who somebody is or what they do.

## Who is under-represented, and limits

{limits}

## Terms

The weights come under the licence of this project, Apache-2.0. {terms}
"""
BYTES = "whole numbers of one byte with a scale for each output channel"
OF_OTHERS = """They were trained on photographs that belong to
others, whose terms apply to the photographs: """
SYNTHETIC = dict(
    data="people made by program (`dppt_nb.synthetic`), {people:,} of them; no photograph",
    limits="""It has never seen a photograph, and {found}.
The people that it learned from are made of simple parts in front of drawn backgrounds, one large in
each picture, often with up to three others, and with boards, bars or balls before or behind them.
About one in eight is a child, and much stouter people than the average are rare. Never drawn were
babies, marks of old age, missing limbs, wheelchairs, crutches, long coats, dresses, headscarves,
furniture other than a stool, vehicles, and everyday scenes. How well it does by age, build or skin
colour was not measured. It needs a box.""",
    terms="It learned from no photograph, so no terms of others apply.",
)

CALLED = {"lspet": "athletes (LSPET)", "coco": "everyday people (COCO)"}
MEASURE = "PCK@0.2 torso"
CARD_PARTS = ("words", "data", "data_words", "trained", "limits", "terms")

def judge(folder, data="synthetic", root=None, people=None):
    "Scores of the packed network on people it never saw, and their conditions."
    size = load_network(folder)[0].image_size
    split = "test" if "test" in known_splits(data, root, size) else "all"
    with tempfile.TemporaryDirectory() as out:
        found = evaluate_checkpoint(folder, data, root, split, out, "cpu", False, people)
    names = ("data", "split", "people", "people_digest", "mirror", "decode")
    # shares of joints first; AP is there where all of COCO's joints are known
    scores = dict(sorted(found["scores"].items(), key=lambda score: score[0] == "AP"))
    return {name: found["conditions"][name] for name in names} | {"scores": scores}


def seen_on_photos(judged):
    "How a network that learned from drawn people does on real ones, to end a sentence with."
    told = []
    for row in judged:
        if row["data"] == "synthetic" or MEASURE not in row["scores"]: continue
        shares = row["scores"][MEASURE]["joints"].values()
        joints = sum(share is not None for share in shares)
        told.append(f"{joints} joints of {CALLED.get(row['data'], row['data'])}")
    if not told: return "it was not measured on real people"
    return f"finds far less on real people than on drawn\nones (judged on {' and '.join(told)})"


def photos_behind(data, recipe):
    """How a network that learned from people of `data` by a recipe may know photographs, in words;
    empty where it cannot."""
    if data != "synthetic": return f"it learned from people of {data}"
    if recipe.backbone_weights and not recipe.start: return "its backbone was trained before"
    for field, how in (("start", "it began with"), ("teacher", "it was taught by")):
        if not (source := getattr(recipe, field)): continue
        if field == "teacher" and recipe.teacher_model: return f"{how} a released network"
        network, earlier, _ = load_network(source)
        if photos_behind(network.about.get("data"), earlier): return f"{how} {source}"
    return ""


def score_lines(judged):
    "The table of scores."
    lines = ["| data | people | measure | % | 95 %, people |", "|---|---|---|---|---|"]
    for row in judged:
        for name, score in row["scores"].items():
            if not score.get("interval"): continue
            low, high = score["interval"]
            lines.append(
                f"| {row['data']}, {row['split']} | {score.get('people', row['people'])} | {name} "
                f"| {score['mean']:.1f} | {low:.1f} to {high:.1f} |"
            )
    return "\n".join(lines)


@contextmanager
def packing(name, replace, into=WEIGHTS):
    """A folder to pack into, which becomes `name` when it is whole; of a packing that was cut short
    nothing is left but a folder that ends in .tmp."""
    target, partial = into / name, into / f"{name}.tmp"
    if target.exists() and not replace: sys.exit(f"{target} is there already; add --replace")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(target, f"{sum(f.stat().st_size for f in target.iterdir()) / 1e6:.2f} MB")


def recipe_of(command):
    "The recipe that a `dppt train` command leads to."
    words = shlex.split(command)
    task, words = words[:2], words[2:]
    if task != ["dppt", "train"]: sys.exit(f"{command!r} does not begin with dppt train")
    given = cli.main.commands["train"].make_context("train", words).params
    changes = cli.read_changes({name: given[name] for name in recipe_fields()})
    return get_recipe(given["recipe"], protocol=given["protocol"], **changes)


def read_card(path):
    "What CARD.json says; `DataError` where a part is missing."
    card = read_json(path, dict)
    if missing := [name for name in CARD_PARTS if name not in card]:
        raise DataError(f"{path} has no {missing[0]!r}; add it")
    return card


def halve(tensors):
    "Numbers with a point in half precision; whole ones as they are."
    halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    lost = [k for k, v in halves.items() if not v.isfinite().all()]
    if lost: sys.exit(f"{lost[0]} does not fit into half precision")
    return halves


def write_card(folder, name, network, recipe, keypoints, judged, **parts):
    "README.md of a packed network."
    height, width = recipe.image_size
    write_whole(folder / "README.md", CARD.format(
        name=name, joints=len(keypoints), names=", ".join(keypoints.names).replace("_", " "),
        height=height, width=width, gmacs=macs(network).total / 1e9,
        numbers=sum(p.numel() for p in network.parameters()) / 1e6, scores=score_lines(judged),
        **parts,
    ).encode())


@click.group(cls=Sentences)
def main(): "Pack a trained network, so that it travels with the package."


replace_option = click.option("--replace", is_flag=True, help="an older packing of that name")


@main.command("run")
@click.argument("folder", type=Path)
@click.argument("name")
@click.argument("command")
@click.argument("sets", nargs=-1, metavar="[DATA=ROOT]...")
@click.option("--words", default="A pose transformer for lessons.", help="what it is, for its card")
@replace_option
def pack_run(folder, name, command, sets, words, replace):
    "Pack a finished run in FOLDER as NAME; COMMAND is the one that repeats it."
    network, recipe, keypoints = load_network(folder)
    state = read_json(folder / "training.json")
    if known := photos_behind(state["data"], recipe):
        sys.exit(f"{folder} may know photographs ({known}); pack it with `card`, which says so")
    if recipe != recipe_of(command):
        sys.exit(f"{command!r} does not lead to the recipe in {folder / 'config.json'}")
    said = read_json(folder / "validation.json")["conditions"]
    epochs = len(state["history"])
    if epochs != recipe.epochs:
        sys.exit(f"{folder} is not finished: {epochs} of {recipe.epochs} epochs")
    trained = dict(
        command=command, people=state["people"], epochs=recipe.epochs, seed=recipe.seed
    ) | {k: said[k] for k in ("device", "threads", "seconds", "torch", "python")}
    info = dict(
        recipe=recipe.to_dict(), keypoint_set=keypoints.to_dict(), config=asdict(network.config),
        epoch=epochs, data=state["data"], trained=trained,
    )
    with packing(name, replace) as partial:
        save_network(partial, halve(network.state_dict()), info)
        # the second is soon repeated
        judged = [judge(partial), *(judge(partial, *given.split("=", 1)) for given in sets)]
        write_about(partial, info | {"judged": judged, "check": judge(partial, people=200)})
        write_card(
            partial, name, network, recipe, keypoints, judged, words=words,
            data=SYNTHETIC["data"].format(people=state["people"]), weights="half precision",
            how=f"`{command}`, {trained['seconds'] / 60:.0f} minutes on one thread of an "
            f"{trained['device']}, torch {trained['torch']}",
            limits=SYNTHETIC["limits"].format(found=seen_on_photos(judged)),
            terms=SYNTHETIC["terms"],
        )
    print(score_lines(judged))


@main.command("card")
@click.argument("folder", type=Path)
@click.argument("name")
@click.argument("card", type=Path)
@click.argument("sets", nargs=-1, metavar="[DATA=ROOT]...")
@click.option("--into", type=Path, default=WEIGHTS, help="a folder of networks; the package's")
@replace_option
def pack_card(folder, name, card, sets, into, replace):
    "Pack the network in FOLDER as NAME, with a README from CARD and its scores on some data sets."
    network, recipe, keypoints = load_network(folder)
    card, recipe = read_card(card), recipe.change(teacher=Path(recipe.teacher).name)
    info = dict(
        config=asdict(network.config), recipe=recipe.to_dict(), keypoint_set=keypoints.to_dict(),
        data=card["data"], trained=card["trained"],
    )
    # whom it learned from, so that it can say so where it is judged on them
    info |= {k: v for k, v in network.about.items() if k == "people_marks"}
    with packing(name, replace, into) as partial:
        save_network(partial, shrink_weights(network.state_dict()), info)
        judged = [judge(partial, *given.split("=", 1)) for given in sets]
        write_about(partial, info | {"judged": judged})
        write_card(
            partial, name, network, recipe, keypoints, judged, words=card["words"],
            data=card["data_words"], how=card["trained"], weights=BYTES, limits=card["limits"],
            terms=OF_OTHERS + card["terms"],
        )
    print(score_lines(judged))


if __name__ == "__main__": main()

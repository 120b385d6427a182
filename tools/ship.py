"""Pack the folder of a finished run into dppt_nb/weights, so that it travels with the package:
weights rounded to half precision, and beside them how they came about and how well the rounded
network finds people that it never saw.

    python tools/ship.py runs/nano-synthetic tokenpose_nano "dppt train tokenpose_nano --epochs 24"
"""
import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from dppt_nb.checkpoints import load_network, save_network, write_about
from dppt_nb.cli import main, read_changes
from dppt_nb.evaluation import conditions, evaluate
from dppt_nb.files import read_json
from dppt_nb.optim import pick_device
from dppt_nb.recipes import get_recipe, recipe_fields
from dppt_nb.store import synthetic_people

WEIGHTS = Path(__file__).resolve().parent.parent / "dppt_nb" / "weights"


def recipe_of(command):
    "The recipe that a `dppt train` command leads to."
    program, task, *words = shlex.split(command)
    if (program, task) != ("dppt", "train"): sys.exit(f"{command!r} does not begin with dppt train")
    given = main.commands["train"].make_context("train", words).params
    changes = read_changes({name: given[name] for name in recipe_fields()})
    return get_recipe(given["recipe"], protocol=given["protocol"], **changes)


def halve(tensors):
    "Numbers with a point in half precision; whole ones as they are."
    halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    lost = [k for k, v in halves.items() if not v.isfinite().all()]
    if lost: sys.exit(f"{lost[0]} does not fit into half precision")
    return halves


def judge(folder, people=None):
    """Score of the network in `folder` on synthetic test people, as `dppt eval` gives it, and what
    has to be known about it."""
    network, recipe, _ = load_network(folder, pick_device("cpu"))
    crops = synthetic_people("test", recipe.image_size, people)
    said = conditions(recipe, "synthetic", "test", crops, "cpu", 0)
    return {k: said[k] for k in ("data", "split", "people", "mirror", "decode")} | {
        "scores": evaluate(network, crops, recipe, bars=False)
    }


def ship(run, name, command):
    """Pack `run` as `name`; nothing is left of a packing that was cut short but a folder that ends
    in .tmp."""
    run, target, partial = Path(run), WEIGHTS / name, WEIGHTS / f"{name}.tmp"
    if target.exists(): sys.exit(f"{target} is there already; remove it first")
    network, recipe, keypoints = load_network(run)
    if recipe != recipe_of(command):
        sys.exit(f"{command!r} does not lead to the recipe in {run / 'config.json'}")
    state, said = read_json(run / "training.json"), read_json(run / "validation.json")["conditions"]
    if state["epoch"] != recipe.epochs:
        sys.exit(f"{run} is not finished: {state['epoch']} of {recipe.epochs} epochs")
    trained = dict(
        command=command, people=state["people"], epochs=recipe.epochs, seed=recipe.seed
    ) | {k: said[k] for k in ("device", "threads", "seconds", "torch", "python")}
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    info = dict(
        recipe=recipe.to_dict(), keypoint_set=keypoints.to_dict(), config=asdict(network.config),
        epoch=state["epoch"], data=state["data"], trained=trained,
    )
    save_network(partial, halve(network.state_dict()), info)
    # the second is soon repeated
    write_about(partial, info | {"judged": judge(partial), "check": judge(partial, 200)})
    partial.rename(target)
    scores = read_json(target / "config.json")["judged"]["scores"]
    print(
        f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.2f} MB, "
        + json.dumps({k: v["mean"] for k, v in scores.items()})
    )


if __name__ == "__main__":
    if len(sys.argv) != 4: sys.exit(__doc__)
    ship(*sys.argv[1:])

"""What a GPU does with this project, in one run and in this order: steps that ask the processor for
nothing, times of a step beside their aims, and steps recorded and compiled beside eager ones, with
the memory of each. What is found is written after each part, so that a stop loses one part."""
import gc
import platform
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import click
import numpy as np
import torch

from dppt_nb.evaluation import device_name
from dppt_nb.files import make_folder, write_json
from dppt_nb.optim import pick_device
from dppt_nb.recipes import get_recipe
from dppt_nb.store import load_people
from dppt_nb.terminal import Place, Sentence
from dppt_nb.training import Loop

# beside this file, which is run as a script or loaded by a test
sys.path.insert(0, str(Path(__file__).resolve().parent))
from training_speed import (  # noqa: E402
    WAYS,
    beside_own_rates,
    format_rows,
    make_teacher,
    peak_memory,
    runs_of,
    time_ways,
)

# recipe, people in a step, images a second aimed at on one H100 or H200
AIMS = (
    ("tokenpose_nano", 64, 8_000),
    ("tokenpose_s_v1_coco", 128, 6_000),
    ("dppt_s_coco", 128, 5_000),
    ("tokenpose_s_v1_coco", 512, 8_000),
)
NANO = "tokenpose_nano", "dppt_nano", "sdpose_nano", "sd_dppt_nano"
APART = 1e-2    # the most that losses may differ by, relative to the eager ones


def recipe_of(name, batch=None):
    "A recipe whose batches all have one size, as what is recorded or compiled likes it."
    recipe = get_recipe(name, equal_batches=True)
    return recipe.change(batch_size=batch) if batch else recipe


@contextmanager
def stepping(recipe, way, crops, device):
    "A step of a new loop, as a function of a number, recorded where the way asks for it."
    changed = recipe.change(**WAYS[way])
    loop = Loop(changed, crops, device, teacher=make_teacher(changed, crops))
    with loop.stepping():
        yield runs_of(loop, recipe.batch_size)


@contextmanager
def no_waits():
    "Whatever waits for a GPU in here is an error."
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try: yield
    finally: torch.cuda.set_sync_debug_mode("default")


def waits(name, crops, device) -> dict: # way -> what waited, or nothing
    "Does a step wait for the GPU, eager or recorded?"
    found, recipe = {}, recipe_of(name)
    for way in ("eager", "recorded"):
        with stepping(recipe, way, crops, device) as run:
            for i in range(5): run(i)
            try:
                with no_waits(): run(5)
                found[way] = ""
            except RuntimeError as error: found[way] = str(error).splitlines()[0]
    return found


def losses_of(recipe, way, crops, device, steps) -> tuple[list[float], float]:
    "Each step's loss from the recipe's seed on, and the most memory that was held, GiB."
    if device.type == "cuda": torch.cuda.reset_peak_memory_stats()
    with stepping(recipe, way, crops, device) as run:
        losses = [sum(run(i).values()).detach() for i in range(steps)]
    return torch.stack(losses).tolist(), peak_memory(device)


def alike(recipe, crops, device, ways, steps) -> list[dict]: # a row a way
    "How far the losses of each way lie from the eager ones, and what memory it takes."
    rows, eager = [], None
    for way in ("eager", *ways):
        losses, memory = losses_of(recipe, way, crops, device, steps)
        eager = eager or losses
        # NumPy's, since a loss of NaN must be found wherever it stands
        apart = float(np.max([abs(a - b) / abs(b) for a, b in zip(losses, eager)]))
        rows.append(dict(
            way=way, steps=steps, first=losses[0], last=losses[-1], apart=apart, peak_gib=memory,
        ))
        gc.collect()
        if device.type == "cuda": torch.cuda.empty_cache()
    return rows


class Findings:
    "What was found so far, in a file, and the time that is left."
    def __init__(self, folder, minutes, conditions):
        self.path = make_folder(Path(folder)) / "card.json"
        self.end = time.monotonic() + 60 * minutes
        self.found = dict(format=1, conditions=conditions, parts=[])

    def add(self, part, **values):
        self.found["parts"].append(dict(part=part, **values))
        write_json(self.path, self.found)

    def in_time(self, words):
        "Whether another part may begin; one that may not is said and written."
        if time.monotonic() < self.end: return True
        print(f"{words}: not begun, the time is over", flush=True)
        self.add("not begun", words=words)
        return False


def check_waits(findings, crops, device):
    "The first part."
    for name in NANO:
        if not findings.in_time(f"waits of {name}"): continue
        waited = waits(name, crops(recipe_of(name)), device)
        findings.add("waits", recipe=name, waited=waited)
        words = ", ".join(f"{way} {'waits: ' + why if why else 'never'}"
                          for way, why in waited.items())
        print(f"{name} waits for the GPU: {words}", flush=True)


def check_speed(findings, crops, device, jobs, ways, rounds, steps):
    "The second part."
    for name, batch, aim in jobs:
        if not findings.in_time(f"speed of {name}, {batch}"): continue
        recipe = recipe_of(name, batch)
        rows = time_ways(recipe, crops(recipe), device, ways, rounds, steps, False)
        beside_own_rates(rows, device)
        findings.add("speed", recipe=name, batch=batch, aim=aim, rows=rows)
        best = max(row["images_a_second"] for row in rows)
        print(f"{name}, {batch} a step\n{format_rows(rows)}")
        print(f"the aim was {aim:,} img/s on one H100 or H200: {best:,.0f}", flush=True)


def check_alike(findings, crops, device, jobs, ways, steps):
    "The third part."
    for name, batch in dict.fromkeys((name, batch) for name, batch, _ in jobs):
        if not findings.in_time(f"losses of {name}, {batch}"): continue
        recipe = recipe_of(name, batch)
        rows = alike(recipe, crops(recipe), device, ways, steps)
        findings.add("alike", recipe=name, batch=batch, rows=rows)
        print(f"{name}, {batch} a step, {steps} steps")
        for row in rows:
            verdict = "" if row["apart"] <= APART else f"   MORE THAN {APART}"
            print(f"    {row['way']:<20} at most {row['apart']:.1e} from eager, peak "
                  f"{row['peak_gib']:.1f} GiB{verdict}", flush=True)


@click.command("card", cls=Sentence)
@click.option("--data", default="synthetic", show_default=True, help="name of the data set")
@click.option("--root", type=Place(), help="its folder, or a crop store")
@click.option("--people", type=click.IntRange(1), default=1024, show_default=True, help="synthetic")
@click.option("--out", type=Place(), default="card", show_default=True, help="folder")
@click.option(
    "--minutes", type=click.FloatRange(0), default=10, show_default=True,
    help="no part begins later",
)
@click.option("--device", help="the fastest unless given")
@click.option("--recipe", "names", multiple=True, help="only these; may be given several times")
@click.option("--batch", type=click.IntRange(1), help="people in a step, in place of the aim's")
@click.option(
    "--way", "ways", multiple=True, type=click.Choice(list(WAYS)[1:]),
    help="beside eager; all unless given",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), default=50, show_default=True, help="whose losses are alike"
)
def main(data, root, people, out, minutes, device, names, batch, ways, rounds, steps):
    "Check and time training on this machine's GPU (on a CPU what a CPU can do)."
    device, unknown = pick_device(device), set(names) - {name for name, *_ in AIMS}
    if unknown: raise click.UsageError(
        f"--recipe {unknown.pop()} has no aim; those with one: "
        f"{', '.join(dict.fromkeys(name for name, *_ in AIMS))}"
    )
    gpu = device.type == "cuda"
    jobs = [(name, batch or size, aim) for name, size, aim in AIMS if name in names or not names]
    ways = ways or (tuple(WAYS)[1:] if gpu else ("compiled",))
    count = people if data == "synthetic" else None
    of_size = cache(lambda size: load_people(data, root, ("train",), size, False, count)["train"])
    crops = lambda recipe: of_size(recipe.image_size)    # read once a size
    findings = Findings(out, minutes, dict(
        device=device_name(device), threads=torch.get_num_threads(), data=data, rounds=rounds,
        torch=torch.__version__, python=platform.python_version(),
    ))
    if gpu: check_waits(findings, crops, device)
    else: print("this is no NVIDIA GPU: whether a step waits is not checked, nothing is recorded")
    check_speed(findings, crops, device, jobs, ("eager", *ways), rounds, 5)
    check_alike(findings, crops, device, jobs, ways, steps)
    print(f"written to {findings.path}")


if __name__ == "__main__": main()

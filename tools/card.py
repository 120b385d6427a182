"""What a GPU does with this project, in this order: steps that ask the processor for nothing; steps
recorded and compiled beside eager ones, with the memory of each; and times of a step beside their
aims. What is found is written after each part, so that a stop loses one part, and the same command
goes on with those that are missing."""
import gc
import platform
import sys
import time
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import click
import numpy as np
import torch

from dppt_nb.checks import DataError, plain_reason
from dppt_nb.evaluation import device_name
from dppt_nb.files import make_folder, read_json, write_json
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
    check_batch,
    format_rows,
    make_teacher,
    peak_memory,
    runs_of,
    time_ways,
)

# recipe, people in a step, images a second aimed at on one H100 or H200; the most wanted first
AIMS = (
    ("dppt_s_coco", 128, 5_000),
    ("tokenpose_s_v1_coco", 512, 8_000),
    ("tokenpose_s_v1_coco", 128, 6_000),
    ("tokenpose_nano", 64, 8_000),
)
# whose losses are compared, the small ones first; of DPPT one where every step drops patches
ALIKE = (
    ("tokenpose_nano", 64), ("dppt_nano", 64), ("tokenpose_s_v1_coco", 128), ("dppt_s_coco", 128),
    ("tokenpose_s_v1_coco", 512),
)
NANO = "tokenpose_nano", "dppt_nano", "sdpose_nano", "sd_dppt_nano"
APART = 1e-2    # the most that losses may differ by, relative to the eager ones


def recipe_of(name, batch=None):
    """A recipe whose batches all have one size, as what is recorded or compiled likes it, and whose
    patches are dropped from the first step on: the papers' drop none for ten epochs."""
    recipe = get_recipe(name, equal_batches=True, anneal=())
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
        free_memory()
    return rows


class Findings:
    "What was found so far, in a file that a later call goes on with, and the time that is left."
    def __init__(self, folder, minutes, conditions):
        self.path = make_folder(Path(folder)) / "card.json"
        self.end = time.monotonic() + 60 * minutes
        self.found = dict(format=1, conditions=conditions, parts=[])
        if self.path.exists(): self.go_on(read_json(self.path))

    def go_on(self, former):
        "Keep what was found; what failed or was not begun is tried again."
        mine, theirs = self.found["conditions"], former.get("conditions", {})
        if other := [name for name, value in mine.items() if theirs.get(name) != value]:
            raise DataError(
                f"{self.path} was found with {other[0]} = {theirs.get(other[0])!r}, not "
                f"{mine[other[0]]!r}; go on with the same options, or name another --out"
            )
        whole = [p for p in former["parts"] if p["part"] not in ("failed", "not begun")]
        self.found["parts"] = whole

    def add(self, part, **values):
        self.found["parts"].append(dict(part=part, **values))
        write_json(self.path, self.found)

    def take(self, part, find, **which):
        """One part, unless the file has it or the time is over: what `find` gives is written. One
        that fails is said and written, and leaves the next ones alone."""
        words = f"{part} of {', '.join(map(str, which.values()))}"
        if self.has(part=part, **which): return
        if time.monotonic() >= self.end:
            print(f"{words}: not begun, the time is over", flush=True)
            self.add("not begun", words=words)
            return
        try: self.add(part, **which, **find())
        except Exception as error:
            print(f"{words}: failed ({plain_reason(error)})", flush=True)
            self.add("failed", words=words, why=plain_reason(error))
        free_memory()    # here also what an error held

    def has(self, **which):
        "Whether there is a part with these fields."
        return any(all(part.get(name) == value for name, value in which.items())
                   for part in self.found["parts"])


def free_memory():
    "Give back what nobody holds any more of a GPU's memory."
    if not torch.cuda.is_available(): return
    gc.collect()
    torch.cuda.empty_cache()


def find_waits(name, crops, device):
    "A part of the first kind."
    waited = waits(name, crops(recipe_of(name)), device)
    words = ", ".join(f"{way} {'waits: ' + why if why else 'never'}" for way, why in waited.items())
    print(f"{name} waits for the GPU: {words}", flush=True)
    return dict(waited=waited)


def find_alike(name, batch, crops, device, ways, steps):
    "A part of the second kind."
    recipe = recipe_of(name, batch)
    rows = alike(recipe, crops(recipe), device, ways, steps)
    print(f"{name}, {batch} a step, {steps} steps")
    for row in rows:
        verdict = "" if row["apart"] <= APART else f"   MORE THAN {APART}"
        print(f"    {row['way']:<20} at most {row['apart']:.1e} from eager, peak "
              f"{row['peak_gib']:.1f} GiB{verdict}", flush=True)
    return dict(rows=rows)


def find_speed(name, batch, aim, crops, device, ways, rounds):
    "A part of the third kind."
    recipe = recipe_of(name, batch)
    rows = time_ways(recipe, crops(recipe), device, ways, rounds, 5, False)
    beside_own_rates(rows, device)
    best = max(row["images_a_second"] for row in rows)
    print(f"{name}, {batch} a step\n{format_rows(rows)}")
    print(f"the aim was {aim:,} img/s on one H100 or H200: {best:,.0f}", flush=True)
    return dict(aim=aim, rows=rows)


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
    device, known = pick_device(device), dict.fromkeys(name for name, _ in ALIKE)
    if unknown := set(names) - {*known}: raise click.UsageError(
        f"--recipe {unknown.pop()} is not checked here; those that are: {', '.join(known)}"
    )
    gpu, names = device.type == "cuda", names or tuple(known)
    compared = [(name, batch or size) for name, size in ALIKE if name in names]
    timed = [(name, batch or size, aim) for name, size, aim in AIMS if name in names]
    ways = ways or (tuple(WAYS)[1:] if gpu else ("compiled",))
    count = people if data == "synthetic" else None
    of_size = cache(lambda size: load_people(data, root, ("train",), size, False, count)["train"])
    crops = lambda recipe: of_size(recipe.image_size)    # read once a size
    for name, size in compared: check_batch(crops(recipe_of(name)), size)
    findings = Findings(out, minutes, dict(
        device=device_name(device), threads=torch.get_num_threads(), data=data, rounds=rounds,
        torch=torch.__version__, python=platform.python_version(), people=count, ways=list(ways),
        steps=steps,
    ))
    if not gpu:
        print("this is no NVIDIA GPU: whether a step waits is not checked, nothing is recorded")
    for name in NANO if gpu else ():
        findings.take("waits", partial(find_waits, name, crops, device), recipe=name)
    for name, size in compared:
        find = partial(find_alike, name, size, crops, device, ways, steps)
        findings.take("alike", find, recipe=name, batch=size)
    for name, size, aim in timed:
        find = partial(find_speed, name, size, aim, crops, device, ("eager", *ways), rounds)
        findings.take("speed", find, recipe=name, batch=size)
    print(f"written to {findings.path}")


if __name__ == "__main__": main()

"""Training steps timed in rounds: the plain loop of the lesson beside the same step as this project
runs it, eager, recorded, compiled."""
import ast
import io
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from judging import write_json_too
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from dppt_nb.augmentation import augment_batch
from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.costs import lap
from dppt_nb.devices import seeded
from dppt_nb.evaluation import device_name
from dppt_nb.files import write_json
from dppt_nb.heatmaps import encode_heatmaps, rescale_joints
from dppt_nb.models import create_model, macs
from dppt_nb.optim import keep_memory, pick_device
from dppt_nb.recipes import get_recipe, needs_teacher
from dppt_nb.store import load_people
from dppt_nb.terminal import Place, Sentence
from dppt_nb.training import Batch, Loop

WAYS = {
    "eager": dict(capture=False),
    "recorded": dict(capture=True),
    "compiled": dict(capture=False, compile=True),
    "compiled, recorded": dict(capture=True, compile=True),
}
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KILOBYTE = 1 if platform.system() == "Darwin" else 1024    # macOS counts bytes


class Operations(TorchDispatchMode):
    "Counts what PyTorch is asked to do."
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


class PlainLoop(Loop):
    """The opponent: float32, attention written out, one person after the other decoded, turned and
    labelled, one matrix of Muon's after the other."""
    def __init__(self, recipe, crops, device, teacher, decode=False):
        plain = recipe.change(capture=False, compile=False, precision="fp32")
        super().__init__(plain, crops, device, teacher=teacher)
        for block in self.model.encoder.blocks: block.attention.fuse = lambda q: False
        for optimizer in self.optimizers:
            if hasattr(optimizer, "move_stacks"): optimizer.move_stacks = optimizer.move_singly
        self.files = [as_jpeg(image) for image in crops.images] if decode else None

    def picture(self, i):
        "A stored crop, from its JPEG where there is one."
        if not self.files: return self.train_set.images[i:i + 1].to(self.device)
        decoded = np.array(Image.open(io.BytesIO(self.files[i])))
        return torch.from_numpy(decoded).permute(2, 0, 1)[None].to(self.device)

    def person(self, i):
        "One person's picture, joints and labels."
        people, recipe = self.train_set, self.recipe
        image, joints, visible = augment_batch(
            self.picture(i), people.joints[i:i + 1].to(self.device),
            people.visible[i:i + 1].to(self.device), people.keypoint_set, people.margin,
            recipe.image_size, recipe.augmentation, self.draws,
        )
        places = rescale_joints(joints, recipe.image_size, self.model.heatmap_size)
        targets, weights = encode_heatmaps(
            places, visible, self.model.heatmap_size, recipe.sigma
        )
        return image, joints, visible, targets, weights

    def make_batch(self, index, draws=None, people=None):
        "People put together; by one process, of all its people."
        assert draws is None and people is None
        people = [self.person(i) for i in index.tolist()]
        return Batch(*(torch.cat(parts) for parts in zip(*people)))


def as_jpeg(image):
    "A crop (3, H, W) as bytes."
    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(out, "JPEG", quality=92)
    return out.getvalue()


@dataclass
class Clock:
    "Seconds of an action, with a GPU's work done."
    device: torch.device

    def __call__(self, action: Callable, times: int) -> tuple[float, float]:
        "Seconds a time until all is done, and until the processor has asked for it."
        def run():
            for i in range(times): action(i)
        return tuple(seconds / times for seconds in lap(run, self.device))


def matrix_rate(device, side, kind) -> float: # floating-point operations a second
    "What this machine's own matrix product of square matrices does."
    a = torch.randn(side, side, device=device, dtype=kind)
    clock = Clock(device)
    clock(lambda _: a @ a, 3)
    return 2 * side ** 3 / min(clock(lambda _: a @ a, 3)[0] for _ in range(3))


def own_rates(rows, device):
    "Number format of some rows -> what this machine's matrix product does in it."
    side = 8192 if device.type == "cuda" else 1024
    return {row["compute"]: matrix_rate(device, side, FORMATS[row["compute"]]) for row in rows}


def beside_own_rates(rows, device):
    "Put into each row what share of this machine's own rate it reaches; those rates."
    rates = own_rates(rows, device)
    for row in rows: row["of_own_rate"] = row["tflops"] * 1e12 / rates[row["compute"]]
    return rates


def peak_memory(device) -> float: # GiB
    "The most that was held at once: on a GPU since it was reset, else by this process so far."
    if device.type == "cuda": return torch.cuda.max_memory_allocated() / 2 ** 30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE / 2 ** 30


def make_teacher(recipe, crops):
    "A network of drawn weights that drops nothing, of the recipe's size: it costs the same."
    if not needs_teacher(recipe): return None
    if recipe.teacher: return load_network(recipe.teacher)[0]
    name = recipe.model.replace("dppt", "tokenpose").replace("tokenpose_s", "tokenpose_s_v1")
    # the same one for every way; with the student's own seed it might be the student
    with seeded(recipe.seed + 1):
        return create_model(
            name, num_keypoints=len(crops.keypoint_set), image_size=recipe.image_size,
            **{k: v for k, v in recipe.overrides.items() if k == "head"},
        )


def step_operations(loop, teacher, batch) -> float:
    "Floating-point operations of a step: two a product, backward twice the forward pass."
    cycles = max(getattr(o, "cycles", 1) for o in loop.objectives)
    own = 6 * macs(loop.model, cycles=cycles).total
    return batch * (own + (2 * macs(teacher).total if teacher else 0))


def check_batch(crops, batch):
    "Fewer people than a step takes are refused."
    if len(crops) < batch: raise DataError(
        f"{len(crops)} people are no batch of {batch}; say --people or --batch"
    )


def runs_of(loop, batch):
    "The loop's step as a function of a number, with everything that surrounds it."
    check_batch(loop.train_set, batch)
    people = torch.arange(len(loop.train_set), device=loop.train_set.images.device)
    chunks = people.split(batch)[:len(people) // batch]
    loop.model.train()
    loop.draws.manual_seed(0)
    return lambda i: loop.train_people(chunks[i % len(chunks)])


def time_ways(recipe, crops, device, ways, rounds, steps, decode, epoch=False):
    "One row a way, all of them timed in turn, round after round; steps, or whole epochs of them."
    whole = len(crops) // recipe.batch_size
    teacher, clock, loops, rows = make_teacher(recipe, crops), Clock(device), {}, {}
    for way in ways:
        if way == "plain": loops[way] = PlainLoop(recipe, crops, device, teacher, decode)
        else: loops[way] = Loop(recipe.change(**WAYS[way]), crops, device, teacher=teacher)
        loop, start = loops[way], time.perf_counter()
        run = runs_of(loop, recipe.batch_size)
        with loop.stepping(): clock(run, 5)
        rows[way] = dict(way=way, warm_up_s=round(time.perf_counter() - start, 1), step=[], host=[])
        print(f"{way}: warmed up in {rows[way]['warm_up_s']} s", flush=True)
    for number in range(rounds):
        for way, loop in loops.items():
            run = runs_of(loop, recipe.batch_size)
            times = whole if epoch else 1 if way == "plain" else steps
            with loop.stepping():
                seconds, asked = clock(run, times)
            rows[way]["step"].append(seconds)
            rows[way]["host"].append(asked)
        print(f"round {number + 1} of {rounds}", flush=True)
    for way, loop in loops.items():
        rows[way] |= facts(loop, teacher, recipe, clock, rows[way], way)
        if epoch: rows[way]["epoch_s"] = whole * rows[way]["step_ms"] / 1e3
    return list(rows.values())


def facts(loop, teacher, recipe, clock, row, way):
    "Median times, rates, memory and operations of one way."
    batch, index = recipe.batch_size, torch.arange(recipe.batch_size)
    index = index.to(loop.train_set.images.device)
    step = statistics.median(row["step"])
    data = clock(lambda _: loop.make_batch(index), 1 if way == "plain" else 5)[0]
    kept = loop.model.keep_ratio if loop.model.config.prune_at else 1.0
    found = dict(
        step_ms=1e3 * step, host_ms=1e3 * statistics.median(row["host"]), data_ms=1e3 * data,
        images_a_second=batch / step, tflops=step_operations(loop, teacher, batch) / step / 1e12,
        spread=[1e3 * min(row["step"]), 1e3 * max(row["step"])], compute=loop.compute,
        keep_ratio=kept,
    )
    if way in ("plain", "eager"):
        with Operations() as asked: loop.train_step(loop.make_batch(index))
        found["operations"] = asked.count
    return found


def format_rows(rows):
    "One line a way."
    lines = [f"{'':<22}{'step ms':>9}{'host ms':>9}{'data ms':>9}{'img/s':>9}{'TFLOP/s':>9}"
             f"{'of own rate':>12}{'operations':>11}{'epoch s' if 'epoch_s' in rows[0] else '':>9}"]
    for row in rows:
        lines.append(
            f"{row['way']:<22}{row['step_ms']:>9.2f}{row['host_ms']:>9.2f}{row['data_ms']:>9.2f}"
            f"{row['images_a_second']:>9.0f}{row['tflops']:>9.2f}"
            f"{row['of_own_rate']:>12.1%}{row.get('operations', ''):>11}"
            + (f"{row['epoch_s']:>9.1f}" if "epoch_s" in row else "")
        )
    return "\n".join(line.rstrip() for line in lines)


def read_change(text):
    "A field and its value, from `field=value`."
    field, _, value = text.partition("=")
    try: return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise DataError(
            f"--set {text!r} is no field=value as in Python, such as epochs=3"
        ) from None


@click.command("train", cls=Sentence)
@click.argument("recipes", nargs=-1)
@click.option("--batch", type=click.IntRange(1), help="people in a step; the recipe's unless given")
@click.option(
    "--way", "ways", multiple=True, type=click.Choice(["plain", *WAYS]),
    help="may be given several times; all that this machine can do unless given",
)
@click.option("--data", default="synthetic", show_default=True, help="name of the data set")
@click.option("--root", type=Place(), help="its folder, or a crop store")
@click.option("--people", type=click.IntRange(1), default=256, show_default=True, help="synthetic")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="in a round")
@click.option("--device", help="the fastest unless given")
@click.option("--jpegs", is_flag=True, help="the plain loop decodes every person in every step")
@click.option("--epoch", is_flag=True, help="whole epochs, in place of --steps steps a round")
@click.option("--set", "changes", multiple=True, help="field=value, as in Python")
@write_json_too
def train(
    recipes, batch, ways, data, root, people, rounds, steps, device, jpegs, epoch, changes, out
):
    """Time a training step of RECIPES (default: tokenpose_nano). A network that drops patches drops
    its whole share from the first step on, unless --set anneal=... says otherwise."""
    kept = keep_memory()    # as `dppt train` does; the plain loop profits from it too
    # a ratio that falls slowly is 1 in the first steps, and these are first steps
    device, fields = pick_device(device), dict(anneal=()) | dict(map(read_change, changes))
    count = people if data == "synthetic" else None
    found, rates = [], {}
    for name in recipes or ("tokenpose_nano",):
        recipe = get_recipe(name, **fields)
        if batch: recipe = recipe.change(batch_size=batch)
        start = time.perf_counter()
        crops = load_people(data, root, ("train",), recipe.image_size, False, count)["train"]
        load_s = time.perf_counter() - start
        check_batch(crops, recipe.batch_size)    # before a network is made
        possible = ["plain", *(WAYS if device.type == "cuda" else ["eager"])]
        if device.type == "cuda": torch.cuda.reset_peak_memory_stats()
        rows = time_ways(
            recipe, crops, device, ways or possible, rounds, steps, jpegs, epoch
        )
        memory, (height, width) = peak_memory(device), recipe.image_size
        rates |= beside_own_rates(rows, device)
        print(f"{name}, {recipe.batch_size} a step, {height} x {width}, peak {memory:.1f} GiB")
        print(format_rows(rows), flush=True)
        if epoch: print(f"reading and decoding {len(crops):,} people, once: {load_s:.1f} s")
        found.append(dict(
            recipe=name, batch=recipe.batch_size, peak_gib=memory, rows=rows, people=len(crops),
            load_s=load_s,
        ))
    conditions = dict(
        device=device_name(device), threads=torch.get_num_threads(), rounds=rounds,
        own_tflops=max(rates.values()) / 1e12,    # in the faster format
        torch=torch.__version__, python=platform.python_version(), memory_kept=kept,
    )
    print(", ".join(f"{k} {v}" for k, v in conditions.items()))
    if out: write_json(Path(out), dict(format=1, conditions=conditions, found=found))


if __name__ == "__main__": train()

"""A step: how much is asked of PyTorch, nothing asked of the processor, the same answer whichever
way it is run."""
import copy
import json
import math
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sampling import sample
from tiny_fixture import TINY
from torch._dynamo.utils import counters
from torch.optim.swa_utils import AveragedModel
from waits_fixture import META, no_waits

from dppt_nb.augmentation import Augmentation
from dppt_nb.checks import DataError
from dppt_nb.devices import Team, seeded, share_step, stop_was_asked
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model
from dppt_nb.optim import Average, Muon, even_out, even_out_stack, make_optimizers
from dppt_nb.predictor import Captured
from dppt_nb.pruning import keep_ratio_at
from dppt_nb.recipes import get_recipe
from dppt_nb.runs import UnderWay
from dppt_nb.steps import Alarm, CapturedStep, can_capture
from dppt_nb.store import from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.trainer import Trainer
from dppt_nb.training import Loop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from training_speed import Operations  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
SMALL = TINY | dict(depth=3)
SHALLOW = TINY | dict(depth=2)    # where each layer has to be compiled


@pytest.fixture(scope="module")
def people():
    return from_synthetic(make_people(20, COCO17, (64, 48), seed=1, margin=1.5))


def loop_of(
    people, name="tokenpose_nano", device="cpu", size=(64, 48), network=SMALL, team=None, **changes
):
    recipe = get_recipe(name, image_size=size, batch_size=8, precision="fp32", **changes)
    own = {**network, **recipe.overrides}
    if "ppt" in recipe.model and network: own["prune_at"] = tuple(range(1, own["depth"]))
    # the same one in every loop, and not the student
    with seeded(recipe.seed + 1):
        teacher = create_model("tokenpose_nano", image_size=size, **network)
    loop = Loop(recipe.change(overrides=own), people, device, teacher=teacher, team=team)
    loop.model.train()
    loop.draws.manual_seed(1)
    return loop


def test_a_step_asks_for_no_more_than_it_did(root, monkeypatch):
    """Of the nano network, part by part; a GPU pays for each of these, whatever its size. There
    Muon takes the matrices in stacks, which is counted here, too."""
    locked = re.search(r"^torch==(\S+)", (root / "requirements.lock").read_text(), re.M)[1]
    if not torch.__version__.startswith(locked):
        pytest.skip(f"counts are of PyTorch {locked}; other versions ask in other operations")
    crops = from_synthetic(make_people(8, COCO17, (128, 96), seed=1, margin=1.5))
    loop, index = loop_of(crops, size=(128, 96), network={}), torch.arange(8)
    loop.train_people(index)
    with Operations() as batch: made = loop.make_batch(index)
    loop.begin_step()
    with Operations() as both: loop.backward(made)
    with Operations() as muon: loop.move_weights()
    with Operations() as rest: loop.end_step()
    monkeypatch.setattr(Muon, "move_singly", Muon.move_stacks)
    loop.backward(loop.make_batch(index))
    with Operations() as stacks: loop.move_weights()
    known = json.loads((root / "nbs/results/operations.json").read_text())
    most = known["at_most"]
    for part, counted in zip(most, (batch, both, muon, rest), strict=True):
        assert counted.count <= most[part], part
    assert stacks.count <= known["at_most_in_stacks"]["optimisers"]
    assert sum(most.values()) <= 2_951    # the bounds themselves do not grow


WAITING = {
    "a list": lambda there: torch.tensor([1.0, 2.0], device=there.device),
    "a number": lambda there: there.new_tensor(1.0),
    "a tensor": lambda there: torch.ones(3).to(there.device),
    "an array": lambda there: torch.as_tensor(np.ones(3), device=there.device),
    "rows by a list": lambda there: there[[0, 1]],
    "rows by an array": lambda there: there[np.arange(2)],
    "rows by a mask": lambda there: there[there > 0],
    "rows by a tensor elsewhere": lambda there: there + torch.ones(3),
    "a value": lambda there: float(there[0]),
    "whether": lambda there: bool((there > 0).any()),
    "which": lambda there: there.nonzero(),
    "how often": lambda there: there.repeat_interleave(there.long()),
    "all of it": lambda there: there.cpu(),
}
ASKING_NOTHING = {
    "zeros": lambda there: torch.zeros(3, device=there.device),
    "a scalar beside it": lambda there: there * 2 + torch.tensor(1.0),
    "filled where": lambda there: there.masked_fill(there > 0, 0.0),
    "rows by a slice": lambda there: there[1:, None],
    "rows by a tensor there": lambda there: there[torch.arange(2, device=there.device)],
}


@pytest.mark.parametrize("words", WAITING)
def test_what_waits_is_found(words):
    there = torch.ones(3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        with no_waits(): WAITING[words](there)


@pytest.mark.parametrize("words", ASKING_NOTHING)
def test_what_does_not_wait_is_let_by(words):
    there = torch.ones(3, device=META)
    with no_waits(): ASKING_NOTHING[words](there)


TRAINED = {
    **{name: {} for name in ("tokenpose_nano", "ppt_nano", "dppt_nano", "sdpose_nano")},
    **{name: {} for name in ("sd_dppt_nano", "sdpose_t_coco")},
    "tokenpose_s": dict(network=dict(depth=3)),
    "sdpose_reg_coco": dict(network=dict(depth=3)),
    "papers' head": dict(name="dppt_nano", overrides=dict(head="mlp")),
    "merged": dict(name="dppt_nano", overrides=dict(reduce="merge")),
    "guided": dict(name="dppt_nano", guide=1.0),
    "all cycles": dict(name="sd_dppt_nano", supervise="all", heatmap_cycles=0.5),
    "Adam": dict(name="tokenpose_nano", optimizer="adam"),
    "no averages, no clipping": dict(name="tokenpose_nano", ema=0.0, clip_norm=0.0),
    "half bodies, grey": dict(
        name="tokenpose_nano",
        augmentation=Augmentation(half_body=0.5, grey=0.5, rotation_prob=0.5, shift_prob=0.5),
    ),
}


@pytest.fixture
def on_meta(monkeypatch):
    "The device `meta` trains; there are no random numbers there and no number formats."
    monkeypatch.setattr("dppt_nb.devices.pick_device", lambda device: device)
    monkeypatch.setattr("dppt_nb.training.precision", lambda *_: nullcontext())
    monkeypatch.setattr("dppt_nb.rle.torch.autocast", lambda *_, **how: nullcontext())
    draws = SimpleNamespace(device=META, manual_seed=lambda seed: None, get_state=lambda: None,
                            set_state=lambda state: None)
    monkeypatch.setattr("dppt_nb.loop.torch.Generator", lambda device: draws)
    empty = lambda maker, people, numbers, draws: torch.empty(people, numbers, device=draws.device)
    monkeypatch.setattr("dppt_nb.augmentation.draw_rows", empty)


def third_step_asks_nothing(loop):
    "From stored crops to averaged weights; constants, moments and lists are there after two steps."
    index, epoch = torch.arange(8, device=META), UnderWay(loop.draws)
    for _ in range(2): epoch.add(loop.train_people(index))
    with no_waits():
        epoch.add(loop.train_people(index))
    assert epoch.done == 3 and all(loss.device == META for loss in epoch.sums.values())


@pytest.mark.parametrize("words", sample(TRAINED, 4, 7, 8, 9, 14))
def test_a_step_asks_nothing_of_the_processor(people, words, on_meta):
    given = {"name": words} | TRAINED[words]
    third_step_asks_nothing(loop_of(people.to(META), device=META, **given))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_in_parts_asks_nothing_of_the_processor(people, processes, on_meta):
    "In two parts, alone or as one of two processes; what the other one would add is left out."
    team = Team(META, accumulate=2)
    team.count, team.accelerator = processes, SimpleNamespace(reduce=lambda flat, how: flat)
    third_step_asks_nothing(loop_of(people.to(META), "dppt_nano", META, team=team))
    assert (team.heard_before is None) == (processes == 1)


def test_stacks_of_matrices_move_as_single_ones():
    generator = torch.Generator().manual_seed(0)
    shapes = [(48, 96), (48, 96), (96, 48), (32, 16, 3, 3), (32, 16, 3, 3)]
    ours = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    twins = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    one, many = Muon(ours, lr=0.02), Muon(twins, lr=0.02)
    many.move_singly = many.move_stacks
    for _ in range(3):
        for p, twin in zip(ours, twins):
            p.grad = torch.randn(p.shape, generator=generator)
            twin.grad = p.grad.clone()
        before = [p.detach().clone() for p in ours]
        one.step()
        many.step()
        for p, twin, old in zip(ours, twins, before):
            assert (p - twin).norm() < 0.08 * (p - old).norm()    # five steps in bfloat16
        with torch.no_grad():
            for p, twin in zip(ours, twins): twin.copy_(p)
    keys = lambda muon: [sorted(muon.state[p]) for p in muon.param_groups[0]["params"]]
    assert keys(one) == keys(many) == [["momentum"]] * 5
    matrices = torch.randn(4, 32, 80, generator=generator)
    singular = torch.linalg.svdvals(even_out_stack(matrices).float())
    assert 0.3 < singular.min() and singular.max() < 1.4
    exact = exactly_even(matrices)
    stacked = (even_out_stack(matrices) - exact).norm()
    single = (torch.stack([even_out(m) for m in matrices]) - exact).norm()
    assert stacked < 1.2 * single < 0.1 * exact.norm()


def exactly_even(matrices):
    "The same polynomial in double precision."
    x = matrices.double() / matrices.double().norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def test_averages_are_those_of_torch():
    "Weights to the bit as PyTorch's own class with the same growing decay; counters are copied."
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    def move(copies, weights, count):
        if not copies[0].is_floating_point():
            for copy, weight in zip(copies, weights): copy.copy_(weight)
            return
        share = min(0.99, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(copies, weights, 1 - share)
    ours, theirs = Average(model, 0.99), AveragedModel(model, multi_avg_fn=move, use_buffers=True)
    theirs.n_averaged.fill_(1)
    for _ in range(5):
        model(torch.randn(8, 4)).sum().backward()
        with torch.no_grad():
            for p in model.parameters(): p.add_(p.grad, alpha=-0.1)
        ours.update_parameters(model)
        with torch.no_grad(): theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():
        assert torch.equal(value, ours.module.state_dict()[name]), name
    assert int(ours.module[1].num_batches_tracked) == 5
    assert set(ours.state_dict()) == set(theirs.state_dict())


def test_a_loss_that_is_no_number_is_said_with_its_step(people):
    ended = []
    alarm = Alarm(lambda losses, step: ended.append((losses, step)), torch.device("cpu"))
    for step, value in enumerate((1.0, 2.0, math.nan, 3.0), 1):
        alarm.note({"pose": torch.tensor(1.0), "output": torch.tensor(value)}, step)
    assert len(ended) == 1 and ended[0][1] == 3 and math.isnan(ended[0][0]["output"])
    loop = loop_of(people)
    with torch.no_grad(): next(loop.model.parameters()).fill_(math.nan)
    with pytest.raises(DataError, match="pose nan in step 1, in epoch 1"): loop.train_epoch()


def test_batches_of_one_size_leave_out_others_every_epoch(people):
    loop = loop_of(people, equal_batches=True)
    assert loop.steps_per_epoch == 2
    first = loop.batches()
    assert [len(batch) for batch in first] == [8, 8]
    loop.history.append({})
    second = loop.batches()
    assert {*torch.cat(first).tolist()} != {*torch.cat(second).tolist()}
    alone = loop_of(people.select(slice(0, 5)), equal_batches=True)
    assert [len(batch) for batch in alone.batches()] == [5]


def test_a_ratio_that_falls_by_levels():
    smooth = [keep_ratio_at(e, 0.5, 10, 100) for e in range(120)]
    steps = [keep_ratio_at(e, 0.5, 10, 100, steps=4) for e in range(120)]
    assert len(set(steps)) == 5 and steps[0] == 1 and steps[-1] == 0.5
    assert all(level >= ratio for level, ratio in zip(steps, smooth))
    assert max(level - ratio for level, ratio in zip(steps, smooth)) <= 0.125 + 1e-9
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize("name", sample(["dppt_nano", "sd_dppt_nano"], 1))
def test_a_step_compiles_in_one_piece(people, name):
    "No part of network and losses sends the compiler back to Python."
    import torch._dynamo
    loop = loop_of(people, name, network=SHALLOW)
    batch = loop.make_batch(torch.arange(8))
    parts = batch.images, batch.joints, batch.visible, batch.targets, batch.weights
    explained = torch._dynamo.explain(loop.losses)(loop.progress, *parts)
    torch._dynamo.reset()
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def steps_of(people, name, **changes):
    "Two epochs: of every step the share of patches that stays, graphs compiled so far, losses."
    loop, seen = loop_of(people, name, network=SHALLOW, epochs=2, **changes), []
    for epoch in range(2):
        for _ in loop.steps():
            losses = loop.under_way.means(loop.under_way.done)    # of the epoch so far
            graphs = counters["stats"]["unique_graphs"]
            seen.append((loop.model.keep_ratio, graphs, losses))
        loop.history.append(losses)
        loop.network()    # in eval mode, as where an epoch is judged
    return seen


@pytest.mark.parametrize("name,backend", sample(
    [(name, "aot_eager") for name in ("ppt_nano", "sd_dppt_nano", "dppt_nano")]
    # what `compile` uses; its compiler takes a minute a network
    + [("tokenpose_nano", "inductor"), ("ppt_nano", "inductor")], 0,
))
def test_compiled_training_is_the_eager_one_and_compiles_once_a_ratio(name, backend, monkeypatch):
    "A dozen steps on a CPU: the losses agree, and only a new share of patches is compiled."
    crops = from_synthetic(make_people(52, COCO17, (64, 48), seed=1, margin=1.5))
    falling = dict(anneal=(0.2, 0.8), anneal_steps=2) if "ppt" in name else {}
    changes = dict(falling, equal_batches=True)
    eager = steps_of(crops, name, **changes)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    counters.clear()
    steps = steps_of(crops, name, compile=True, **changes)
    breaks = dict(counters["graph_break"])
    torch._dynamo.reset()
    assert len(steps) == 12 and not breaks
    for (_, _, ours), (_, _, theirs) in zip(steps, eager, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)
    ratios = [ratio for ratio, *_ in steps]
    assert len(set(ratios)) == (3 if falling else 1)
    # as many graphs as shares were met so far: none for a later step of the same share
    assert [graphs for _, graphs, _ in steps] == [len({*ratios[:n]}) for n in range(1, 13)]


def test_who_can_be_recorded():
    recipe, gpu = get_recipe("ppt_nano"), torch.device("cuda")
    assert can_capture(recipe, "bf16", gpu)
    assert not can_capture(recipe, "bf16", torch.device("cpu"))
    assert not can_capture(recipe, "fp16", gpu)
    assert not can_capture(recipe.change(overrides={"reduce": "random"}), "bf16", gpu)


class Recorder:
    "A stand-in for `CapturedStep` that any machine has: it notes shapes, and runs the step."
    def __init__(self, learn, device, draws):
        self.learn, self.draws, self.shapes = learn, draws, []

    def running(self): return nullcontext()

    def __call__(self, index, shape):
        self.shapes.append(shape)
        return self.learn(index)


def test_an_epoch_goes_through_what_records_its_steps_and_learns_the_same(people, monkeypatch):
    plain = loop_of(people)
    means = plain.train_epoch()
    monkeypatch.setattr("dppt_nb.loop.can_capture", lambda recipe, compute, device: True)
    monkeypatch.setattr("dppt_nb.loop.CapturedStep", Recorder)
    loop = loop_of(people)
    assert loop.train_epoch() == means and loop.captured.draws is loop.draws
    assert [people for people, _ in loop.captured.shapes] == [len(b) for b in loop.batches()]
    assert all(torch.equal(v, loop.tensors()[k]) for k, v in plain.tensors().items())
    loop = Loop(loop.recipe, people, team=Team("cpu", accumulate=2))
    assert loop.captured is None    # a step of several parts is not recorded


def test_an_objective_that_reads_the_progress_is_not_recorded(people, monkeypatch):
    "It would learn with the numbers of one step for ever; without recording it reads them."
    fading = lambda trace, batch, now: {"more": now.fraction * trace.logits[0].mean()}
    plain = loop_of(people)
    plain.objectives.append(fading)
    assert plain.train_epoch()["more"]
    monkeypatch.setattr("dppt_nb.loop.can_capture", lambda recipe, compute, device: True)
    monkeypatch.setattr("dppt_nb.loop.CapturedStep", Recorder)
    loop = loop_of(people)
    loop.objectives.append(fading)
    with pytest.raises(DataError, match="reads the progress .*; say --capture false"):
        loop.train_epoch()
    assert loop.step == 0 and len(loop.captured.shapes) == 1
    for name in ("epoch", "step", "total_steps"):
        with pytest.raises(DataError, match="reads the progress"): getattr(loop.now, name)


def test_what_was_recorded_is_dropped_where_moments_are_put_back(people, tmp_path, monkeypatch):
    "A recording has the addresses of the moments and rates that are replaced."
    monkeypatch.setattr("dppt_nb.loop.can_capture", lambda recipe, compute, device: True)
    monkeypatch.setattr("dppt_nb.loop.CapturedStep", Recorder)
    recipe = get_recipe("tokenpose_nano", image_size=(64, 48), batch_size=8, overrides=SMALL)
    trainer = Trainer(recipe, people, None, tmp_path, "cpu", bars=False)
    trainer.fit(epochs=1)
    former = trainer.captured
    trainer.fit(epochs=2, resume=True)
    assert len(former.shapes) == len(trainer.captured.shapes) == trainer.steps_per_epoch


class Queue:
    "A stand-in for a GPU's queue, or for a mark in it: it notes for whom it waits."
    def __init__(self, device=None): self.device, self.before = device, []
    def wait_stream(self, queue): self.before.append(queue)
    def record(self, queue=None): self.before.append(queue)
    def query(self): return True


def test_on_a_second_gpu_its_own_queue_is_waited_for(monkeypatch):
    "And not that of the first one, which PyTorch takes where no device is named."
    there, made, queues = torch.device("cuda:1"), [], {}
    def mark():
        made.append(Queue())
        return made[-1]
    monkeypatch.setattr(torch.cuda, "Event", mark)
    monkeypatch.setattr(torch.cuda, "Stream", Queue)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda queue: nullcontext())
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device=None: queues.setdefault(device, Queue(device))
    )
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory, **how: empty(*a, **how))
    step = CapturedStep(None, there, None)
    with step.running(): pass
    assert list(queues) == [there] and step.stream.device == there
    assert step.stream.before == [queues[there]] and queues[there].before == [step.stream]
    with pytest.raises(KeyboardInterrupt):
        with step.running(): raise KeyboardInterrupt
    assert queues[there].before == [step.stream] * 2    # what was sent before is waited for
    Alarm(None, there).note({"pose": torch.tensor(1.0)}, 1)
    assert made[0].before == [queues[there]] and list(queues) == [there]


def test_a_stop_is_read_where_it_was_sent_a_step_ago(monkeypatch):
    "Of several GPUs: the number of a step is copied behind it, and read behind the next one."
    marks, waited, team = [], [], Team("cpu")
    def mark():
        number = len(marks)
        marks.append(SimpleNamespace(record=lambda queue: None,
                                     synchronize=lambda: waited.append(number)))
        return marks[-1]
    monkeypatch.setattr(torch.cuda, "Event", mark)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **how: empty(*a, **how))
    team.count, team.device = 2, torch.device("cuda:1")
    team.accelerator = SimpleNamespace(reduce=lambda flat, how: flat)
    stops = []
    for team.asked in (False, True, True):
        share_step(team, torch.nn.Linear(2, 2), {"pose": torch.tensor(1.0)})
        stops.append((stop_was_asked(team), list(waited)))
    assert stops == [(False, []), (False, [0]), (True, [0, 1])] and len(marks) == 3


def test_what_a_predictor_records_runs_where_its_tensors_are(monkeypatch):
    queues, recorded = {}, []
    def record(graph, stream=None):
        recorded.append(stream)
        return nullcontext()
    monkeypatch.setattr(torch.cuda, "Stream", Queue)
    monkeypatch.setattr(torch.cuda, "stream", lambda queue: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device=None: queues.setdefault(device, Queue(device))
    )
    there = torch.device("cpu")    # any device that can be told from none
    Captured(lambda value: (value + 1,), torch.zeros(1, device=there))
    side, = recorded
    assert list(queues) == [there] and side.device == there and queues[there].before == [side]


@needs_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("name", ["tokenpose_nano", "dppt_nano", "sd_dppt_nano"])
def test_a_recorded_step_is_the_eager_one(people, name):
    "Same losses and weights; and no step asks the processor for anything."
    ends = []
    for capture in (False, True):
        loop = loop_of(people, name, "cuda", capture=capture)
        assert (loop.captured is not None) == capture
        index = torch.arange(8, device="cuda")
        with loop.stepping():
            for _ in range(5): loop.train_people(index)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try: losses = loop.train_people(index)
            finally: torch.cuda.set_sync_debug_mode("default")
        ends.append({k: float(v) for k, v in losses.items()})
    assert ends[0] == pytest.approx(ends[1], rel=1e-2)


@needs_gpu
@pytest.mark.cuda
def test_rates_of_a_recorded_step_are_those_of_today(people):
    loop = loop_of(people, device="cuda")
    rates = [group["lr"] for o in loop.optimizers for group in o.param_groups]
    assert all(torch.is_tensor(rate) and rate.is_cuda for rate in rates)


def test_rates_on_a_cpu_are_numbers(people):
    loop = loop_of(people)
    loop.begin_step()
    rates = [group["lr"] for o in loop.optimizers for group in o.param_groups]
    assert all(isinstance(rate, float) and rate > 0 for rate in rates)
    assert make_optimizers(loop.model, loop.recipe)[0].param_groups[0]["peak"] == loop.recipe.lr


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep memory")
def test_memory_that_is_kept_is_not_wiped_again():
    program = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from dppt_nb.optim import keep_memory
    if not keep_memory(): sys.exit("not glibc")
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
def touch():
    block = library.malloc(1 << 26)
    ctypes.memset(block, 1, 1 << 26)
    library.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    pages = {}
    for way in ("plain", "kept"):
        done = subprocess.run(
            [sys.executable, "-c", program, way], capture_output=True, text=True, env=clean
        )
        if "not glibc" in done.stderr: pytest.skip("only glibc is told to keep memory")
        pages[way] = int(done.stdout)
    # 4 times 64 MB in pages of 4 kB (or in huge ones of 2 MB, if the system gives them)
    assert pages["plain"] >= 100 and pages["kept"] < 20, pages


def test_muon_is_an_optimiser_as_frameworks_expect_one():
    "They hand over a function that computes the loss; who gives it no matrix is told at once."
    layer, x = torch.nn.Linear(16, 16, bias=False), torch.randn(4, 16)
    twin, losses = copy.deepcopy(layer), []
    ours, theirs = Muon(layer.parameters()), Muon(twin.parameters())
    def closure():
        losses.append(layer(x).square().mean())
        losses[-1].backward()
        return losses[-1]
    assert ours.step(closure) is losses[0]
    twin(x).square().mean().backward()
    assert theirs.step() is None and torch.equal(layer.weight, twin.weight)
    with pytest.raises(ValueError, match=r"matrices, not parameters of shape \(16,\); give those"):
        Muon(torch.nn.Linear(16, 16).parameters())


def test_a_frozen_model_has_nothing_to_optimise():
    with pytest.raises(DataError, match="requires a gradient"):
        make_optimizers(torch.nn.Linear(3, 3).requires_grad_(False), get_recipe("tokenpose_nano"))

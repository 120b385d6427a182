"""Networks timed in rounds, all ways in turn: forward passes beside a float32 matrix product
(ratios, see nbs/machinery/costs.ipynb), and on a CPU PyTorch
beside onnxruntime in 32 and 8 bits (see nbs/machinery/peers.ipynb)."""
import platform
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click
import torch

from dppt_nb.checkpoints import load_network
from dppt_nb.costs import benchmark_forward, format_benchmark, time_interleaved
from dppt_nb.evaluation import device_name
from dppt_nb.export import OnnxNetwork, export_onnx, fold_norms, open_cached, quantise_onnx
from dppt_nb.files import write_json
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model, list_models
from dppt_nb.optim import pick_device
from dppt_nb.store import synthetic_people
from dppt_nb.terminal import Sentences

# beside this file, which is run as a script or loaded by a test
sys.path.insert(0, str(Path(__file__).resolve().parent))
from judging import write_json_too  # noqa: E402
from training_speed import train  # noqa: E402


@click.group(cls=Sentences)
def main():
    "Time networks on this machine."


@main.command()
@click.argument("models", nargs=-1)
@click.option(
    "--batch", multiple=True, type=click.IntRange(1), default=(1, 16), show_default=True,
    help="images at once; may be given several times",
)
@click.option("--image-size", default="256x192", show_default=True, help="height x width")
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="rounds")
@click.option(
    "--threads", type=click.IntRange(1),
    help="threads of the processor; PyTorch's choice unless given",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda")
@click.option(
    "--processor-time",
    is_flag=True,
    help="instead of the wall clock; for one thread on a machine that others use",
)
@write_json_too
def forward(models, batch, image_size, repeats, threads, device, processor_time, out):
    """Time MODELS (default: tokenpose_s_v1 ppt_s), the first being the one that the others are
    compared with."""
    if threads: torch.set_num_threads(threads)
    if processor_time and torch.get_num_threads() > 1:
        raise click.UsageError("--processor-time adds threads up; give --threads 1 with it")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError("there is no GPU here; take --device cpu")
    pick_device(device)    # one that cannot be used is refused
    try:
        size = tuple(int(side) for side in image_size.split("x"))
        height, width = size
    except ValueError:
        raise click.UsageError(f"--image-size is {image_size}; it must be like 256x192") from None
    try:
        rows = benchmark_forward(
            models or ("tokenpose_s_v1", "ppt_s"), batch, size, repeats, device,
            time.process_time if processor_time else time.perf_counter,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    conditions = dict(
        device=device_name(device),
        threads=torch.get_num_threads(), clock="processor" if processor_time else "wall",
        rounds=repeats, image_size=size, torch=torch.__version__, python=platform.python_version(),
    )
    print(
        ", ".join(f"{name} {value}" for name, value in conditions.items())
        + "\n"
        + format_benchmark(rows)
    )
    if out: write_json(Path(out), dict(conditions=conditions, rows=rows))


def named_network(name):
    "A trained network, or with drawn weights a row of the table; and its keypoints."
    if name not in list_models():
        network, _, keypoint_set = load_network(name)
        return network, keypoint_set
    torch.manual_seed(0)
    network = create_model(name, image_size=(128, 96) if name.endswith("_nano") else (256, 192))
    return network.eval().to(memory_format=torch.channels_last), COCO17


def ways_of(name, folder):
    "One network in PyTorch, in onnxruntime, and there in 8 bits: way -> what is called."
    network, keypoint_set = named_network(name)
    plain = export_onnx(network, keypoint_set, folder / "plain.onnx")
    people = synthetic_people("val", network.image_size, 16)
    small = quantise_onnx(plain, folder / "int8.onnx", people)
    return {"PyTorch": network, "ONNX float32": OnnxNetwork(plain), "ONNX int8": OnnxNetwork(small)}


def time_ways(ways, batch, rounds, clock):
    "Rows of one network: milliseconds a person, and the median of each round's ratio to PyTorch."
    images = torch.randn(batch, 3, *ways["PyTorch"].image_size)
    with torch.inference_mode():
        runs = {way: partial(runner, images) for way, runner in ways.items()}
        took = time_interleaved(runs, rounds, clock=clock)
    plain = took["PyTorch"]
    return [
        dict(
            way=way, batch=batch, milliseconds=1000 * median(seconds) / batch,
            to_pytorch=median(a / b for a, b in zip(seconds, plain)),
        )
        for way, seconds in took.items()
    ]


@main.command()
@click.argument("networks", nargs=-1)
@click.option(
    "--batch", multiple=True, type=click.IntRange(1), default=(1, 16), show_default=True,
    help="people at once; may be given several times",
)
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="rounds")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--processor-time", is_flag=True, help="instead of the wall clock; for one thread")
@write_json_too
def predict(networks, batch, repeats, threads, processor_time, out):
    """Time NETWORKS (default: ppt_s; names of `dppt models` with drawn weights, or trained ones) on
    the CPU: PyTorch, onnxruntime, onnxruntime in 8 bits, in turns."""
    torch.set_num_threads(threads)
    if processor_time and threads > 1:
        raise click.UsageError("--processor-time adds threads up; give --threads 1 with it")
    clock, rows = time.process_time if processor_time else time.perf_counter, []
    for name in networks or ("ppt_s",):
        with tempfile.TemporaryDirectory() as folder: ways = ways_of(name, Path(folder))
        for size in batch:
            timed = time_ways(ways, size, repeats, clock)
            rows += [dict(network=Path(name).name, **row) for row in timed]
    known = dict(
        device=device_name("cpu"), threads=threads, rounds=repeats,
        clock="processor" if processor_time else "wall", torch=torch.__version__,
        onnxruntime=version("onnxruntime"), python=platform.python_version(),
    )
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    print(f"{'network':<20}{'way':<14}{'batch':>6}{'ms a person':>13}{'x PyTorch':>11}")
    for row in rows:
        print(
            f"{row['network']:<20}{row['way']:<14}{row['batch']:>6}{row['milliseconds']:>13.1f}"
            f"{row['to_pytorch']:>11.2f}"
        )
    if out: write_json(Path(out), dict(conditions=known, rows=rows))


def runners_of(name):
    "The ways that `choose_runner` of nbs/machinery/export.ipynb knows, and torch.compile."
    network, keypoint_set = named_network(name)
    ways = {
        "eager": network, "folded": fold_norms(network),
        "compiled": torch.compile(network, dynamic=False),
        "onnxruntime": open_cached(network, keypoint_set),
    }
    return {way: runner for way, runner in ways.items() if runner is not None}


@main.command()
@click.argument("networks", nargs=-1, required=True)
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="rounds")
@write_json_too
def runners(networks, repeats, out):
    """Time the ways to run NETWORKS on one thread of the CPU, one person, in float32: processor
    time, and each way's share of the eager time with the range of the rounds."""
    torch.set_num_threads(1)
    rows = []
    for name in networks:
        ways = runners_of(name)
        images = torch.randn(1, 3, *ways["eager"].image_size)
        with torch.inference_mode():
            plain = ways["eager"](images)
            apart = {way: (run(images) - plain).abs().max().item() for way, run in ways.items()}
            runs = {way: partial(run, images) for way, run in ways.items()}
            took = time_interleaved(runs, repeats, clock=time.process_time)
        for way, seconds in took.items():
            shares = [a / b for a, b in zip(seconds, took["eager"])]
            rows.append(dict(
                network=Path(name).name, way=way, milliseconds=1000 * median(seconds),
                to_eager=median(shares), rounds=[min(shares), max(shares)], apart=apart[way],
            ))
            print(f"{Path(name).name:<22}{way:<14}{1000 * median(seconds):>8.1f} ms"
                  f"{median(shares):>7.2f} of eager ({min(shares):.2f} to {max(shares):.2f})")
    known = dict(
        command=f"python tools/benchmark.py runners {' '.join(networks)} --repeats {repeats}",
        device=device_name("cpu"), threads=1, clock="processor", torch=torch.__version__,
        onnxruntime=version("onnxruntime"), python=platform.python_version(),
    )
    if out: write_json(Path(out), dict(conditions=known, rows=rows))


main.add_command(train)


if __name__ == "__main__": main()

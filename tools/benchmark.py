"""Forward passes timed in rounds with a float32 matrix product: ratios that travel from machine to
machine (see nbs/machinery/costs.ipynb)."""
import platform
import time
from pathlib import Path

import click
import torch

from dppt_nb.costs import benchmark_forward, format_benchmark
from dppt_nb.evaluation import device_name
from dppt_nb.files import write_json


@click.command()
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
@click.option(
    "--out", type=click.Path(), help="also write the rows and their conditions here, as JSON"
)
def main(models, batch, image_size, repeats, threads, device, processor_time, out):
    """Time MODELS (default: tokenpose_s_v1 ppt_s), the first being the one that the others are
    compared with."""
    if threads: torch.set_num_threads(threads)
    if processor_time and torch.get_num_threads() > 1:
        raise click.UsageError("--processor-time adds threads up; give --threads 1 with it")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError("there is no GPU here; take --device cpu")
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


if __name__ == "__main__": main()

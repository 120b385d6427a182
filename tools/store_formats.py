"""What a crop store's format costs, on LSPET's test people: bytes, grey levels, and joints that a
network no longer finds, beside crops cut from the photographs. Writes
nbs/results/store_formats.json, which nbs/machinery/cutting.ipynb prints.

    python tools/store_formats.py --root lspet_dataset.zip
"""
import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import click
import numpy as np
import torch
from judging import command_of, judge_network

from dppt_nb.checkpoints import load_network
from dppt_nb.crops import crop_affine, crop_image, normalize
from dppt_nb.cutting import prepare_store
from dppt_nb.datasets import read_dataset
from dppt_nb.evaluation import RESULTS_FORMAT, find_joints
from dppt_nb.files import write_json
from dppt_nb.metrics import bootstrap_interval, pck
from dppt_nb.store import read_store
from dppt_nb.terminal import Place, Sentence
from dppt_nb.views import plain_crops

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "store_formats.json"
# network -> codec, quality, and how large a stored crop is, as a multiple of the network's input
TRIED = {
    "tokenpose_nano_lspet": [
        ("jpeg", 92, 3), ("webp", 75, 3), ("jpeg", 92, 1.5), ("webp", 75, 1.5), ("webp", 68, 1.5),
        ("webp", 50, 1.5), ("webp", 78, 1),
    ],
    "tokenpose_s_lspet": [
        ("jpeg", 92, 1.5), ("webp", 75, 1.125), ("webp", 50, 1), ("webp", 68, 0.75),
        ("webp", 78, 0.5),
    ],
}
BATCH = 64


def direct_crops(table, crops, size):
    "(N, height, width, 3) uint8: the same people, cut from their photographs."
    cut, rows = [], {number: row for row, number in enumerate(table.ids.tolist())}
    for number, center, scale in zip(crops.ids.tolist(), crops.centers, crops.scales):
        photo = table.source.read(table.files[rows[number]])
        cut.append(crop_image(photo, crop_affine(center, scale, 0, size), size))
    return np.stack(cut)


def answer(network, recipe, found, images, crops):
    "Joints in pixels of the photographs, from crops that were cut already."
    told = []
    for index in torch.arange(len(images)).split(BATCH):
        batch = normalize(torch.from_numpy(images[index.numpy()]).permute(0, 3, 1, 2))
        places = crops.centers[index], crops.scales[index]
        with torch.inference_mode():
            told.append(find_joints(network, batch, *places, recipe, found)[0])
    return torch.cat(told)


def store_of(table, size, codec, quality, times):
    "The people in a store of that format, and its bytes."
    stored = tuple(int(side * times) for side in size)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        report = prepare_store(
            table, Path(folder) / "store", size, codec=codec, quality=quality, crop_size=stored,
            progress=False,
        )
        crops = read_store(Path(folder) / "store", progress=False)
    return crops, report["bytes"], stored


def judge_formats(name, table):
    "Rows of one network: crops from the photographs first, then each format beside them."
    network, recipe, found = load_network(name)
    recipe = recipe.change(mirror=False, precision="fp32")
    rows, direct, first = [], None, None
    for codec, quality, times in TRIED[name]:
        crops, size_in_bytes, stored = store_of(table, recipe.image_size, codec, quality, times)
        result, _, known = judge_network(network, recipe, found, crops, "lspet", "test")
        if direct is None:
            direct = direct_crops(table, crops, recipe.image_size)
            joints = answer(network, recipe, found, direct, crops)
            first = pck(joints, crops.photo_joints, crops.visible, crops.keypoint_set)
            rows.append(row_of(name, "cut from the photographs", first, first, known))
        off = np.abs(plain_crops(crops, recipe).astype(float) - direct).mean()
        rows.append(row_of(name, f"{codec} {quality}", result, first, known) | dict(
            stored=stored, bytes_a_person=size_in_bytes / len(crops), grey_levels_off=float(off),
        ))
        print(f"{name} {codec} {quality} {stored}: {rows[-1]['score']:.1f} "
              f"{rows[-1]['lost']:+.1f}, {off:.1f} grey levels off", flush=True)
    return rows


def row_of(name, words, result, first, known):
    "A format's score, and what it changes for the same people, with an interval over people."
    low, high = bootstrap_interval(result["hits"], result["counts"], other=first["hits"])
    return dict(
        network=name, format=words, score=float(result["mean"]), people=int(result["n"]),
        lost=float(result["mean"] - first["mean"]), interval=[float(low), float(high)],
        conditions=known,
    )


@click.command(cls=Sentence)
@click.option(
    "--people", type=click.IntRange(8), help="the first so many, to try it; writes nothing"
)
@click.option("--root", type=Place(exists=True), required=True, help="LSPET's folder or zip")
def main(root, people):
    "Measure what formats of a crop store cost."
    table = read_dataset("lspet", root).select("test").select(slice(people))
    rows = [row for name in TRIED for row in judge_formats(name, table)]
    command = command_of("store_formats", root=root)
    if not people: write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, rows=rows))


if __name__ == "__main__": main()

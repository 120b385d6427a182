"""The networks that ship, judged as the page in the browser and the ONNX file use them: one pass,
without the mirrored picture, in float32; and each beside `dppt_s_lspet`, on the same people, where
it knows the same joints. Writes nbs/results/one_pass.json, where the page takes its scores from.

    python tools/coco_70.py --root COCO --out coco_mini      # 70 photographs of COCO 2017
    python tools/one_pass.py --lspet lspet_dataset.zip --coco coco_mini
"""
from pathlib import Path

import click
import numpy as np
from judging import NETWORK, command_of, judge_network

from dppt_nb.checkpoints import CONFIG, find_network, load_network, shipped_networks
from dppt_nb.evaluation import RESULTS_FORMAT
from dppt_nb.files import read_json, write_json
from dppt_nb.metrics import bootstrap_interval
from dppt_nb.store import SYNTHETIC_PEOPLE, load_people
from dppt_nb.terminal import Place, Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "one_pass.json"
DRAWN = SYNTHETIC_PEOPLE["test"]


def judge(name, data, root, split):
    "One network on one data set: a row of the results file; and hits, counts and photographs."
    network, recipe, found = load_network(name)
    recipe = recipe.change(mirror=False, precision="fp32")
    people = DRAWN if data == "synthetic" else None
    crops = load_people(data, root, (split,), recipe.image_size, False, people)[split]
    result, judges, known = judge_network(network, recipe, found, crops, data, split)
    judged = result["hits"], result["counts"], judges.photos
    ends = bootstrap_interval(*judged[:2], photos=judges.photos)
    row = dict(
        network=name, weights=print_of(name), data=data, split=split,
        people=int(result["n"]),
        left_out=int(result["left_out"]), joints=int(result["counts"].any(0).sum()),
        score=float(result["mean"]), interval=[float(end) for end in ends], conditions=known,
    )
    return row, judged


def beside(row, judged, first):
    "How many points more a network found than the first one, with the interval of the difference."
    (hits, counts, photos), (score, (others, counted, _)) = judged, first
    if not np.array_equal(counts, counted): return None    # it knows other joints
    ends = bootstrap_interval(hits, counts, other=others, photos=photos)
    return dict(
        network=NETWORK, difference=row["score"] - score, interval=[float(end) for end in ends]
    )


def print_of(name):
    "The print of a network's weights, so that the file tells which ones were judged."
    return read_json(find_network(name) / CONFIG)["weights"]


def plan(roots):
    "Who is judged on what: photographs, and people made by program where it learned from those."
    photos = [("lspet", roots["lspet"], "test"), ("coco", roots["coco"], "all")]
    for name in sorted(shipped_networks(), key=lambda name: name != NETWORK):    # the first first
        learned = load_network(name)[0].about.get("data")
        drawn = [("synthetic", None, "test")] if learned == "synthetic" else []
        yield from ((name, *where) for where in drawn + photos)


@click.command(cls=Sentence)
@click.option("--lspet", type=Place(exists=True), required=True, help="its folder or zip")
@click.option("--coco", type=Place(exists=True), required=True, help="coco_mini")
def main(lspet, coco):
    "Judge every network that ships with one pass."
    runs, first = [], {}
    for name, data, *where in plan(dict(lspet=lspet, coco=coco)):
        row, judged = judge(name, data, *where)
        if name == NETWORK: first[data] = row["score"], judged
        elif data in first: row["beside"] = beside(row, judged, first[data])
        runs.append(row)
        low, high = row["interval"]
        print(f"{row['network']:<22}{row['data']:<11}{row['score']:.1f} ({low:.1f} to {high:.1f})"
              f" of {row['people']} people", flush=True)
    runs.sort(key=lambda run: run["network"])
    command = command_of("one_pass", lspet=lspet, coco=coco)
    write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, runs=runs))


if __name__ == "__main__": main()

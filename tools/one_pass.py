"""The networks that ship, judged as the page in the browser and the ONNX file use them: one pass,
without the mirrored picture, in float32. Writes nbs/results/one_pass.json, where the page takes
its scores from.

    python tools/coco_70.py --root COCO --out coco_mini      # 70 photographs of COCO 2017
    python tools/one_pass.py --lspet lspet_dataset.zip --coco coco_mini
"""
from pathlib import Path

import click
from judging import command_of, judge_network

from dppt_nb.checkpoints import CONFIG, find_network, load_network, shipped_networks
from dppt_nb.evaluation import RESULTS_FORMAT
from dppt_nb.files import read_json, write_json
from dppt_nb.metrics import bootstrap_interval
from dppt_nb.store import SYNTHETIC_PEOPLE, load_people
from dppt_nb.terminal import Place, Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "one_pass.json"
DRAWN = SYNTHETIC_PEOPLE["test"]


def judge(name, data, root, split):
    "One network on one data set, as a row of the results file."
    network, recipe, found = load_network(name)
    recipe = recipe.change(mirror=False, precision="fp32")
    people = DRAWN if data == "synthetic" else None
    crops = load_people(data, root, (split,), recipe.image_size, False, people)[split]
    result, judges, known = judge_network(network, recipe, found, crops, data, split)
    ends = bootstrap_interval(result["hits"], result["counts"], photos=judges.photos)
    return dict(
        network=name, weights=print_of(name), data=data, split=split,
        people=int(result["n"]),
        left_out=int(result["left_out"]), joints=int(result["counts"].any(0).sum()),
        score=float(result["mean"]), interval=[float(end) for end in ends], conditions=known,
    )


def print_of(name):
    "The print of a network's weights, so that the file tells which ones were judged."
    return read_json(find_network(name) / CONFIG)["weights"]


def plan(roots):
    "Who is judged on what: photographs, and people made by program where it learned from those."
    photos = [("lspet", roots["lspet"], "test"), ("coco", roots["coco"], "all")]
    for name in shipped_networks():
        learned = load_network(name)[0].about.get("data")
        drawn = [("synthetic", None, "test")] if learned == "synthetic" else []
        yield from ((name, *where) for where in drawn + photos)


@click.command(cls=Sentence)
@click.option("--lspet", type=Place(exists=True), required=True, help="its folder or zip")
@click.option("--coco", type=Place(exists=True), required=True, help="coco_mini")
def main(lspet, coco):
    "Judge every network that ships with one pass."
    runs = []
    for one in plan(dict(lspet=lspet, coco=coco)):
        runs.append(row := judge(*one))
        low, high = row["interval"]
        print(f"{row['network']:<22}{row['data']:<11}{row['score']:.1f} ({low:.1f} to {high:.1f})"
              f" of {row['people']} people", flush=True)
    command = command_of("one_pass", lspet=lspet, coco=coco)
    write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, runs=runs))


if __name__ == "__main__": main()

"""Networks that learned from LSPET, on people of COCO, whom none of them has seen: writes
nbs/results/transfer.json. Judged are the networks whose weights lie in the project, and those of
the finished runs of a study where its folder is at hand.

    python tools/coco_70.py --root COCO --out coco_mini      # 70 photographs of COCO 2017
    dppt study keep --out keep ...                           # its README has the whole line
    python tools/transfer.py --root coco_mini --study keep

With `--add` rows that are stored stay, and what is not there, and the studies, come beside them.
The row `dppt_s` is `dppt_s_lspet` as it was after 14 epochs: its weights lie in the project's
history, before it was trained further, so only `--add` keeps the row.
"""
from pathlib import Path

import click
from judging import command_of, judge_network

from dppt_nb.checkpoints import holds_network, load_network
from dppt_nb.evaluation import RESULTS_FORMAT
from dppt_nb.files import read_json, write_json
from dppt_nb.judged import finished_runs, stored_score
from dppt_nb.store import load_people
from dppt_nb.studies import run_folder
from dppt_nb.terminal import Place, Sentence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "transfer.json"
SHIPPED = {    # row -> name of a network that ships
    "tokenpose_s": "tokenpose_s_lspet", "ppt_s": "ppt_s_lspet", "dppt_s_further": "dppt_s_lspet",
    "sdpose_nano": "sdpose_nano_lspet", "dppt_nano": "dppt_nano_lspet",
    "tokenpose_lite": "tokenpose_lite_lspet",
}
TEACHERS = ROOT / "nbs" / "results" / "teachers"


def shipped():
    "Row, and where the network is, of those that lie in the project."
    folders = sorted(TEACHERS.glob("tokenpose_nano_lspet_seed*"))
    return list(SHIPPED.items()) + [("tokenpose_nano", folder) for folder in folders]


def judge(row, place, root):
    "One network on everybody, as a row of a results file, with the mirrored test."
    network, recipe, found = load_network(place)
    crops = load_people("coco", root, ("all",), recipe.image_size, False)["all"]
    result, people, known = judge_network(network, recipe, found, crops, "coco", "all")
    return dict(
        row=row, seed=recipe.seed, network=Path(place).name, **stored_score(result, people),
        measured=int(result["n"]), conditions=known,
    )


def of_studies(studies):
    "Row, and where the network is, of the finished runs of some studies."
    found = []
    for study in studies:
        for run in finished_runs(study):
            folder = run_folder(study, run["row"], run["seed"])
            # a row that only judges another's network has none of its own
            if not holds_network(folder): continue
            # the fresh seeds' PPT of 17 epochs, by the name that it has there
            longer = "_17" if run["recipe"]["epochs"] == 17 else ""
            found.append((run["row"] + longer, folder))
    return found


@click.command(cls=Sentence)
@click.option("--root", type=Place(exists=True), required=True, help="coco_mini")
@click.option(
    "--study", "studies", type=Place(exists=True), multiple=True, help="folder of a study"
)
@click.option("--add", is_flag=True, help="keep what is stored, judge what is not")
def main(root, studies, add):
    "Judge every network whose weights are here on people of COCO."
    before = read_json(RESULTS, dict) if add else dict(runs=[])
    there = {run["network"] for run in before["runs"]}
    wanted = [(row, place) for row, place in shipped() if Path(place).name not in there]
    wanted += of_studies(studies)
    runs = [judge(*network, root) for network in wanted]
    for run in runs: print(f"{run['network']:<30}{run['score']:.1f} of {run['measured']} people")
    command = command_of("transfer", root=root, study=studies) + " --add" * add
    if add:
        new = {(run["row"], run["seed"]) for run in runs}
        runs = [r for r in before["runs"] if (r["row"], r["seed"]) not in new] + runs
        command = f"{before['command']}, then {command}"
    write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, runs=runs))


if __name__ == "__main__": main()

"""Does a taught student answer better because it keeps better patches? PPT and DPPT of the fresh
seeds each answer on the patches that the other would have kept, and on those of three more judges:
the teacher, one fixed mask, and nobody (all patches stay). Writes nbs/results/choice.json.

    dppt study dppt --rows ppt,dppt --seeds 3 --out fresh3 ...    # as in study_lspet_nano_fresh
    python tools/whose_choice.py --root STORE --s lspet_dataset.zip --study fresh3 ...

How many of the joints' own patches two networks keep is counted by itself, into the same file:

    python tools/whose_choice.py --root lspet_dataset.zip --pair nbs/results/seed3
"""
from pathlib import Path

import click
import torch
from judging import command_of, judge_network
from torch import nn

from dppt_nb.checkpoints import load_network
from dppt_nb.crops import apply_affine, batched_affine
from dppt_nb.evaluation import RESULTS_FORMAT, predict_joints
from dppt_nb.files import read_json, write_json
from dppt_nb.judged import finished_runs, stored_score
from dppt_nb.pruning import KeepPlaces, joints_kept, keep_patches, often_kept
from dppt_nb.store import load_people
from dppt_nb.studies import run_folder
from dppt_nb.terminal import Place, Sentence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "choice.json"
TEACHERS = ROOT / "nbs" / "results" / "teachers"


class Choices(nn.Module):
    "A network that answers nothing: it notes which patches it would keep, call after call."
    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, images):
        trace = self.network.trace(images, look=())
        self.calls.append([trace.kept[0][layer] for layer in self.network.config.prune_at])
        return trace.heatmaps[0]


class Given(nn.Module):
    "A network whose patches are chosen by another, which saw the same pictures in the same order."
    def __init__(self, network, calls):
        super().__init__()
        self.network, self.calls = network, iter(calls)

    def forward(self, images):
        wanted = iter(next(self.calls))    # for each layer that prunes

        def keep_given(tokens, attention, keys, count):
            places = next(wanted)                                        # (B, count) of the grid
            stay = (places[:, :, None] == tokens.kept[:, None]).long().argmax(-1)
            return keep_patches(tokens, stay)

        encoder = self.network.encoder
        before, encoder.reducer = encoder.reducer, keep_given
        try: return self.network(images)
        finally: encoder.reducer = before


def choices_of(network, crops, recipe):
    "What a network keeps of everybody, picture by picture and mirrored."
    noted = Choices(network)
    predict_joints(noted, crops, recipe, bars=False)
    return noted.calls


def kept_at_the_end(calls, mirror):
    "(N, K) patches of the plain pictures; `average_flip` asks of the mirrored ones first."
    return torch.cat([call[-1] for call in (calls[1::2] if mirror else calls)])


def as_pruned(teacher, student):
    "The teacher's weights in a network that prunes like the student."
    network, _, _ = load_network(student)
    network.load_state_dict(load_network(teacher)[0].state_dict())
    return network.eval()


def judge_seed(folders, seed, teacher, crops):
    "All pairs of a student and a judge, as rows of a results file, for one seed."
    students = {name: load_network(folder) for name, folder in folders.items()}
    recipe = students["ppt"][1]
    judges = {name: network for name, (network, _, _) in students.items()}
    judges["teacher"] = as_pruned(teacher, folders["ppt"])
    kept = {name: choices_of(network, crops["test"], recipe) for name, network in judges.items()}
    of_val = kept_at_the_end(choices_of(judges["dppt"], crops["val"], recipe), recipe.mirror)
    grid = judges["ppt"].config.grid
    mask = KeepPlaces(often_kept(of_val, grid[0] * grid[1]))
    runs = []
    for name, (network, _, _) in students.items():
        runs += judge_choices(name, seed, network, recipe, crops["test"], kept, mask)
    return runs, dict(seed=seed, joints_kept=places_kept(kept, crops["test"], recipe, grid))


def count_pair(folder, root):
    "What the networks `ppt` and `dppt` of a folder keep, and the teacher of the second."
    (ppt, recipe, _), (dppt, taught, _) = (load_network(folder / name) for name in ("ppt", "dppt"))
    judges = dict(ppt=ppt, dppt=dppt, teacher=as_pruned(TEACHERS / taught.teacher, folder / "ppt"))
    crops = load_people("lspet", root, ("test",), recipe.image_size, False)["test"]
    kept = {name: choices_of(network, crops, recipe) for name, network in judges.items()}
    return dict(
        seed=recipe.seed, people=len(crops),
        joints_kept=places_kept(kept, crops, recipe, ppt.config.grid),
    )


def places_kept(kept, crops, recipe, grid):
    "Of every judge the percentage of the labelled joints whose own patch it keeps to the end."
    return {
        name: joints_on(kept_at_the_end(calls, recipe.mirror), crops, recipe, grid)
        for name, calls in kept.items()
    }


def judge_shipped(names, root):
    """PPT and DPPT that ship, each on its own patches, on the other's, and on all. They are of
    other seeds, so that only rows of one network can be compared."""
    students = {name: load_network(network) for name, network in names.items()}
    recipe = students["ppt"][1]
    crops = load_people("lspet", root, ("test",), recipe.image_size, False)["test"]
    kept = {name: choices_of(network, crops, recipe) for name, (network, _, _) in students.items()}
    runs = []
    for name, (network, mine, _) in students.items():
        runs += judge_choices(f"{name}_s", mine.seed, network, recipe, crops, kept)
    return runs


def judge_choices(name, seed, network, recipe, crops, kept, mask=None):
    """A student on the patches that each judge keeps, on those of a mask where there is one, and on
    all of them, as rows of a results file."""
    row = lambda judge, way: judge_one(f"{name}, kept by {judge}", seed, way, crops, recipe)
    runs = [row(judge, Given(network, calls)) for judge, calls in kept.items()]
    own = network.encoder.reducer
    if mask is not None:
        network.encoder.reducer = mask
        runs.append(row("mask", network))
    network.encoder.reducer, network.keep_ratio = own, 1.0
    return [*runs, row("nobody", network)]


def joints_on(kept, crops, recipe, grid):
    "Percent of the labelled joints whose own patch is kept."
    windows = batched_affine(crops.centers, crops.scales, 0, recipe.image_size, recipe.unbiased)
    joints = apply_affine(crops.photo_joints, windows)    # in pixels of the network's input
    own = joints_kept(kept, joints, recipe.image_size, grid)
    return 100 * own[crops.visible > 0].float().mean().item()


def judge_one(row, seed, network, crops, recipe):
    "One row of the results file."
    found = crops.keypoint_set
    result, people, known = judge_network(network, recipe, found, crops, "lspet", "test")
    print(f"seed {seed}: {row:<24}{result['mean']:.1f}   {known['seconds']:.0f} s", flush=True)
    return dict(row=row, seed=seed, **stored_score(result, people), conditions=known)


SHIPPED = {"ppt": "ppt_s_lspet", "dppt": "dppt_s_lspet"}


@click.command(cls=Sentence)
@click.option("--root", type=Place(exists=True), required=True, help="LSPET, or a store of it")
@click.option("--s", "large", type=Place(exists=True), help="LSPET for the S networks")
@click.option(
    "--study", "studies", type=Place(exists=True), multiple=True,
    help="folder of a study with ppt and dppt",
)
@click.option(
    "--pair", type=Place(exists=True, path_type=Path),
    help="folder with networks ppt and dppt: count what these keep, leave the rest as it is",
)
def main(root, large, studies, pair):
    "Judge PPT and DPPT on the patches that others would have kept."
    if bool(studies) == bool(pair): raise click.UsageError("name either --study or --pair")
    if pair: return write_json(RESULTS, read_json(RESULTS) | dict(shares=[count_pair(pair, root)]))
    crops, runs, shares = load_people("lspet", root, ("val", "test"), bars=False), [], []
    for study in studies:
        known = {(run["row"], run["seed"]): run for run in finished_runs(study)}
        for seed in sorted(seed for row, seed in known if row == "dppt"):
            folders = {row: run_folder(study, row, seed) for row in ("ppt", "dppt")}
            teacher = TEACHERS / Path(known["dppt", seed]["recipe"]["teacher"]).name
            more, share = judge_seed(folders, seed, teacher, crops)
            runs += more
            shares.append(share)
    if large: runs += judge_shipped(SHIPPED, large)
    command = command_of("whose_choice", root=root, s=large, study=studies)
    write_json(RESULTS, dict(format=RESULTS_FORMAT, command=command, runs=runs, shares=shares))


if __name__ == "__main__": main()

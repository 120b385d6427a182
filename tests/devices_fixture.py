"""One step of several recipes, alone or as one of two processes: what the losses and the gradients
are; and a short run from crops that stay bytes. Run as a program it writes them to the file that it
is given."""
import copy
import sys
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import tiny_fixture
import torch
from safetensors.torch import save_file

from dppt_nb import loop as loop_module
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.devices import Team
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model
from dppt_nb.recipes import Recipe, get_recipe
from dppt_nb.store import from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.training import Loop

SIZE, TINY = (64, 48), tiny_fixture.TINY | dict(depth=2)
PRUNED = TINY | dict(prune_at=(1,))
CASES = {
    "plain": ("tokenpose_nano", dict(overrides=TINY)),
    "squared error": ("tokenpose_nano", dict(overrides=TINY | dict(head="mlp"))),
    "regression": ("sdpose_nano", dict(
        overrides=TINY | dict(head="regression", cycles=2), keypoint_cycles=0.0, patch_cycles=0.0,
    )),
    "dppt": ("dppt_nano", dict(overrides=PRUNED, guide=0.3)),
    "sdpose": ("sdpose_nano", dict(overrides=TINY | dict(cycles=2), heatmap_cycles=0.5)),
    "sd_dppt": ("sd_dppt_nano", dict(overrides=PRUNED | dict(cycles=2), heatmap_cycles=0.5)),
}


@cache
def made_people(): return from_synthetic(make_people(13, COCO17, SIZE, seed=1, margin=1.5))


def some_people():
    "Thirteen people, the first of whom have few labels."
    people = copy.deepcopy(made_people())
    people.visible[:6, 3:] = 0
    return people


def loop(team, recipe, changes):
    "A loop whose batch norms keep what they know."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        teacher = create_model("tokenpose_nano", image_size=SIZE, **TINY | dict(width=24))
    recipe = get_recipe(
        recipe, image_size=SIZE, batch_size=13, precision="fp32", clip_norm=0.0, **changes
    )
    made = Loop(recipe, some_people(), teacher=teacher.eval(), team=team)
    made.model.train()
    for module in made.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d): module.eval()
    return made


def one_step(team, recipe, changes):
    "Losses and gradients of a step, by name; what the weights move to is not looked at."
    run, found = loop(team, recipe, changes), {}
    run.move_weights = lambda: found.update(
        {f"gradient {k}": p.grad.clone() for k, p in run.trained_modules.named_parameters()
         if p.grad is not None}
    )
    losses = run.train_people(torch.arange(13))
    return found | {f"loss {k}": v for k, v in losses.items()}


def run_from_bytes(team, fetched=True):
    """Losses and weights of two epochs from crops that are decoded on demand, and how many people
    `feed` handed on in each batch; without it (`fetched` False) each step fetches its own."""
    people, handed, plainly = some_people(), [], loop_module.feed
    contents = [encode_crop(image.permute(1, 2, 0).numpy()) for image in people.images]
    encoded = EncodedCrops(contents, tuple(people.images.shape[2:]), "jpeg", "this test")
    recipe = Recipe(image_size=SIZE, overrides=TINY, batch_size=4, warmup_steps=2)
    run = Loop(recipe, replace(people, images=encoded), team=team)
    if not fetched: run.train_batches = lambda batches: map(run.train_people, batches)
    def feed(crops, batches, make, **options):
        noted = lambda people, rows: handed.append(len(rows)) or make(people, rows)
        return plainly(crops, batches, noted, **options)
    with patch.object(loop_module, "feed", feed):
        for epoch in range(2): run.history.append(run.train_epoch())
    losses = {f"loss {i} {k}": torch.tensor(v).double() for i, row in enumerate(run.history)
              for k, v in row.items()}
    return losses | {k: v.clone().contiguous() for k, v in run.tensors().items()}, handed


def fed_and_not(team):
    "Both ways in one dictionary of tensors; all that a batch hands on stands beside them."
    fed, handed = run_from_bytes(team)
    former, none = run_from_bytes(team, fetched=False)
    assert not none
    both = {f"fed: {k}": v for k, v in fed.items()} | {f"former: {k}": v for k, v in former.items()}
    return both | {"handed": torch.tensor(handed)}


def all_steps(team):
    "Of all recipes, in one dictionary of tensors."
    return {f"{case}: {k}": v.contiguous() for case, (recipe, changes) in CASES.items()
            for k, v in one_step(team, recipe, changes).items()}


if __name__ == "__main__":
    out, accumulate = sys.argv[1], [int(number) for number in sys.argv[2:]]
    team = Team("cpu")
    with team.together():
        for number in accumulate:
            team.accumulate = number
            found = all_steps(team) | fed_and_not(team)
            if team.main: save_file(found, f"{out}-{number}.safetensors")

"""What it takes to add: a reducer, an objective, a backbone, a data set and a row of a study, each
written outside the package, put into its registry by one row, and trained with. The lines that each
takes stand in CONTRIBUTING.md, and are counted here."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dppt_nb.backbones import BACKBONES
from dppt_nb.datasets import DATASETS
from dppt_nb.judged import run_study
from dppt_nb.keypoints import COCO17
from dppt_nb.pruning import REDUCERS
from dppt_nb.recipes import LESSONS
from dppt_nb.runner import train_recipe
from dppt_nb.studies import STUDIES
from dppt_nb.synthetic import make_people

ADDITIONS = {
    "a way to reduce tokens": '''
from dppt_nb.pruning import REDUCERS, keep_patches, keep_top, patch_scores

def keep_ignored(tokens, attention, keys, count):
    "The patches that the keypoint tokens attend to least stay."
    scores = patch_scores(attention[..., tokens.num_keypoints:].detach())
    return keep_patches(tokens, keep_top(-scores, count))

REDUCERS["ignored"] = keep_ignored
''',
    "an objective": '''
from torch import nn
from dppt_nb.recipes import LESSONS, Lesson

class Small(nn.Module):
    "Large logits cost something."
    cycles, look = 1, ()
    def __init__(self, weight):
        super().__init__()
        self.weight = weight
    def forward(self, trace, batch, progress):
        return {"small": self.weight * trace.logits[0].square().mean()}

LESSONS["small"] = Lesson(lambda model, teacher, recipe: Small(recipe.weight("small")))
''',
    "a backbone": '''
from torch import nn
from dppt_nb.backbones import BACKBONES, Backbone

class Strides(nn.Module):
    "Two convolutions, straight to an eighth of the size."
    channels, strides = (16,), (8,)
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 2, 2))
    def forward(self, images):
        return [self.layers(images)]

BACKBONES["strides"] = Backbone(lambda config: Strides(), (16,), (8,))
''',
    "a data set in COCO's format": '''
from dppt_nb.datasets import DATASETS, DataSet, read_coco

DATASETS["mine"] = DataSet(read_coco, ap=True, judged="val")
''',
    "a row of a study": '''
from dppt_nb.studies import STUDIES, Row

STUDIES["dppt"].append(Row("wide", "wider targets", dict(model="tokenpose_nano", sigma=1.5)))
''',
}
SMALL = dict(
    image_size=(64, 48), epochs=1, batch_size=8, overrides={"width": 32, "heads": 2},
)


@pytest.fixture
def add(monkeypatch):
    "Run one of the additions, and leave the registries as they were."
    for registry in (REDUCERS, LESSONS, BACKBONES, DATASETS):
        for name in registry: monkeypatch.setitem(registry, name, registry[name])
    rows = list(STUDIES["dppt"])
    before = {id(r): set(r) for r in (REDUCERS, LESSONS, BACKBONES, DATASETS)}
    yield lambda what: exec(ADDITIONS[what], {})
    STUDIES["dppt"][:] = rows
    for registry in (REDUCERS, LESSONS, BACKBONES, DATASETS):
        for name in set(registry) - before[id(registry)]: del registry[name]


def train(tmp_path, model="tokenpose_nano", data="synthetic", root=None, people=16, **changes):
    "One epoch of a small network; the row of its history."
    from dppt_nb.recipes import get_recipe
    overrides = SMALL["overrides"] | changes.pop("overrides", {})
    small = SMALL | dict(model=model, overrides=overrides)
    recipe = get_recipe("tokenpose_nano", **small, **changes)
    run = train_recipe(recipe, data, root, tmp_path / "run", "cpu", bars=False, people=people)
    return run["history"][-1]


def test_a_reducer_trains(add, tmp_path):
    add("a way to reduce tokens")
    assert train(tmp_path, "ppt_nano", overrides={"reduce": "ignored"})["pose"] > 0


def test_merging_trains_from_a_recipe(tmp_path):
    assert train(tmp_path, "ppt_nano", overrides={"reduce": "merge"})["pose"] > 0


def test_an_objective_trains(add, tmp_path):
    add("an objective")
    assert train(tmp_path, lessons={"small": 0.1})["small"] > 0


def test_a_backbone_trains(add, tmp_path):
    add("a backbone")
    strides = dict(backbone="strides", head="mlp", patch_size=(2, 2))
    assert train(tmp_path, overrides=strides)["pose"] > 0


def test_a_data_set_trains(add, tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    add("a data set in COCO's format")
    root = write_coco(tmp_path / "mine")
    assert train(tmp_path, data="mine", root=root, people=None)["pose"] > 0


def test_a_row_of_a_study_trains(add, tmp_path):
    from dppt_nb.recipes import get_recipe
    add("a row of a study")
    (run,) = run_study(
        "dppt", data="synthetic", base=get_recipe("tokenpose_nano", **SMALL), seeds=(0,),
        names=("wide",), out=tmp_path, device="cpu", people=16, epochs=1,
    )
    assert run["recipe"]["sigma"] == 1.5


def test_the_lines_that_it_takes_are_those_that_are_told():
    told = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text()
    for what, code in ADDITIONS.items():
        lines = sum(bool(line.strip()) for line in code.splitlines())
        assert re.search(rf"\| {re.escape(what)} \|.*\| {lines} \|", told), f"{what}: {lines} lines"


def write_coco(folder):
    "Eight synthetic people for training and four for validation, in COCO's format."
    for split, count in (("train", 8), ("val", 4)):
        people = make_people(count, COCO17, image_size=(96, 72), seed=count, margin=1.25)
        images, annotations = [], []
        (folder / split).mkdir(parents=True)
        for i, picture in enumerate(people.images, 1):
            name = f"{split}/{i}.png"
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name)
            height, width = picture.shape[1:]
            images.append(dict(id=i, file_name=name, width=width, height=height))
            seen = people.visible[i - 1, :, None].numpy()
            keypoints = np.concatenate([people.joints[i - 1].numpy() * seen, 2 * seen], 1)
            annotations.append(dict(
                id=i, image_id=i, category_id=1, iscrowd=0, bbox=people.boxes[i - 1].tolist(),
                area=1000.0, keypoints=keypoints.ravel().tolist(),
            ))
        category = dict(id=1, name="person", keypoints=list(COCO17.names), skeleton=[])
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(
            dict(images=images, annotations=annotations, categories=[category])
        ))
    return folder

"""Pack a trained network with its card, so that it travels with the package: weights in whole
numbers of one byte (see `shrink_weights`), scores of the packed network, a README.

    python tools/pack_network.py FOLDER NAME CARD.json [DATA=ROOT ...]

CARD.json says how it was trained; each DATA=ROOT is a data set whose test people (or, where there
is no such split, all people) the packed network is judged on.
"""
import dataclasses
import shutil
import sys
from pathlib import Path

from dppt_nb.checkpoints import load_network, save_network, shrink_weights, write_about
from dppt_nb.evaluation import answer_in_terms_of, conditions, predict_joints, score_joints
from dppt_nb.files import read_json, write_whole
from dppt_nb.models import macs
from dppt_nb.store import load_people

WEIGHTS = Path(__file__).resolve().parent.parent / "dppt_nb" / "weights"

CARD = """# {name}

{words}

| | |
|---|---|
| finds | {joints} joints: {names} |
| takes | a person's window, {height} x {width} pixels, cut by its box as `dppt_nb.crops` does |
| costs | {gmacs:.2f} billion multiply-accumulates a person, {numbers:.1f} million numbers |
| trained on | {data} |
| how | {how} |
| weights | whole numbers of one byte with a scale for each output channel; float32 when loaded |

## How well it does

{scores}

## Meant for

Learning, teaching and comparing; finding the joints of one person in a box. Not for deciding about
people: it says where joints seem to be, and nothing of who somebody is or what they do.

## Who is under-represented, and limits

{limits}

## Terms

The weights come under the licence of this project. They were trained on photographs that belong to
others, whose terms apply to the photographs: {terms}
"""


def judge(folder, data, root):
    "Scores of the packed network on people it never saw, and their conditions."
    network, recipe, keypoints = load_network(folder)
    split = "test" if data in ("lspet", "synthetic") else "all"
    crops = load_people(data, root, (split,), recipe.image_size, False)[split]
    said = conditions(recipe, data, split, crops, "cpu", 0)
    joints, _ = predict_joints(network, crops, recipe, bars=False, keypoint_set=keypoints)
    if keypoints.names != crops.keypoint_set.names:
        joints, crops = answer_in_terms_of(crops, joints, keypoints)
    scores = score_joints(joints, crops)
    names = ("data", "split", "people", "people_digest", "mirror", "decode")
    return {name: said[name] for name in names} | {"scores": scores}


def score_lines(judged):
    "The table of the card."
    lines = ["| data | people | measure | % | 95 %, people |", "|---|---|---|---|---|"]
    for row in judged:
        for name, score in row["scores"].items():
            if not score.get("interval"): continue
            low, high = score["interval"]
            lines.append(
                f"| {row['data']}, {row['split']} | {score.get('people', row['people'])} | {name} "
                f"| {score['mean']:.1f} | {low:.1f} to {high:.1f} |"
            )
    return "\n".join(lines)


def pack(source, name, card, sets):
    "Pack `source` as `name`; an older packing of that name is replaced when the new one is whole."
    network, recipe, keypoints = load_network(source)
    target, partial = WEIGHTS / name, WEIGHTS / f"{name}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    recipe = recipe.change(teacher=Path(recipe.teacher).name)
    info = dict(
        config=dataclasses.asdict(network.config), recipe=recipe.to_dict(),
        keypoint_set=keypoints.to_dict(), data=card["data"], trained=card["trained"],
    )
    save_network(partial, shrink_weights(network.state_dict()), info)
    judged = [judge(partial, data, root) for data, root in sets]
    write_about(partial, info | {"judged": judged})
    height, width = recipe.image_size
    write_whole(partial / "README.md", CARD.format(
        name=name, words=card["words"], joints=len(keypoints),
        names=", ".join(keypoints.names).replace("_", " "), height=height, width=width,
        gmacs=macs(network).total / 1e9, data=card["data_words"], how=card["trained"],
        numbers=sum(p.numel() for p in network.parameters()) / 1e6, scores=score_lines(judged),
        limits=card["limits"], terms=card["terms"],
    ).encode())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(target, f"{sum(f.stat().st_size for f in target.iterdir()) / 1e6:.2f} MB")
    print(score_lines(judged))


if __name__ == "__main__":
    if len(sys.argv) < 4: sys.exit(__doc__)
    pack(*sys.argv[1:3], read_json(Path(sys.argv[3])), [a.split("=", 1) for a in sys.argv[4:]])

"""What finds who looks at nothing: the average pose of the people to learn from, put into the box
of everybody in the test. Writes nbs/results/mean_pose.json.

    python tools/mean_pose.py --root lspet_dataset.zip      # or a crop store of LSPET
"""
from pathlib import Path

import click
from judging import command_of, folder_first

from dppt_nb.evaluation import RESULTS_FORMAT, answer_mean_pose, mean_pose, score_joints
from dppt_nb.files import write_json
from dppt_nb.store import load_people
from dppt_nb.terminal import Place, Sentence

RESULTS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "mean_pose.json"


@click.command(cls=Sentence)
@click.option("--root", type=Place(exists=True), required=True, help="folder, zip or store")
@click.option(
    "--out", type=Place(dir_okay=False), callback=folder_first, default=RESULTS,
    help="another file",
)
def main(root, out):
    "Judge the mean pose of LSPET's training people on its test people."
    crops = load_people("lspet", root, ("train", "test"), (128, 96), False)
    learn, judges = crops["train"], crops["test"]
    found = score_joints(answer_mean_pose(mean_pose(learn), judges), judges)
    row = found["PCK@0.2 torso"]
    low, high = row["interval"]
    print(f"the mean pose finds {row['mean']:.1f} % ({low:.1f} to {high:.1f})")
    write_json(Path(out), dict(
        format=RESULTS_FORMAT, command=command_of("mean_pose", root=root),
        data="lspet", split="test", people=row["people"], left_out=row["left_out"],
        learned_from=len(learn), people_digest=judges.digest,
        score=row["mean"], interval=row["interval"],
    ))


if __name__ == "__main__": main()

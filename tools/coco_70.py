"""The 70 photographs of COCO 2017 on which this project's results named `coco` are measured, cut
out of COCO as it is downloaded: a folder for `--data coco --split all`.

    python tools/coco_70.py --root COCO --out coco_mini

COCO holds annotations/person_keypoints_{train,val}2017.json and the pictures in train2017 and
val2017; of these only the 70 are needed."""
import shutil
from pathlib import Path

import click

from dppt_nb.checks import DataError
from dppt_nb.files import make_folder, read_json, write_json
from dppt_nb.terminal import Place, Sentence

IDS = Path(__file__).resolve().parent.parent / "nbs" / "results" / "coco_70.json"


def cut(content, ids):
    "Of an annotation file the images with these ids and everybody in them."
    images = [image for image in content["images"] if image["id"] in ids]
    if missing := ids - {image["id"] for image in images}:
        raise DataError(f"images with the ids {sorted(missing)} are not in the annotation file")
    people = [person for person in content["annotations"] if person["image_id"] in ids]
    return images, people


@click.command(cls=Sentence)
@click.option("--root", type=Place(exists=True, path_type=Path), required=True)
@click.option("--out", type=Place(path_type=Path), required=True)
def main(root, out):
    "Write OUT/annotations/person_keypoints.json, and the photographs into OUT/images."
    images, people, sources, wanted = [], [], [], read_json(IDS)
    for split in ("val2017", "train2017"):
        content = read_json(root / "annotations" / f"person_keypoints_{split}.json")
        found = cut(content, set(wanted[split]))
        sources += [root / split / image["file_name"] for image in found[0]]
        images, people = images + found[0], people + found[1]
    if missing := [source for source in sources if not source.is_file()]:
        raise DataError(f"{len(missing)} of {len(sources)} photographs are not there, first "
                        f"{missing[0]}; copy them there")
    for name in ("images", "annotations"): make_folder(out / name)
    for source in sources: shutil.copy(source, out / "images")
    images.sort(key=lambda image: image["id"])
    write_json(out / "annotations" / "person_keypoints.json", dict(
        images=images, annotations=people, categories=content["categories"],
    ))
    print(f"{len(images)} photographs, {len(people)} people in {out}")


if __name__ == "__main__": main()

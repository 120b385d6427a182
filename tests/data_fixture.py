"Small pictures and annotation files that several tests write, and what a refusal must look like."
import re

import numpy as np
from PIL import Image

from dppt_nb.keypoints import COCO17


def picture(seed=0, size=(60, 80)):
    "A smooth colourful picture, so that JPEG keeps it."
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize(
        size[::-1], Image.BICUBIC
    )


def one_sentence(error):
    "The words of a refusal: one sentence."
    text = str(error.value)
    short = re.sub(r"/\S+/test_[^/ ]+", "", text)    # a test's folder may have a long name
    assert text.endswith(".") and "\n" not in text and len(short) < 500
    return text


def coco_file(people, images=3, size=(60, 80)):
    "The content of a file in COCO's format: 1.jpg, 2.jpg, ... and some people, dictionaries."
    height, width = size
    return dict(
        images=[
            dict(id=i, file_name=f"{i}.jpg", width=width, height=height)
            for i in range(1, images + 1)
        ],
        categories=[dict(id=1, name="person", keypoints=list(COCO17.names), skeleton=[])],
        annotations=[dict(category_id=1, iscrowd=0) | person for person in people],
    )

"""Crops that stay bytes, and batches that are fetched ahead: the same bits as from one tensor."""
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from dppt_nb import store
from dppt_nb.checks import DataError
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.cropset import from_synthetic
from dppt_nb.feed import feed
from dppt_nb.keypoints import COCO17
from dppt_nb.recipes import Recipe
from dppt_nb.shards import StoreHeader
from dppt_nb.store import crop_rows, read_store
from dppt_nb.synthetic import make_people
from dppt_nb.trainer import Trainer
from dppt_nb.writing import write_store

SIZE = (64, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A store of 40 people in several shards and two splits."
    people = from_synthetic(make_people(40, COCO17, SIZE, seed=2, margin=1.5))
    people = replace(people, split=["train" if i % 4 else "val" for i in range(40)])
    header = StoreHeader("toy", COCO17, (96, 72), 1.5, codec="webp")
    folder = tmp_path_factory.mktemp("store")
    report = write_store(folder, header, crop_rows(people), shard_mb=.075)
    assert report["shards"] > 2
    return folder


@pytest.mark.parametrize("split", [None, "train"])
def test_bytes_stand_in_for_the_tensor(folder, split):
    whole, kept = (read_store(folder, split, False, streamed=s) for s in (False, True))
    assert isinstance(kept.images, EncodedCrops) and torch.is_tensor(whole.images)
    assert kept.images.shape == whole.images.shape and len(kept) == len(whole)
    assert kept.images.numel() == whole.images.numel() and kept.digest == whole.digest
    for rows in (3, -1, [4, 1, 1], slice(2, 9), torch.tensor([5, 0]), torch.arange(len(whole)) < 4,
                 np.array([7, 2]), slice(0, 0)):
        assert torch.equal(kept.images[rows], whole.images[rows]), rows
    some, same = kept.select([6, 2, 9]), whole.select([6, 2, 9])
    assert isinstance(some.images, EncodedCrops) and torch.equal(some.images[:], same.images)
    assert some.to("cpu").images is some.images
    assert kept.to("meta").images.shape == whole.images.shape  # stands for a GPU


def test_what_is_too_large_for_the_memory_stays_bytes(folder, monkeypatch):
    assert torch.is_tensor(read_store(folder, None, False).images)
    monkeypatch.setattr(store, "_memory", lambda: 40 * 3 * 96 * 72)  # of which 0.6 may be taken
    assert isinstance(read_store(folder, None, False).images, EncodedCrops)
    assert torch.is_tensor(read_store(folder, "val", False).images)
    on_disk = read_store(folder, None, False, streamed=False)
    assert torch.is_tensor(on_disk.images) and len(on_disk) == 40


def test_training_from_bytes_is_the_same_to_the_bit(folder):
    recipe = Recipe(
        model="tokenpose_nano", image_size=SIZE, epochs=2, batch_size=16, warmup_steps=2,
        overrides=dict(width=32, depth=1, heads=2),
    )
    nets = [
        Trainer(recipe, read_store(folder, None, False, streamed=s), None, None, "cpu", bars=False)
        .fit().state_dict() for s in (False, True)
    ]
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


def test_a_batch_is_fetched_while_the_last_one_is_used(folder):
    crops = read_store(folder, None, False, streamed=True)
    fetched, look = [], crops.images.__class__.__getitem__
    second = threading.Event()
    class Noting(EncodedCrops):
        def __getitem__(self, rows):
            fetched.append(len(rows))
            if len(fetched) == 2: second.set()
            return look(self, rows)
    images = Noting(crops.images.contents, (96, 72), "webp", "toy")
    crops = replace(crops, images=images)
    batches = feed(crops, torch.arange(40).split(10), lambda people, rows: people.images[rows])
    next(batches)
    assert second.wait(20)      # the second is fetched though nobody asked for it
    assert len(fetched) <= 3    # but not all of them
    batches.close()
    assert len(fetched) <= 3


def test_what_goes_wrong_while_fetching_is_told(folder):
    crops = read_store(folder, None, False, streamed=True)
    crops.images.contents[13] = encode_crop(np.zeros((9, 9, 3), np.uint8), "webp")
    batches = feed(crops, torch.arange(40).split(10), lambda people, rows: people.ids.tolist())
    assert next(batches) == list(range(1, 11))
    with pytest.raises(DataError, match=r"crop 13 is \(9, 9\) pixels, not \(96, 72\)"):
        next(batches)
    assert threading.active_count() < 20


def test_what_is_on_the_device_is_read_there(folder):
    crops = read_store(folder, None, False)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).split(9)
    seen = list(feed(crops, order, lambda people, rows: (people is crops, rows)))
    assert all(same and torch.equal(rows, o) for (same, rows), o in zip(seen, order, strict=True))

"""Crops that stay bytes, and batches that are fetched ahead: the same bits as from one tensor."""
import shutil
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_fixture import TINY
from torch.overrides import TorchFunctionMode
from weights import same_weights

from dppt_nb import cutting, store
from dppt_nb.checks import DataError
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.cropset import from_synthetic
from dppt_nb.cutting import usable_memory
from dppt_nb.feed import feed
from dppt_nb.keypoints import COCO17
from dppt_nb.recipes import Recipe
from dppt_nb.shards import StoredCrops, StoreHeader, crop_places, read_manifest, read_shard
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
    monkeypatch.setattr(store, "usable_memory", lambda: 40 * 3 * 96 * 72)  # 0.6 may be taken
    assert isinstance(read_store(folder, None, False).images, EncodedCrops)
    assert torch.is_tensor(read_store(folder, "val", False).images)
    on_disk = read_store(folder, None, False, streamed=False)
    assert torch.is_tensor(on_disk.images) and len(on_disk) == 40


def test_where_the_bytes_are_is_a_matter_of_their_size(folder, monkeypatch):
    "Up to 0.6 of the memory of each process they are held; of a split only its share counts."
    size = sum(shard.bytes for shard in read_manifest(folder).shards)
    kind = lambda split: type(read_store(folder, split, False, streamed=True).images)
    for memory, whole, val in ((2 * size, EncodedCrops, EncodedCrops),
                               (size, StoredCrops, EncodedCrops), (1, StoredCrops, StoredCrops)):
        monkeypatch.setattr(store, "usable_memory", lambda memory=memory: memory)
        assert (kind(None), kind("val")) == (whole, val)


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = usable_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert usable_memory() == whole // 4


@pytest.mark.parametrize("version", [0, 1])
def test_a_container_has_the_memory_that_it_is_given(tmp_path, monkeypatch, version):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    places = [tmp_path / "memory.max", tmp_path / "limit_in_bytes"]
    monkeypatch.setattr(cutting, "_MEMORY_LIMITS", places)
    whole = usable_memory()
    places[version].write_text(f"{2**28}\n")
    assert usable_memory() == 2**28 < whole
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert usable_memory() == 2**27
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    for none in ("max\n", f"{2**63 - 4096}\n"):
        places[version].write_text(none)
        assert usable_memory() == whole


def test_a_process_has_the_memory_that_ulimit_leaves_it(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**27, resource.RLIM_INFINITY))
    assert usable_memory() == 2**27


@pytest.fixture
def left_in_files(folder, tmp_path, monkeypatch):
    "A copy of the store, read as if there were no memory to hold it."
    monkeypatch.setattr(store, "usable_memory", lambda: 1)
    shutil.copytree(folder, tmp_path / "store")
    return lambda split=None: read_store(tmp_path / "store", split, False)


@pytest.mark.parametrize("split", [None, "train"])
def test_crops_that_stay_in_their_files_are_the_same(folder, split, left_in_files):
    held, left = read_store(folder, split, False, streamed=False), left_in_files(split)
    assert type(left.images) is StoredCrops and len(left.images.files) > 2
    assert (left.digest, left.pixels) == (held.digest, held.pixels)
    for rows in (3, -1, slice(2, 9), torch.tensor([5, 0, 5]), torch.arange(len(held)) < 4):
        assert torch.equal(left.images[rows], held.images[rows]), rows
    some, same = left.draw(7, seed=1).select([6, 2, 2]), held.draw(7, seed=1).select([6, 2, 2])
    assert type(some.images) is StoredCrops and torch.equal(some.images[:], same.images)
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(1)).split(9)
    make = lambda people, rows: people.images[rows]
    for ours, theirs in zip(feed(left, order, make), feed(held, order, make), strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_held_does_not_grow_with_the_store(tmp_path, monkeypatch):
    "Neither after reading, nor at the worst moment of it, nor while batches are fetched."
    people = from_synthetic(make_people(8, COCO17, (128, 96), seed=2, margin=1.5))
    header, peaks = StoreHeader("toy", COCO17, (192, 144), 1.5, quality=100), {}
    for times in (4, 16):    # shards of twelve people or so
        rows = replace(people.select(list(range(8)) * times), ids=torch.arange(8 * times))
        write_store(tmp_path / str(times), header, crop_rows(rows), shard_mb=.3, quality=100)
    size = sum(shard.bytes for shard in read_manifest(tmp_path / "16").shards)
    def most(folder, memory):
        "The largest number of bytes that were held at one time, before and while fetching."
        monkeypatch.setattr(store, "usable_memory", lambda: memory)
        tracemalloc.start()
        crops = read_store(folder, None, False, streamed=True, workers=1)
        reading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for _ in feed(crops, torch.arange(len(crops)).split(2), lambda people, rows: None): pass
        fetching = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reading, fetching
    most(tmp_path / "4", 1)    # what is imported on the way is not counted
    for name in ("4", "16"): peaks[name] = most(tmp_path / name, 1)
    grown = [large - small for small, large in zip(*peaks.values(), strict=True)]
    assert max(grown) < .1 * size, (peaks, size)
    assert min(most(tmp_path / "16", 2**40)) > .9 * size    # as it is where all are held


def test_a_file_that_changes_while_it_is_in_use_is_noticed(left_in_files):
    crops = left_in_files()
    place, path = crops.images.contents[13], crops.images.files[crops.images.contents[13]["file"]]
    content = bytearray(path.read_bytes())
    content[place["start"] + place["size"] // 2] ^= 1
    path.write_bytes(content)
    crops.images[[12, 14]]
    with pytest.raises(DataError, match="was changed while it was in use: crop 13 is not"):
        list(feed(crops, torch.arange(40).split(10), lambda people, rows: None))
    path.write_bytes(content[:place["start"] + 5])
    with pytest.raises(DataError, match="was changed while it was in use: crop 13"):
        crops.images[13]
    path.unlink()
    with pytest.raises(DataError, match="cannot be read any more .*copy the store again"):
        crops.images[13]


def test_crops_are_found_between_the_pages_of_a_file(folder):
    "And what is not there as it is, is not taken for something else."
    manifest = read_manifest(folder)
    shard = manifest.shards[0]
    crops, arrays = read_shard(folder, shard, manifest, places=True)
    content = (folder / shard.file).read_bytes()
    for crop, start in zip(crops, arrays["start"], strict=True):
        assert content[start:start + len(crop)] == crop
    assert crop_places(b"....abc.......abc....xy", [b"abc", b"abc", b"xy"]).tolist() == [4, 14, 21]
    with pytest.raises(ValueError, match="not stored as they are"): crop_places(b"abcd", [b"ac"])


def test_training_from_bytes_is_the_same_to_the_bit(folder, monkeypatch):
    recipe = Recipe(
        model="tokenpose_nano", image_size=SIZE, epochs=2, batch_size=16, warmup_steps=2,
        overrides=TINY,
    )
    nets = [
        Trainer(recipe, read_store(folder, None, False, streamed=s), None, None, "cpu", bars=False)
        .fit().state_dict() for s in (False, True)
    ]
    monkeypatch.setattr(store, "usable_memory", lambda: 1)
    left = read_store(folder, None, False)
    assert type(left.images) is StoredCrops
    nets.append(Trainer(recipe, left, None, None, "cpu", bars=False).fit().state_dict())
    for other in nets[1:]:
        assert same_weights(nets[0], other)


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


class Card(TorchFunctionMode):
    "Stands in for a GPU: what is sent there stays here, and how it was sent is noted."
    def __init__(self):
        super().__init__()
        self.pinned, self.sent = [], []

    def pin(self, tensor):
        self.pinned.append(tensor.clone())
        return self.pinned[-1]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.arange: return torch.arange(*args)
        if function is not torch.Tensor.to: return function(*args, **kwargs)
        waits = not kwargs.get("non_blocking") or all(args[0] is not p for p in self.pinned)
        self.sent.append((tuple(args[0].shape[1:]), waits))
        return args[0]


def test_no_column_of_a_fetched_batch_makes_a_gpu_wait(folder, monkeypatch):
    "All are pinned by the thread that fetches, and copied while the program goes on."
    crops, card = read_store(folder, None, False, streamed=True), Card()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda column: card.pin(column))
    batches = torch.arange(40).split(10)
    with card:
        fetched = list(feed(crops, batches, lambda people, rows: people, device="cuda"))
    columns = [value for value in vars(crops).values() if torch.is_tensor(value)]
    assert len(card.sent) == len(batches) * (len(columns) + 1) > 20    # and the decoded pixels
    assert {waits for _, waits in card.sent} == {False}
    for people, rows in zip(fetched, batches, strict=True):
        same = crops.select(rows)
        assert torch.equal(people.images, same.images[:])
        assert torch.equal(people.joints, same.joints) and torch.equal(people.ids, same.ids)

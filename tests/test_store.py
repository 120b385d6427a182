"""Cutting people into a crop store, the store's files and their accidents, the cache."""
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dppt_nb import store
from dppt_nb.crops import apply_affine, augment_batch, batched_affine
from dppt_nb.cutting import prepare_store, table_windows
from dppt_nb.datasets import PoseTable, read_coco
from dppt_nb.files import CLAIM, DataError, ImageSource, claim_folder
from dppt_nb.keypoints import COCO17, LSP14
from dppt_nb.shards import StoreHeader, StoreWriter, encode_jpeg, read_manifest, write_store
from dppt_nb.store import (
    CropSet,
    cached_store,
    crop_rows,
    find_store,
    from_synthetic,
    is_store,
    load_people,
    made_from,
    prepare,
    read_store,
    synthetic_people,
)
from dppt_nb.synthetic import make_people


def picture(seed=0, size=(60, 80)):
    "A smooth colourful picture, so that JPEG keeps it."
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize(
        size[::-1], Image.BICUBIC
    )


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 500
    return text


# cutting

@pytest.fixture
def photographs(tmp_path):
    "Three photographs with two coloured boxes each, as a table of six people."
    rng, files, boxes = np.random.default_rng(0), [], []
    for number in range(3):
        photo = rng.integers(0, 60, (120, 200, 3), dtype=np.uint8)
        for left, colour in ((20, (250, 40, 40)), (120, (40, 40, 250))):
            photo[30:90, left:left + 40] = colour
            files.append(f"{number}.png")
            boxes.append([left, 30, 40, 60])
        Image.fromarray(photo).save(tmp_path / f"{number}.png")
    boxes = np.array(boxes, np.float32)
    joints = boxes[:, None, :2] + np.linspace(0, 1, 17)[:, None] * boxes[:, None, 2:]
    ones = np.ones((6, 17), np.uint8)
    order = [0, 2, 4, 1, 3, 5]  # people of one photograph not together
    table = PoseTable(
        "boxes", COCO17, ImageSource(tmp_path), files, joints.astype(np.float32), ones, ones, boxes,
        np.array(["train"] * 6), np.arange(6), np.arange(6) // 2,
    )
    return table.select(np.array(order))


def test_store_holds_every_person_in_place(photographs, tmp_path, capsys):
    opened, read = [], photographs.source.read
    photographs.source.read = lambda name: opened.append(name) or read(name)
    report = prepare_store(
        photographs, tmp_path / "store", image_size=(128, 96), progress=False, workers=3
    )
    assert sorted(opened) == ["0.png", "1.png", "2.png"]  # each photograph once
    assert (report["people"], report["photographs"]) == (
        6,
        3,
    ) and "6 people from 3 photographs" in capsys.readouterr().out
    crops = read_store(tmp_path / "store", progress=False)
    place = {int(i): n for n, i in enumerate(photographs.ids)}
    for row, number in enumerate(crops.ids.tolist()):
        np.testing.assert_allclose(
            crops.photo_joints[row], photographs.joints[place[number]], atol=2e-3
        )
        middle = crops.images[row][:, 80:112, 64:80].float().mean((1, 2))
        assert (middle.argmax() == (0 if number % 2 == 0 else 2)) and middle.max() > 240
    images, joints, _ = augment_batch(
        crops.images, crops.joints, crops.visible, COCO17, crops.margin, (128, 96)
    )
    from_photo = apply_affine(
        crops.photo_joints, batched_affine(crops.centers, crops.scales, 0.0, (128, 96))
    )
    # decoding by centre and scale fits the plain crop
    torch.testing.assert_close(joints, from_photo, atol=5e-3, rtol=0)


def test_store_is_the_same_with_any_number_of_threads(photographs, tmp_path):
    for workers in (1, 4):
        prepare_store(photographs, tmp_path / str(workers), progress=False, workers=workers)
    one, four = (sorted((tmp_path / name).iterdir()) for name in ("1", "4"))
    assert [p.name for p in one] == [p.name for p in four]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, four))


def test_people_without_a_box_are_counted(photographs, tmp_path):
    photographs.boxes[1, 2], photographs.boxes[4, 0] = 0, np.nan
    report = prepare_store(photographs, tmp_path / "store", progress=False)
    assert report["people"] == 4 and report["left_out"] == {"no usable box": 2}


def test_nobody_is_a_sentence_that_says_why(photographs, tmp_path):
    photographs.boxes[:] = 0
    for table, words in (
        (photographs, "nobody to cut crops of; left out: no usable box 6."),
        (photographs.select([]), "left out: nobody."),
    ):
        with pytest.raises(DataError, match=words) as error:
            prepare_store(table, tmp_path / "store", progress=False)
        assert str(tmp_path) in str(error.value) and not (tmp_path / "store").exists()


def test_bad_photographs_and_folders_are_named(photographs, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="file"):
        prepare_store(photographs, tmp_path / "file" / "store", progress=False)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:len(whole) // 2])
    threads = torch.get_num_threads()
    with pytest.raises(DataError, match="1.png"):
        prepare_store(photographs, tmp_path / "broken", progress=False, workers=2)
    assert torch.get_num_threads() == threads
    with pytest.raises(DataError):
        read_store(tmp_path / "broken", progress=False)


def test_windows_by_centre_and_scale_as_mpii_gives_them(photographs):
    table = replace(
        photographs, centers=np.full((6, 2), 50, np.float32),
        scales=np.full((6, 2), 0.5, np.float32),
    )
    centers, scales = table_windows(table, (256, 256))
    np.testing.assert_allclose(centers, 50)
    np.testing.assert_allclose(scales, 0.5)  # taken as it is, not padded again
    assert table_windows(table, (256, 192))[1][0].tolist() == pytest.approx([0.5, 0.5 / 0.75])


def test_store_of_coco_people(shared, tmp_path):
    table = read_coco(shared / "data" / "coco_mini").select(np.arange(40))
    prepare_store(table, tmp_path / "store", image_size=(128, 96), progress=False)
    crops = read_store(tmp_path / "store", progress=False)
    place = {int(i): n for n, i in enumerate(table.ids)}
    rows = [place[int(i)] for i in crops.ids]
    seen = table.visible[rows] > 0
    np.testing.assert_allclose(
        crops.photo_joints.numpy()[seen], table.joints[rows][seen], atol=5e-3
    )


# crops and their store

def crop_set(n=12, size=(48, 36), **changes):
    rng = torch.Generator().manual_seed(0)
    images = torch.stack(
        [torch.from_numpy(np.array(picture(i, size))).permute(2, 0, 1) for i in range(n)]
    )
    affine = torch.randn(n, 2, 3, generator=rng) + 2 * torch.eye(2, 3)
    fields = dict(
        images=images, joints=torch.rand(n, 14, 2, generator=rng) * 40,
        visible=torch.randint(0, 2, (n, 14), generator=rng, dtype=torch.uint8), affine=affine,
        centers=torch.rand(n, 2, generator=rng), scales=torch.rand(n, 2, generator=rng) + 0.1,
        keypoint_set=LSP14, margin=1.5, name="tiny", ids=torch.arange(n) + 2**40,
        image_ids=torch.arange(n) // 2, split=["train" if i % 4 else "test" for i in range(n)],
    )
    return CropSet(**fields | changes)


def as_format_1(manifest, version=1):
    "What this manifest was before there were digests."
    old = {name: manifest[name] for name in ("header", "shards", "splits")}
    plain = [{k: v for k, v in s.items() if k != "sha256"} for s in manifest["shards"]]
    return old | {"header": manifest["header"] | {"version": version}, "shards": plain}


def header_of(crops, **changes):
    return StoreHeader(
        **dict(
            name=crops.name, keypoint_set=crops.keypoint_set,
            crop_size=tuple(crops.images.shape[2:]), margin=crops.margin, left_out={"no box": 3},
        )
        | changes
    )


@pytest.mark.parametrize("optional", [False, True])
def test_store_round_trip(tmp_path, optional):
    extra = (
        dict(head_boxes=torch.rand(12, 2, 2), areas=torch.rand(12), box_scores=torch.rand(12))
        if optional
        else {}
    )
    crops = crop_set(**extra)
    report = write_store(tmp_path / "a/b", header_of(crops), crop_rows(crops), quality=95)
    assert report == dict(people=12, shards=1, bytes=report["bytes"], left_out={"no box": 3})
    back = read_store(tmp_path / "a/b", progress=False)
    for name in (
        "joints", "visible", "affine", "centers", "scales", "ids", "image_ids", "head_boxes",
        "areas", "box_scores",
    ):
        ours, theirs = getattr(crops, name), getattr(back, name)
        assert (ours is None and theirs is None) or (
            torch.equal(ours, theirs) and ours.dtype == theirs.dtype
        ), name
    assert (
        back.split == crops.split
        and back.keypoint_set == LSP14
        and back.margin == 1.5
        and back.left_out == {"no box": 3}
    )
    assert (
        back.images.dtype == torch.uint8
        and back.images.is_contiguous()
        and (back.images.float() - crops.images.float()).abs().mean() < 4
    )


def test_store_is_the_same_for_any_number_of_threads_and_shards(tmp_path):
    crops = crop_set()
    jpegs = [encode_jpeg(row["image"]) for row in crop_rows(crops)]
    rows = [row | {"image": jpeg} for row, jpeg in zip(crop_rows(crops), jpegs)]
    write_store(tmp_path / "one", header_of(crops), rows)
    report = write_store(tmp_path / "many", header_of(crops), rows, shard_mb=(2**16 + 4000) / 2**20)
    assert report["shards"] >= 3
    results = [
        read_store(tmp_path / name, progress=False, workers=w)
        for name, w in (("one", 1), ("one", 7), ("many", 3))
    ]
    assert all(
        torch.equal(r.images, results[0].images) and torch.equal(r.joints, results[0].joints)
        for r in results
    )


def test_shards_stay_below_their_limit(tmp_path):
    crops = crop_set(60)
    noise = [
        row | {"image": np.random.default_rng(i).integers(0, 255, (48, 36, 3), dtype=np.uint8)}
        for i, row in enumerate(crop_rows(crops))
    ]
    report = write_store(tmp_path, header_of(crops), noise, shard_mb=.1, quality=95)
    sizes = [f.stat().st_size for f in tmp_path.glob("*.parquet")]
    assert len(sizes) == report["shards"] > 3 and max(sizes) <= .1 * 2**20


def test_one_split_only(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops), shard_mb=(2**16 + 4000) / 2**20)
    test = read_store(tmp_path, "test", progress=False)
    assert (
        test.ids.tolist() == crops.select("test").ids.tolist()
        and len(read_store(tmp_path, "all", progress=False)) == 12
    )
    with pytest.raises(
        DataError, match="nobody in split 'val'; it has test 3, train 9|it has train 9, test 3"
    ) as error:
        read_store(tmp_path, "val")
    one_sentence(error)


def test_killed_writer_leaves_a_store_that_says_so(tmp_path):
    program = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_store import *
crops = crop_set(40)
with StoreWriter({str(tmp_path / 's')!r}, header_of(crops), shard_mb=.08) as w:
    for row in list(crop_rows(crops))[:35]: w.add(**row)
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert list((tmp_path / "s").glob("*.parquet")), "the test needs a shard on the disk"
    with pytest.raises(DataError, match="unfinished crop store") as error:
        read_store(tmp_path / "s")
    one_sentence(error)
    crops = crop_set()
    write_store(tmp_path / "s", header_of(crops), crop_rows(crops))
    assert len(read_store(tmp_path / "s", progress=False)) == 12


def test_full_disk_is_a_sentence_and_leaves_no_manifest(tmp_path, monkeypatch):
    crops = crop_set()
    writer = StoreWriter(tmp_path, header_of(crops))
    for row in crop_rows(crops): writer.add(**row)
    def full(_): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device") as error: writer.close()
    one_sentence(error)
    assert list(tmp_path.iterdir()) == []                  # neither shard nor .tmp nor claim
    with pytest.raises(DataError, match="holds no crop store"): read_manifest(tmp_path)


def test_damaged_stores(tmp_path):
    crops = crop_set()
    write_store(tmp_path / "s", header_of(crops), crop_rows(crops))
    shard = tmp_path / "s/crops-00000.parquet"
    content = shard.read_bytes()
    for name, damage, words in (
        ("short", content[:-9], "not complete"),
        ("tail", content[:-9] + b"x" * 9, "its digest is another"),
        ("jpeg", content.replace(b"\xff\xd8\xff", b"zzz", 3), "its digest is another"),
        ("end", content[:-60] + b"\x15" * 52 + content[-8:], "its digest is another"),
    ):
        shard.write_bytes(damage)
        with pytest.raises(DataError, match=words) as error:
            read_store(tmp_path / "s", progress=False)
        assert "crops-00000.parquet" in one_sentence(error), name
    shard.unlink()
    with pytest.raises(DataError, match="missing or not complete"): read_store(tmp_path / "s")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [],
        lambda m: {},
        lambda m: 5,
        lambda m: m | {"header": None},
        lambda m: m | {"header": []},
        lambda m: {k: v for k, v in m.items() if k != "header"},
        lambda m: m | {"header": {k: v for k, v in m["header"].items() if k != "crop_size"}},
        lambda m: m | {"header": m["header"] | {"colour": 1}},
        lambda m: m | {"shards": None},
        lambda m: m | {"shards": []},
        lambda m: m | {"shards": [7]},
        lambda m: m | {"shards": [m["shards"][0] | {"rows": None}]},
        lambda m: m | {"shards": [m["shards"][0] | {"file": 3}]},
        lambda m: m | {"splits": None},
        lambda m: m | {"splits": []},
        lambda m: m | {"splits": {}},
        lambda m: m | {"splits": {"train": 9, "test": 4}},
        lambda m: m | {"splits": {"train": "9", "test": 3}},
        lambda m: m | {"people": None},
        lambda m: m | {"people": "f" * 63},
        lambda m: m | {"shards": [{k: v for k, v in m["shards"][0].items() if k != "sha256"}]},
        lambda m: m | {"shards": [m["shards"][0] | {"file": "../elsewhere.parquet"}]},
        lambda m: m | {"shards": [m["shards"][0] | {"file": "/tmp/crops-00000.parquet"}]},
        lambda m: m | {"shards": [m["shards"][0] | {"file": "crops-00000.parquet\n"}]},
        lambda m: m | {"shards": 2 * m["shards"], "splits": {"train": 18, "test": 6}},
        lambda m: m | {"header": m["header"] | {"crop_size": [10**6, 10**6]}},
        lambda m: m | {"header": m["header"] | {"crop_size": [4096, 4096]}},
        lambda m: m | {"header": m["header"] | {"margin": float("nan")}},
        lambda m: m | {"header": m["header"] | {"margin": 0}},
        lambda m: m | {"header": m["header"] | {"keypoint_set": {"names": 5}}},
        lambda m: m | {"header": m["header"] | {"keypoint_set": None}},
    ],
)
def test_damaged_manifest_is_one_sentence(tmp_path, change):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    manifest = change(json.loads((tmp_path / "manifest.json").read_text()))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for read in (read_manifest, read_store):
        with pytest.raises(DataError, match="manifest.json (is damaged|must hold)") as error:
            read(tmp_path)
        assert str(tmp_path) in one_sentence(error)


@pytest.mark.parametrize("splits", [{"train": 8, "test": 4}, {"train": 10, "test": 2}, {"val": 12}])
def test_splits_that_are_not_those_of_the_shards(tmp_path, splits):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"splits": splits}))
    for split in (list(splits)[0], None):
        with pytest.raises(DataError, match="holds other people than its manifest.json") as error:
            read_store(tmp_path, split, progress=False)
        one_sentence(error)


def test_rows_that_are_not_those_of_the_manifest(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for rows in (11, 13):
        splits = {"train": rows - 3, "test": 3}
        (tmp_path / "manifest.json").write_text(
            json.dumps(
                manifest | {"splits": splits, "shards": [manifest["shards"][0] | {"rows": rows}]}
            )
        )
        with pytest.raises(DataError, match=f"12 people where the manifest has {rows}"):
            read_store(tmp_path, progress=False)


def test_store_refuses(tmp_path):
    crops = crop_set()
    rows = list(crop_rows(crops))
    write_store(tmp_path / "s", header_of(crops), rows)
    with pytest.raises(DataError, match="holds a complete crop store already"):
        write_store(tmp_path / "s", header_of(crops), rows)
    assert write_store(tmp_path / "s", header_of(crops), rows[:5], overwrite=True)["people"] == 5
    assert len(read_store(tmp_path / "s", progress=False)) == 5
    for change, words in (
        (dict(joints=np.zeros((13, 2))), "'joints' has 26 numbers; it needs 28"),
        (dict(affine=np.full((2, 3), np.nan)), "NaN"),
        (dict(image=np.zeros((9, 9, 3), np.uint8)), "has shape"),
    ):
        with pytest.raises(DataError, match=words) as error:
            write_store(tmp_path / "t", header_of(crops), [rows[0] | change])
        one_sentence(error)
    with pytest.raises(DataError, match="nobody was given"):
        write_store(tmp_path / "u", header_of(crops), [])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to the folder"):
        StoreWriter(tmp_path / "file/store", header_of(crops))
    with pytest.raises(DataError, match="is no folder"): read_store(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no crop store"): read_store(tmp_path)
    assert not (tmp_path / "t").exists() and not (tmp_path / "u").exists()  # nothing stays


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        StoreWriter(tmp_path / "s", header_of(crop_set()))
    with pytest.raises(DataError, match="Permission denied"):
        StoreWriter(tmp_path, header_of(crop_set()))


def test_a_newer_store_is_refused(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert read_manifest(tmp_path).header == header_of(crops)
    for newer in (manifest | {"format": 3}, as_format_1(manifest, version=3)):
        (tmp_path / "manifest.json").write_text(json.dumps(newer))
        with pytest.raises(DataError, match="format version 3") as error: read_store(tmp_path)
        one_sentence(error)


def test_crop_set_selects_and_finds_the_way_back():
    crops = crop_set(areas=torch.rand(12))
    for which, ids in (
        ("test", [0, 4, 8]), ([3, 1], [3, 1]), (torch.tensor([5]), [5]),
        (np.arange(12) > 9, [10, 11]), (slice(2, 4), [2, 3]), (torch.arange(12) < 1, [0]),
    ):
        part = crops.select(which)
        assert (
            (part.ids - 2**40).tolist() == ids
            and len(part.split) == len(ids) == len(part)
            and torch.equal(part.areas, crops.areas[ids])
        )
    photo = torch.rand(12, 14, 2) * 500
    there = photo @ crops.affine[:, :, :2].mT + crops.affine[:, None, :, 2]
    assert torch.allclose(crop_set(joints=there).photo_joints, photo, atol=.05)
    with pytest.raises(DataError, match="nobody in split 'val'"): crops.select("val")


def test_synthetic_people_become_crops():
    crops = from_synthetic(
        make_people(3, COCO17, (64, 48), seed=1, margin=1.5), margin=1.5, keypoint_set=COCO17,
        split="val",
    )
    assert (
        crops.images.shape == (3, 3, 96, 72)
        and crops.split == ["val"] * 3
        and torch.equal(crops.photo_joints, crops.joints)
    )
    assert torch.allclose(crops.scales * 200, torch.tensor([48.0, 64.0])) and torch.allclose(
        crops.centers, torch.tensor([35.5, 47.5])
    )

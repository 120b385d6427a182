"""Cutting people into a crop store, the store's files and their accidents, the cache."""
import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixture import coco_file, one_sentence, picture
from PIL import Image

from dppt_nb import cutting, store, writing
from dppt_nb.augmentation import augment_batch
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.codec import decode_crop, encode_crop
from dppt_nb.crops import apply_affine, batched_affine
from dppt_nb.cutting import prepare_store, table_windows
from dppt_nb.datasets import DATASETS, read_coco
from dppt_nb.files import CLAIM, ImageSource, claim_folder
from dppt_nb.keypoints import COCO17, LSP14
from dppt_nb.locks import HOST
from dppt_nb.shards import StoreHeader, read_manifest, read_thrift
from dppt_nb.store import (
    CropSet,
    cached_store,
    crop_rows,
    find_store,
    fingerprint,
    from_synthetic,
    is_store,
    load_people,
    made_from,
    prepare,
    read_store,
    synthetic_people,
)
from dppt_nb.synthetic import make_people
from dppt_nb.tables import PoseTable
from dppt_nb.writing import StoreWriter, write_store

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
        (photographs.select([]), "holds no person at all; name another file"),
        (replace(photographs, annotations=("a.json",)), r"\(a.json, pictures of .*usable box 6."),
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


# how crops are kept

def test_a_window_without_pixels_or_beyond_all_is_left_out(photographs, tmp_path):
    "Centre and scale are the annotation's own in MPII: below a pixel a map would be mirrored."
    centers = (photographs.boxes[:, :2] + photographs.boxes[:, 2:] / 2).astype(np.float32)
    scales = np.full((6, 2), .4, np.float32)
    scales[1], scales[3], scales[4] = .003, 1e9, 1e-7
    table = replace(photographs, centers=centers, scales=scales)
    report = prepare_store(table, tmp_path / "s", (64, 48), progress=False)
    assert report["people"] == 3
    assert report["left_out"] == {"window below 2 or above 100,000 pixels": 3}
    affine = read_store(tmp_path / "s", progress=False).affine
    assert (affine[:, 0, 0] > 0).all()


@pytest.mark.parametrize("away", [(1000, 0), (-1000, 0), (0, 1000), (0, -1000)])
def test_a_window_outside_of_its_picture_is_refused(photographs, tmp_path, away):
    joints, boxes = photographs.joints.copy(), photographs.boxes.copy()
    joints[2] += away
    boxes[2, :2] += away
    table = replace(photographs, joints=joints, boxes=boxes)
    words = f"person {table.ids[2]} lies around .* outside of {table.files[2]} with its 200 x 120"
    with pytest.raises(DataError, match=words) as error:
        prepare_store(table, tmp_path / "s", (64, 48), progress=False)
    one_sentence(error)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("how, words", [
    (dict(image_size=(4096, 3072)), "1.5 times the input's size is 6144 x 4608"),
    (dict(crop_size=(8192, 6144)), "the crops' size is 8192 x 6144"),
    (dict(image_size=(0, 0)), "the input's size is 0 x 0"),
    (dict(image_size=(64, 48), crop_size=(0, 0)), "the crops' size is 0 x 0"),
])
def test_crops_of_sizes_that_a_store_does_not_have(photographs, tmp_path, how, words):
    with pytest.raises(DataError, match=words) as error:
        prepare_store(photographs, tmp_path / "s", progress=False, **how)
    one_sentence(error)


def same_files(*folders):
    "Whether the folders hold the same files to the byte."
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    return all(f == files[0] for f in files)


def test_a_store_of_webp_is_smaller_and_serves_every_size(photographs, tmp_path):
    for name, how in (
        ("jpeg", {}), ("webp", dict(codec="webp")),
        ("small", dict(codec="webp", crop_size=(96, 72))),
        ("fine", dict(codec="webp", quality=95)), ("own", dict(codec="webp", quality=75)),
    ):
        prepare_store(photographs, tmp_path / name, (128, 96), progress=False, **how)
    size = lambda name: sum(p.stat().st_size for p in (tmp_path / name).iterdir())
    assert size("small") < size("webp") < size("fine") and size("webp") < size("jpeg")
    assert same_files(tmp_path / "webp", tmp_path / "own")  # 75 is the codec's own
    headers = {n: read_manifest(tmp_path / n).header for n in ("jpeg", "small", "fine")}
    assert [(h.codec, h.quality) for h in headers.values()] == [
        ("jpeg", None), ("webp", None), ("webp", 95),
    ]
    assert not {"codec", "quality"} & set(headers["jpeg"].to_dict())  # as before there was a choice
    reference = read_store(tmp_path / "jpeg", progress=False)
    for name in ("webp", "small", "fine"):
        crops = read_store(tmp_path / name, progress=False)
        assert crops.digest == reference.digest and crops.margin == 1.5
        for out in ((128, 96), (32, 24)):
            pictures = [
                augment_batch(c.images, c.joints, c.visible, COCO17, c.margin, out)
                for c in (crops, reference)
            ]
            torch.testing.assert_close(pictures[0][1], pictures[1][1], atol=5e-3, rtol=0)
            apart = (pictures[0][0] - pictures[1][0]).abs().mean()
            assert apart < (.3 if name == "small" else .15), name
    with pytest.raises(DataError, match="take 128 x 96") as error:
        prepare_store(photographs, tmp_path / "x", (128, 96), progress=False, crop_size=(96, 96))
    one_sentence(error)


def test_a_crop_of_another_codec_is_refused(tmp_path):
    crops = crop_set()
    row = next(crop_rows(crops))
    jpeg = encode_crop(row["image"])
    with pytest.raises(DataError, match="crop .* cannot be decoded") as error:
        write_store(tmp_path, header_of(crops, codec="webp"), [row | {"image": jpeg}])
    one_sentence(error)
    with pytest.raises(DataError, match="kept as jpeg or webp, not as 'png'"):
        encode_crop(row["image"], "png")


@pytest.mark.parametrize(
    "how, words", [(dict(codec="png"), "not as 'png'"), (dict(quality=0), "from 1 to 100; 0 is")]
)
def test_a_format_that_is_none(photographs, tmp_path, how, words):
    with pytest.raises(DataError, match=words) as error:
        prepare_store(photographs, tmp_path / "x", progress=False, **how)
    one_sentence(error)
    assert not (tmp_path / "x").exists()


# stopped, and called again

class Stopped(KeyboardInterrupt):
    "In place of a signal."


def stop_at(number, monkeypatch, after):
    "Stop before or after the `number`th file is written."
    count, write = iter(range(10**6)), writing.write_whole
    def stopping(path, content):
        last = next(count) == number
        if last and not after: raise Stopped
        write(path, content)
        if last: raise Stopped
    monkeypatch.setattr(writing, "write_whole", stopping)


@pytest.mark.parametrize("after", [False, True])
def test_whenever_it_stops_the_next_call_goes_on(photographs, tmp_path, monkeypatch, after, capsys):
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    report = prepare_store(photographs, tmp_path / "whole", **cut)
    assert report["shards"] >= 3
    for number in range(2 * report["shards"] + 1):  # each shard and the list of them, the manifest
        out = tmp_path / f"{number}"
        with monkeypatch.context() as patch:
            stop_at(number, patch, after)
            with pytest.raises(Stopped): prepare_store(photographs, out, **cut)
        kept = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
        opened, read = [], photographs.source.read
        with monkeypatch.context() as patch:
            look = lambda name: opened.append(name) or read(name)
            patch.setattr(photographs.source, "read", look)
            prepare_store(photographs, out, **cut)
        said = capsys.readouterr().out
        if (finished := (number + after) // 2) and number < 2 * report["shards"]:
            assert f"going on after {finished * 6 // report['shards']} people" in said
            assert len(opened) < 3 or finished * 6 // report["shards"] < 2
            now = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
            assert sorted(kept.items())[:finished] == sorted(now.items())[:finished]
        (out / "unfinished.json").unlink(missing_ok=True)  # stopped between manifest and its end
        assert same_files(out, tmp_path / "whole")


def test_a_killed_preparation_goes_on(photographs, tmp_path):
    program = f"""
import os, pickle, sys
from dppt_nb import cutting, writing
table = pickle.load(open({str(tmp_path / "table")!r}, "rb"))
count, write = iter(range(9)), writing.write_whole
def killing(path, content):
    write(path, content)
    if next(count) == 3: os.kill(os.getpid(), 9)
writing.write_whole = killing
cutting.prepare_store(table, {str(tmp_path / "s")!r}, (64, 48), shard_mb=.07, progress=False)
"""
    with open(tmp_path / "table", "wb") as file: pickle.dump(photographs, file)
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    with pytest.raises(DataError, match="unfinished crop store"): read_store(tmp_path / "s")
    for name in ("s", "whole"):
        prepare_store(photographs, tmp_path / name, (64, 48), shard_mb=.07, progress=False)
    assert same_files(tmp_path / "s", tmp_path / "whole")


def test_only_sound_shards_of_the_same_are_taken_over(photographs, tmp_path, monkeypatch, capsys):
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    shards = prepare_store(photographs, tmp_path / "whole", **cut)["shards"]
    def damage(folder):
        shard = sorted(folder.glob("*.parquet"))[1]
        content = bytearray(shard.read_bytes())
        content[200] ^= 1
        shard.write_bytes(content)
    def lose(folder): (folder / "unfinished.json").unlink()
    def repaint(_):
        Image.new("RGB", (200, 120)).save(photographs.source.root / photographs.files[0])
    other = replace(photographs, joints=photographs.joints + 1)
    for name, table, change, harm, done in (
        ("damaged", photographs, {}, damage, 6 // shards), ("lost", photographs, {}, lose, 0),
        ("quality", photographs, dict(quality=80), None, 0), ("other", other, {}, None, 0),
        ("size", photographs, dict(crop_size=(80, 60)), None, 0),
        ("pictures", photographs, {}, repaint, 0),
    ):
        out = tmp_path / name
        with monkeypatch.context() as patch:
            stop_at(4, patch, False)
            with pytest.raises(Stopped): prepare_store(photographs, out, **cut)
        if harm: harm(out)
        capsys.readouterr()
        prepare_store(table, out, **cut | change)
        assert ("going on after" in capsys.readouterr().out) == (done > 0), name
        prepare_store(table, tmp_path / f"{name}-whole", **cut | change)
        assert same_files(out, tmp_path / f"{name}-whole"), name


def test_a_second_call_does_nothing(photographs, tmp_path, monkeypatch, capsys):
    first = prepare_store(photographs, tmp_path / "s", progress=False)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(photographs.source, "read", lambda name: pytest.fail("one is opened"))
        again = prepare_store(photographs, tmp_path / "s", progress=False)
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    assert "holds these 6 people already, cut as asked; nothing to do" in capsys.readouterr().out
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    other = replace(photographs, joints=photographs.joints + 1)
    for table, how in ((other, {}), (photographs, dict(quality=80)), (photographs, dict(margin=2))):
        with pytest.raises(DataError, match="complete crop store already"):
            prepare_store(table, tmp_path / "s", progress=False, **how)
    prepare_store(photographs, tmp_path / "s", progress=False, quality=80, overwrite=True)
    assert read_manifest(tmp_path / "s").header.quality == 80


def test_a_store_stays_until_the_one_that_overwrites_it_is_complete(
    photographs, tmp_path, monkeypatch,
):
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    out, again = tmp_path / "s", cut | dict(quality=60, overwrite=True)
    shards = prepare_store(photographs, out, **cut)["shards"]
    prepare_store(photographs, tmp_path / "before", **cut)
    new = prepare_store(photographs, tmp_path / "after", **cut | dict(quality=60))["shards"]
    assert (shards, new) == (6, 2)
    for number in range(2 * new):    # each shard and the list of them
        with monkeypatch.context() as patch:
            stop_at(number, patch, True)
            with pytest.raises(Stopped): prepare_store(photographs, out, **again)
        assert same_files(out, tmp_path / "before")
    photo = photographs.source.root / photographs.files[-1]
    content = photo.read_bytes()
    photo.write_bytes(content[:99])
    with pytest.raises(DataError, match="cannot be read"): prepare_store(photographs, out, **again)
    assert same_files(out, tmp_path / "before")
    photo.write_bytes(content)
    (out / ".new").mkdir()                            # what a killed one left
    (out / ".new/unfinished.json").write_bytes((tmp_path / "before/manifest.json").read_bytes())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (out / f".new/.crops-00000.parquet.{HOST}-{ended.pid}-0123abcd.tmp").write_bytes(b"half")
    prepare_store(photographs, out, **again)
    assert same_files(out, tmp_path / "after")


@pytest.mark.parametrize("error", [Stopped, OSError, SystemExit])
def test_a_store_that_takes_the_place_of_another_gets_there(
    photographs, tmp_path, monkeypatch, error, capsys,
):
    "Wherever it is stopped among the removals and moves, one of the two is there at the next call."
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    prepare_store(photographs, tmp_path / "after", **cut | dict(quality=60))
    for number in range(11):    # a manifest, six shards to remove; two shards, a manifest to move
        out = tmp_path / f"{number}"
        prepare_store(photographs, out, **cut)
        count, take = iter(range(10**6)), writing._take_place
        def stopping(call):
            def called(*given, **named):
                if next(count) == number: raise error("stopped")
                return call(*given, **named)
            return called
        def taking(folder):
            with monkeypatch.context() as patch:
                patch.setattr(writing.os, "replace", stopping(os.replace))
                patch.setattr(writing.Path, "unlink", stopping(writing.Path.unlink))
                take(folder)
        with monkeypatch.context() as patch:
            patch.setattr(writing, "_take_place", taking)
            with pytest.raises(DataError if error is OSError else error):
                prepare_store(photographs, out, **cut | dict(quality=60, overwrite=True))
        capsys.readouterr()
        prepare_store(photographs, out, **cut | dict(quality=60))
        assert "nothing to do" in capsys.readouterr().out
        assert same_files(out, tmp_path / "after")


def test_processes_cut_the_same(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "FEW_PHOTOGRAPHS", 0)
    for name, processes in (("threads", False), ("processes", True)):
        prepare_store(
            photographs, tmp_path / name, (64, 48), progress=False, workers=2, processes=processes
        )
    assert same_files(tmp_path / "threads", tmp_path / "processes")


@pytest.mark.soak
def test_what_happens_in_a_process_is_told(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "FEW_PHOTOGRAPHS", 0)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1.png"):  # the sentence comes back from the worker
        prepare_store(photographs, tmp_path / "x", progress=False, workers=1, processes=True)
    with pytest.raises(DataError, match="a worker process was killed") as error:
        list(cutting.work_ahead(os._exit, [1], 1, processes=True))
    one_sentence(error)


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
    jpegs = [encode_crop(row["image"]) for row in crop_rows(crops)]
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
        ("short", content[:-9], "is damaged: it has [0-9,]+ bytes, not "),
        ("tail", content[:-9] + b"x" * 9, "its digest is another"),
        ("jpeg", content.replace(b"\xff\xd8\xff", b"zzz", 3), "its digest is another"),
        ("end", content[:-60] + b"\x15" * 52 + content[-8:], "its digest is another"),
    ):
        shard.write_bytes(damage)
        with pytest.raises(DataError, match=words) as error:
            read_store(tmp_path / "s", progress=False)
        assert "crops-00000.parquet" in one_sentence(error), name
    shard.unlink()
    with pytest.raises(DataError, match="00000.parquet is missing"): read_store(tmp_path / "s")


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


# what a store notices

def test_one_changed_bit_anywhere_is_refused(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    rng = np.random.default_rng(0)
    shard = tmp_path / "crops-00000.parquet"
    good = shard.read_bytes()
    for place in (0, len(good) - 1, *rng.integers(0, len(good), 50)):
        flipped = bytes([good[place] ^ 1 << rng.integers(8)])
        shard.write_bytes(good[:place] + flipped + good[place + 1:])
        with pytest.raises(DataError, match="its digest is another") as error:
            read_store(tmp_path, progress=False)
        assert "crops-00000.parquet" in one_sentence(error)


def test_a_shard_of_another_store_is_refused_also_with_its_digest(tmp_path):
    crops = crop_set()
    write_store(tmp_path / "a", header_of(crops), crop_rows(crops))
    for name, other, words in (
        ("people", crop_set(joints=crops.joints + 1), "holds other people"),
        ("size", crop_set(size=(36, 48)), "manifest.json says something else of it"),
        ("points", replace(crop_set(), keypoint_set=COCO17, joints=torch.rand(12, 17, 2),
                           visible=torch.ones(12, 17)), "manifest.json says something else of it"),
    ):
        write_store(tmp_path / name, header_of(other), crop_rows(other))
        mine, theirs = (
            json.loads((tmp_path / n / "manifest.json").read_text()) for n in ("a", name)
        )
        shutil.copytree(tmp_path / "a", tmp_path / f"with-{name}")
        shutil.copy(tmp_path / name / "crops-00000.parquet", tmp_path / f"with-{name}")
        mixed = mine | {"shards": theirs["shards"]}
        (tmp_path / f"with-{name}" / "manifest.json").write_text(json.dumps(mixed))
        with pytest.raises(DataError, match=words) as error:
            read_store(tmp_path / f"with-{name}", progress=False)
        one_sentence(error)


def test_a_store_of_format_1_is_read_and_said_so(tmp_path, capsys):
    import pyarrow.parquet as pq
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    new, shard = read_store(tmp_path, progress=False), tmp_path / "crops-00000.parquet"
    manifest = as_format_1(json.loads((tmp_path / "manifest.json").read_text()))
    table = pq.read_table(shard).drop_columns(["key"])
    pq.write_table(table, shard, compression="none", use_dictionary=["split", "file"],
                   write_statistics=False)
    manifest["shards"][0]["bytes"] = shard.stat().st_size
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    old = read_store(tmp_path, progress=False)
    assert "format 1" in capsys.readouterr().out
    assert torch.equal(old.images, new.images) and torch.equal(old.joints, new.joints)
    assert old.digest == new.digest == crops.digest         # the same people
    assert read_manifest(tmp_path).header == header_of(crops)


def mend_manifest(folder):
    "Size and digest of a store's one shard as it is now, so that its contents are looked at."
    content, path = (folder / "crops-00000.parquet").read_bytes(), folder / "manifest.json"
    entry = dict(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"shards": [manifest["shards"][0] | entry]}))


def test_packed_or_repeated_columns_are_refused_before_they_are_unpacked(tmp_path):
    import pyarrow.parquet as pq
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    shard = tmp_path / "crops-00000.parquet"
    table = pq.read_table(shard)
    for options in (
        dict(compression="zstd", use_dictionary=False),
        dict(compression="none", use_dictionary=["image"]),
    ):
        pq.write_table(table, shard, **options)
        mend_manifest(tmp_path)
        with pytest.raises(DataError, match="is packed") as error:
            read_store(tmp_path, progress=False)
        one_sentence(error)


@pytest.mark.parametrize("said", [b"[]", b"[" * 50_000, b'"a"', b"{"])
def test_a_shard_whose_header_is_none_is_refused(tmp_path, said):
    import pyarrow.parquet as pq
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    shard = tmp_path / "crops-00000.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.replace_schema_metadata({"dppt": said}), shard, compression="none",
                   use_dictionary=["split", "file"], write_statistics=False)
    mend_manifest(tmp_path)
    with pytest.raises(DataError, match="crops-00000.parquet is damaged") as error:
        read_store(tmp_path, progress=False)
    one_sentence(error)


def test_the_writer_refuses_what_the_reader_would(tmp_path):
    row = next(crop_rows(crop_set()))
    small = encode_crop(np.zeros((9, 9, 3), np.uint8))
    for change, words in (
        (dict(visible=np.full(14, .5)), "no flag"), (dict(scale=(0, 1)), "not above 0"),
        (dict(affine=np.ones((2, 3))), "no way back"), (dict(image=small), r"is \(9, 9\) pixels"),
        (dict(image=b"GIF89a"), "cannot be decoded"), (dict(area=np.inf), "infinity"),
    ):
        with pytest.raises(DataError, match=words) as error:
            write_store(tmp_path / "s", header_of(crop_set()), [row | change])
        one_sentence(error)
        assert not (tmp_path / "s").exists()


# who is in it

def test_digests_of_people(tmp_path):
    crops = crop_set()
    same = [crops, replace(crops), crops.select("all"), crops.to("cpu")]
    others = [
        crops.select(slice(1, None)), crops.select([1, 0, *range(2, 12)]),
        replace(crops, joints=crops.joints + 1e-3), replace(crops, ids=crops.ids + 1),
        replace(crops, scales=crops.scales * 1.01), replace(crops, split=["val"] * 12),
        replace(crops, image_ids=crops.image_ids + 1),
        replace(crops, keypoint_set=replace(LSP14, names=LSP14.names[::-1])),
    ]
    assert len({c.digest for c in same}) == 1
    assert len({c.digest for c in [crops, *others]}) == len(others) + 1
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    back = read_store(tmp_path, progress=False)
    assert back.digest == crops.digest == read_manifest(tmp_path).people
    assert read_store(tmp_path, "test", progress=False).digest == crops.select("test").digest
    assert replace(back, joints=back.joints + 1).digest != back.digest  # an edit is noticed


def test_people_are_taken_backwards():
    crops = crop_set()
    back = crops.select(slice(None, None, -1))
    assert torch.equal(back.images, crops.images.flip(0))
    assert back.ids.tolist() == crops.ids.tolist()[::-1] and back.split == crops.split[::-1]


def test_nobody_has_a_digest_too(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    back = read_store(tmp_path, progress=False)
    assert crops.draw(0, seed=0).digest == back.select([]).digest != crops.digest


@pytest.mark.parametrize("count", [0, -1, 10., True, "10"])
def test_a_number_of_people_that_is_none_is_refused(count):
    with pytest.raises(DataError, match="it must be a whole number from 1 on, or None") as error:
        load_people("synthetic", None, ("val",), (64, 48), people=count)
    assert f"people is {count!r};" in str(error.value)
    assert len(synthetic_people("val", (64, 48), np.int64(2))) == 2


def test_synthetic_people_have_a_digest_too():
    few, again = (synthetic_people("val", (64, 48), people=6) for _ in range(2))
    more = synthetic_people("val", (64, 48), people=7)
    assert few.digest == again.digest != more.digest
    assert few.digest == more.select(slice(6)).digest
    assert few.digest != synthetic_people("test", (64, 48), people=6).digest


def test_the_same_people_cut_in_another_size(photographs, tmp_path):
    for size in ((128, 96), (64, 48)):
        prepare_store(photographs, tmp_path / str(size[0]), image_size=size, progress=False)
    small, large = (read_store(tmp_path / n, progress=False).digest for n in ("64", "128"))
    assert small == large
    photographs.joints[2, 5, 0] += 1
    prepare_store(photographs, tmp_path / "moved", image_size=(64, 48), progress=False)
    assert read_store(tmp_path / "moved", progress=False).digest != small


# whose folder it is

@pytest.mark.parametrize(
    "name",
    ["crops-2020.parquet", "write_test", "notes.txt", "crops-00007.parquet", "manifest.json"],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_users_files_are_left_alone(tmp_path, name, overwrite):
    crops = crop_set()
    (tmp_path / name).write_text('{"name": "an app of mine", "icons": []}')
    with pytest.raises(DataError, match=name) as error:
        write_store(tmp_path, header_of(crops), crop_rows(crops), overwrite=overwrite)
    assert "not of a crop store" in one_sentence(error)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert "an app of mine" in (tmp_path / name).read_text()


def cut_short(path): path.write_bytes(path.read_bytes()[:5000])
def emptied(path): path.write_bytes(b"")
def one_byte(path):
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8\xfe", 1))


@pytest.mark.parametrize("name, harm, words", [
    ("crops-00001.parquet", cut_short, "is damaged: it has 5,000 bytes, not "),
    ("crops-00000.parquet", emptied, "is damaged: it has 0 bytes, not "),
    ("crops-00000.parquet", one_byte, "is damaged: its digest is another"),
    ("crops-00001.parquet", Path.unlink, "is missing"),
    ("manifest.json", lambda path: path.write_text("{"), "is not JSON"),
    ("manifest.json", lambda path: path.write_text('{"format": 9}'), "install a newer dppt-nb"),
])
def test_a_damaged_store_is_named_and_cut_again(photographs, tmp_path, name, harm, words, capsys):
    "Whatever is wrong with it: it is said, with the way out, and overwriting is that way."
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    for folder in ("s", "whole"): prepare_store(photographs, tmp_path / folder, **cut)
    harm(tmp_path / "s" / name)
    left = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    with pytest.raises(DataError, match=words) as error:
        prepare_store(photographs, tmp_path / "s", **cut)
    said = one_sentence(error)
    assert name in said and said.endswith(", or say --overwrite to cut the people again.")
    assert left == {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    for foreign in ("notes.txt", *["crops-00099.parquet"] * (name != "manifest.json")):
        (tmp_path / "s" / foreign).write_text("somebody's")
        with pytest.raises(DataError, match=f"not of a crop store .{foreign}"):
            prepare_store(photographs, tmp_path / "s", **cut, overwrite=True)
        (tmp_path / "s" / foreign).unlink()
    prepare_store(photographs, tmp_path / "s", **cut, overwrite=True)
    assert same_files(tmp_path / "s", tmp_path / "whole")


def test_a_damaged_shard_of_an_unfinished_store_is_cut_again(photographs, tmp_path, monkeypatch):
    "Nothing is lost by that, so nobody is asked."
    cut = dict(image_size=(64, 48), progress=False, shard_mb=(2**16 + 6000) / 2**20)
    prepare_store(photographs, tmp_path / "whole", **cut)
    for number, overwrite in enumerate((False, True)):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_at(4, patch, False)
            with pytest.raises(Stopped): prepare_store(photographs, out, **cut)
        cut_short(out / "crops-00000.parquet")
        prepare_store(photographs, out, **cut, overwrite=overwrite)
        assert same_files(out, tmp_path / "whole")


def test_a_file_of_the_user_in_a_finished_store_stays(tmp_path):
    crops = crop_set()
    write_store(tmp_path, header_of(crops), crop_rows(crops))
    (tmp_path / "README").write_text("mine")
    with pytest.raises(DataError, match="README"):
        write_store(tmp_path, header_of(crops), crop_rows(crops), overwrite=True)
    assert len(read_store(tmp_path, progress=False)) == 12


def test_of_two_prepares_one_goes_on(photographs, tmp_path):
    with claim_folder(tmp_path / "store"):
        with pytest.raises(DataError, match=f"being written by process {os.getpid()}") as error:
            prepare_store(photographs, tmp_path / "store", progress=False)
        one_sentence(error)
        with pytest.raises(DataError, match="being written"): read_store(tmp_path / "store")
        assert [p.name for p in (tmp_path / "store").iterdir()] == [CLAIM]
    prepare_store(photographs, tmp_path / "store", progress=False)
    assert len(read_store(tmp_path / "store", progress=False)) == 6


def test_after_an_error_nothing_stays_but_what_was_there(photographs, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for out in ("new", "empty"):
        with pytest.raises(DataError, match="1.png"):
            prepare_store(photographs, tmp_path / out, shard_mb=.07, progress=False)
    assert not (tmp_path / "new").exists() and list((tmp_path / "empty").iterdir()) == []


# the cache

@pytest.fixture
def coco(tmp_path, monkeypatch):
    "Five photographs with a person each, in COCO's layout, boxes of a detector, a cache."
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for i in range(1, 6): picture(i, (120, 100)).save(root / f"images/{i}.jpg")
    label(root, 5)
    for name, count in (("first", 4), ("second", 2)):
        rows = [dict(image_id=i, category_id=1, bbox=[10, 10, 60, 80], score=.9)
                for i in range(1, count + 1)]
        (root / f"{name}.json").write_text(json.dumps(rows))
    return root


def label(root, people, shift=0):
    "Write the annotation file."
    points = [v for j in range(17) for v in (20 + 2 * j + shift, 30 + 3 * j, 2)]
    content = coco_file([
        dict(id=i, image_id=i, area=3000., bbox=[10, 20, 60, 80], keypoints=points)
        for i in range(1, people + 1)
    ], images=5, size=(120, 100))
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/person_keypoints_val.json").write_text(json.dumps(content))


def people(root, **options):
    return load_people("coco", root, ("val",), (64, 48), False, **options)["val"]


def test_options_beside_a_store_have_a_way_out(coco, tmp_path):
    "`dppt data prepare` takes no boxes: the data set's own folder is named in the store's place."
    store = find_store("coco", coco, (64, 48), False)
    for option in (dict(boxes="first.json"), dict(val_share=0.3)):
        with pytest.raises(DataError, match="is a store of crops; leave it out, or name the data "
                           "set's own folder in the store's place"):
            people(store, **option)


def test_a_split_that_no_box_shows_names_the_boxes(coco):
    with pytest.raises(DataError, match="^first.json has nobody in split 'test'; it has val 4"):
        load_people("coco", coco, ("test",), (64, 48), False, boxes="first.json")


@pytest.mark.parametrize("data", ["coco", "synthetic"])
def test_a_split_that_does_not_exist_is_no_lack_of_a_file(coco, data):
    root = coco if data == "coco" else None
    with pytest.raises(DataError, match="split 'vall'; .*train, val and test$"):
        load_people(data, root, ("vall",), (64, 48), False)


def test_what_can_be_done_never_hides_who_is_there(coco, tmp_path):
    "CrowdPose's files have names of their own."
    crowd = tmp_path / "crowd"
    shutil.copytree(coco / "images", crowd / "images")
    shutil.copy(coco / "annotations/person_keypoints_val.json", crowd / "crowdpose_train.json")
    with pytest.raises(DataError, match="nobody in split 'test'; it has train 5; .*test=FILE$"):
        load_people("crowdpose", crowd, ("test",), (64, 48), False)


def test_a_zip_with_a_damaged_directory_is_said_by_whoever_looks_first(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z: z.writestr("joints.mat", b"x" * 1000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    at = content.rfind(b"PK\1\2")
    content[at:at + 4] = b"XXXX"
    (tmp_path / "a.zip").write_bytes(content)
    said = []
    for look in (ImageSource, fingerprint):
        with pytest.raises(DataError, match="zip file .*a.zip is damaged") as error:
            look(tmp_path / "a.zip")
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_wrong_name_is_said_before_crops_are_cut(coco, capsys):
    for root in (coco, None):
        with pytest.raises(DataError, match="there is no data set 'nosuch'"):
            load_people("nosuch", root, ("val",), (64, 48), False)
    assert not capsys.readouterr().out


def test_an_annotation_file_without_people_is_named(coco):
    label(coco, 0)
    with pytest.raises(DataError, match="person_keypoints_val.json.* holds no person at all"):
        people(coco)


def test_every_boxes_file_has_its_own_crops(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = [len(people(coco, boxes=b)) for b in ("first.json", "second.json", None)]
    assert counts == [4, 2, 5]
    assert len(people(coco, boxes=coco / "second.json")) == 2
    (coco / "first.json").write_text((coco / "second.json").read_text())
    assert len(people(coco, boxes="first.json")) == 2
    assert len(people("data")) == 5


def test_labels_behind_a_link_are_seen(coco, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("annotations", "images"): os.symlink(coco / name, linked / name)
    before = people(linked)
    label(coco, 3)
    after = people(linked)
    assert (len(before), len(after)) == (5, 3)
    file = coco / "annotations/person_keypoints_val.json"
    stat = file.stat()
    label(coco, 3, shift=1)                                 # as long as before, and as old
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    moved = people(linked)
    assert (moved.photo_joints - after.photo_joints)[..., 0].round().unique().tolist() == [1]


def test_a_store_is_of_the_pictures_as_they_lie_there(coco, tmp_path, capsys):
    again = lambda **options: prepare("coco", coco, tmp_path / "out", (64, 48), **options)
    photo, exif = coco / "images/1.jpg", Image.Exif()
    exif[0x0112] = 3
    Image.open(photo).save(photo, exif=exif)
    again()
    os.utime(photo, ns=(0, 0))                              # copied, not changed
    again()
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(DataError, match="of other people, pictures or options"):
        again(pixels="stored")
    content = bytearray(photo.read_bytes())
    content[-20] ^= 255                                     # as long as before
    photo.write_bytes(content)
    with pytest.raises(DataError, match="of other people, pictures or options"): again()


def test_other_options_and_sizes_are_other_crops(coco):
    key = lambda size=(64, 48), **options: cached_store(made_from("coco", coco, size, **options))
    keys = [key(), key((128, 96)), key(min_score=.5), key(boxes="first.json"),
            key(boxes="first.json", min_score=.5)]
    assert len(set(keys)) == len(keys) and key() == keys[0] == key(boxes=None)


def test_another_reader_and_other_code_make_other_crops(coco, tmp_path, monkeypatch):
    """Who mends a reader of theirs, or changes a lesson, is not given the crops of yesterday."""
    def key():
        scope = {}
        exec(compile(reader.read_text(), reader, "exec"), scope)
        row = replace(DATASETS["coco"], reader=scope["read_mine"])
        monkeypatch.setitem(DATASETS, "mine", row)
        return cached_store(made_from("mine", coco, (64, 48)))
    reader = tmp_path / "mine.py"
    reader.write_text("def read_mine(root, **options): return 1")
    before = key()
    assert key() == before
    reader.write_text("def read_mine(root, **options): return 2")
    assert key() != before
    before = key()
    home = shutil.copytree(Path(cutting.__file__).parent, tmp_path / "dppt_nb")
    monkeypatch.setattr(cutting.dppt_nb, "__file__", str(home / "__init__.py"))
    monkeypatch.setattr(cutting, "_own_modules", cutting._own_modules.__wrapped__)
    assert key() == before
    for name, same in (("export", True), ("crops", False)):    # no crop depends on the first
        with open(home / f"{name}.py", "a") as file: file.write("changed = True")
        assert (key() == before) == same, name


def test_what_training_and_judging_write_below_the_root_makes_no_other_crops(coco, tmp_path):
    from dppt_nb.pictures import DRAWING
    key = lambda: cached_store(made_from("coco", coco, (64, 48)))
    before, store_folder = key(), find_store("coco", coco, (64, 48), False)
    shutil.copytree(store_folder, coco / "mine")
    for name in ("run/training.json", "run/config.json", "run/model.safetensors", "results.json",
                 "run/state-0001.safetensors", "run/samples/epoch-0001.png", "run/validation.json",
                 "run/report.html", "results/a/results.json", "train.log", "images/poses.jsonl",
                 f"run/{CLAIM}", ".results.json.host-1-0123abcd.tmp",
                 "run/track/events.out.tfevents.17.host.1.0", "run/track/17.3/hparams.yml",
                 "wandb/run-1/files/config.yaml"):    # of trackers
        (coco / name).parent.mkdir(parents=True, exist_ok=True)
        (coco / name).write_text("{}")
        assert key() == before, name
    picture(1).save(coco / "images/1-poses.jpg", comment=DRAWING)
    assert key() == before
    # pictures and labels are seen wherever they lie
    for name in ("images/epoch-0001.png", "run/9.png", "run/9-poses.jpg", "run/people.json"):
        before = key()
        picture(1).save(coco / name, "PNG") if "json" not in name else label(coco, 4)
        assert key() != before, name


def test_where_pictures_and_annotations_are_named_nothing_else_makes_other_crops(coco):
    file = coco / "annotations/person_keypoints_val.json"
    given = dict(annotations="validation=annotations/person_keypoints_val.json", images="images")
    key = lambda **options: cached_store(made_from("coco", coco, (64, 48), **given | options))
    keys = [key()]
    (coco / "notes.txt").write_text("to do")
    assert key() == keys[0]
    label(coco, 4)
    keys.append(key())
    picture(7, (120, 100)).save(coco / "images/1.jpg")
    os.utime(coco / "images/1.jpg", ns=(0, 0))
    keys += [key(), key(boxes="first.json"), key(annotations=str(file)), key(images=".")]
    assert len(set(keys)) == len(keys)


def test_a_run_inside_of_its_data_set_cuts_once(coco, monkeypatch, capsys):
    monkeypatch.chdir(coco)
    (coco / "annotations/person_keypoints_val.json").rename("people.json")
    given = "--data coco --root . --annotations people.json --val-share 0.4".split()
    tiny = "--image-size 64x48 --epochs 1 --device cpu --out run".split()
    net = ["--overrides", '{"width": 32, "depth": 1, "heads": 2}', "--warmup-steps", "0"]
    for words in (["train", "tokenpose_nano", *given, *tiny, *net],
                  *2 * [["eval", "run", *given, "--split", "val", "--device", "cpu"]]):
        main(words, standalone_mode=False)
    said = capsys.readouterr().out
    assert said.count("cutting crops into") == 1 and "The network is in run" in said
    assert len(list((coco.parent / "cache").iterdir())) == 1


def test_a_cache_entry_says_what_it_was_made_from(coco, tmp_path):
    store_folder = find_store("coco", coco, (64, 48), False, boxes="first.json")
    made = read_manifest(store_folder).made_from
    assert made["data"] == "coco" and made["root"] == str(coco) and made["image_size"] == [64, 48]
    assert made["options"] == {"boxes": "first.json"} and set(made["content"]) == {
        "root", "boxes first.json",
    }
    prepare("coco", coco, tmp_path / "out", (64, 48), False)
    # a store that travels says no paths
    assert list(read_manifest(tmp_path / "out").made_from) == ["pictures"]


def test_a_failure_leaves_nothing_in_the_cache(coco, tmp_path):
    (coco / "images/3.jpg").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="3.jpg"): people(coco)
        assert list((tmp_path / "cache").iterdir()) == []


def test_of_two_runs_that_end_together_one_is_first(coco, tmp_path, monkeypatch):
    "The other takes its store, and leaves nothing of its own."
    rename = Path.rename
    def second(path, target):
        if path.suffix == ".part": shutil.copytree(path, target)
        return rename(path, target)
    monkeypatch.setattr(Path, "rename", second)
    store = find_store("coco", coco, (64, 48), False)
    assert len(read_store(store, progress=False)) == 5
    assert list((tmp_path / "cache").iterdir()) == [store]


def test_what_a_killed_cutting_left_goes_later(coco, tmp_path):
    left, young, held, mine = (
        tmp_path / "cache" / n
        for n in ("a.0123abcd.part", "b.0123abcd.part", "c.0123abcd.part", "mine.part")
    )
    for folder in (left, young, held, mine): folder.mkdir(parents=True)
    long_ago = time.time() - 48 * 3600
    with claim_folder(held):
        for folder in (left, held, mine): os.utime(folder, (long_ago, long_ago))
        assert len(people(coco)) == 5
        assert [f.exists() for f in (left, young, held, mine)] == [False, True, True, True]


@pytest.mark.parametrize("readable", [False, True])
def test_in_a_cache_of_several_users_the_others_folders_stay(
    coco, tmp_path, monkeypatch, readable
):
    wanted = find_store("coco", coco, (64, 48), False)
    shutil.rmtree(wanted)
    others = {wanted.with_name(f"{name}.0123abcd.part") for name in (wanted.name, "a")}
    for folder in others: folder.mkdir()
    opened, allowed = os.open, os.access
    foreign = lambda path: bool(others & {Path(path), *Path(path).parents})

    def refuse(path, usual, *given, **named):
        if not readable and foreign(path): raise PermissionError(errno.EACCES, "not yours")
        return usual(path, *given, **named)
    monkeypatch.setattr(os, "open", lambda path, *a, **k: refuse(path, opened, *a, **k))
    monkeypatch.setattr(os, "access", lambda path, *a: not foreign(path) and allowed(path, *a))
    assert find_store("coco", coco, (64, 48), False) == wanted
    assert set(wanted.parent.iterdir()) == {*others, wanted}


def test_a_stopped_run_is_gone_on_with(coco, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(0, patch, True)
        with pytest.raises(Stopped): people(coco)
    (partial,) = (tmp_path / "cache").iterdir()
    assert list(partial.glob("*.parquet"))
    taken = []
    monkeypatch.setattr(
        store, "prepare", lambda *given, **named: taken.append(given[2]) or prepare(*given, **named)
    )
    assert len(people(coco)) == 5 and taken == [partial]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_run_may_be_faster(coco, monkeypatch):
    def prepare_twice(*given, **named):
        monkeypatch.undo()
        monkeypatch.setenv("DPPT_CACHE", str(coco.parent / "cache"))
        first = find_store("coco", coco, (64, 48), False)
        report = prepare(*given, **named)
        assert is_store(first)
        return report
    monkeypatch.setattr(store, "prepare", prepare_twice)
    assert len(read_store(find_store("coco", coco, (64, 48), False), progress=False)) == 5
    assert len(list((coco.parent / "cache").iterdir())) == 1


def test_a_folder_with_a_manifest_of_its_own_is_no_store(coco, tmp_path):
    (coco / "manifest.json").write_text('{"name": "an app"}')
    assert not is_store(coco) and len(people(coco)) == 5
    assert not is_store(None) and not is_store(tmp_path / "nowhere")
    assert is_store(find_store("coco", coco, (64, 48), False))


def test_one_split_may_be_named_without_a_tuple(coco):
    load = lambda splits: load_people("coco", coco, splits, (64, 48), False)
    assert load("val")["val"].digest == load(("val",))["val"].digest
    assert [*load("all")] == ["all"]
    assert [*load_people("synthetic", None, "test", (64, 48), people=2)] == ["test"]
    with pytest.raises(DataError, match="has nobody in split 'train'"): load("train")


def test_people_of_real_data_are_not_counted_off(coco):
    with pytest.raises(DataError, match="--people") as error: people(coco, people=3)
    assert "leave it out" in str(error.value)


def test_a_user_without_a_home(coco, tmp_path):
    find = f"find_store('coco', {str(coco)!r}, (64, 48), False)"
    program = (
        f"import os; from dppt_nb.store import find_store; print({find})\n"
        f"os.environ['DPPT_CACHE'] = {str(tmp_path / 'file/cache')!r}; {find}"
    )
    (tmp_path / "file").write_text("")
    given = {k: v for k, v in os.environ.items() if k != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=given
    )
    assert str(tmp_path / "cache") in done.stdout.splitlines()[-1], done.stderr
    assert "set the variable DPPT_CACHE" in done.stderr.splitlines()[-1]


def test_a_crop_of_another_size_or_kind_fills_no_row():
    import io
    into, out = np.full((3, 24, 16), 7, np.uint8), io.BytesIO()
    Image.new("RGB", (16, 24), "red").save(out, "png")
    bomb = bytearray(encode_crop(np.zeros((24, 16, 3), np.uint8)))
    sizes = bomb.find(b"\xff\xc0") + 5
    bomb[sizes:sizes + 4] = b"\xff\xff\xff\xff"             # declares 65,535 x 65,535 pixels
    for jpeg, words in (
        (encode_crop(np.zeros((16, 24, 3), np.uint8)), r"is \(16, 24\) pixels, not \(24, 16\)"),
        (bytes(bomb), "cannot be decoded|65535"), (out.getvalue(), "cannot be decoded"),
        (b"", "cannot be decoded"),
    ):
        with pytest.raises(DataError, match=words) as error:
            decode_crop(jpeg, (24, 16), "a.parquet: crop 3", into=into)
        assert "a.parquet: crop 3" in one_sentence(error) and (into == 7).all()
    decode_crop(encode_crop(np.full((24, 16, 3), 200, np.uint8)), (24, 16), "crop", into=into)
    assert (abs(into.astype(int) - 200) < 3).all()


def test_who_comes_second_leaves_the_first_one_s_work(coco, tmp_path, monkeypatch):
    "Another process may have begun in the same folder after it was chosen."
    claims = []
    def taken(data, root, out, *given, **named):
        claims.append(claim_folder(out))
        claims[0].__enter__()
        (out / "crops-00000.parquet").write_bytes(b"of another process")
        raise DataError(f"{out} is being written by another process")
    monkeypatch.setattr(store, "prepare", taken)
    try:
        with pytest.raises(DataError, match="is being written by"): people(coco)
        (partial,) = (tmp_path / "cache").iterdir()
        assert (partial / "crops-00000.parquet").exists()
    finally: claims[0].__exit__(None, None, None)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_writer_may_be_closed_inside_its_block(tmp_path, overwrite):
    crops = crop_set()
    if overwrite: write_store(tmp_path / "s", header_of(crops), crop_rows(crops))
    with StoreWriter(tmp_path / "s", header_of(crops), overwrite=overwrite) as writer:
        for row in crop_rows(crops): writer.add(**row)
        report = writer.close()
    assert report["people"] == len(read_store(tmp_path / "s", progress=False)) == 12


@pytest.mark.parametrize("data", [
    bytes([0xF7, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),    # a list of 2 ** 32 numbers with a point
    bytes([0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]), bytes([0x27, 0, 0]),
])
def test_a_description_that_claims_more_than_it_holds_is_refused_at_once(data):
    with pytest.raises((ValueError, IndexError), match="its description"):
        read_thrift(data, kind=9)

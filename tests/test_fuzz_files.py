"""Damaged stores, manifests, MATLAB files, zips, JSON and tensors, by the thousand: every one is
read as before or refused by a sentence. `DPPT_FUZZ=10000 pytest tests/test_fuzz_files.py` tries
10,000 of each kind; in the suite a few have to do. The inputs are drawn by seed, so that each can
be made again: `python tests/test_fuzz_files.py KIND SEED`."""
import collections
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import MEBIBYTES, SECONDS, how_many, peak

COUNT = how_many(34)
# what may come out in another way without anybody being able to tell: there is no checksum in it,
# or whoever changed it made a new one
UNPROTECTED = (
    "store of format 1", "store, digest mended", "mat, not packed", "json", "tensors",
)


# the inputs

def blank_store(folder):
    "Four people with fourteen points."
    from dppt_nb.keypoints import LSP14
    from dppt_nb.shards import StoreHeader
    from dppt_nb.writing import write_store
    rng = np.random.default_rng(0)
    rows = (
        dict(
            image=rng.integers(0, 255, (24, 16, 3), dtype=np.uint8), id=i, image_id=i,
            joints=rng.uniform(0, 16, (14, 2)), visible=np.ones(14), affine=np.eye(2, 3),
            center=(8, 12), scale=(.1, .2), split="train" if i % 2 else "val", file=f"{i}.jpg",
        )
        for i in range(4)
    )
    write_store(folder, StoreHeader("fuzz", LSP14, (24, 16), 1.5, {"no box": 3}), rows)
    return folder


def read_people(folder):
    "All of a store that training sees."
    from dppt_nb.store import read_store
    c = read_store(folder, progress=False)
    tensors = (c.images, c.joints, c.visible, c.affine, c.centers, c.scales, c.ids, c.image_ids)
    return [t.numpy() for t in tensors], c.split, c.margin, c.name, c.keypoint_set, c.left_out


def store_shard(folder):
    path = blank_store(folder / "s") / "crops-00000.parquet"
    return path.read_bytes(), path.write_bytes, lambda: read_people(folder / "s")


def store_manifest(folder):
    path = blank_store(folder / "s") / "manifest.json"
    return path.read_bytes(), path.write_bytes, lambda: read_people(folder / "s")


def store_with_digest(folder):
    "A shard by somebody who also mends the digest: what is asked after it has to hold alone."
    path = blank_store(folder / "s") / "crops-00000.parquet"
    manifest = json.loads((folder / "s/manifest.json").read_text())
    def write(content):
        digest = hashlib.sha256(content).hexdigest()
        manifest["shards"][0] |= dict(bytes=len(content), sha256=digest)
        (folder / "s/manifest.json").write_text(json.dumps(manifest))
        path.write_bytes(content)
    return path.read_bytes(), write, lambda: read_people(folder / "s")


def store_of_format_1(folder):
    import pyarrow.parquet as pq
    path = blank_store(folder / "s") / "crops-00000.parquet"
    table, manifest = pq.read_table(path), json.loads((folder / "s/manifest.json").read_text())
    old = {k: manifest[k] for k in ("header", "splits")}
    old["header"]["version"] = 1
    pq.write_table(table.drop_columns(["key"]), path, compression="none", use_dictionary=["split"])
    def write(content):
        old["shards"] = [dict(file=path.name, rows=4, bytes=len(content))]
        (folder / "s/manifest.json").write_text(json.dumps(old))
        path.write_bytes(content)
    return path.read_bytes(), write, lambda: read_people(folder / "s")


def mat(packed):
    def make(folder):
        from scipy.io import savemat

        from dppt_nb.files import ImageSource
        from dppt_nb.matlab import read_mat
        joints = np.random.default_rng(0).normal(size=(14, 3, 4))
        given = {"other": np.arange(6), "joints": joints, "text": "a text"}
        savemat(folder / "x.mat", given, do_compression=packed)
        path = folder / "x.mat"
        return path.read_bytes(), path.write_bytes, lambda: read_found(
            read_mat(ImageSource(folder), "x.mat", "joints")
        )
    return make


def read_found(array):
    "A file without the array has the shape (), at which every caller stops."
    from dppt_nb.checks import DataError
    if array.shape == (): raise DataError("x.mat has no joints.")
    return array


def zipped(folder):
    from PIL import Image

    from dppt_nb.files import ImageSource
    picture = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture, "png")
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("annotations/a.json", json.dumps({"joints": list(range(200))}))
        z.writestr("images/1.png", picture.getvalue())
    def read():
        source = ImageSource(folder / "z.zip")
        return source.read_json("annotations/a.json", dict), np.asarray(source.read("images/1.png"))
    return (folder / "z.zip").read_bytes(), (folder / "z.zip").write_bytes, read


def json_file(folder):
    from dppt_nb.files import read_json
    content = json.dumps({"epochs": 3, "history": [{"loss": 1.5, "name": "a"}] * 9, "x": None})
    return content.encode(), (folder / "x.json").write_bytes, lambda: read_json(folder / "x.json")


def tensors(folder):
    import torch

    from dppt_nb.files import read_tensors, write_tensors
    path = folder / "x.safetensors"
    write_tensors(path, {"a": torch.arange(12.).view(3, 4), "b": torch.ones(5, dtype=torch.int64)})
    return path.read_bytes(), path.write_bytes, lambda: {
        name: t.numpy() for name, t in read_tensors(path).items()
    }


KINDS = {
    "store": store_shard, "manifest": store_manifest, "store, digest mended": store_with_digest,
    "store of format 1": store_of_format_1, "mat, packed": mat(True),
    "mat, not packed": mat(False), "zip": zipped, "json": json_file, "tensors": tensors,
}


# the damage

ODD = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"null", b"NaN", b"-1", b"1e999", b"[]", b"{}", b'""', b"[" * 2000, b'{"a":' * 2000, b"true",
    b'"../x.parquet"', b"9" * 5000, b"\xff\xfe", b"0.5", b'"12"', b"4096", b"1000000000000",
]


def damage(content, rng):
    "One to three wounds."
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, size = int(rng.integers(len(content) + 1)), int(2 ** rng.uniform(0, 7))
        kind = rng.integers(8)
        if kind == 0 and place < len(content): content[place] ^= 1 << int(rng.integers(8))
        if kind == 1: content[place:place + 1] = bytes([int(rng.integers(256))])
        if kind == 2: del content[place:place + size]
        if kind == 3: content[place:place] = content[place // 2:place // 2 + size]
        if kind == 4:
            width = int(2 ** rng.integers(4))
            odd = ODD[rng.integers(len(ODD))] % 2 ** (8 * width)
            content[place:place + width] = odd.to_bytes(width, "little")
        if kind == 5: content[place:] = b"" if rng.random() < .3 else content[place:]
        if kind == 6: content[place:place + size] = bytes(size)
        if kind == 7: _new_value(content, rng)
    return bytes(content)


def _new_value(content, rng):
    "Another value behind one of the colons, as in JSON."
    values = list(re.finditer(rb': ?("[^"]*"|[^,\[\]{}"]+)', content))
    if values:
        start, end = values[rng.integers(len(values))].span(1)
        content[start:end] = WORDS[rng.integers(len(WORDS))]


def same(a, b):
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def fuzz(kind, seeds):
    "What became of the damaged inputs: word -> seeds; \"slow\" are those that took too long."
    from dppt_nb.checks import DataError
    folder, outcomes = Path(tempfile.mkdtemp()), collections.defaultdict(list)
    good, write, read = KINDS[kind](folder)
    write(good)
    before = read()
    for seed in seeds:
        print(kind, seed, file=sys.stderr, flush=True)      # the last one, if Python ends here
        write(damage(good, np.random.default_rng(seed)))
        start = time.process_time()
        try:
            word = "same" if same(before, read()) else "other"
        except DataError as error:
            word = "refused" if "\n" not in str(error) and len(str(error)) < 600 else "no sentence"
        except Exception as error:
            word = type(error).__name__
        outcomes[word].append(seed)
        if time.process_time() - start > SECONDS: outcomes["slow"].append(seed)
    shutil.rmtree(folder)
    return outcomes


def main():
    "All kinds, their outcomes and the memory that it took, as JSON on the last line."
    if len(sys.argv) > 2:
        return print(dict(fuzz(sys.argv[1], [int(seed) for seed in sys.argv[2:]])))
    found = {kind: fuzz(kind, range(COUNT)) for kind in KINDS}
    print("\n" + json.dumps(dict(found=found, mebibytes=peak())))


@pytest.fixture(scope="module")
def outcomes():
    "All in one process of its own, which may crash, hang, or grow."
    seconds = 120 + COUNT * len(KINDS)
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=seconds,
    )
    assert done.returncode == 0, f"Python ended at {done.stderr.splitlines()[-1]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_input_is_read_as_before_or_refused(outcomes, kind):
    found = outcomes["found"][kind]
    print(kind, {word: len(seeds) for word, seeds in found.items()})
    allowed = {"same", "refused", *(["other"] if kind in UNPROTECTED else [])}
    assert {w: s[:9] for w, s in found.items() if w not in allowed} == {}
    assert found["refused"]                                 # the damage was damage


def test_memory_stays_bounded(outcomes):
    print(f"peak {outcomes['mebibytes']} MiB")
    assert outcomes["mebibytes"] < MEBIBYTES


def test_no_number_in_a_store_ends_python():
    "Arrow answers this one with an exception that nobody catches."
    words = [sys.executable, __file__, "store, digest mended", "2000"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'refused': [2000]}"


if __name__ == "__main__": main()

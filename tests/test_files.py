"""Files are written whole, read by one set of rules, and a folder has one writer; nothing hangs,
nothing takes the machine's memory."""
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixture import one_sentence
from scipy.io import loadmat, savemat

from dppt_nb import locks
from dppt_nb.checks import JSON_DEPTH, DataError, check_format, parse_json, validated
from dppt_nb.files import (
    CLAIM,
    ImageSource,
    cache_folder,
    claim_folder,
    digest_of,
    folder_writer,
    make_folder,
    place_of,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_whole,
)
from dppt_nb.matlab import find_array, most_unpacked, read_mat
from dppt_nb.pictures import list_photos

needs_posix = pytest.mark.skipif(os.name == "nt", reason="named pipes and links of POSIX systems")


def run(program, *, check=True, **options):
    "A Python program in a process of its own."
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, **options
    )
    if check: assert done.returncode == 0, done.stderr
    return done


# writing

def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    path, contents = tmp_path / "note.txt", [bytes([65 + i]) * 200_000 for i in range(6)]
    def write_often(content):
        for _ in range(10): write_whole(path, content)
    threads = [threading.Thread(target=write_often, args=[c]) for c in contents]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert path.read_bytes() in contents and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, error):
    path = tmp_path / "note.txt"
    write_whole(path, b"old")
    def fail(*_): raise error
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt) as said:
            write_whole(path, b"new")
    if isinstance(error, OSError): assert "note.txt (No space left on device)" in one_sentence(said)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_while_the_content_is_written(tmp_path):
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from dppt_nb.checks import DataError
from dppt_nb.locks import write_whole
try: write_whole({str(tmp_path / "big")!r}, bytes(100_000))
except DataError as error: print(error)
"""
    assert "cannot write" in run(program).stdout and list(tmp_path.iterdir()) == []


def test_the_folder_is_synced_where_the_system_can(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    def note(handle): synced.append(os.fstat(handle).st_mode & 0o170000) or fsync(handle)
    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "a", b"")
    assert synced == [0o100000, 0o040000]                   # the file, then the folder
    synced.clear()
    monkeypatch.setattr(os, "name", "nt")
    locks._sync_folder(str(tmp_path))
    monkeypatch.undo()
    assert synced == []


def test_what_is_written_in_a_folder_that_nobody_may_list_is_not_called_unwritten(
    tmp_path, monkeypatch
):
    opened = os.open
    def closed(path, flags, *rest, **named):
        if Path(path) == tmp_path: raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest, **named)
    monkeypatch.setattr(os, "open", closed)
    write_whole(tmp_path / "a", b"x")
    monkeypatch.undo()
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_folder_in_the_file_s_place_is_a_sentence(tmp_path):
    path = tmp_path / "note"
    path.mkdir()
    with pytest.raises(DataError, match="cannot write") as error: write_whole(path, b"")
    one_sentence(error)
    assert [p.name for p in tmp_path.iterdir()] == ["note"]


# reading

@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON"),
        (b"[1]", "must hold named fields"),
        (b"7", "must hold named fields"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"a":' * (JSON_DEPTH + 1) + b"1" + b"}" * (JSON_DEPTH + 1), "nested deeper"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=words) as error: read_json(tmp_path / "x.json")
    assert "x.json" in one_sentence(error)
    if b"7" != content and b"[1]" != content:
        with pytest.raises(DataError): ImageSource(tmp_path).read_json("x.json")


def test_json_that_can(tmp_path):
    path = tmp_path / "x.json"
    deepest = b'{"a":' * JSON_DEPTH + b"1" + b"}" * JSON_DEPTH
    for content in (b"\xef\xbb\xbf{}", deepest, '{"a": "ä"}'.encode("utf-16")):
        path.write_bytes(content)
        read_json(path)
    write_json(path, {"loss": float("nan"), "rows": [float("inf"), 1.5]})
    assert read_json(path) == {"loss": None, "rows": [None, 1.5]}
    assert parse_json(b"[1]", "x", list) == [1]


def test_tensors_come_back_and_damage_is_a_sentence(tmp_path):
    path, rng = tmp_path / "w.safetensors", np.random.default_rng(0)
    given = {"a": torch.randn(3, 4).T, "b": torch.arange(5), "c": torch.tensor(True)}
    write_tensors(path, given)
    back, good = read_tensors(path), path.read_bytes()
    assert all(torch.equal(back[k], given[k]) for k in given)
    head = 8 + int.from_bytes(good[:8], "little")
    spoilt = [good[:n] for n in (0, 7, head - 1, len(good) - 1)] + [b"\xff" * 8 + good[8:]]
    for place in rng.integers(0, head, 200):
        spoilt.append(good[:place] + bytes([rng.integers(256)]) + good[place + 1:])
    for content in spoilt:
        path.write_bytes(content)
        try: read_tensors(path)
        except DataError as error: assert "w.safetensors is damaged" in str(error)
    for name in ("none", "."):
        with pytest.raises(DataError, match="missing or no file"): read_tensors(tmp_path / name)


@needs_posix
@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_refused_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    monkeypatch.chdir(tmp_path)                             # the path of a socket must be short
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.json")
    for name in ("pipe.json", "socket.json"):
        for read in (
            lambda: read_json(tmp_path / name), lambda: ImageSource(tmp_path).read_json(name),
            lambda: ImageSource(tmp_path).read(name), lambda: ImageSource(tmp_path / name),
            lambda: read_tensors(tmp_path / name), lambda: read_mat(ImageSource("."), name, "x"),
        ):
            with pytest.raises(DataError) as error: read()
            assert name in one_sentence(error)
    assert ImageSource(tmp_path).names() == set()
    server.close()


@needs_posix
@pytest.mark.timeout(20)
def test_links_in_circles_are_not_followed(tmp_path):
    root = tmp_path / "up" / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/1.txt").write_text("")
    (tmp_path / "up/outside.txt").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/2.txt").write_text("")
    for place, target in (
        ("self", "."), ("a/up", ".."), ("a/b/top", root), ("above", tmp_path / "up"),
        ("slash", "/"), ("gone", "nowhere"), ("here", tmp_path / "elsewhere"),
        ("again", tmp_path / "elsewhere"),
    ): os.symlink(target, root / place)
    os.symlink(root, tmp_path / "elsewhere/back")
    # a link elsewhere is followed, as often as there is one; a link to where we came from is not
    assert ImageSource(root).names() == {"a/b/1.txt", "here/2.txt", "again/2.txt"}


def test_notes_of_macos_are_no_files_of_a_data_set(tmp_path):
    "Beside every file on a disk that is not a Mac's, and in every zip that Finder made."
    mine = "people.json", "photos/one.jpg", "photos/a._b.jpg"
    notes = "._people.json", "photos/._one.jpg", "__MACOSX/photos/._one.jpg", "__MACOSX/x.json"
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in mine + notes:
            (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / name).write_bytes(b"\0\5\x16\7" if name in notes else b"{}")
            archive.write(tmp_path / "all" / name, name)
    for root in ("all", "all.zip"):
        source = ImageSource(tmp_path / root)
        assert source.names() == set(mine) and source.find("*.json") == ["people.json"]
    photos = tmp_path / "all/photos"
    assert list_photos([photos]) == [str(photos / name) for name in ("a._b.jpg", "one.jpg")]


def test_zips_that_claim_too_much(tmp_path):
    def packed(method, content):
        with zipfile.ZipFile(tmp_path / "z.zip", "w", method) as z: z.writestr("x.json", content)
        return ImageSource(tmp_path / "z.zip")
    for method, size, words in (
        (zipfile.ZIP_DEFLATED, 2**25, "claims 33,554,432 bytes"),
        (zipfile.ZIP_BZIP2, 9, "way of packing"), (zipfile.ZIP_LZMA, 9, "way of packing"),
    ):
        with pytest.raises(DataError, match=words) as error:
            packed(method, bytes(size)).read_json("x.json")
        assert "x.json" in one_sentence(error)
    assert packed(zipfile.ZIP_STORED, b"[" + b"1," * 2**20 + b"1]").read_json("x.json")[0] == 1
    # the directory says 100 bytes, and 32 MiB come out
    packed(zipfile.ZIP_DEFLATED, bytes(2**25))
    content = (tmp_path / "z.zip").read_bytes()
    lying = content.replace((2**25).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    (tmp_path / "z.zip").write_bytes(lying)
    with pytest.raises(DataError, match="x.json cannot be read"):
        ImageSource(tmp_path / "z.zip").read_json("x.json")
    assert most_unpacked(2**21) * 22 < 2**30                # 2 MiB of JSON's worst: [],[],[]


def test_indented_json_in_a_zip_is_read(tmp_path):
    "It packs to a fiftieth; what packs to a thousandth is refused, with another way to read it."
    people = [dict(id=i, keypoints=[0] * 51, bbox=[i % 7, 2, 3, 4]) for i in range(20_000)]
    content = json.dumps(people, indent=4).encode()
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a.json", content)
        z.writestr("a.txt", content)
        z.writestr("b.JSON", b"[" + b" " * 2**25 + b"]")
    source = ImageSource(tmp_path / "z.zip")
    packed = source._files["a.json"].compress_size
    assert 2**24 < len(content) and 20 < len(content) / packed < 200
    assert source.read_json("a.json") == people
    for name in ("a.txt", "b.JSON"):
        with pytest.raises(DataError, match="unpack the zip and give the folder") as error:
            source.read_bytes(name)
        assert name in one_sentence(error)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory as Linux tells it")
def test_a_small_file_never_takes_a_gibibyte(tmp_path):
    zeros = bytes(2**27)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("worst.json", b"[" + b"[]," * (2**24 // 3 - 1) + b"[]]")  # all that is allowed
        z.writestr("joints.mat", zeros)
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    bomb = zlib.compress(b"\x0e\x00\x00\x00" + zeros)
    (tmp_path / "b.mat").write_bytes(head + b"\x0f\0\0\0" + len(bomb).to_bytes(4, "little") + bomb)
    program = f"""
import re
from dppt_nb.files import DataError, ImageSource, read_json
from dppt_nb.matlab import read_mat
z, folder, said = ImageSource({str(tmp_path / "a.zip")!r}), ImageSource({str(tmp_path)!r}), []
for read in (lambda: z.read_json("worst.json", dict), lambda: read_mat(z, "joints.mat", "joints"),
             lambda: read_mat(folder, "b.mat", "joints")):
    try: read()
    except DataError as error: said.append(str(error))
print(len(said), int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) // 2**10)
"""
    refused, mebibytes = map(int, run(program).stdout.split())
    assert refused == 3 and 300 < mebibytes < 1024


def test_schemas_and_formats_are_one_sentence():
    with pytest.raises(DataError, match="m.json is damaged: train: .*integer") as error:
        validated(dict[str, int], {"train": "many"}, "m.json")
    one_sentence(error)
    assert [check_format(n, 2, "store", "m.json") for n in (1, 2)] == [1, 2]
    for found in (3, 0, -1, None, "2", 2.0, True):
        with pytest.raises(DataError, match="m.json") as error:
            check_format(found, 2, "store", "m.json")
        one_sentence(error)


def test_what_a_terminal_would_obey_is_spelled_out():
    assert str(DataError("a\x1b[31m\r\x07\x9bb\u202e.")) == r"a\x1b[31m\r\x07\x9bb\u202e."
    assert str(DataError("ä é 漢 .")) == "ä é 漢 ."


# MATLAB

@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_mat_files_are_read_as_scipy_reads_them(tmp_path, kind, packed):
    rng = np.random.default_rng(0)
    given = {
        "small": np.array([[3]], kind), "joints": (rng.normal(size=(14, 3, 5)) * 50).astype(kind),
        "flat": np.arange(7).astype(kind), "none": np.zeros((0, 3), kind),
        "a_name_longer_than_eight": np.ones((2, 2), kind),
    }
    savemat(tmp_path / "x.mat", given | {"text": "abc", "z": np.array([1j])}, do_compression=packed)
    for name in given:
        ours, theirs = read_mat(ImageSource(tmp_path), "x.mat", name), loadmat(tmp_path / "x.mat")
        assert ours.shape == theirs[name].shape and np.array_equal(ours, theirs[name])
        assert ours.dtype == theirs[name].dtype
    with pytest.raises(DataError, match="x.mat has no 'points'; it has .*flat, joints, "):
        read_mat(ImageSource(tmp_path), "x.mat", "points")
    for name in ("text", "z"):
        with pytest.raises(DataError, match="not a number"):
            read_mat(ImageSource(tmp_path), "x.mat", name)


def test_mat_files_of_the_other_byte_order():
    block = b"".join([
        (14).to_bytes(4, "big"), (56).to_bytes(4, "big"),
        (6).to_bytes(4, "big"), (8).to_bytes(4, "big"), (6).to_bytes(4, "big"), bytes(4),
        (5).to_bytes(4, "big"), (8).to_bytes(4, "big"), (1).to_bytes(4, "big") * 2,
        bytes([0, 1, 0, 1]), b"x\0\0\0",                    # a small block: size, kind, content
        (9).to_bytes(4, "big"), (8).to_bytes(4, "big"), np.array([2.5], ">f8").tobytes(),
    ])
    content = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + block
    assert find_array(content, "x").tolist() == [[2.5]]


def test_a_matrix_that_does_not_say_what_it_is(tmp_path):
    savemat(tmp_path / "x.mat", {"joints": np.ones((2, 2))})
    content = bytearray((tmp_path / "x.mat").read_bytes())
    tag = content.index(bytes([6, 0, 0, 0, 8, 0, 0, 0]), 128)
    content[tag:tag + 16] = bytes([6, 0, 0, 0, 0, 0, 0, 0])    # its flags: no bytes of them
    content[132:136] = (len(content) - 136).to_bytes(4, "little")
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(DataError, match="does not say what it is") as error:
        read_mat(ImageSource(tmp_path), "x.mat", "joints")
    one_sentence(error)


def test_mat_files_of_other_versions_say_how_to_save(tmp_path):
    savemat(tmp_path / "x.mat", {"joints": np.ones((2, 2))}, format="4")
    seven = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n"
    (tmp_path / "y.mat").write_bytes(seven)
    for name in ("x.mat", "y.mat"):
        with pytest.raises(DataError, match="save it by -v7") as error:
            read_mat(ImageSource(tmp_path), name, "joints")
        one_sentence(error)


# folders

HOLD = """
import sys
from dppt_nb.files import DataError, claim_folder
try:
    with claim_folder({folder!r}):
        print("held", flush=True)
        sys.stdin.read()
except DataError as error:
    print(error, flush=True)
"""


def hold(folder):
    "A process that writes in a folder until its input ends."
    return subprocess.Popen(
        [sys.executable, "-c", HOLD.format(folder=str(folder))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def test_of_many_writers_exactly_one_holds_the_folder(tmp_path):
    writers = [hold(tmp_path / "run") for _ in range(6)]
    said = [w.stdout.readline().strip() for w in writers]
    assert said.count("held") == 1
    holder = writers[said.index("held")]
    for line in said:
        if line == "held": continue
        assert f"is being written by process {holder.pid} on {locks.HOST}" in line
        assert line.endswith("name another with --out.")
    for writer in writers: writer.communicate(timeout=600)
    # nothing was written there; who made the folder may be another than who held it
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_a_killed_writer_is_no_obstacle_and_its_half_files_go(tmp_path):
    writer = hold(tmp_path)
    assert writer.stdout.readline() == "held\n"
    assert f"process {writer.pid}" in folder_writer(tmp_path)
    half = f".note.json.{locks.HOST}-{writer.pid}-0123abcd.tmp"
    others = [f".note.json.elsewhere-{writer.pid}-0123abcd.tmp", "mine.tmp", ".mine-1-1.tmp"]
    for name in (half, *others): (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=f"process {writer.pid}"): claim_folder(tmp_path).__enter__()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / CLAIM).exists() and folder_writer(tmp_path) is None
    with claim_folder(tmp_path): assert f"process {os.getpid()}" in folder_writer(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(others)


def test_a_claim_ends_with_its_block_however_it_ends(tmp_path):
    for error in (KeyboardInterrupt, ValueError, SystemExit):
        with pytest.raises(error):
            with claim_folder(tmp_path): raise error
        assert list(tmp_path.iterdir()) == []
    with claim_folder(tmp_path):
        with pytest.raises(DataError, match="is being written by"):
            with claim_folder(tmp_path): pass
        assert (tmp_path / CLAIM).exists()                  # the refused one takes nothing away


@pytest.mark.parametrize(
    "host, process, held",
    [
        (locks.HOST, os.getpid(), True), (locks.HOST, 2**22 + 7, False),
        ("another-machine", 1, True), (locks.HOST, 10**30, False),
    ],
    ids=["ours", "nobody", "elsewhere", "no-number-of-a-process"],
)
def test_where_a_disk_knows_no_locks_the_process_is_asked(
    tmp_path, monkeypatch, host, process, held
):
    monkeypatch.setattr(locks, "lock", lambda handle: None)
    (tmp_path / CLAIM).write_text(f"{host} {process} 2026-01-01 00:00:00\n")
    if held:
        with pytest.raises(DataError, match=f"process {process} on {host}"):
            claim_folder(tmp_path).__enter__()
    else:
        with claim_folder(tmp_path): pass
        assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (make_folder, lambda path: claim_folder(path).__enter__()):
        with pytest.raises(DataError, match="cannot write to the folder") as error:
            make(tmp_path / "file/run")
        assert "--out" in one_sentence(error)


def test_the_cache_is_found_without_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DPPT_CACHE", raising=False)
    assert cache_folder() == tmp_path / "home/.cache/dppt_nb"
    for given, expected in (("~/x", tmp_path / "home/x"), ("/a/b", Path("/a/b"))):
        monkeypatch.setenv("DPPT_CACHE", given)
        assert cache_folder() == expected
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)   # as where nobody has a home
    assert cache_folder() == Path("/a/b")
    for given in ("", "~/x"):
        monkeypatch.setenv("DPPT_CACHE", given)
        with pytest.raises(DataError, match="set the variable DPPT_CACHE") as error: cache_folder()
        one_sentence(error)


def test_paths_are_looked_for_in_the_root_first(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    for name in ("root/a.json", "a.json", "b.json"): (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert place_of("a.json", "root") == Path("root/a.json")
    assert place_of("b.json", "root") == Path("b.json")
    assert place_of(tmp_path / "a.json", "root") == tmp_path / "a.json"
    with pytest.raises(DataError, match="c.json does not exist"): place_of("c.json", "root")


def test_digests_change_with_everything(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    joints = torch.rand(3, 2)
    things = [
        (joints,), (joints.T,), (joints.double(),), (joints.reshape(2, 3),), ("ab", "c"),
        ("a", "bc"), (b"ab",), ("ab",), ({"a": 1},), ({"a": 2},), (tmp_path / "a",), (b"content",),
    ]
    assert len({digest_of(*t) for t in things}) == len(things)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(joints) == digest_of(joints.numpy())


def test_who_looks_at_a_claim_takes_it_from_nobody(tmp_path):
    "Others ask all the time whether a folder is written to; a writer gets it all the same."
    watcher = subprocess.Popen([sys.executable, "-c", f"""
from dppt_nb.locks import is_held
print("looking", flush=True)
while True: is_held({str(tmp_path / CLAIM)!r})
"""], stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout.readline() == "looking\n"
        for _ in range(300):
            with claim_folder(tmp_path): pass
        assert watcher.poll() is None    # it looked all the time
    finally:
        watcher.kill()
        watcher.communicate()


@pytest.mark.skipif(os.name == "nt", reason="a lock there belongs to a process")
@pytest.mark.parametrize("left", ["", f"{locks.HOST} {2**22 + 7} 2026-01-01 00:00:00\n"])
def test_who_takes_long_to_look_at_a_claim_is_waited_for(tmp_path, left):
    "As on a busy machine: it was locked, but by nobody whose name stands in it."
    (tmp_path / CLAIM).write_text(left)
    looking = os.open(tmp_path / CLAIM, os.O_RDONLY)
    assert locks.lock(looking)
    end = threading.Timer(0.6, os.close, [looking])
    end.start()
    with claim_folder(tmp_path): assert locks.is_held(tmp_path / CLAIM)
    end.join()


def test_without_locks_a_living_writer_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "lock", lambda handle: None)
    for process, held in ((os.getpid(), True), (2**22 + 7, False)):
        (tmp_path / CLAIM).write_text(f"{locks.HOST} {process} 2026-01-01 00:00:00\n")
        assert locks.is_held(tmp_path / CLAIM) == held


def test_a_claim_that_may_not_be_looked_at_is_held_as_far_as_we_know(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert locks.is_held(tmp_path / "file" / CLAIM)
    assert not locks.is_held(tmp_path / "nowhere" / CLAIM)

    def refuse(*given): raise PermissionError(errno.EACCES, "Permission denied")
    (tmp_path / CLAIM).touch()
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr(os, "access", lambda *given: False)
    assert locks.is_held(tmp_path / CLAIM)
    assert locks.holder(tmp_path / CLAIM) == "another process"


def test_of_files_written_together_none_is_new_where_one_is_a_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="b .it is a folder"):
        locks.write_together({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert {place.name for place in tmp_path.iterdir()} == {"a", "b"}

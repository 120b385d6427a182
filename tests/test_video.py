"""Videos and folders: who is who, frames that are turned or missing, files that are whole, memory
that stays flat."""
import copy
import errno
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sampling import sample

from dppt_nb import PosePredictor
from dppt_nb import video as video_module
from dppt_nb.checks import CannotWrite, DataError
from dppt_nb.commands import predict
from dppt_nb.inference import People, pose_boxes
from dppt_nb.keypoints import COCO17
from dppt_nb.photos import Photo
from dppt_nb.pictures import is_drawing
from dppt_nb.synthetic import make_photo
from dppt_nb.terminal import Terminated
from dppt_nb.tracking import OneEuro, Track, Tracker, find_people
from dppt_nb.video import Frame, Lines, Video, VideoWriter, drawing_name, follow, predict_files

av = pytest.importorskip("av", reason="videos need PyAV: pip install av")
SOAK = os.environ.get("DPPT_SOAK") == "1"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def predictor():
    return PosePredictor.from_pretrained("tokenpose_nano", device="cpu")


def passing(frames, seed=8):
    "Two people who walk past each other, one behind the other, and back: thirty frames each way."
    for k in range(frames):
        along = 1.8 * (1 - np.cos(np.pi * k / 30)) / 2
        moves = torch.tensor([[along, 0, 0.5], [-along, 0, -1.5]])
        yield make_photo(2, COCO17, (240, 360), seed=seed, moves=moves)


def pixels_of(photo): return photo.image.permute(1, 2, 0).numpy()


def owners_of(people, photo):
    "Track -> the true person whose joints are nearest."
    apart = np.linalg.norm(people.keypoints[:, None] - photo.joints.numpy()[None], axis=-1)
    return dict(zip(people.tracks.tolist(), apart.mean(-1).argmin(1).tolist()))


def write(path, pictures, rate=25, times=None):
    "A video of arrays, in the container that the name says; at these milliseconds, if any."
    with av.open(str(path), "w") as out:
        # with several threads x264 writes another file each time; and what strong compression does
        # to a film is not tried here
        known = {"threads": "1", "crf": "4"}
        stream = out.add_stream("libx264", rate=rate, options=known)
        stream.pix_fmt = "yuv420p"
        if times: stream.codec_context.time_base = Fraction(1, 1000)
        for k, pixels in enumerate(pictures):
            if not k: stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times: frame.pts, frame.time_base = times[k], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def turn_film(stream, degrees):
    "Note of how a player turns the film."
    if not hasattr(stream, "set_display_rotation"): pytest.skip("this PyAV cannot turn a film")
    stream.set_display_rotation(degrees)


def times_of(path):
    "Milliseconds of its frames."
    with Video(path) as video: return [round(1000 * frame.seconds) for frame in video]


def resident():
    "Megabytes that the process holds; 0 where the system does not say."
    place = Path("/proc/self/statm")
    return int(place.read_text().split()[1]) * 4096 / 2**20 if place.exists() else 0


def test_a_video_is_followed_without_a_swap_and_in_flat_memory(predictor, tmp_path, capsys):
    """90 frames; `make soak` takes 300. While one hides the other, the nearest true person says
    nothing: judged where they stand apart."""
    count, truth, memory = 300 if SOAK else 90, [], []
    def pictures():
        for photo in passing(count):
            truth.append(photo)
            yield pixels_of(photo)
    path = write(tmp_path / "passing.mp4", pictures())
    start, owners = time.perf_counter(), []
    with Video(path) as video:
        first = truth[0].boxes.numpy()
        for (frame, people), photo in zip(follow(predictor, video, first_boxes=first), truth):
            owners.append(owners_of(people, photo))
            memory.append(resident())
    seconds = time.perf_counter() - start
    with capsys.disabled(): print(f"\n{count} frames of two people: {count / seconds:.1f} a second")
    assert len(owners) == count and owners[0] == {1: 0, 2: 1}
    assert set().union(*owners) == {1, 2}  # nobody was lost and found as somebody else
    clear = [
        found for found, photo in zip(owners, truth)
        if abs(np.subtract(*photo.joints[..., 0].mean(1))) > 50
    ]
    assert len(clear) > 0.4 * count and sum(len(f) == 2 for f in clear) > 0.8 * len(clear)
    assert all(owner == track - 1 for found in clear for track, owner in found.items())
    assert memory[-1] - memory[count // 3] < 30, memory


def test_somebody_who_was_hidden_has_the_same_number_again(predictor):
    "Ten frames of nothing but wall, then the person again where they were expected."
    photo = make_photo(1, COCO17, (240, 200), seed=4)
    tracker, wall = Tracker(COCO17), np.full((240, 200, 3), 120, np.uint8)
    seen = []
    for k in range(20):
        boxes = tracker.boxes(k / 25, (240, 200)) if k else photo.boxes
        picture = wall if 5 <= k < 15 else pixels_of(photo)
        people = tracker.update(predictor(picture, boxes), k / 25, followed=k > 0)
        seen.append(people.tracks.tolist())
    assert seen[0] == seen[-1] == [1] and seen[10] == []


def test_with_a_detector_newcomers_get_numbers_of_their_own(predictor):
    photo = make_photo(2, COCO17, (180, 260), seed=9)
    boxes, tracker = photo.boxes.numpy(), Tracker(COCO17)
    given = [boxes[:1], boxes[::-1], boxes, boxes[1:], boxes]
    answers = [predictor(pixels_of(photo), b) for b in given]
    tracks = [tracker.update(a, k / 25).tracks.tolist() for k, a in enumerate(answers)]
    assert tracks == [[1], [1, 2], [1, 2], [2], [1, 2]]


def test_who_leaves_the_frame_is_forgotten(predictor):
    photo = make_photo(1, COCO17, (180, 160), seed=4)
    tracker = Tracker(COCO17)
    tracker.update(predictor(pixels_of(photo), photo.boxes), 0.0)
    tracker.tracks[0].speed = np.array([9000.0, 0.0])
    assert len(tracker.boxes(0.01, (180, 160))) == 1
    assert len(tracker.boxes(1.0, (180, 160))) == 0 and not tracker.tracks


class Scaled(torch.nn.Module):
    "A network whose heatmaps are multiplied."
    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor, self.image_size = network, factor, network.image_size
    def forward(self, images): return self.network(images) * self.factor


def test_poses_with_low_scores_are_counted(predictor, tmp_path):
    "In a film as in Python it is said how many poses were left out."
    person, faint = pixels_of(make_photo(1, COCO17, (96, 80), seed=3)), copy.copy(predictor)
    faint.network = Scaled(predictor.network, 0.1)
    film = write(tmp_path / "four.mp4", [person] * 4)
    one = write(tmp_path / "one.mp4", [person])
    report = predict_files(faint, [film, one], tmp_path / "out", draw=False)
    assert report.people == 0 and report.notes == (
        f"4 poses with a score below 0.2 are left out of {film}",
        f"1 pose with a score below 0.2 is left out of {one}",
    )
    tracker = Tracker(COCO17, least_score=0)
    with Video(film) as video: found = list(follow(faint, video, tracker=tracker))
    assert [len(people) for _, people in found] == [1] * 4 and tracker.faint == 0
    assert predict_files(predictor, [film], tmp_path / "sharp", draw=False).notes == ()


def patches(seed):
    "A picture of squares of one colour each."
    colours = np.random.default_rng(seed).integers(0, 256, (10, 8, 3), np.uint8)
    return colours.repeat(24, 0).repeat(24, 1)


def crouching(pixels, score=0.9, far=0):
    "A person in it whose pose was read in one of two ways."
    x, y = np.arange(17) % 4 * 30 + 20, np.arange(17) // 4 * 40 + 20
    joints = np.stack([x + far, y], -1)[None].astype(np.float32)
    box = np.array([[5, 5, 150, 200]], np.float32)
    return People(joints, np.full((1, 17), score, np.float32), box, COCO17, pixels, "film.mp4")


def test_a_pose_that_is_read_otherwise_is_the_same_persons():
    "The picture is as it was: only the network's answer jumped, and stays."
    tracker, still = Tracker(COCO17), patches(1)
    answers = [crouching(still, far=45 * (k > 0)) for k in range(30)]
    found = [tracker.update(a, k / 25, k > 0).tracks.tolist() for k, a in enumerate(answers)]
    assert found == [[1]] * 30 and tracker.told("film.mp4") == ()


def test_a_pose_in_another_picture_is_a_new_persons_or_counted():
    for score, wanted, told in (
        (0.9, [[2]] * 2, ()),
        (0.25, [[]] * 2, (
            "2 poses too unlike the person who was followed there are left out of film.mp4",
        )),
    ):
        tracker, cut = Tracker(COCO17), patches(2)
        tracker.update(crouching(patches(1)), 0.0)
        answers = [crouching(cut, score, far=45) for _ in range(2)]
        found = [tracker.update(a, 0.04 + k / 25, True) for k, a in enumerate(answers)]
        assert [people.tracks.tolist() for people in found] == wanted
        assert tracker.told("film.mp4") == told


@pytest.mark.parametrize("number", [980, 905, 955, 1905, 1930])
def test_a_still_film_of_a_photograph_loses_nobody(shared, number):
    with zipfile.ZipFile(shared / "data" / "lspet_dataset.zip") as file:
        name, = (n for n in file.namelist() if n.endswith(f"im{number:05}.jpg"))
        pixels = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB"))
    nano = PosePredictor.from_pretrained("dppt_nano_lspet", device="cpu")
    frames = (Frame(k, k / 25, pixels) for k in range(12))
    assert [people.tracks.tolist() for _, people in follow(nano, frames)] == [[1]] * 12


@pytest.mark.parametrize("hidden", [range(13, 17), range(5), range(5, 11, 2)])
@pytest.mark.parametrize("speed", [0, 400])
def test_joints_that_are_hidden_for_a_frame_lie_in_the_next_box(hidden, speed):
    "Legs, head, or left arm; also of somebody who goes to the right."
    joints, worn = make_photo(1, COCO17, seed=2).joints[0].numpy(), np.zeros((1, 3))
    sure, step = np.ones(17), np.array([speed, 0]) / 25
    box = pose_boxes(joints[None], sure[None], [[0, 0, 1, 1]])[0]
    track = Track(1, joints, sure, box, 0.0, np.array([speed, 0.0]), worn)
    found, scores = joints + step, sure.copy()
    scores[list(hidden)], found[list(hidden)] = 0, joints.mean(0)    # a guess, of no weight
    track.see(found, scores, 1 / 25, worn, 1.0)
    there = joints + step
    outside = np.maximum(track.box[:2] - there, there - track.box[:2] - track.box[2:])
    assert outside.max() < 0.1 and (track.box[2:] <= box[2:] + 0.1).all()


def test_the_one_euro_filter_knows_no_frame_rate():
    "The same movement at 10 and at 60 frames a second is calmed by about as much."
    def last(rate):
        calm = OneEuro()
        times = np.arange(0, 1.0001, 1 / rate)
        return [calm(np.array([[200 * t, 0.0]]), t, 300) for t in times][-1][0, 0]
    assert abs(last(10) - last(60)) < 8 and last(60) > 180


def test_a_video_is_turned_as_people_see_it(tmp_path):
    photo = pixels_of(make_photo(1, COCO17, (96, 160), seed=3))
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 160, "yuv420p"
        turn_film(stream, 90)
        lying = np.ascontiguousarray(np.rot90(photo, -1))
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        out.mux(stream.encode())
    with Video(path) as video: frames = [frame.pixels for frame in video]
    assert frames[0].shape == photo.shape
    assert np.abs(frames[0].astype(float) - photo).mean() < 8


@pytest.mark.parametrize("turn", [0, 90])
@pytest.mark.parametrize("refined", [False, True])
def test_joints_are_found_where_pixels_are_squares(predictor, tmp_path, turn, refined):
    "A film squeezed to three quarters is answered as the film that is shown, in its own pixels."
    photo = next(passing(20))
    shown, boxes = pixels_of(photo), photo.boxes.numpy()
    height, width = shown.shape[:2]
    squeezed = Image.fromarray(shown).resize((width * 3 // 4, height))
    shape = Fraction(width, squeezed.width)
    if turn:    # x, y, w, h of a picture that is turned against the clock
        squeezed, shown, shape = squeezed.rotate(90, expand=True), np.rot90(shown), 1 / shape
        x, y, w, h = boxes.T
        boxes = np.stack([y, width - x - w, h, w], 1)
    scale = np.array(shown.shape[1::-1]) / squeezed.size
    predictor = copy.copy(predictor)
    predictor.refine = refined
    frames, tracker = [Frame(0, 0.0, np.asarray(squeezed), shape)], Tracker(COCO17, least_score=0)
    first = (boxes / np.tile(scale, 2)).astype(np.float32)
    (_, found), = follow(predictor, frames, tracker=tracker, first_boxes=first)
    as_shown = predictor(shown, boxes)
    away = np.linalg.norm((found.keypoints + 0.5) * scale - 0.5 - as_shown.keypoints, axis=-1)
    assert np.median(away) < 1, away
    assert np.allclose(found.boxes * np.tile(scale, 2), as_shown.boxes, rtol=0.05)
    assert found.draw().size == squeezed.size


def test_a_film_whose_pixels_are_said_to_be_needles_is_taken_as_it_is(predictor):
    "One to a thousand would make a picture of a thousand times the memory."
    photo = Photo(Image.new("RGB", (64, 96)), "needles")
    for shape in (Fraction(1, 1000), Fraction(1000)):
        assert find_people(predictor, photo, None, shape).photo is photo


@pytest.mark.parametrize("turn", [0, 90])
def test_pixels_that_are_no_squares_keep_their_shape_in_a_drawing(predictor, tmp_path, turn):
    "As of DVDs and many camcorders: players show each wider than it is high, turned ones higher."
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 160, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if turn: turn_film(stream, turn)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((160, 96, 3), np.uint8))))
        out.mux(stream.encode())
    predict_files(predictor, [path], tmp_path)
    with av.open(str(tmp_path / "wide-poses.mp4")) as drawn:
        assert drawn.streams.video[0].sample_aspect_ratio == Fraction(3, 4) ** (1 if turn else -1)


def test_of_several_streams_the_film_is_read(tmp_path):
    "As players choose it: a small picture of the cover may come first."
    with av.open(str(tmp_path / "film.mkv"), "w") as out:
        for size, codec, kind in ((16, "mjpeg", "yuvj420p"), (64, "libx264", "yuv420p")):
            stream = out.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = size, size, kind
        for stream, frames in zip(out.streams.video, (1, 3)):
            for _ in range(frames):
                pixels = np.zeros((stream.height, stream.width, 3), np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            out.mux(stream.encode())
    with Video(tmp_path / "film.mkv") as video:
        assert [frame.pixels.shape for frame in video] == [(64, 64, 3)] * 3


def test_a_video_that_ends_too_early_gives_what_is_there(predictor, tmp_path):
    whole = write(tmp_path / "whole.mkv", [pixels_of(p) for p in passing(20)]).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    report = predict_files(predictor, [tmp_path / "cut.mkv"], tmp_path / "out")
    assert 0 < report.photos < 20
    note, = report.notes
    assert "cut.mkv ends early" in note and f"{report.photos} frames were read" in note
    lines = (tmp_path / "out" / "poses.jsonl").read_text().splitlines()
    assert all(json.loads(line)["track"] == 1 for line in lines)
    with Video(tmp_path / "out" / "cut-poses.mp4") as video: drawn = list(video)
    assert len(drawn) == report.photos


@pytest.mark.parametrize("begin, ending", sample(
    list(product([0, 1000, 5000], [".mkv", ".mp4", ".ts"])), 0, 4, 6, 8,
))
def test_a_whole_video_that_begins_late_does_not_end_early(tmp_path, begin, ending):
    "Times of the first picture that are not 0 are no missing pictures; a cut file still is."
    times, path = [begin + 100 * k for k in range(20)], tmp_path / f"late{ending}"
    write(path, map(pixels_of, passing(20)), 10, times)
    with Video(path) as video:
        assert [round(1000 * frame.seconds) for frame in video] == [t - begin for t in times]
        assert video.note == ""
    if ending != ".mkv": return    # of the others a cut one is not opened, or is whole by its words
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with Video(path) as video: assert len(list(video)) < 20 and "ends early" in video.note


@pytest.mark.parametrize("ending, codec", [(".ts", "libx264"), (".mpg", "mpeg2video")])
def test_times_of_films_that_were_joined_go_on(tmp_path, ending, codec):
    "Recorders write parts, and `cat` joins them; the times of each part begin anew."
    for name in "ab":
        with av.open(str(tmp_path / f"{name}{ending}"), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for shade in range(10):
                grey = np.full((48, 64, 3), 60 + shade, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            out.mux(stream.encode())
    path = tmp_path / f"joined{ending}"
    path.write_bytes(b"".join((tmp_path / f"{name}{ending}").read_bytes() for name in "ab"))
    assert times_of(path) == [40 * k for k in range(20)]
    with Video(path, every=3) as video:
        assert [round(1000 * frame.seconds) for frame in video] == [120 * k for k in range(7)]
        assert video.note == ""


def write_with_a_long_end(path):
    "A film whose last picture is shown for four seconds, as recorders of screens write it."
    times, packets = [0, 33, 66, 500, 533, 566], []
    pictures = list(map(pixels_of, passing(len(times))))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        stream.height, stream.width = pictures[0].shape[:2]
        for time, pixels in zip(times, pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet, begin, end in zip(packets, times, [*times[1:], 4566]):
            packet.duration = end - begin
            out.mux(packet)
    return path


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_long_last_picture_is_no_early_end_and_is_drawn_as_long(
    predictor, tmp_path, ending, every
):
    if not hasattr(av.VideoFrame, "duration"): pytest.skip("this PyAV does not say how long")
    path = write_with_a_long_end(tmp_path / f"a{ending}")
    report = predict_files(predictor, [path], tmp_path / "out", every=every)
    assert report.notes == ()
    drawn = tmp_path / "out" / "a-poses.mp4"
    with av.open(str(drawn)) as file: assert file.duration / 1e6 == pytest.approx(4.566, abs=0.003)
    assert times_of(drawn) == pytest.approx([0, 33, 66, 500, 533, 566][::every], abs=2)


class Camera:
    "Stands for PyAV's container of a camera on macOS, which has no picture ready at first."
    def __init__(self, ready): self.ready, self.asked = ready, 0
    def close(self): pass
    @property
    def streams(self):
        stream = SimpleNamespace(
            frames=0, duration=None, average_rate=None, sample_aspect_ratio=None
        )
        return SimpleNamespace(best=lambda kind: stream)
    def decode(self, stream):
        self.asked += 1
        for number, wanted in enumerate(self.ready):
            if wanted == self.asked:
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                yield frame
        if self.asked <= max(self.ready, default=math.inf):
            raise av.BlockingIOError(35, "Resource temporarily unavailable")


def opened(monkeypatch, camera, source=0):
    "A video whose container is this."
    monkeypatch.setattr(video_module, "open_film", lambda source: camera)
    video = Video(source)
    monkeypatch.setattr(video, "promised", lambda: 0.0)
    return video


def test_a_camera_that_has_no_picture_yet_is_asked_again(monkeypatch):
    "For so long; of a file the same words are an early end."
    with opened(monkeypatch, Camera([3, 3, 5])) as video:
        assert [frame.seconds for frame in video] == pytest.approx([0, 0.1, 0.2])
        assert video.note == ""
    with opened(monkeypatch, Camera([1, 3]), "a.mp4") as video:
        assert len(list(video)) == 1 and "a.mp4 ends early" in video.note
    monkeypatch.setattr(video_module, "PATIENCE", 0.1)
    with pytest.raises(DataError, match="camera 0 has no frame .*; close other programs"):
        list(opened(monkeypatch, Camera([])))


def test_videos_that_are_none_are_named(predictor, tmp_path):
    (tmp_path / "letter.mp4").write_text("Dear reader")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        out.mux(stream.encode(sound))
    for name in ("letter.mp4", "empty.mp4", "sound.mkv", "gone.mp4"):
        with pytest.raises(DataError, match=name): Video(tmp_path / name)
    with pytest.raises(DataError, match="1 of 1 could not be used: "):
        predict_files(predictor, [tmp_path / "letter.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_found_before_stays_where_nothing_can_be_read(predictor, tmp_path):
    photo, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(pixels_of(make_photo(1, COCO17, (90, 80), seed=2))).save(photo)
    predict_files(predictor, [photo], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    photo.write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 1 could not be used"):
        predict_files(predictor, [photo], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_odd_sizes_are_written(tmp_path):
    "H.264 takes even sides only: the last row and column go."
    with VideoWriter(tmp_path / "odd.mp4", Fraction(10)) as out:
        for _ in range(3): out.write(np.full((81, 65, 3), 90, np.uint8))
    with Video(tmp_path / "odd.mp4") as video: assert next(iter(video)).pixels.shape == (80, 64, 3)


@pytest.mark.parametrize("every", [1, 3])
def test_a_drawn_video_keeps_the_times_of_its_source(predictor, tmp_path, every):
    "As of a phone, or of a screen that is recorded when something moves on it."
    times = [360 * k - 340 * (k % 2) for k in range(12)]    # gaps of 20 and of 700 milliseconds
    path = write(tmp_path / "a.mp4", map(pixels_of, passing(12)), times=times)
    assert times_of(path) == times
    predict_files(predictor, [path], tmp_path / "out", every=every)
    assert times_of(tmp_path / "out" / "a-poses.mp4") == pytest.approx(times[::every], abs=1)
    lines = map(json.loads, (tmp_path / "out" / "poses.jsonl").read_text().splitlines())
    found = {line["frame"]: line["seconds"] for line in lines}
    assert found and all(1000 * s == pytest.approx(times[f], abs=1) for f, s in found.items())


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(7, 3)])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_drawn_video_of_equal_frames_has_equal_frames(tmp_path, rate, ending):
    "Also where the source, as Matroska does, rounds its times to a millisecond."
    pictures = [pixels_of(photo) for photo in passing(9)]
    path = write(tmp_path / f"a{ending}", pictures, rate=rate)
    with Video(path) as video, VideoWriter(tmp_path / "b.mp4", rate) as out:
        for frame in video: out.write(frame.pixels, frame.seconds)
    with Video(tmp_path / "b.mp4") as video:
        assert [frame.seconds for frame in video] == [float(k / rate) for k in range(9)]
        assert video.rate == rate and video.promised() == pytest.approx(float(9 / rate), abs=1e-3)


def test_frames_that_come_at_one_time_stand_one_after_the_other(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as out:
        for seconds in (0, 0.5, 0.5, 0.4, None): out.write(np.zeros((60, 80, 3), np.uint8), seconds)
    first, *others = times_of(tmp_path / "a.mp4")
    assert first == 0 and others[:3] == pytest.approx([500] * 3, abs=3) and len(others) == 4
    assert others[3] == pytest.approx(600, abs=3)


def test_files_of_the_same_name_do_not_overwrite_each_other(predictor, tmp_path):
    photo = Image.fromarray(pixels_of(make_photo(1, COCO17, (90, 80), seed=2)))
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        photo.save(tmp_path / place / "1.jpg")
    before = (tmp_path / "a" / "1.jpg").read_bytes()
    report = predict_files(predictor, [tmp_path / "a", tmp_path / "b"], tmp_path / "a")
    assert report.photos == 2 and (tmp_path / "a" / "1.jpg").read_bytes() == before
    names = {p.name for p in (tmp_path / "a").glob("*.jpg")}
    assert names == {"1.jpg", "1-poses.jpg", "1-2-poses.jpg"}


def test_what_was_drawn_before_is_no_photo(predictor, tmp_path, capsys):
    photo = Image.fromarray(pixels_of(make_photo(1, COCO17, (90, 80), seed=2)))
    photo.save(tmp_path / "1.jpg")
    photo.save(tmp_path / "some-poses.jpg")    # somebody's own, in another folder
    out = tmp_path / "out"
    assert predict_files(predictor, [tmp_path], out).photos == 2
    assert predict_files(predictor, [tmp_path], out).photos == 2
    assert "2 drawings of earlier calls are left out" in capsys.readouterr().out
    assert sorted(p.name for p in out.glob("*.jpg")) == ["1-poses.jpg", "some-poses-poses.jpg"]
    assert predict_files(predictor, [out / "1-poses.jpg"], tmp_path / "other").photos == 1
    with pytest.raises(DataError, match="holds no photos beside drawings"):
        predict_files(predictor, [out], out)


def test_drawings_of_another_folder_of_results_are_no_photos(predictor, tmp_path, capsys):
    "Whatever folder of results an earlier call wrote to; also in Python, and beside a named one."
    for name in "12":
        Image.new("RGB", (60, 80)).save(tmp_path / f"{name}.jpg")
    predict_files(predictor, [tmp_path], tmp_path / "poses")
    assert predict_files(predictor, [tmp_path], tmp_path / "poses2").photos == 2
    assert "2 drawings of earlier calls are left out" in capsys.readouterr().out
    assert len(predictor(tmp_path)) == 2
    assert "4 drawings of earlier calls are left out" in capsys.readouterr().out
    named = [tmp_path, tmp_path / "poses" / "1-poses.jpg"]
    assert predict_files(predictor, named, tmp_path / "poses3").photos == 3
    assert "3 drawings of earlier calls are left out" in capsys.readouterr().out


def test_a_photo_that_is_called_like_a_drawing_stays(predictor, tmp_path):
    photo = Image.fromarray(pixels_of(make_photo(1, COCO17, (90, 80), seed=2)))
    photo.save(tmp_path / "1.jpg")
    photo.save(tmp_path / "1-poses.jpg")
    before = (tmp_path / "1-poses.jpg").read_bytes()
    for _ in range(2): predict_files(predictor, [tmp_path / "1.jpg"], tmp_path)
    assert (tmp_path / "1-poses.jpg").read_bytes() == before
    assert {p.name for p in tmp_path.glob("*.jpg")} == {"1.jpg", "1-poses.jpg", "1-2-poses.jpg"}


def test_corners_in_a_boxes_file_are_said(predictor, tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "1.jpg")
    rows = [dict(file_name="1.jpg", bbox=[100, 50, 280, 190])]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    report = predict_files(
        predictor, [tmp_path / "1.jpg"], tmp_path / "out", tmp_path / "boxes.json"
    )
    assert "1 box reaches far out of the photo and would fit as two corners" in report.notes[0]
    assert "x, y, width, height" in report.notes[0] and len(report.notes) == 1


def test_corners_of_a_detector_are_said_once_a_film(predictor, tmp_path):
    "As for photos: in Python by a warning, by a call of files in its notes; also of given boxes."
    person = pixels_of(make_photo(1, COCO17, (96, 80), seed=3))
    film = write(tmp_path / "four.mp4", [person] * 4)
    with_it = copy.copy(predictor)
    with_it.detector = lambda photo: np.array([[30, 20, 75, 90]], np.float32)
    words = "far out of the photo and would fit as two corners"
    for shape in (1, Fraction(3, 2)):
        frames = [Frame(k, k / 25, person, shape) for k in range(3)]
        with pytest.warns(UserWarning) as said: list(follow(with_it, frames))
        assert len(said) == 1 and f"3 boxes reach {words}; a box" in str(said[0].message)
        assert said[0].filename == __file__
    with pytest.warns(UserWarning, match=words):    # and where the caller ends
        for _ in follow(with_it, frames): break
    with pytest.warns(UserWarning, match=f"1 box reaches {words}"):
        list(follow(predictor, frames[:1], first_boxes=with_it.detector(person)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = predict_files(with_it, [film], tmp_path / "out", draw=False)
        list(follow(predictor, frames))    # the whole frame: nobody said where
    said, = (note for note in report.notes if "corners" in note)
    assert said.startswith(f"WARNING: 4 boxes reach {words}, first in {film}; a box")


@pytest.mark.parametrize("more, words", [
    (dict(bbox=[100, 50, 2, 3]), "1 box is less than 8 pixels on the longer side, first in "),
    (dict(score=95), "1 box has a score above 1, first in "),
])
def test_odd_boxes_in_a_boxes_file_are_said(predictor, tmp_path, more, words):
    Image.new("RGB", (300, 200)).save(tmp_path / "1.jpg")
    usual = dict(file_name="1.jpg", bbox=[100, 50, 80, 90], score=1)
    rows = [usual, usual | more]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    report = predict_files(
        predictor, [tmp_path / "1.jpg"], tmp_path / "out", tmp_path / "boxes.json"
    )
    assert report.people == 2 and len(report.notes) == 1 and words in report.notes[0]


@pytest.mark.parametrize("options, words", [
    (dict(min_score=0.5), "--min-score chooses among the boxes of a file"),
    (dict(category=3), "--category chooses among the boxes of a file"),
    (dict(every=2), "--every is of videos, and no video is named"),
    (dict(smooth=True), "--smooth is of videos"),
])
def test_an_option_of_which_nothing_comes_is_refused(predictor, tmp_path, options, words):
    Image.new("RGB", (60, 80)).save(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=words):
        predict_files(predictor, [tmp_path / "1.jpg"], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_video_of_ones_own_is_no_drawing(predictor, tmp_path):
    "By its name it could be one; it is neither passed over nor written over."
    frames = [pixels_of(photo) for photo in passing(3)]
    write(tmp_path / "a.mp4", frames)
    own = write(tmp_path / "a-poses.mp4", frames).read_bytes()
    report = predict_files(predictor, [tmp_path / "a.mp4"], tmp_path)
    assert report.photos == 3 and (tmp_path / "a-poses.mp4").read_bytes() == own
    assert (tmp_path / "a-2-poses.mp4").exists()
    # the drawing is passed over, the two videos are not
    assert predict_files(predictor, [tmp_path], tmp_path, draw=False).photos == 6


def test_a_damaged_film_that_is_called_like_a_drawing_is_none(predictor, tmp_path):
    "In the folder of results it stays; among the photos it is named, and the others are done."
    Image.new("RGB", (60, 80)).save(tmp_path / "a.jpg")
    film = write(tmp_path / "clip.mp4", map(pixels_of, passing(2)))
    (out := tmp_path / "out").mkdir()
    (out / "clip-poses.mp4").write_bytes(bytes(2000))
    assert predict_files(predictor, [tmp_path / "a.jpg", film], out).photos == 3
    assert (out / "clip-poses.mp4").read_bytes() == bytes(2000)
    shutil.rmtree(out)
    (tmp_path / "clip-poses.mp4").write_bytes(bytes(2000))
    with pytest.raises(DataError, match="1 of 3 could not be used \\(3 .*clip-poses.mp4 cannot be"):
        predict_files(predictor, [tmp_path], tmp_path / "more")


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a-poses.mp4"])
def test_a_film_whose_title_is_in_other_letters_is_read(tmp_path, name):
    "Old cameras and programs write Latin-1."
    with av.open(str(tmp_path / name), "w") as out:
        out.metadata["title"] = "CafeXYZ"
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")
        out.mux([*stream.encode(grey), *stream.encode()])
    content = (tmp_path / name).read_bytes()
    assert b"CafeXYZ" in content
    (tmp_path / name).write_bytes(content.replace(b"CafeXYZ", b"Caf\xe9XYZ"))
    with Video(tmp_path / name) as video: assert len(list(video)) == 1
    assert not is_drawing(tmp_path / name)


def test_a_film_whose_name_has_a_colon_is_read_and_drawn(predictor, tmp_path, monkeypatch):
    "The beginning of a relative name is no protocol."
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "12:30.mp4", map(pixels_of, passing(2)))
    for _ in range(2): assert predict_files(predictor, ["12:30.mp4"], ".").photos == 2
    assert sorted(os.listdir(".")) == ["12:30-poses.mp4", "12:30.mp4", "poses.jsonl"]
    with VideoWriter("a:b.mp4", 10) as out: out.write(np.zeros((60, 80, 3), np.uint8))
    assert times_of("a:b.mp4") == [0]


class FullDisk:
    "A file on a disk with room for so many bytes."
    def __init__(self, file, room): self.file, self.room = file, room
    def __getattr__(self, name): return getattr(self.file, name)
    def write(self, content):
        if not self.room: raise OSError(errno.ENOSPC, "No space left on device")
        part = content[: self.room]
        self.room -= len(part)
        return self.file.write(part)


def test_a_full_disk_keeps_the_whole_lines_beside_what_was_there(tmp_path, capsys):
    path, part = tmp_path / "poses.jsonl", tmp_path / "poses.part.jsonl"
    path.write_text("earlier")
    with pytest.raises(CannotWrite, match="No space left"), Lines(path) as lines:
        lines.file = FullDisk(lines.file, 25)
        for k in range(4): lines.write([dict(number=k)])    # of 14 bytes
    assert part.read_text() == '{"number": 0}\n' and path.read_text() == "earlier"
    assert f"what was found until then is in {part}" in capsys.readouterr().out
    with pytest.raises(RuntimeError), Lines(path) as lines:
        lines.write([dict(number=7)])
        raise RuntimeError
    assert path.read_text() == "earlier" and {*tmp_path.iterdir()} == {path, part}
    with pytest.raises(CannotWrite), Lines(path) as lines:   # once more
        lines.write([dict(number=9)])
        raise CannotWrite("no room")
    assert part.read_text() == '{"number": 0}\n'
    assert (tmp_path / "poses.part2.jsonl").read_text() == '{"number": 9}\n'


def test_a_full_disk_under_a_video_leaves_what_was_there(predictor, tmp_path, monkeypatch):
    video, out = write(tmp_path / "a.mp4", map(pixels_of, passing(3))), tmp_path / "out"
    out.mkdir()
    (out / "poses.jsonl").write_text("earlier")
    begin = Lines.__init__
    def full(self, path):
        begin(self, path)
        self.file = FullDisk(self.file, 1500)
    monkeypatch.setattr(Lines, "__init__", full)
    with pytest.raises(CannotWrite, match="No space left"):
        predict_files(predictor, [video, video], out, draw=False)
    assert (out / "poses.jsonl").read_text() == "earlier"
    assert (out / "poses.part.jsonl").read_text().endswith("}\n")


def test_frames_before_a_fault_are_counted(predictor, tmp_path, monkeypatch):
    video, follow_all = write(tmp_path / "a.mp4", map(pixels_of, passing(3))), follow
    def broken(*given, **named):
        for number, answer in enumerate(follow_all(*given, **named)):
            if number == 2: raise DataError("a frame is odd")
            yield answer
    monkeypatch.setattr(video_module, "follow", broken)
    with pytest.raises(DataError, match="1 of 1 could not be used \\(2 pictures were\\): "):
        predict_files(predictor, [video], tmp_path / "out", draw=False)
    assert len((tmp_path / "out" / "poses.jsonl").read_text().splitlines()) == 2


def test_a_network_of_nan_finds_nobody(predictor, tmp_path):
    broken = copy.copy(predictor)
    broken.network = Scaled(predictor.network, float("nan"))
    with pytest.raises(DataError, match="numbers that are not finite"):
        broken(np.zeros((60, 50, 3), np.uint8))


def test_drawings_that_find_no_room_leave_the_lines(predictor, tmp_path, monkeypatch):
    for k in range(3): Image.new("RGB", (60, 80)).save(tmp_path / f"{k}.jpg")
    def full(people, path):
        if "1-" in path.name: raise CannotWrite("no room")
    monkeypatch.setattr("dppt_nb.video.write_drawing", full)
    with pytest.raises(CannotWrite):
        predict_files(predictor, [tmp_path], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["poses.part.jsonl"]
    assert len((tmp_path / "out" / "poses.part.jsonl").read_text().splitlines()) == 1


def test_every_photo_that_is_left_out_is_named(predictor, tmp_path, capsys):
    names = [f"broken{k}.jpg" for k in range(8)]
    for name in names: (tmp_path / name).write_bytes(b"no picture")
    Image.new("RGB", (60, 80)).save(tmp_path / "whole.jpg")
    with pytest.raises(DataError, match="8 of 9 could not be used") as error:
        predict_files(predictor, [tmp_path], tmp_path / "out")
    said, above = str(error.value), capsys.readouterr().out
    assert "The others stand above" in said
    assert all((name in said) != (name in above) for name in names)


@pytest.mark.parametrize("answer, words", [
    (None, "gave a NoneType for"), ([[1.0, 2.0]], "an array of shape"), ("boxes", "gave a str"),
    (np.array([[0, 0, 20, 30, np.nan]]), "the score of a box is nan"),
])
def test_a_detector_that_gives_no_boxes_is_told_so(answer, words):
    finds = PosePredictor.from_pretrained(
        "tokenpose_nano", device="cpu", detector=lambda pixels: answer
    )
    with pytest.raises(DataError, match=words): finds(Image.new("RGB", (60, 80)))


@pytest.mark.parametrize("one", [
    np.zeros((80, 60, 3), np.uint8), "a.jpg", Path("a.jpg"), b"", Image.new("RGB", (60, 80)), None,
])
def test_one_photo_is_no_stream(predictor, one):
    with pytest.raises(DataError, match="put one into a list"): next(predictor.stream(one))


@pytest.mark.parametrize("nobody", [[], np.zeros((0, 4)), torch.zeros(0, 5)])
def test_a_detector_may_find_nobody(nobody):
    finds = PosePredictor.from_pretrained(
        "tokenpose_nano", device="cpu", detector=lambda pixels: nobody
    )
    assert len(finds(Image.new("RGB", (60, 80)))) == 0


def test_predict_from_a_terminal(tmp_path):
    "Another process: the exit code, one sentence, and lines by the contract."
    rows = []
    for k in range(2):
        photo = make_photo(2, COCO17, (180, 260), seed=9, index=k)
        Image.fromarray(pixels_of(photo)).save(tmp_path / f"{k + 5:06}.png")
        rows += [
            dict(image_id=k + 5, category_id=1, bbox=box, score=0.5) for box in photo.boxes.tolist()
        ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code = "from dppt_nb.cli import main; main(prog_name='dppt')"
    words = ["predict", "tokenpose_nano", *sorted(map(str, tmp_path.glob("*.png")))]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--boxes", "boxes.json", "--out", "out"], cwd=tmp_path,
        capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 1 and len(said) == 1
    assert "1 of 3" in said[0] and "broken.png" in said[0]
    written = (tmp_path / "out" / "poses.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in written]
    assert [Path(line["photo"]).name for line in lines] == ["000005.png"] * 2 + ["000006.png"] * 2
    assert set(lines[0]) == {"photo", "frame", "track", "box", "score", "keypoints", "keypoint_set"}
    assert np.allclose(lines[0]["box"], rows[0]["bbox"], atol=0.01)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "000005-poses.jpg", "000006-poses.jpg", "poses.jsonl",
    ]


@pytest.mark.parametrize("ending, kind, codec", [
    (".MTS", "mpegts", "libx264"), (".m2ts", "mpegts", "libx264"), (".3gp", "3gp", "libx264"),
    (".wmv", "asf", "wmv2"), (".flv", "flv", "libx264"),
])
def test_films_of_camcorders_and_older_telephones_are_no_photos(
    predictor, tmp_path, ending, kind, codec
):
    with av.open(str(tmp_path / f"a{ending}"), "w", format=kind) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        out.mux([*stream.encode(frame), *stream.encode()])
    assert predict_files(predictor, [tmp_path], tmp_path / "out").photos == 1


@pytest.mark.parametrize("system, wanted", [
    ("linux", dict(file="/dev/video1", format="v4l2")),
    ("darwin", dict(file="1", format="avfoundation", options={"framerate": "30"})),
])
def test_a_camera_is_opened_as_its_system_names_it(monkeypatch, tmp_path, system, wanted):
    "And one that is not there is a sentence."
    asked = []
    def opened(**given):
        asked.append(given)
        raise OSError(5, "Input/output error")
    monkeypatch.chdir(tmp_path)    # a file may be called 1
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(DataError, match="camera 1 cannot be opened .*0 is the first"): Video(1)
    assert asked == [wanted]


@pytest.mark.parametrize("name", ["000123", "7"])
def test_a_photo_whose_name_is_a_number_is_no_camera(predictor, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 80)).save(name, "JPEG")
    report = predict_files(predictor, [name], "out")
    assert report.photos == 1
    assert sorted(os.listdir("out")) == [f"{name}-poses.jpg", "poses.jsonl"]
    with pytest.raises(DataError, match="camera 99"): predict_files(predictor, ["99"], "out")


def test_a_folder_whose_name_is_a_number_is_no_camera(predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("1").mkdir()
    Image.new("RGB", (60, 80)).save("1/a.jpg")
    predict_files(predictor, ["1"], "out")
    assert sorted(os.listdir("out")) == ["a-poses.jpg", "poses.jsonl"]


def test_a_camera_has_no_number_on_other_systems(monkeypatch, tmp_path):
    "Windows knows cameras by name: what to give is said, and nothing is opened."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(av, "open", lambda *args, **options: pytest.fail("opened"))
    with pytest.raises(DataError, match=r"by a number on this system \(win32\).* give its file"):
        Video("0")


@pytest.mark.parametrize("stop, told", [
    (KeyboardInterrupt, "not begun: .*b.mp4"), (Terminated, None),
])
def test_a_stop_ends_the_videos_that_follow_too(predictor, tmp_path, monkeypatch, stop, told):
    "Ctrl-C ends with what was found and names the rest; SIGTERM ends the whole command."
    names = [write(tmp_path / f"{name}.mp4", map(pixels_of, passing(3))) for name in "ab"]
    follow_all = follow
    def stopped(*given, **named):
        yield next(follow_all(*given, **named))
        raise stop
    monkeypatch.setattr(video_module, "follow", stopped)
    out = tmp_path / "out"
    if told is None:
        with pytest.raises(Terminated): predict_files(predictor, names, out, draw=False)
    else:
        report = predict_files(predictor, names, out, draw=False)
        assert report.photos == 1 and re.search(told, report.notes[-1])
    assert len((out / "poses.jsonl").read_text().splitlines()) == 1    # of one frame


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize("done", [0, 1])
def test_a_stop_among_photos_leaves_the_earlier_lines(predictor, tmp_path, monkeypatch, stop, done):
    "And says how many photos were done; what was found goes beside them."
    photos = [tmp_path / f"{k}.png" for k in range(3)]
    for photo in photos: Image.fromarray(pixels_of(make_photo(1, COCO17, (90, 80)))).save(photo)
    out = tmp_path / "out"
    predict_files(predictor, photos, out, draw=False)
    earlier = (out / "poses.jsonl").read_text()
    answers = predictor.in_batches
    def stopped(looks):
        for number, people in enumerate(answers(looks)):
            if number == done: raise stop
            yield people
    monkeypatch.setattr(predictor, "in_batches", stopped)
    with pytest.raises(stop, match=f"stopped after {done} of 3 photos"):
        predict_files(predictor, photos, out, draw=False)
    assert (out / "poses.jsonl").read_text() == earlier
    parts = [path.read_text() for path in out.glob("poses.part*")]
    assert parts == [earlier.splitlines(keepends=True)[0]] * done
    with pytest.raises(stop): predict_files(predictor, photos, tmp_path / "new", draw=False)
    assert (tmp_path / "new" / "poses.jsonl").exists() == (done == 1)


def test_a_stop_in_a_film_leaves_the_earlier_lines(predictor, tmp_path, monkeypatch):
    "The frames that were read are counted, and the command ends as shells have it."
    film, out = write(tmp_path / "a.mp4", map(pixels_of, passing(3))), tmp_path / "out"
    predict_files(predictor, [film], out)
    drawn = (out / "a-poses.mp4").read_bytes()
    earlier, follow_all = (out / "poses.jsonl").read_text(), follow
    def stopped(*given, **named):
        yield next(follow_all(*given, **named))
        raise KeyboardInterrupt
    monkeypatch.setattr(video_module, "follow", stopped)
    report = predict_files(predictor, [film], out)
    assert report.stopped and report.notes == (f"{film} was stopped by hand after 1 of 3 frames",)
    assert (out / "a-poses.mp4").read_bytes() == drawn
    with Video(out / "a.part-poses.mp4") as video: assert len(list(video)) == 1
    assert (out / "poses.jsonl").read_text() == earlier
    assert (out / "poses.part.jsonl").read_text() == earlier.splitlines(keepends=True)[0]
    words = ["tokenpose_nano", str(film), "--out", str(out), "--no-drawings", "--device", "cpu"]
    done = CliRunner().invoke(predict, words)
    assert done.exit_code == 130 and "1 of 3 frames" in done.output, done.output


@pytest.mark.parametrize("shape, words", [
    ((64, 17000), "make the frames smaller, or say --no-drawings"),
    ((1, 64), "a side of 1 pixel"),
])
def test_a_film_that_h264_does_not_take_stops_no_other(predictor, tmp_path, shape, words):
    odd, good = tmp_path / "odd.mkv", write(tmp_path / "good.mp4", map(pixels_of, passing(2)))
    with av.open(str(odd), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *shape, "bgr0"
        frame = av.VideoFrame.from_ndarray(np.zeros((*shape, 3), np.uint8), format="rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    out = tmp_path / "out"
    with pytest.raises(DataError, match=f"1 of 2 could not be used.*odd-poses.mp4.*{words}"):
        predict_files(predictor, [odd, good], out)
    assert {path.name for path in out.iterdir()} == {"poses.jsonl", "good-poses.mp4"}
    lines = map(json.loads, (out / "poses.jsonl").read_text().splitlines())
    assert {line["photo"] for line in lines} == {str(good)}


@pytest.mark.parametrize("one", ["/x/y.jpg", b"/x/y.jpg", Path("/x/y.jpg"), 7])
def test_one_source_in_place_of_a_list_is_refused(predictor, tmp_path, one):
    "Letter by letter a path would be the whole disk."
    with pytest.raises(DataError, match="photos are a list of files and folders; put .* into one"):
        predict_files(predictor, one, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_goes_on_where_a_loop_stopped(tmp_path):
    film = write(tmp_path / "a.mp4", map(pixels_of, passing(4)))
    with Video(film) as video:
        first = next(iter(video))
        assert [first.number, *(frame.number for frame in video)] == [0, 1, 2, 3]
        with pytest.raises(DataError, match="a.mp4 was read to its end, or closed; open it again"):
            list(video)
    with Video(film) as closed: begun = iter(closed)
    assert list(begun) == []
    with Video(film) as unread: pass
    for video in (closed, unread):
        with pytest.raises(DataError, match="or closed; open it again"): next(iter(video))


def test_drawings_that_some_disks_take_for_one_have_two_names(tmp_path):
    "macOS and Windows know no case; of an e with dots there are two forms."
    taken = set()
    sources = ["a/IM.jpg", "b/im.jpg", "No\u00ebl.jpg", "Noe\u0308l.jpg"]
    names = [drawing_name(source, ".jpg", taken, tmp_path) for source in sources]
    assert names == ["IM-poses.jpg", "im-2-poses.jpg", "No\u00ebl-poses.jpg",
                     "Noe\u0308l-2-poses.jpg"]


def test_a_source_that_is_named_is_not_drawn_over(predictor, tmp_path):
    "Though it is an earlier drawing: it is read after the first photo is drawn."
    Image.new("RGB", (60, 80)).save(tmp_path / "im.jpg")
    predict_files(predictor, [tmp_path / "im.jpg"], tmp_path)
    drawn = (tmp_path / "im-poses.jpg").read_bytes()
    predict_files(predictor, [tmp_path / "im.jpg", tmp_path / "im-poses.jpg"], tmp_path)
    assert (tmp_path / "im-poses.jpg").read_bytes() == drawn
    assert (tmp_path / "im-2-poses.jpg").exists() and (tmp_path / "im-poses-poses.jpg").exists()


def test_a_mean_rate_of_large_numbers_is_divided_by_every(predictor, tmp_path):
    "As telephones have it, whose frames come when they are ready; one in three hours is asked for."
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 60_000)
        for k in range(8):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            frame.pts, frame.time_base = 3607 * k + k * k, Fraction(1, 60_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with av.open(str(tmp_path / "a.mp4")) as film: rate = film.streams.video[0].average_rate
    assert (rate / 199_999).denominator > 2**31
    with Video(tmp_path / "a.mp4") as film: assert abs(film.rate / rate - 1) < 1e-4
    report = predict_files(predictor, [tmp_path / "a.mp4"], tmp_path / "out", every=199_999)
    assert report.photos == 1


def test_a_drawing_says_how_its_colours_were_mixed(tmp_path):
    "Where nothing is said most players take those of a large film as BT.709: red is another red."
    red = np.full((720, 1280, 3), (220, 30, 40), np.uint8)
    with VideoWriter(tmp_path / "red.mp4", 10) as film: film.write(red)
    with av.open(str(tmp_path / "red.mp4")) as film:
        stream = film.streams.video[0]
        shown = next(film.decode(stream)).reformat(
            format="rgb24", src_colorspace=stream.codec_context.colorspace
        )
    assert stream.codec_context.colorspace == 5
    assert np.abs(shown.to_ndarray().astype(int) - red).max() < 6


def test_rates_are_numbers_above_zero(tmp_path):
    grey = np.zeros((60, 80, 3), np.uint8)
    for rate, wanted in ((29.97, Fraction(2997, 100)), (30000 / 1001, Fraction(30000, 1001))):
        with VideoWriter(tmp_path / "a.mp4", rate) as out: out.write(grey)
        assert out.rate == wanted
    for rate in (0, -1, math.nan, math.inf, "many", None, 1e-9):
        with pytest.raises(DataError, match="rate is .* frames a second, above 0"):
            VideoWriter(tmp_path / "b.mp4", rate)
    for frame in (grey[..., 0], grey / 255, grey[..., :2], grey.tolist()):
        with pytest.raises(DataError, match="a frame is an array"):
            with VideoWriter(tmp_path / "b.mp4", 25) as out: out.write(frame)
    assert not (tmp_path / "b.mp4").exists()


def test_what_is_no_number_and_no_yes_or_no_is_refused(predictor, tmp_path):
    film = write(tmp_path / "a.mp4", map(pixels_of, passing(2)))
    for every in ("2", 1.5, 0, True):
        with pytest.raises(DataError, match="every is .* whole number"): Video(film, every)
    with pytest.raises(DataError, match="smooth is 'no'"):
        with Video(film) as video: next(follow(predictor, video, smooth="no"))


def test_a_folder_in_place_of_the_lines_is_seen_first(predictor, tmp_path, monkeypatch):
    Image.new("RGB", (60, 80)).save(tmp_path / "im.jpg")
    (tmp_path / "out" / "poses.jsonl").mkdir(parents=True)
    monkeypatch.setattr(predictor, "locate", lambda *given: pytest.fail("worked in vain"))
    with pytest.raises(DataError, match="poses.jsonl is a folder; move it away"):
        predict_files(predictor, [tmp_path / "im.jpg"], tmp_path / "out")

"""Keypoint sets, their mapping and drawing: properties over all sets, and agreement with COCO's
published constants."""
import dataclasses
import json

import numpy as np
import pytest
import torch

from dppt_nb import skeletons
from dppt_nb.checks import DataError
from dppt_nb.faces import MIRROR_LAYOUTS
from dppt_nb.keypoints import (
    COCO17,
    KEYPOINT_SETS,
    LSP14,
    MPII16,
    KeypointSet,
    build_keypoint_set,
    flip_pairs_of,
    map_keypoints,
    sigma_of,
)
from dppt_nb.ownsets import keypoint_set_of, read_keypoint_set, write_keypoint_set
from dppt_nb.skeletons import draw_pose, show_poses
from dppt_nb.spelling import canonical_name

SETS = list(KEYPOINT_SETS.values())
CROWDPOSE = {
    "name": "person",
    "keypoints": [
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head",
        "neck",
    ],
    "skeleton": [[16 - 2, 13], [14, 1], [14, 2], [1, 3], [3, 5], [2, 4], [4, 6]],
}


def body(s, seed=0):
    "Random joints, all different, for set `s`."
    return np.random.default_rng(seed).uniform(20, 180, (len(s), 2)).astype(np.float32)


@pytest.mark.parametrize("s", SETS, ids=lambda s: s.name)
def test_set_is_consistent(s):
    assert len(s.names) == len(s.sigmas) == len(s.flip_index) == len(s.sides)
    assert [s.flip_index[i] for i in s.flip_index] == list(range(len(s)))
    for left, right in s.flip_pairs:
        assert s.names[left].replace("left", "right") == s.names[right]
        assert s.sigmas[left] == s.sigmas[right]
        assert (left in s.upper_body) == (right in s.upper_body)
    assert {i for limb in s.limbs for i in limb} == set(range(len(s))), (
        "a joint that no limb reaches would float in drawings"
    )
    assert s.names[s.torso[0]] == "left_shoulder" and s.names[s.torso[1]] == "right_hip"


@pytest.mark.parametrize("s", SETS, ids=lambda s: s.name)
def test_json_round_trip(s):
    assert KeypointSet.from_dict(json.loads(json.dumps(s.to_dict()))) == s


def test_sigmas_and_limbs_are_those_of_pycocotools():
    from pycocotools.cocoeval import Params
    assert np.allclose(COCO17.sigmas, Params("keypoints").kpt_oks_sigmas)


def test_coco_file_gives_coco17(shared):
    category = json.loads(
        (shared / "data/coco_mini/annotations/person_keypoints.json").read_text()
    )["categories"][0]
    assert keypoint_set_of(category) == COCO17
    renamed = keypoint_set_of(category | {"keypoints": [n.upper() for n in category["keypoints"]]})
    assert (
        renamed.limbs == COCO17.limbs
        and renamed.sigmas == COCO17.sigmas
        and renamed.flip_pairs == COCO17.flip_pairs
    )


def test_upper_body_is_that_of_the_public_code():
    assert COCO17.upper_body == tuple(range(11))
    assert MPII16.upper_body == tuple(range(7, 16))
    assert LSP14.upper_body == tuple(range(6, 14))


def test_crowdpose_category():
    s = keypoint_set_of(CROWDPOSE)
    assert (
        len(s) == 14
        and len(s.flip_pairs) == 6
        and s.torso == (0, 7)
        and s.sigmas[12:] == (0.079, 0.079)
    )
    joints, visible = map_keypoints(body(LSP14), np.ones(14, int), LSP14, s)
    assert visible.all() and np.array_equal(
        joints[s.index("head")], body(LSP14)[LSP14.index("head_top")]
    )


@pytest.mark.parametrize(
    "name, canonical",
    [
        ("RAnkle", "right_ankle"), ("ankle.R", "right_ankle"), ("r ankle", "right_ankle"),
        ("leftFoot2", "left_foot_2"), ("LSHOULDER", "lshoulder"), ("nose", "nose"),
        ("lower_lip", "lower_lip"), ("eyelid", "eyelid"),
    ],
)
def test_canonical_name(name, canonical):
    assert canonical_name(name) == canonical


def test_sigma_of_unknown_point_is_the_median_of_coco():
    assert sigma_of("antenna") == np.median(COCO17.sigmas)


@pytest.mark.parametrize(
    "skeleton, limbs",
    [
        ([[1, 3], [1, 2]], ((0, 1),)), ([[1, 2, 2]], ()), ([[0, 1]], ((0, 1),)), (7, ()),
        ([["a", "b"], None, 3, [1, 2]], ((0, 1),)), ({"a": 1}, ()),
    ],
)
def test_a_skeleton_decides_nothing(skeleton, limbs):
    s = keypoint_set_of({"name": "x", "keypoints": ["a", "b"], "skeleton": skeleton})
    assert s.limbs == limbs and s.names == ("a", "b")


@pytest.mark.parametrize(
    "names, pairs",
    [
        ("lefteye righteye nose", ((0, 1),)), ("RHIP LHIP", ((1, 0),)), ("kpt-0 kpt-1", ()),
        ("eyeL1 eyeR1 eyeL2 eyeR2", ((0, 1), (2, 3))), ("fl_paw fr_paw", ((0, 1),)),
        ("lip tip", ()), ("left_eye nose", ()), ("top_left top_right", ((0, 1),)),
        ("upright bright", ()),
    ],
)
def test_pairs_that_names_tell(names, pairs):
    assert flip_pairs_of(tuple(names.split())) == pairs


def test_whole_body_faces_have_all_their_pairs():
    names = ["nose", "left_eye", "right_eye", *(f"face-{i}" for i in range(68))]
    pairs = dict(flip_pairs_of(names))
    assert len(pairs) == 30 and pairs[3] == 19 and pairs[3 + 48] == 3 + 54
    assert flip_pairs_of(names[:-1]) == ((1, 2),), "67 points are not that layout"


def test_a_set_without_pairs_is_not_mirrored():
    assert not keypoint_set_of({"keypoints": ["kpt-0", "kpt-1"]}).mirrored
    assert COCO17.mirrored and keypoint_set_of({"keypoints": ["nose"]}).mirrored


def test_sigmas_of_a_known_set_are_those_of_the_file():
    category = {"name": "person", "keypoints": list(COCO17.names), "sigmas": [0.5] * 17}
    assert keypoint_set_of(category).sigmas == (0.5,) * 17
    assert keypoint_set_of(category | {"sigmas": list(COCO17.sigmas)}) == COCO17


def test_keypoint_set_files(tmp_path):
    write_keypoint_set(tmp_path / "set.json", LSP14)
    assert read_keypoint_set(tmp_path / "set.json") == LSP14
    fields = json.loads((tmp_path / "set.json").read_text())
    for change in (dict(flip_pairs=[[0, 99]]), dict(flip_pairs=[[0, 1], [1, 2]]), dict(extra=1),
                   dict(flip_pairs=[[0]]), dict(limbs=[[0, 2**70]]), dict(torso=[2**70, 1])):
        (tmp_path / "bad.json").write_text(json.dumps(fields | change))
        with pytest.raises(DataError, match="no keypoint set file"):
            read_keypoint_set(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "category, words",
    [
        ({"name": "x"}, "no list of keypoint names"),
        ({"name": "x", "keypoints": ["a", 3]}, "no list of keypoint names"),
        ({"name": "x", "keypoints": ["a", "a"]}, "twice"),
        ({"name": "x", "keypoints": "nose"}, "no list of keypoint names"),
        ({"name": "x", "keypoints": ["a", "b"], "sigmas": [0.1, float("nan")]}, "finite number"),
        ({"name": "x", "keypoints": ["a", "b"], "sigmas": [0.1, 0]}, "above 0"),
        ({"name": "x", "keypoints": ["a", "b"], "sigmas": [0.1, "b"]}, "finite number"),
        ({"name": "x", "keypoints": ["a", "b"], "sigmas": 1}, "no list of numbers"),
        ({"name": "x", "keypoints": ["a", "b"], "sigmas": [0.1]}, "one sigma a keypoint"),
    ],
)
def test_bad_category_is_one_sentence(category, words):
    with pytest.raises(DataError, match=words) as error: keypoint_set_of(category)
    assert "\n" not in str(error.value) and "'x'" in str(error.value)


@pytest.mark.parametrize("source", SETS, ids=lambda s: s.name)
@pytest.mark.parametrize("target", SETS, ids=lambda s: s.name)
def test_mapping_keeps_namesakes_and_batches(source, target):
    joints, known = (
        np.stack([body(source, i) for i in range(3)]),
        np.random.default_rng(1).integers(0, 2, (3, len(source))).astype(np.uint8),
    )
    mapped, seen = map_keypoints(joints, known, source, target)
    assert (
        mapped.shape == (3, len(target), 2)
        and seen.shape == (3, len(target))
        and mapped.dtype == np.float32
    )
    for name in set(source.names) & set(target.names):
        i, j = source.index(name), target.index(name)
        assert np.array_equal(seen[:, j], known[:, i])
        assert np.array_equal(mapped[:, j], joints[:, i] * known[:, i, None])
    assert (mapped[seen == 0] == 0).all()
    tensors = map_keypoints(torch.from_numpy(joints), torch.from_numpy(known), source, target)
    assert np.array_equal(tensors[0].numpy(), mapped) and np.array_equal(tensors[1].numpy(), seen)


def test_mapping_does_not_carry_nan_of_unknown_joints():
    joints, known = body(COCO17), np.ones(17, np.uint8)
    joints[COCO17.index("left_hip")], known[COCO17.index("left_hip")] = np.nan, 0
    mapped, seen = map_keypoints(joints, known, COCO17, MPII16)
    assert not seen[MPII16.index("pelvis")] and np.isfinite(mapped).all()


def test_drawing_commutes_with_mirroring():
    image, joints = np.full((200, 201, 3), 128, np.uint8), body(MPII16)
    joints = np.round(joints)
    plain = draw_pose(image, joints, keypoint_set=MPII16, width=3, radius=4)
    swapped = (joints * [-1, 1] + [200, 0])
    left, right = (
        np.array(plain, int)[:, ::-1],
        np.array(draw_pose(image, swapped, keypoint_set=MPII16, width=3, radius=4), int),
    )
    assert np.abs(left - right).max() <= 1, "a drawing mirrored is the drawing of mirrored joints"


@pytest.mark.parametrize("size", [64, 400, 3000])
def test_drawing_scales_with_the_person(size):
    joints = body(COCO17) * size / 200
    changed = (draw_pose(np.zeros((size, size, 3), np.uint8), joints) > 0).any(-1).mean()
    assert .02 < changed < .45


def test_a_line_drawn_in_strips_covers_what_the_plain_one_does():
    "The plain one looks at every pixel of the picture; some lines are level, points, or outside."
    draw = np.random.default_rng(0)
    for turn in range(200):
        height, width = draw.integers(1, 200, 2)
        image = draw.integers(0, 256, (height, width, 3), np.uint8)
        start, end = draw.uniform(-60, 260, (2, 2)).astype(np.float32)
        if turn % 4 == 0: end[1] = start[1]
        if turn % 4 == 1: end = start.copy()
        radius, along = draw.uniform(0.5, 30), end - start
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) - start
        share = np.clip(grid @ along / max(along @ along, 1e-6), 0, 1)[..., None]
        distance = np.linalg.norm(grid - share * along, axis=-1, keepdims=True)
        plain = image + np.clip(radius + 0.5 - distance, 0, 1) * (np.array((1, 2, 3)) - image)
        skeletons._capsule(image, start, end, radius, (1, 2, 3))
        assert np.abs(image - plain).max() <= 1, (start, end, radius)


def test_drawing_leaves_out_and_clips():
    image, joints = np.zeros((50, 60, 3), np.uint8), np.full((17, 2), -500, np.float32)
    assert not draw_pose(image, joints).any(), "people outside the picture leave no mark"
    joints[0], joints[1] = (30, 25), np.nan
    assert draw_pose(image, joints, np.eye(17)[0])[25, 30].tolist() == [245, 245, 245]
    assert not draw_pose(image, joints, np.zeros(17)).any()
    assert not draw_pose(image, np.zeros((0, 17, 2))).any()


def test_show_poses_takes_tensors():
    import matplotlib
    matplotlib.use("agg")
    figure = show_poses(
        torch.zeros(5, 3, 40, 30, dtype=torch.uint8), np.stack([body(LSP14) / 6] * 5), None, LSP14,
        list("abcde"), columns=3,
    )
    assert len(figure.axes) == 6 and figure.axes[4].get_title() == "e"


def row(count, start, end):
    "Points on a line."
    return np.linspace(start, end, count).tolist()


def ring(count, middle, width, height):
    "Points around, clockwise as one looks at the picture, from the left corner."
    turn = 2 * np.pi * np.arange(count) / count
    around = np.stack([np.cos(turn), np.sin(turn)], 1)
    return (middle - (width, height) * around).tolist()


def jaw(count):
    "From the left over the chin to the right."
    turn = np.pi * np.arange(count) / (count - 1)
    return np.stack([.5 - .5 * np.cos(turn), .3 + .7 * np.sin(turn)], 1).tolist()


# the numbering, part by part, as the papers' figures have it: left is left in the picture
FACES = {
    "ibug68": [
        *jaw(17), *row(5, (.1, .2), (.4, .18)), *row(5, (.6, .18), (.9, .2)),      # brows
        *row(4, (.5, .3), (.5, .5)), *row(5, (.4, .6), (.6, .6)),                  # nose
        *ring(6, (.25, .3), .1, .05), *ring(6, (.75, .3), .1, .05),                # eyes
        *ring(12, (.5, .75), .2, .1), *ring(8, (.5, .75), .15, .05),               # mouth
    ],
    "wflw98": [
        *jaw(33),
        # brows, each their upper edge from left to right, then the lower one back
        *row(5, (.1, .2), (.4, .18)), *row(4, (.4, .22), (.16, .23)),
        *row(5, (.6, .18), (.9, .2)), *row(4, (.84, .23), (.6, .22)),
        *row(4, (.5, .3), (.5, .5)), *row(5, (.4, .6), (.6, .6)),
        *ring(8, (.25, .32), .1, .05), *ring(8, (.75, .32), .1, .05),
        *ring(12, (.5, .75), .2, .1), *ring(8, (.5, .75), .15, .05),
        (.25, .31), (.75, .31),                                                    # pupils
    ],
}


@pytest.mark.parametrize("name", FACES)
def test_pairs_of_faces_are_those_that_a_mirror_shows(name):
    face = np.array(FACES[name])
    assert len(face) == int(name[-2:])
    mirrored = face * (-1, 1) + (1, 0)
    apart = np.linalg.norm(mirrored[:, None] - face[None], axis=-1)
    assert apart.min(1).max() < 1e-9
    partner = apart.argmin(1)
    seen = {frozenset((i, int(j))) for i, j in enumerate(partner) if i != j}
    assert seen == {frozenset(pair) for pair in MIRROR_LAYOUTS[name]}
    assert all(face[a, 0] < .5 < face[b, 0] for a, b in MIRROR_LAYOUTS[name])


def test_the_rulers_follow_from_the_names():
    names = ("LShoulder", "RShoulder", "l_hip", "r_hip", "l_knee", "neck")
    trunk = build_keypoint_set("trunk", names, limbs=((0, 1), (2, 3), (2, 4)))
    assert trunk.flip_pairs == ((0, 1), (2, 3)) and trunk.upper_body == (0, 1, 5)
    assert trunk.torso == (0, 3) and trunk.head_segment is None  # a neck without head top
    headed = build_keypoint_set("headed", (*names, "HeadTop"), limbs=())
    assert headed.head_segment == (5, 6)


def test_a_set_of_numpy_numbers_is_one_of_plain_numbers():
    given = dataclasses.asdict(COCO17)
    arrays = {name: np.array(given[name]) for name in ("flip_pairs", "limbs", "sigmas")}
    numbers = tuple((np.int64(a), np.int64(b)) for a, b in COCO17.limbs)
    for fields in (arrays, {"limbs": numbers}, {"names": list(COCO17.names)}):
        made = KeypointSet(**given | fields)
        assert made == COCO17 and hash(made) == hash(COCO17)
        assert json.loads(json.dumps(made.to_dict())) == COCO17.to_dict()


def test_joints_of_another_set_are_refused():
    with pytest.raises(ValueError, match="are not those of coco"):
        map_keypoints(np.zeros((2, 5, 2)), np.ones((2, 5)), COCO17, MPII16)
    sigmas = np.array([0.05, 0.06])
    assert build_keypoint_set("x", ("a", "b"), (), sigmas=sigmas).sigmas == (0.05, 0.06)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_mapping_takes_no_joint_below_zero_for_a_known_one(kind):
    "Some files say -1 where nothing is known; two of them are not known either."
    joints, visible = kind([[30000, 3]] * 17), kind([-1] * 17)
    middle, known = map_keypoints(joints, visible, COCO17, MPII16)
    assert not (known != 0).any() and not middle.any()


def test_middles_of_small_numbers_do_not_overflow():
    joints, visible = np.full((17, 2), 30000, np.int16), np.ones(17, np.uint8)
    middle, _ = map_keypoints(joints, visible, COCO17, MPII16)
    assert (middle[MPII16.index("pelvis")] == 30000).all()

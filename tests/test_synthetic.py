"""Synthetic people: the same whoever asks, joints on the bodies, every keypoint set, every pose
within its limits."""
import pytest
import torch
import torch.nn.functional as F

from dppt_nb.bodies import LANDMARKS, make_bodies
from dppt_nb.dice import Dice
from dppt_nb.keypoints import COCO17, KEYPOINT_SETS, KeypointSet
from dppt_nb.poses import POSE_NAMES
from dppt_nb.scenes import PLAIN, Scene, body_boxes, clutter, zoom_camera
from dppt_nb.strokes import paint, project_bodies, untile
from dppt_nb.synthetic import SyntheticPeople, _aim, draw_sheet, make_people, make_photo

pytestmark = pytest.mark.usefixtures("made_anew")
FIELDS = ("images", "joints", "visible", "occluded", "boxes")


def same(a: SyntheticPeople, b: SyntheticPeople):
    return a.pose_names == b.pose_names and all(
        torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS
    )


@pytest.mark.parametrize("n, first", [(1, 0), (70, 0), (5, 62), (3, 1000)])
def test_a_person_does_not_depend_on_the_batch(n, first):
    many = make_people(n + 3, seed=5, first=first)
    few = make_people(n, seed=5, first=first)
    assert same(
        few,
        SyntheticPeople(
            *(getattr(many, f)[:n] for f in ("images", "joints", "visible", "occluded")),
            many.pose_names[:n],
            many.boxes[:n],
        ),
    )
    last = make_people(1, seed=5, first=first + n - 1)
    assert torch.equal(last.images[0], few.images[-1]) and torch.equal(
        last.joints[0], few.joints[-1]
    )


def test_seeds_and_people_differ():
    a, b = make_people(8, seed=1), make_people(8, seed=2)
    assert not torch.equal(a.images, b.images)
    assert len({picture.numpy().tobytes() for picture in torch.cat([a.images, b.images])}) == 16
    assert not torch.equal(make_people(2, seed=2**32 - 1).images, make_people(2, seed=0).images)


def test_threads_do_not_change_the_picture():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = make_people(4, seed=3, image_size=(128, 96))
        torch.set_num_threads(2)
        assert same(one, make_people(4, seed=3, image_size=(128, 96)))
    finally:
        torch.set_num_threads(threads)


def test_dice_are_flat_and_independent():
    dice = Dice(7, torch.arange(50_000))
    counts = torch.histc(dice.uniform("a"), 20, 0, 1)
    assert (counts - 2500).abs().max() < 5 * 2500 ** .5
    draws = torch.stack(
        [
            dice.uniform("a"), dice.uniform("b"), Dice(8, torch.arange(50_000)).uniform("a"),
            dice.uniform("a").roll(1), dice.uniform("c", 2)[:, 1],
        ]
    )
    assert (torch.corrcoef(draws) - torch.eye(5)).abs().max() < .02
    assert dice.uniform("a").min() >= 0 and dice.uniform("a").max() < 1
    assert not torch.equal(Dice(7, torch.arange(9), "x").key, Dice(7, torch.arange(9)).key)


@pytest.mark.parametrize("keypoint_set", KEYPOINT_SETS.values(), ids=list(KEYPOINT_SETS))
def test_every_keypoint_set_shows_the_same_people(keypoint_set):
    coco, other = make_people(6, seed=9), make_people(6, keypoint_set, seed=9)
    assert torch.equal(coco.images, other.images) and other.joints.shape == (
        6, len(keypoint_set), 2,
    )
    for name in set(COCO17.names) & set(keypoint_set.names):
        assert torch.equal(
            coco.joints[:, COCO17.index(name)], other.joints[:, keypoint_set.index(name)]
        )


def test_own_names_and_unknown_ones():
    own = KeypointSet(
        "own", ("LShoulder", "left big toe", "r_heel"), (), (), (0.1, 0.1, 0.1), (0,), None, None
    )
    assert make_people(2, own).joints.shape == (2, 3, 2)
    with pytest.raises(ValueError, match="no point 'tail'"):
        make_people(1, KeypointSet("cat", ("tail",), (), (), (.1,), (0,), None, None))


@pytest.mark.parametrize("bad", [dict(n=0), dict(n=1, margin=.5), dict(n=1, pose="flying")])
def test_wrong_use_is_refused(bad):
    with pytest.raises(ValueError):
        make_people(**bad)


@pytest.mark.parametrize(
    "image_size, margin", [((128, 96), 1.0), ((100, 75), 1.3), ((64, 64), 2.0), ((256, 192), 1.5)]
)
def test_the_padded_box_fills_the_middle(image_size, margin):
    people = make_people(8, image_size=image_size, margin=margin)
    height, width = (round(side * margin) for side in image_size)
    assert people.images.shape == (8, 3, height, width) and people.images.dtype == torch.uint8
    centre = people.boxes[:, :2] + people.boxes[:, 2:] / 2
    assert torch.allclose(
        centre, torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(8, 2), atol=0.01
    )
    assert torch.allclose(
        (1.25 * people.boxes[:, 2:] / torch.tensor([image_size[1], image_size[0]])).amax(1),
        torch.ones(8), atol=1e-4,
    )


def test_visible_means_inside():
    people = make_people(256, seed=11, scene=Scene(truncated=1.))
    x, y = people.joints.unbind(-1)
    inside = (x >= 0) & (x <= 95) & (y >= 0) & (y <= 127)
    assert (
        not (people.visible.bool() & ~inside).any()
        and not (people.occluded.bool() & ~people.visible.bool()).any()
    )
    assert .6 < people.visible.float().mean() < .95
    black = (people.images == 0).all(1)  # (n, H, W) beyond the photograph's edge
    where = people.joints.round().long().clamp(min=0).minimum(torch.tensor([95, 127]))
    dark = black.flatten(1).gather(1, where[..., 1] * 96 + where[..., 0])
    assert dark[people.visible.bool()].float().mean() < .02
    assert dark[inside & ~people.visible.bool()].float().mean() > .9


def test_joints_lie_within_the_boxes_and_bodies_keep_their_proportions():
    people = make_people(256, seed=12, scene=PLAIN)
    low, high = (
        people.boxes[:, None, :2] - 2,
        people.boxes[:, None, :2] + people.boxes[:, None, 2:] + 2,
    )
    assert ((people.joints >= low) & (people.joints <= high)).all()
    names = list(LANDMARKS)
    bodies = make_bodies(
        Dice(0, torch.arange(512)), torch.arange(512) % len(POSE_NAMES), torch.zeros(512)
    )
    at = lambda name: bodies.landmarks[:, names.index(name)]
    for limb in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
        left, right = (
            (at(f"{side}_{limb[0]}") - at(f"{side}_{limb[1]}")).norm(dim=-1)
            for side in ("left", "right")
        )
        assert torch.allclose(left, right, atol=1e-4) and left.min() > .1 and left.max() < .6
    assert bodies.landmarks[..., 1].min() > -.1  # nobody sinks into the floor


def test_joints_sit_on_the_painted_body():
    """Without anything else in the picture, the surface at every joint belongs to the body, near
    the joint."""
    n = 6 * len(POSE_NAMES)
    dice = Dice(4, torch.arange(n))
    yaw = dice.uniform("yaw", low=-180, high=180)
    bodies = make_bodies(dice, torch.arange(n) % len(POSE_NAMES), yaw)
    bodies.opacity[:, -1] = 0  # no shadow
    camera = _aim(dice, bodies.landmarks, PLAIN)
    camera, _, _ = zoom_camera(camera, body_boxes(bodies, camera), (128, 96), (128, 96))
    light = F.normalize(torch.tensor([[0., -1., -1.]]), dim=-1).expand(n, 3)
    blank = torch.cat([torch.ones(n, 192, 3, 64), torch.full((n, 192, 1, 64), 50.)], 2)
    strokes = project_bodies(bodies, camera, light, torch.full((n,), 0.5))
    depth = untile(paint(blank, strokes, 16, 12), 128, 96)[:, 3]
    nearest = -F.max_pool2d(-depth[:, None], 3, 1, 1)[:, 0]  # within one pixel: noses are small
    seen = camera.view(bodies.landmarks)
    x, y = camera.project(seen).round().long().unbind(-1)
    # (n, landmarks) metres from the joint to the surface
    gap = nearest.flatten(1).gather(1, y * 96 + x) - seen[..., 2]
    share = dict(zip(LANDMARKS, (gap < .12).float().mean(0).tolist()))
    assert min(share.values()) > .9, share
    assert (
        min(
            share[f"{side}_{k}"]
            for side in ("left", "right")
            for k in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        )
        > 0.99
    ), share


def test_occluders_and_other_people_hide_joints():
    share = lambda scene: (lambda p: (p.occluded.sum() / p.visible.sum()).item())(
        make_people(256, seed=13, scene=scene)
    )
    plain, normal, crowded = (
        share(PLAIN), share(Scene()), share(Scene(distractors=(1.0, 1.0, 1.0), occluders=1.0)),
    )
    assert .02 < plain < normal < crowded < .6


def test_faces_are_seen_from_the_front_only():
    people = make_people(
        256, seed=14, pose="standing", scene=Scene((0, 0, 0), 0, 0, 0, 0, 0, frontal=1.0)
    )
    assert people.occluded[:, COCO17.index("nose")].float().mean() < .02
    names = [COCO17.index(k) for k in ("left_shoulder", "right_shoulder")]
    left, right = people.joints[:, names, 0].unbind(1)
    assert (left > right).float().mean() > .97  # facing us, the left side is on the right


def test_all_poses_appear_and_can_be_asked_for():
    people = make_people(1024, image_size=(32, 24), seed=15)
    assert set(people.pose_names) == set(POSE_NAMES)
    assert set(make_people(3, pose="handstand").pose_names) == {"handstand"}
    head, ankle = COCO17.index("nose"), COCO17.index("left_ankle")
    upright, inverted = (
        make_people(64, pose=p, scene=PLAIN).joints[..., 1] for p in ("standing", "handstand")
    )
    assert (upright[:, head] < upright[:, ankle]).all() and (
        inverted[:, head] > inverted[:, ankle]
    ).all()


def test_pictures_have_content():
    pictures = make_people(128, seed=16).images.float()
    assert pictures.flatten(1).std(1).min() > 8 and 60 < pictures.mean() < 180


def test_tiles_agree_with_the_whole_picture():
    """The tiled painter gives the same picture whatever the tiles' group, and off-screen strokes do
    no harm."""
    dice = Dice(0, torch.arange(5), "scene")
    strokes = clutter(
        dice, torch.tensor([[20.0, 10.0, 50.0, 100.0]]).expand(5, 4), torch.full((5,), 4.0),
        (128, 96), Scene(occluders=1.0, clutter=1.0),
    )
    far_away = strokes.clone()
    far_away[..., :4] += 1000
    blank = torch.cat([torch.ones(5, 192, 3, 64), torch.full((5, 192, 1, 64), 50.)], 2)
    a, b = (paint(blank.clone(), strokes, 16, 12, group=g) for g in (7, 4096))
    assert torch.equal(a, b) and not torch.equal(a, blank)
    assert torch.equal(paint(blank.clone(), far_away, 16, 12), blank)
    assert torch.equal(paint(blank.clone(), torch.cat([strokes, far_away], 1), 16, 12), a)


@pytest.mark.parametrize("people", [1, 2, 6])
def test_photo(people):
    photo = make_photo(
        people, keypoint_set=KEYPOINT_SETS["mpii"], image_size=(200, 300), seed=1, index=2
    )
    assert (
        photo.image.shape == (3, 200, 300)
        and photo.joints.shape == (people, 16, 2)
        and len(photo.pose_names) == people
    )
    assert torch.equal(
        photo.image, make_photo(people, image_size=(200, 300), seed=1, index=2).image
    )
    low, high = (
        photo.boxes[:, None, :2] - 2,
        photo.boxes[:, None, :2] + photo.boxes[:, None, 2:] + 2,
    )
    assert ((photo.joints >= low) & (photo.joints <= high)).all() and photo.visible.all()
    assert not torch.equal(
        photo.image, make_photo(people, image_size=(200, 300), seed=1, index=3).image
    )


def test_sheet():
    people = make_people(5, image_size=(64, 48))
    assert draw_sheet(people, columns=3).shape == (2 * 76, 3 * 50, 3)
    assert (
        draw_sheet(people, columns=3, keypoint_set=COCO17, names=False)
        != draw_sheet(people, columns=3, names=False)
    ).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_shows_the_same_people():
    cpu, gpu = make_people(16, seed=3), make_people(16, seed=3, device="cuda")
    assert gpu.images.is_cuda and gpu.pose_names == cpu.pose_names
    assert torch.allclose(gpu.joints.cpu(), cpu.joints, atol=.05)
    assert (gpu.images.cpu().float() - cpu.images.float()).abs().mean() < 2

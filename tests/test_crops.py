"""Crops against the released DarkPose values, and properties of the augmentation that a picture
cannot prove."""
import numpy as np
import pytest
import torch
from PIL import Image

from dppt_nb.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    augment_batch,
    central_affine,
    half_body_window,
    inside,
)
from dppt_nb.crops import (
    PIXEL_STD,
    apply_affine,
    batched_affine,
    box_to_center_scale,
    crop_affine,
    crop_image,
    invert_affine,
    normalize,
    uncrop_points,
    warp_batch,
)
from dppt_nb.keypoints import COCO17, LSP14


@pytest.fixture(scope="module")
def reference(shared):
    return dict(np.load(shared / "reference" / "crop_affine.npz"))


def test_affine_agrees_with_the_release(reference):
    for center, scale, degrees, expected in zip(
        *(reference[k] for k in ("center", "scale", "rotation_deg", "affine"))
    ):
        # the release keeps its three points in float32, which costs it up to 1e-6 of the largest
        # coordinate
        np.testing.assert_allclose(
            crop_affine(center, scale, degrees), expected, rtol=1e-6, atol=2e-4
        )
    batch = batched_affine(
        *(torch.tensor(reference[k]).float() for k in ("center", "scale", "rotation_deg"))
    )
    np.testing.assert_allclose(batch.numpy(), reference["affine"], rtol=1e-5, atol=5e-4)


def test_crops_agree_with_opencv_to_one_grey_level(reference):
    image = torch.from_numpy(reference["image"]).permute(2, 0, 1)[None].expand(3, -1, -1, -1)
    batch = (
        warp_batch(image, torch.from_numpy(reference["affine"]), (256, 192))
        .permute(0, 2, 3, 1)
        .round()
        .numpy()
    )
    single = np.stack(
        [crop_image(reference["image"], affine, (256, 192)) for affine in reference["affine"]]
    )
    for crops in (batch, single):
        difference = np.abs(crops.astype(int) - reference["crops"].astype(int))
        assert difference.max() <= 1          # OpenCV rounds the source position to 1/32 pixel
        assert (difference > 0).mean() < 0.01


def test_inverse_in_both_kinds():
    generator = torch.Generator().manual_seed(0)
    centers, scales = (
        torch.rand(20, 2, generator=generator) * 500,
        torch.rand(20, 2, generator=generator) + 0.3,
    )
    affines = batched_affine(centers, scales, torch.rand(20, generator=generator) * 360, (256, 192))
    points = torch.rand(20, 5, 2, generator=generator) * 500
    torch.testing.assert_close(
        uncrop_points(apply_affine(points, affines), affines), points, atol=2e-3, rtol=0
    )
    back = invert_affine(affines.numpy().astype(np.float64))
    np.testing.assert_allclose(invert_affine(back), affines.numpy(), atol=1e-6)


@pytest.mark.parametrize("unbiased", [True, False])
def test_window_fills_the_crop(unbiased):
    affine = crop_affine((100, 80), (0.6, 0.8), 0, (64, 48), unbiased)
    less = 1 if unbiased else 0
    corners = np.array(
        [
            [100 - (120 - less) / 2, 80 - (160 - less) / 2],
            [100 + (120 - less) / 2, 80 + (160 - less) / 2],
        ]
    )
    np.testing.assert_allclose(apply_affine(corners, affine)[0], [0, 0], atol=0.2)
    np.testing.assert_allclose(apply_affine(corners, affine)[1, 0], 48 - less, atol=1e-9)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64]
)
@pytest.mark.parametrize("grad", [False, True])
def test_affine_takes_any_tensor(dtype, grad):
    center, scale, degrees = (torch.tensor(v, dtype=dtype) for v in ([100, 80], [1, 2], 30))
    if grad and dtype.is_floating_point: center.requires_grad_(), scale.requires_grad_()
    affine = crop_affine(center, scale, degrees)
    assert isinstance(affine, np.ndarray) and affine.dtype == np.float64
    np.testing.assert_array_equal(affine, crop_affine([100, 80], (1, 2), 30))


def test_boxes():
    boxes = np.array([[10, 20, 30, 80], [0, 0, 100, 10]], dtype=np.float32)
    centers, scales = box_to_center_scale(boxes, (256, 192), 1.0)
    np.testing.assert_allclose(centers, [[25, 60], [50, 5]])
    np.testing.assert_allclose(scales * PIXEL_STD, [[60, 80], [100, 100 / 0.75]], rtol=1e-6)
    assert isinstance(centers, np.ndarray) and torch.is_tensor(
        box_to_center_scale(torch.tensor(boxes))[0]
    )
    assert len(box_to_center_scale(np.zeros((0, 4)))[0]) == 0
    for wrong in ([[0, 0, 0, 5]], [[0, 0, float("nan"), 5]], [[1, 1, 5, 5], [0, 0, 5, -1]]):
        with pytest.raises(ValueError, match=f"box {len(wrong) - 1} .*positive"):
            box_to_center_scale(np.array(wrong))


def dotted(n, size, joints, radius=2.0):
    """Black pictures with a soft white dot at every joint, one colour channel for each of three
    joints."""
    y, x = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    # (n, 3, H, W)
    d = (x - joints[..., 0, None, None]) ** 2 + (y - joints[..., 1, None, None]) ** 2
    return (255 * torch.exp(-d / (2 * radius ** 2))).round().byte()


def centroids(images):
    mass = images.clamp(min=0)
    y, x = torch.meshgrid(
        torch.arange(float(images.shape[-2])), torch.arange(float(images.shape[-1])), indexing="ij"
    )
    total = mass.sum((2, 3))
    return torch.stack([(mass * x).sum((2, 3)), (mass * y).sum((2, 3))], -1) / total[..., None]


class Three:
    "Three points: a left one, a right one, and one in the middle."
    flip_pairs, flip_index, upper_body, names = (
        ((0, 1),), [1, 0, 2], (0, 1, 2), ("left", "right", "middle"),
    )
    mirrored = True
    def __len__(self): return 3


@pytest.mark.parametrize("stored", [(192, 144), (384, 288), (96, 72), (576, 432), (768, 576)])
@pytest.mark.parametrize(
    "augmentation",
    [None, Augmentation(shift=0.1, scale=0.2, rotation=20, rotation_prob=1, shift_prob=1)],
)
def test_joints_stay_on_their_pixels(stored, augmentation):
    """A dot painted on a joint is found at the moved joint, at every ratio of store to output, also
    when averaged down."""
    generator = torch.Generator().manual_seed(3)
    n, margin, output = 16, 1.5, (128, 96)
    size = torch.tensor([stored[1], stored[0]])
    joints = (0.5 + (torch.rand(n, 3, 2, generator=generator) - 0.5) * 0.4) * (size - 1)
    images = dotted(n, stored, joints, radius=max(2.0, 2.5 * stored[0] / 192))
    images_out, moved, visible = augment_batch(
        images, joints, torch.ones(n, 3), Three(), margin, output, augmentation, generator
    )
    raw = (
        images_out * torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1) * 255
        + torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1) * 255
    )
    found = centroids(raw.where(raw > 12, 0))
    # mirrored people have their left and right joint exchanged; the dots keep their colour
    straight, swapped = (found - moved).norm(dim=-1), (found - moved[:, [1, 0, 2]]).norm(dim=-1)
    mirrored = swapped.sum(1) < straight.sum(1)
    far = (moved > 8).all(-1) & (moved < torch.tensor([output[1], output[0]]) - 9).all(-1)
    error = torch.where(mirrored[:, None], swapped, straight)
    far = torch.where(mirrored[:, None], far[:, [1, 0, 2]], far)
    assert far.float().mean() > 0.5 and error[far].max() < 0.15
    assert mirrored.any() == (augmentation is not None) and not mirrored.all()


def test_plain_crop_is_the_stored_middle():
    "With a margin of whole pixels the plain crop copies pixels and interpolates nothing."
    images = torch.randint(
        0, 256, (4, 3, 160, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    joints = torch.full((4, 17, 2), 60.0)
    out, moved, visible = augment_batch(images, joints, torch.ones(4, 17), COCO17, 1.25, (128, 96))
    torch.testing.assert_close(out, normalize(images[:, :, 16:144, 12:108]), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved, joints - torch.tensor([12.0, 16.0]))
    assert visible.sum() == 4 * 17


def test_same_seed_same_bits_and_other_seed_other_bits():
    images = torch.randint(
        0, 256, (8, 3, 96, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    joints, visible = torch.rand(8, 14, 2) * 72, torch.ones(8, 14)
    run = lambda seed: augment_batch(
        images, joints, visible, LSP14, 1.5, (64, 48), AUGMENTATIONS["colour"],
        torch.Generator().manual_seed(seed),
    )
    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


def test_mirroring_twice_is_nothing_and_swaps_names():
    images = torch.randint(
        0, 256, (2, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    joints = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(1)) * 40 + 2
    visible = (torch.rand(2, 17, generator=torch.Generator().manual_seed(2)) > 0.3).float()
    only_flip = Augmentation(flip=1, rotation_prob=0, scale=0, half_body=0)
    out, moved, seen = augment_batch(
        images, joints, visible, COCO17, 1.0, (64, 48), only_flip, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(out, normalize(images.flip(-1)), atol=1e-3, rtol=0)
    assert torch.equal(seen, visible[:, COCO17.flip_index])
    torch.testing.assert_close(
        moved[:, COCO17.index("left_wrist"), 0], 47 - joints[:, COCO17.index("right_wrist"), 0]
    )


def test_joints_outside_become_invisible_and_nan_stays_out():
    joints = torch.full((1, 17, 2), 30.0)
    joints[0, 0], joints[0, 1] = torch.tensor([-30.0, 5.0]), torch.tensor(float("nan"))
    visible = torch.ones(1, 17)
    visible[0, 1] = 0
    images = torch.zeros(1, 3, 96, 72, dtype=torch.uint8)
    for augmentation in (
        None, Augmentation(flip=0, half_body=0),
        Augmentation(flip=0, half_body=1, half_body_joints=0),
    ):
        out, moved, seen = augment_batch(
            images, joints, visible, COCO17, 1.5, (64, 48), augmentation,
            torch.Generator().manual_seed(0),
        )
        assert seen[0, 0] == seen[0, 1] == 0 and torch.isfinite(out).all()
        assert torch.isfinite(moved[seen > 0]).all() and torch.equal(
            seen, seen * inside(moved, (64, 48))
        )


def test_half_body_windows():
    joints = torch.zeros(3, 17, 2)
    joints[:, :, 0] = torch.arange(17.0)
    joints[:, :, 1] = torch.arange(17.0) * 10  # upper body above the lower
    visible = torch.ones(3, 17)
    visible[2, 11:] = 0  # no legs to be seen
    centers, widths, valid = half_body_window(
        joints, visible, COCO17.upper_body, 0.75, torch.tensor([True, False, False])
    )
    upper, lower = joints[0, :11], joints[0, 11:]
    torch.testing.assert_close(centers, torch.stack([upper.mean(0), lower.mean(0), upper.mean(0)]))
    torch.testing.assert_close(
        widths, torch.tensor([100 * 1.5 * 0.75, 50 * 1.5 * 0.75, 100 * 1.5 * 0.75])
    )
    assert valid.all()
    assert not half_body_window(
        joints, torch.zeros(3, 17), COCO17.upper_body, 0.75, torch.ones(3, dtype=torch.bool)
    )[2].any()


def test_dense_store_is_averaged_not_skipped():
    """Stripes of one stored pixel turn into an even grey; picking every fourth pixel would show
    black or white."""
    images = torch.zeros(1, 3, 256, 192, dtype=torch.uint8)
    images[..., ::2] = 255
    joints = torch.zeros(1, 17, 2)
    out, _, _ = augment_batch(images, joints, torch.ones(1, 17), COCO17, 1.0, (64, 48))
    grey = normalize(torch.full((1, 3, 64, 48), 127.5))
    assert (out - grey)[..., 2:-2, 2:-2].abs().max() < 0.05
    photo = np.zeros((800, 600, 3), np.uint8)
    photo[:, ::2] = 255
    crop = crop_image(
        Image.fromarray(photo), crop_affine((299.5, 399.5), (3, 4), 0, (128, 96)), (128, 96)
    )
    assert np.abs(crop[2:-2, 2:-2].astype(float) - 127.5).max() < 40


def test_a_reduced_crop_keeps_its_place():
    "A dot in a photograph eight times as dense is found where the affine puts it."
    y, x = np.mgrid[:800, :600]
    photo = np.repeat(
        (255 * np.exp(-((x - 210.3) ** 2 + (y - 520.8) ** 2) / (2 * 30**2))).astype(np.uint8)[
            ..., None
        ],
        3,
        2,
    )
    affine = crop_affine((320, 380), (3, 4), 12, (96, 72))
    crop = torch.from_numpy(crop_image(photo, affine, (96, 72))).permute(2, 0, 1)[None].float()
    expected = apply_affine(np.array([[210.3, 520.8]]), affine)[0]
    np.testing.assert_allclose(centroids(crop.where(crop > 6, 0))[0, 0], expected, atol=0.05)


def test_crop_far_outside_is_black():
    crop = crop_image(
        np.full((50, 40, 3), 200, np.uint8), crop_affine((500, 900), (0.2, 0.3), 30, (64, 48)),
        (64, 48),
    )
    assert crop.shape == (64, 48, 3) and crop.max() == 0


def test_refusals():
    images, joints = torch.zeros(1, 3, 96, 72, dtype=torch.uint8), torch.zeros(1, 17, 2)
    with pytest.raises(ValueError, match="prepare the store again"):
        augment_batch(images, joints, torch.ones(1, 17), COCO17, 1.5, (64, 64))
    with pytest.raises(ValueError, match="torch.Generator"):
        augment_batch(images, joints, torch.ones(1, 17), COCO17, 1.5, (64, 48), Augmentation())


def test_central_affine_composes_to_the_released_affine():
    """Photo to store to input is the same map as photo to input at once, whatever the store's
    density."""
    for stored, margin in (((384, 288), 1.5), ((192, 144), 1.5), ((480, 360), 1.25)):
        center, scale, output = (150.0, 90.0), (0.9, 1.2), (256, 192)
        window = (stored[0] / margin, stored[1] / margin)
        to_store = crop_affine(center, scale, 0, window)
        to_store[:, 2] += (np.array([stored[1], stored[0]]) - np.array([window[1], window[0]])) / 2
        points = np.array([[120.0, 60.0], [180.0, 130.0]])
        through = apply_affine(
            apply_affine(points, to_store),
            central_affine(stored, margin, output).numpy().astype(np.float64),
        )
        np.testing.assert_allclose(
            through, apply_affine(points, crop_affine(center, scale, 0, output)), atol=1e-3
        )


def test_half_precision_surroundings_do_not_move_pixels():
    "Under autocast the sampling grid stays exact."
    images = torch.randint(
        0, 256, (2, 3, 96, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    joints = torch.rand(2, 17, 2) * 70
    plain = augment_batch(
        images, joints, torch.ones(2, 17), COCO17, 1.5, (64, 48), Augmentation(),
        torch.Generator().manual_seed(5),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = augment_batch(
            images, joints, torch.ones(2, 17), COCO17, 1.5, (64, 48), Augmentation(),
            torch.Generator().manual_seed(5),
        )
    assert mixed[0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed))


def test_joints_of_another_set_and_margins_of_none_are_refused():
    from dppt_nb.keypoints import LSP14
    images, seen = torch.zeros(2, 3, 96, 72, dtype=torch.uint8), torch.ones(2, 17)
    with pytest.raises(ValueError, match="joints .2, 17, 2. are not those of lsp"):
        augment_batch(images, torch.zeros(2, 17, 2), seen, LSP14, 1.5, (64, 48))
    with pytest.raises(ValueError, match="margin is 0"):
        augment_batch(images, torch.zeros(2, 17, 2), seen, COCO17, 0, (64, 48))


@pytest.mark.parametrize("scale", [(0, 0), (-1, 1), (0.005, 0.5), (float("nan"), 1)])
def test_a_window_of_no_size_has_no_map(scale):
    with pytest.raises(ValueError, match="a window is more than a pixel wide"):
        crop_affine((50, 50), scale)


def test_whole_numbers_lose_no_half_pixels():
    "Annotated pixels are often whole numbers; the middle of a picture is not."
    centers, scales = torch.tensor([[100, 81]]), torch.tensor([[0.9, 1.2]])
    for turn in (10.5, torch.tensor([10.5])):
        assert torch.equal(
            batched_affine(centers, scales, turn), batched_affine(centers.float(), scales, turn)
        )
    images = torch.randint(0, 256, (2, 3, 80, 60), dtype=torch.uint8)
    joints, visible = torch.randint(5, 55, (2, 17, 2)), torch.ones(2, 17)
    for how in (None, AUGMENTATIONS["coco"]):
        whole, floats = (
            augment_batch(
                images, given, visible, COCO17, 1.25, (64, 48), how,
                torch.Generator().manual_seed(0),
            )
            for given in (joints, joints.float())
        )
        assert all(torch.equal(a, b) for a, b in zip(whole, floats))


def test_boxes_in_arrays_of_any_kind(recwarn):
    "Nobody may write to some, and others run backwards: the first is no warning, the second works."
    boxes = np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32)
    wanted = box_to_center_scale(boxes.copy())[0]
    boxes.flags.writeable = False
    always = torch.is_warn_always_enabled()    # else once a process
    torch.set_warn_always(True)
    try: assert (box_to_center_scale(boxes)[0] == wanted).all()
    finally: torch.set_warn_always(always)
    assert (box_to_center_scale(boxes[::-1])[0] == wanted[::-1]).all()
    assert not recwarn.list


def test_a_constant_that_a_tracer_asked_for_is_not_kept():
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dppt_nb.draws import constant
    with FakeTensorMode(): constant((0.125, 0.25), torch.empty(2))
    assert constant((0.125, 0.25), torch.empty(2)).tolist() == [0.125, 0.25]

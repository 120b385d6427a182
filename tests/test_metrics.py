"""Metrics against the released MPII scoring and against pycocotools called directly."""
import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch

from dppt_nb.checks import DataError
from dppt_nb.coco import person_category, to_coco_results
from dppt_nb.keypoints import COCO17, LSP14, MPII16
from dppt_nb.matching import match_coco
from dppt_nb.metrics import (
    bootstrap_interval,
    evaluate_coco,
    joint_rates,
    keypoint_hits,
    mean_rate,
    oks,
    pck,
    pckh,
    pckh_hits,
    person_size,
    pooled_rate,
)
from dppt_nb.scoring import (
    bootstrap_ap,
    boxes_of_people,
    oks_nms,
    pckh_row,
    ranked_matches,
    rescore,
    weighted_ap,
)


def people(n, num_joints, seed=0, size=100.):
    "Random people: true joints, predictions about a tenth of a person off, who is labelled."
    generator = np.random.default_rng(seed)
    joints = generator.uniform(0, size, (n, num_joints, 2))
    return (
        joints + generator.normal(0, size / 10, joints.shape),
        joints,
        (generator.random((n, num_joints)) > 0.2).astype(np.uint8),
    )


# PCK and PCKh -------------------------------------------------------------------------------------
# ------------------

def test_pck_equals_a_loop_over_people():
    preds, joints, visible = people(50, 14)
    first, second = LSP14.torso
    hits, counts, left_out = np.zeros(14), np.zeros(14), 0
    for p, t, v in zip(preds, joints, visible):
        if not (v[first] and v[second]):
            left_out += 1
            continue
        limit = 0.2 * np.hypot(*(t[first] - t[second]))
        for j in range(14):
            if v[j]:
                counts[j] += 1
                hits[j] += np.hypot(*(p[j] - t[j])) <= limit
    result = pck(preds, joints, visible, LSP14)
    assert result["left_out"] == left_out > 0 and result["n"] == 50 - left_out
    np.testing.assert_allclose(list(result["per_joint"].values()), 100 * hits / counts)
    assert result["mean"] == pytest.approx((100 * hits / counts).mean())
    assert list(result["joint_counts"].values()) == counts.tolist()


def test_pck_takes_tensors_and_any_similar_frame():
    preds, joints, visible = people(40, 14)
    expected = pck(preds, joints, visible, LSP14)["mean"]
    tensors = (
        torch.from_numpy(preds).requires_grad_(), torch.from_numpy(joints),
        torch.from_numpy(visible),
    )
    assert pck(*tensors, LSP14)["mean"] == expected
    half = torch.from_numpy(joints).bfloat16()                  # NumPy has no such type
    assert pck(half, half, tensors[2], LSP14)["mean"] == 100
    turn = 3 * np.array([[0., -1.], [1., 0.]])
    assert pck(preds @ turn + 7, joints @ turn + 7, visible, LSP14)["mean"] == pytest.approx(
        expected
    )


def test_pck_head_needs_a_head_segment():
    preds, joints, visible = people(40, 14)
    assert pck(preds, joints, visible, LSP14, normaliser="head")["threshold"] == 0.5
    preds, joints, visible = people(5, 17)
    with pytest.raises(ValueError, match="has no head"):
        pck(preds, joints, visible, COCO17, normaliser="head")


def test_pck_refuses_what_does_not_fit():
    preds, joints, visible = people(5, 14)
    with pytest.raises(ValueError, match="must both be"): pck(preds[:4], joints, visible, LSP14)
    with pytest.raises(ValueError, match="has 16"): pck(preds, joints, visible, MPII16)
    with pytest.raises(ValueError, match="NaN"):
        pck(preds, np.full_like(joints, np.nan), np.ones_like(visible), LSP14)
    lost = np.full_like(preds, np.nan)
    assert pck(lost, joints, np.ones_like(visible), LSP14)["mean"] == 0


def test_joint_nobody_has_is_no_zero():
    _, joints, visible = people(30, 14)
    visible[:, 3] = 0
    result = pck(joints, joints, visible, LSP14)
    assert np.isnan(result["per_joint"][LSP14.names[3]]) and result["mean"] == 100
    assert np.isnan(pck(joints, joints, 0 * visible, LSP14)["mean"])


def test_pckh_equals_the_released_scoring(shared):
    data, released = (
        np.load(shared / "reference" / "pckh.npz"),
        json.loads((shared / "reference" / "pckh.json").read_text()),
    )
    visible = 1 - data["missing"]
    for preds, joints in (
        (data["preds_zero_based"] + 1, data["gt"]),
        (data["preds_zero_based"], data["gt"] - 1),
    ):
        ours = pckh(preds, joints, data["headboxes"], visible)
        assert list(ours) == [
            "Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean", "Mean@0.10",
            "Mean@0.11",
        ]
        for name, value in released.items():
            assert ours["Mean@0.11" if name == "Mean@0.1" else name] == pytest.approx(
                value, abs=1e-9
            )
    assert ours["Mean@0.10"] < ours["Mean@0.11"]
    # frames mixed: one pixel off
    wrong = pckh(data["preds_zero_based"], data["gt"], data["headboxes"], visible)
    assert abs(wrong["Mean"] - released["Mean"]) > 0.01


# OKS and AP ---------------------------------------------------------------------------------------
# ------------------

def direct(ground_truth, rows, image_ids=None, sigmas=None):
    "The ten numbers of pycocotools called as its own demo does."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), "keypoints")
        if image_ids is not None: evaluation.params.imgIds = image_ids
        if sigmas is not None: evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation.stats


@pytest.fixture(scope="module")
def coco_file(shared):
    return shared / "data" / "coco_mini" / "annotations" / "person_keypoints.json"


@pytest.fixture(scope="module")
def coco_people(coco_file):
    "The labelled people of the file: ground truth, photo and keypoints of each."
    truth = json.loads(coco_file.read_text())
    labelled = [a for a in truth["annotations"] if a["num_keypoints"]]
    keypoints = np.array([a["keypoints"] for a in labelled], dtype=np.float64).reshape(-1, 17, 3)
    return truth, np.array([a["image_id"] for a in labelled]), keypoints, labelled


def jittered(coco_people, share, seed=0):
    "Rows with every joint moved by about `share` of its person's size, and scores without ties."
    _, image_ids, keypoints, labelled = coco_people
    generator = np.random.default_rng(seed)
    size = np.sqrt([a["area"] for a in labelled])[:, None, None]
    moved = keypoints[..., :2] + share * size * generator.standard_normal((len(size), 17, 2))
    return to_coco_results(moved, image_ids, generator.permutation(len(size)) / len(size))


def test_truth_as_prediction_is_perfect(coco_file, coco_people):
    truth, image_ids, keypoints, _ = coco_people
    rows = to_coco_results(keypoints[..., :2], image_ids)
    for given in (coco_file, str(coco_file), truth):
        assert evaluate_coco(given, rows)["AP"] == pytest.approx(1.0, abs=1e-9)
    assert evaluate_coco(truth, keypoints[..., :2], ids=image_ids)["AR"] == pytest.approx(
        1.0, abs=1e-9
    )


def test_jitter_lowers_ap_step_by_step(coco_file, coco_people):
    shares = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    scores = [evaluate_coco(coco_file, jittered(coco_people, share))["AP"] for share in shares]
    assert all(a > b for a, b in zip(scores, scores[1:])) and scores[0] > 0.99 and scores[-1] < 0.05


@pytest.mark.parametrize("share", [0.02, 0.08])
def test_numbers_equal_a_direct_pycocotools_call(coco_file, coco_people, share, capfd):
    rows = jittered(coco_people, share)
    before = copy.deepcopy(rows)
    ours = evaluate_coco(coco_file, rows)
    assert capfd.readouterr().out == "" and rows == before
    np.testing.assert_array_equal(list(ours.values()), direct(coco_file, rows))
    some = sorted({row["image_id"] for row in rows})[::3]
    np.testing.assert_array_equal(
        list(evaluate_coco(coco_file, rows, image_ids=some).values()), direct(coco_file, rows, some)
    )
    np.testing.assert_array_equal(
        match_coco(coco_file, rows, some).stats, direct(coco_file, rows, some)
    )


def test_pycocotools_object_is_left_unchanged(coco_file, coco_people):
    from pycocotools.coco import COCO
    with contextlib.redirect_stdout(io.StringIO()): truth = COCO(str(coco_file))
    before = copy.deepcopy(truth.dataset)
    rows = jittered(coco_people, 0.05)
    assert evaluate_coco(truth, rows) == evaluate_coco(coco_file, rows)
    assert truth.dataset == before


def test_a_prediction_of_nan_is_a_miss_and_takes_nobody_out():
    joints, seen = np.zeros((2, 4, 2)), np.ones((2, 4))
    preds = joints.copy()
    preds[1, 2] = np.nan
    assert oks(preds, joints, seen, [100., 100.], [.1] * 4).tolist() == [1, .75]


def test_oks_equals_pycocotools(coco_file, coco_people):
    evaluation = match_coco(coco_file, jittered(coco_people, 0.05))
    compared = 0
    for (image_id, category), theirs in evaluation.ious.items():
        truths, found = evaluation._gts[image_id, category], evaluation._dts[image_id, category]
        found = sorted(found, key=lambda row: -row["score"])[:20]
        if not len(theirs): continue
        true, pred = (
            np.array([a["keypoints"] for a in rows]).reshape(-1, 17, 3) for rows in (truths, found)
        )
        ours = oks(
            pred[:, None, :, :2], true[None, ..., :2], true[None, ..., 2],
            np.array([a["area"] for a in truths])[None], COCO17.sigmas,
        )
        labelled = ~np.isnan(ours)
        np.testing.assert_allclose(ours[labelled], theirs[labelled], atol=1e-9)
        compared += labelled.sum()
    assert compared > 500


def custom_truth(keypoints, image_ids, first_id=0):
    "The least a custom COCO file holds: no area, no counts, no crowd flag."
    rows = [
        {
            "id": i + first_id, "image_id": int(image), "category_id": 3,
            "keypoints": k.ravel().tolist(),
        }
        for i, (k, image) in enumerate(zip(keypoints, image_ids))
    ]
    return {
        "images": [{"id": int(i)} for i in np.unique(image_ids)],
        "annotations": rows,
        "categories": [{"id": 3, "name": "hand"}],
    }


def test_custom_keypoints_with_their_own_sigmas():
    generator = np.random.default_rng(1)
    keypoints = np.concatenate(
        [generator.uniform(0, 200, (6, 5, 2)), np.full((6, 5, 1), 2)], axis=-1
    )
    ids, sigmas = np.arange(6) // 2, np.full(5, 0.05)
    truth = custom_truth(keypoints, ids)  # ids from 0, which pycocotools alone reads as "no match"
    rows = to_coco_results(keypoints[..., :2], ids, category_id=3)
    assert evaluate_coco(truth, rows, sigmas=sigmas)["AP"] == pytest.approx(1.0)
    moved = to_coco_results(keypoints[..., :2] + 8, ids, category_id=3)
    assert (
        evaluate_coco(truth, moved, sigmas=sigmas)["AP"]
        < evaluate_coco(truth, moved, sigmas=4 * sigmas)["AP"]
    )


def custom_people(n=6):
    "Keypoints (n, 5, 3) all labelled, photo ids, sigmas."
    places = np.random.default_rng(1).uniform(0, 200, (n, 5, 2))
    return (
        np.concatenate([places, np.full((n, 5, 1), 2)], axis=-1), np.arange(n) // 2,
        np.full(5, 0.05),
    )


def test_an_array_takes_the_category_of_the_ground_truth(tmp_path):
    keypoints, ids, sigmas = custom_people()
    truth = custom_truth(keypoints, ids)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for given in (truth, tmp_path / "truth.json", str(tmp_path / "truth.json")):
        assert person_category(given) == 3
        assert evaluate_coco(given, keypoints[..., :2], ids=ids, sigmas=sigmas)[
            "AP"
        ] == pytest.approx(1.0)
    assert evaluate_coco(
        truth, torch.from_numpy(keypoints[..., :2]), ids=torch.from_numpy(ids), sigmas=sigmas
    )["AP"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="ids: "):
        evaluate_coco(truth, keypoints[..., :2], sigmas=sigmas)


def test_a_second_category_without_keypoints_changes_nothing():
    keypoints, ids, sigmas = custom_people()
    alone = custom_truth(keypoints, ids)
    boards = [
        {
            "id": 90 + i, "image_id": int(i), "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81,
            "iscrowd": 0,
        }
        for i in np.unique(ids)
    ]
    both = {
        **alone,
        "categories": [
            {"id": 1, "name": "skateboard"},
            {**alone["categories"][0], "keypoints": list("abcde")},
        ],
        "annotations": boards + alone["annotations"],
    }
    moved = np.random.default_rng(2).normal(keypoints[..., :2], 12)
    match = match_coco(
        both, to_coco_results(moved, ids, category_id=person_category(both)), sigmas=sigmas
    )
    assert 0 < match.stats[0] < 1
    np.testing.assert_array_equal(
        match.stats, list(evaluate_coco(alone, moved, ids=ids, sigmas=sigmas).values())
    )
    assert bootstrap_ap(match, n=20)[0] <= match.stats[0]  # one category: an interval can be drawn
    # nobody names keypoints: the category whose annotations have some
    unnamed = {**both, "categories": [{"id": 1}, {"id": 3}]}
    assert person_category(unnamed) == 3
    several = {
        **alone,
        "categories": [
            {"id": 1, "name": "dog", "keypoints": ["nose"]},
            {"id": 2, "name": "person", "keypoints": ["nose"]},
        ],
    }
    assert person_category(several) == 2


@pytest.mark.parametrize(
    "change, words",
    [
        (
            dict(category_id=1),
            "prediction 1: category 1 is not that of the ground truth's people, 3",
        ),
        (dict(category_id=None), "category None"),
        (dict(image_id=[1]), "image .1. is not in"),
        (dict(keypoints=None), "'keypoints' holds something that is not a number"),
        (dict(keypoints=[float("nan")] * 15), "NaN"),
        (dict(score=None), "'score' holds something"),
        (dict(score=float("nan")), "NaN"),
    ],
)
def test_bad_result_rows_are_one_sentence(change, words):
    keypoints, ids, sigmas = custom_people()
    rows = to_coco_results(keypoints[..., :2], ids, category_id=3)
    rows[1] |= change
    with pytest.raises(ValueError, match=words) as error:
        evaluate_coco(custom_truth(keypoints, ids), rows, sigmas=sigmas)
    assert "prediction 1" in str(error.value) and "\n" not in str(error.value)


def test_results_and_truths_that_are_something_else(tmp_path):
    keypoints, ids, sigmas = custom_people()
    truth = custom_truth(keypoints, ids)
    for content, words in (
        ({"a": 1}, "must be rows"), (5, "must be rows"),
        (["row"], "rows.json: prediction 0: has no 'image_id'"),
    ):
        (tmp_path / "rows.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=words):
            evaluate_coco(truth, tmp_path / "rows.json", sigmas=sigmas)
    for change, words in (
        (dict(categories=[]), "'categories' is empty"),
        (dict(categories=["hand"]), "'hand' in 'categories'"),
        (dict(images=[{}]), "'images' has no 'id'"),
        (dict(annotations=[{"id": 1}]), "annotation 1 names image None"),
        (dict(annotations=None), "the lists 'images', 'annotations'"),
    ):
        with pytest.raises(DataError, match=words): evaluate_coco(truth | change, [], sigmas=sigmas)
    with pytest.raises(DataError, match="has no 'images'"): evaluate_coco([1, 2], [], sigmas=sigmas)


def test_nulls_in_the_ground_truth_are_missing_fields():
    keypoints, ids, sigmas = custom_people()
    truth = custom_truth(keypoints, ids)
    for a in truth["annotations"]: a |= dict(area=None, bbox=[], iscrowd=None, num_keypoints=None)
    truth["annotations"] += [
        {"id": 70, "image_id": 0, "keypoints": None},
        {"id": 71, "image_id": 0, "category_id": 3},
    ]  # people without keypoints
    assert evaluate_coco(truth, keypoints[..., :2], ids=ids, sigmas=sigmas)["AP"] == pytest.approx(
        1.0
    )
    for change, words in (
        (dict(area=float("nan")), "'area' holds NaN"),
        (dict(bbox=[1, 2]), "'bbox' has 2 numbers"),
        (dict(keypoints=["x"] * 15), "'keypoints' holds something"),
    ):
        with pytest.raises(DataError, match=words) as error:
            evaluate_coco(
                truth | dict(annotations=[truth["annotations"][0] | change]), [], sigmas=sigmas
            )
        assert "annotation 0" in str(error.value)


def test_no_predictions_score_nothing(coco_file):
    stats = evaluate_coco(coco_file, [])
    assert stats["AP"] == stats["AR"] == 0


def test_sigmas_of_mpii_are_given_or_follow_from_the_names(capsys, tmp_path):
    "And either way the numbers are those of pycocotools called directly with the same sigmas."
    generator = np.random.default_rng(4)
    joints, ids = generator.uniform(0, 150, (40, 16, 2)), np.arange(40) // 2
    triples = np.concatenate([joints, np.full((40, 16, 1), 2)], axis=-1)
    truth = custom_truth(triples, ids, first_id=1)
    truth["categories"] = [{"id": 3, "name": "person", "keypoints": list(MPII16.names)}]
    for a in truth["annotations"]:
        a |= dict(area=12_000.0, iscrowd=0, num_keypoints=16, bbox=[0, 0, 150, 150])
    moved = joints + generator.normal(0, 6, joints.shape)
    rows = to_coco_results(moved, ids, generator.permutation(40) / 40, category_id=3)
    given = evaluate_coco(truth, rows, sigmas=MPII16.sigmas)
    assert capsys.readouterr().out == "" and 0 < given["AP"] < 1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    plain = direct(tmp_path / "truth.json", rows, sigmas=MPII16.sigmas)
    np.testing.assert_array_equal(list(given.values()), plain)
    assert evaluate_coco(truth, rows) == given
    assert capsys.readouterr().out == "OKS sigmas are by name\n"
    with pytest.raises(ValueError, match="17 are given, but .* has 16 keypoints"):
        evaluate_coco(truth, rows, sigmas=COCO17.sigmas)


def test_bad_coco_input_is_one_sentence(tmp_path):
    keypoints = np.full((2, 17, 3), 2.)
    truth, rows = (
        custom_truth(keypoints, [1, 2]),
        to_coco_results(keypoints[..., :2], [1, 2], category_id=3),
    )
    with pytest.raises(DataError, match="none.json is missing"):
        evaluate_coco(tmp_path / "none.json", rows)
    for given in ((tmp_path, rows), (truth, tmp_path)):    # a folder is no missing file
        with pytest.raises(DataError, match="cannot be read"): evaluate_coco(*given)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="broken.json is not JSON"):
        evaluate_coco(tmp_path / "broken.json", rows)
    with pytest.raises(DataError, match="has no 'annotations'"): evaluate_coco({"images": []}, rows)
    short = copy.deepcopy(truth)
    short["annotations"][1]["keypoints"].pop()
    with pytest.raises(
        DataError,
        match="ground truth: annotation 1: 'keypoints' has 50 numbers; 17 keypoints need 51",
    ):
        evaluate_coco(short, rows)
    with pytest.raises(ValueError, match="prediction 0: 'keypoints' has 51"): evaluate_coco(
        custom_truth(keypoints[:, :5], [1, 2]), rows, sigmas=np.full(5, 0.1))
    with pytest.raises(ValueError, match="image 9 is not in"):
        evaluate_coco(truth, [{**rows[0], "image_id": 9}])
    with pytest.raises(ValueError, match="has no 'score'"):
        evaluate_coco(truth, [{k: v for k, v in rows[0].items() if k != "score"}])
    with pytest.raises(ValueError, match="image_ids: 7"):
        evaluate_coco(truth, rows, image_ids=[1, 7])
    with pytest.raises(ValueError, match="NaN"): to_coco_results(np.full((1, 17, 2), np.nan), [1])


# from detections to results
# -----------------------------------------------------------------------------------------

def test_rescore_equals_a_loop():
    generator = np.random.default_rng(2)
    boxes, scores = generator.random(30), generator.random((30, 17)) * 0.5
    scores[0] = 0.1                                             # no keypoint votes
    expected = [b * (s[s > 0.2].mean() if (s > 0.2).any() else 0) for b, s in zip(boxes, scores)]
    np.testing.assert_allclose(rescore(boxes, scores), expected)
    assert rescore(boxes, scores)[0] == 0


def greedy_nms(keypoints, scores, areas, threshold):
    "One photo, pose after pose, as the released evaluation does it."
    order, kept, variances = np.argsort(-scores), [], (2 * np.array(COCO17.sigmas)) ** 2
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        squared = ((keypoints[rest] - keypoints[best]) ** 2).sum(-1)
        alike = np.exp(-squared / variances / ((areas[rest] + areas[best]) / 2)[:, None] / 2).mean(
            -1
        )
        order = rest[alike <= threshold]
    return sorted(kept)


def test_oks_nms_equals_the_greedy_loop_photo_by_photo():
    generator = np.random.default_rng(3)
    base = generator.uniform(0, 200, (40, 1, 17, 2))
    keypoints = (base + generator.normal(0, 4, (40, 6, 17, 2))).reshape(-1, 17, 2)
    image_ids, scores, areas = (
        np.repeat(np.arange(40) // 3, 6), generator.random(240), generator.uniform(5e3, 2e4, 240),
    )
    shuffled = generator.permutation(240)
    keypoints, image_ids, scores, areas = (
        keypoints[shuffled], image_ids[shuffled], scores[shuffled], areas[shuffled],
    )
    for threshold in (0.5, 0.9):
        expected = sorted(
            i
            for image in np.unique(image_ids)
            for rows in [np.flatnonzero(image_ids == image)]
            for i in rows[greedy_nms(keypoints[rows], scores[rows], areas[rows], threshold)]
        )
        kept = oks_nms(keypoints, scores, areas, image_ids, COCO17.sigmas, threshold)
        assert kept.tolist() == expected and len(np.unique(image_ids)) < len(kept) < 240
    assert len(oks_nms(np.zeros((0, 17, 2)), [], [], [], COCO17.sigmas)) == 0


# intervals ----------------------------------------------------------------------------------------
# ------------------

def test_interval_equals_resampling_by_hand():
    preds, joints, visible = people(60, 14)
    result = pck(preds, joints, visible, LSP14)
    hits, counts = result["hits"], result["counts"]
    drawn = np.random.default_rng(5).integers(60, size=(200, 60))
    by_hand = [mean_rate(hits[rows].sum(0), counts[rows].sum(0)) for rows in drawn]
    low, high = bootstrap_interval(hits, counts, n=200, seed=5)
    np.testing.assert_allclose([low, high], np.quantile(by_hand, [0.025, 0.975]))
    assert low < result["mean"] < high
    assert bootstrap_interval(hits, counts, n=200, seed=5) == (low, high)


def test_interval_of_a_plain_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, 2_000)
    low, high = bootstrap_interval(values, n=4_000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    np.testing.assert_allclose(
        [low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half
    )


def test_people_of_one_photograph_are_drawn_together():
    preds, joints, visible = people(60, 14)
    result = pck(preds, joints, visible, LSP14)
    hits, counts = result["hits"], result["counts"]
    photos = np.random.default_rng(1).permutation(np.repeat([30, 10, 20], 20))    # in any order
    rows = [np.flatnonzero(photos == photo) for photo in dict.fromkeys(photos.tolist())]
    drawn = np.random.default_rng(5).integers(3, size=(200, 3))
    by_hand = []
    for three in drawn:
        some = np.concatenate([rows[number] for number in three])
        by_hand.append(mean_rate(hits[some].sum(0), counts[some].sum(0)))
    found = bootstrap_interval(hits, counts, n=200, seed=5, photos=photos)
    np.testing.assert_allclose(found, np.quantile(by_hand, [0.025, 0.975]))
    alone = bootstrap_interval(hits, counts)
    assert bootstrap_interval(hits, counts, photos=torch.arange(60) * 7) == alone


def test_a_plain_mean_over_photographs_of_different_sizes():
    values, photos = np.array([0., 1, 1, 1]), np.array([5, 6, 6, 6])
    low, high = bootstrap_interval(values, photos=photos, n=500)
    assert (low, high) == (0, 1)    # one photograph twice: a mean of its people, not of four
    with pytest.raises(ValueError, match="photos has 3 entries for 4 people"):
        bootstrap_interval(values, photos=[1, 2, 3])


def test_large_samples_are_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_interval(values, n=100)
    monkeypatch.setattr("dppt_nb.metrics.DRAWN_AT_ONCE", 700)
    assert bootstrap_interval(values, n=100) == whole


def test_a_number_of_resamples_may_be_numpy_s_and_must_be_whole():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, n=np.int64(100)) == bootstrap_interval(values, n=100)
    for n in (0, 10.5, np.float64(100)):
        with pytest.raises(ValueError, match="whole and at least 1"):
            bootstrap_interval(values, n=n)


def test_paired_interval_is_narrower_and_has_a_sign():
    preds, joints, visible = people(300, 14)
    better = joints + 0.9 * (preds - joints)
    a, b = (pck(p, joints, visible, LSP14) for p in (better, preds))
    low, high = bootstrap_interval(a["hits"], a["counts"], other=b["hits"])
    assert 0 < low < a["mean"] - b["mean"] < high
    alone = bootstrap_interval(a["hits"], a["counts"])
    assert high - low < alone[1] - alone[0]
    assert bootstrap_interval(a["hits"], a["counts"], other=a["hits"]) == (0, 0)


def test_pckh_interval_holds_its_mean(shared):
    data = np.load(shared / "reference" / "pckh.npz")
    given = data["preds_zero_based"] + 1, data["gt"], data["headboxes"], 1 - data["missing"]
    hits, counts = (np.delete(array, (6, 7), axis=1) for array in pckh_hits(*given))
    low, high = bootstrap_interval(hits, counts, statistic=pooled_rate)
    assert low < pckh(*given)["Mean"] < high


def test_weighted_ap_equals_pycocotools_accumulation(coco_file, coco_people):
    evaluation = match_coco(coco_file, jittered(coco_people, 0.06))
    matches, recalls = ranked_matches(evaluation), evaluation.params.recThrs
    photos, original = len(evaluation.params.imgIds), list(evaluation.evalImgs)
    generator = np.random.default_rng(0)
    samples = [np.arange(photos), *generator.integers(photos, size=(5, photos))]
    for rows in samples:
        evaluation.evalImgs = [original[block * photos + i] for block in range(3) for i in rows]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate(), evaluation.summarize()
        ours = weighted_ap(np.bincount(rows, minlength=photos), matches, recalls)
        assert ours == pytest.approx(evaluation.stats[0], abs=1e-9)


def test_ap_interval(coco_file, coco_people):
    good, bad = (match_coco(coco_file, jittered(coco_people, share)) for share in (0.04, 0.08))
    low, high = bootstrap_ap(good)
    assert low < good.stats[0] < high
    assert bootstrap_ap(good, bad)[0] > 0 and bootstrap_ap(good, good) == (0, 0)
    with pytest.raises(ValueError, match="not on the same photos"):
        bootstrap_ap(
            good,
            match_coco(coco_file, jittered(coco_people, 0.1), image_ids=good.params.imgIds[:9]),
        )


def test_answers_that_cannot_be_are_refused():
    joints, seen = np.zeros((5, 17, 2)), np.ones((5, 17))
    boxed = dict(normaliser="box", sizes=[100.0] * 5)
    assert pck(joints, joints, seen, COCO17, **boxed)["n"] == 5
    for change, words in (
        (dict(sizes=[100.0]), "a size each"), (dict(sizes=np.ones((5, 1))), "a size each"),
        (dict(sizes=100.0), "a size each"), (dict(threshold=-1.0), "not be negative"),
        (dict(threshold=np.nan), "not be negative"),
    ):
        with pytest.raises(ValueError, match=words):
            pck(joints, joints, seen, COCO17, **{**boxed, **change})
    for areas, sigmas, words in (
        (np.full(5, -5.0), COCO17.sigmas, "no area"),
        (np.full(5, np.nan), COCO17.sigmas, "no area"),
        (np.full(5, np.inf), COCO17.sigmas, "no area"),
        (np.ones(5), COCO17.sigmas[:1], "sigmas has shape"),
        (np.ones(5), -np.array(COCO17.sigmas), "sigmas must be positive"),
    ):
        with pytest.raises(ValueError, match=words): oks(joints, joints, seen, areas, sigmas)
    with pytest.raises(ValueError, match="where visible is 1"):
        oks(joints, joints + np.nan, seen, np.ones(5), COCO17.sigmas)
    values = np.ones((5, 2))
    for change, words in (
        (dict(counts=np.ones((5, 1))), "counts has shape"), (dict(other=np.ones(3)), "other has"),
        (dict(level=95), "between 0 and 1"), (dict(level=-0.5), "between 0"),
        (dict(n=0), "at least"), (dict(n=10.5), "at least"),
    ):
        with pytest.raises(ValueError, match=words): bootstrap_interval(values, **change)
    with pytest.raises(ValueError, match="people, joints"): bootstrap_interval(np.ones((5, 2, 2)))
    for change, words in (
        (dict(keypoints=joints[0]), "keypoints"), (dict(keypoints=joints[..., :1]), "keypoints"),
        (dict(image_ids=[1]), "a photo and a score each"), (dict(scores=[1.0]), "a score each"),
        (dict(keypoint_scores=seen[:, :2]), "a score a joint"),
        (dict(image_ids=[1.9] * 5), "whole numbers"),
    ):
        given = dict(keypoints=joints, image_ids=[1] * 5) | change
        with pytest.raises(ValueError, match=words): to_coco_results(**given)
    truth = dict(images=[], annotations=[], categories=[])
    with pytest.raises(ValueError, match="rows hold their own"): evaluate_coco(truth, [], ids=[1])


def test_who_has_no_finite_size_is_left_out():
    joints, seen = np.random.default_rng(0).uniform(0, 100, (4, 14, 2)), np.ones((4, 14))
    sizes = [100.0, np.inf, np.nan, 0.0]
    found = pck(joints, joints, seen, LSP14, normaliser="box", sizes=sizes)
    assert (found["n"], found["left_out"], set(found["joint_counts"].values())) == (1, 3, {1})


def test_a_group_of_pckh_is_of_the_sides_that_are_labelled():
    joints, seen = np.random.default_rng(0).uniform(0, 100, (3, 16, 2)), np.ones((3, 16))
    heads = np.tile(np.array([[10., 10], [30, 30]]), (3, 1, 1))
    seen[:, [13, 0, 5]] = 0    # nobody's left shoulder, nobody's ankles
    preds = joints.copy()
    preds[0, 12] += 500
    scores = pckh(preds, joints, heads, seen)
    assert scores["Shoulder"] == pytest.approx(200 / 3) and scores["Hip"] == 100
    assert np.isnan(scores["Ankle"])


def test_photographs_are_named_as_the_file_has_them():
    "Ids that are text of digits are numbers everywhere, also those of the photographs to score."
    points = [10, 10, 2, 20, 40, 2, 30, 60, 2] + [0] * 42
    truth = dict(
        images=[dict(id="1"), dict(id="2")], categories=[dict(id=1, name="person")],
        annotations=[dict(id=i, image_id=str(i), category_id=1, keypoints=points) for i in (1, 2)],
    )
    rows = [dict(image_id="1", category_id=1, keypoints=points, score=1.0)]
    for ids in (["1"], [1], [1.0, 1.0], np.array(1)):
        assert evaluate_coco(truth, rows, image_ids=ids)["AP"] == pytest.approx(1)
    for ids in (["1", "b"], ["3"], [2.5]):
        with pytest.raises(ValueError, match="is not in the ground truth"):
            evaluate_coco(truth, rows, image_ids=ids)


def test_who_has_no_head_box_is_counted_apart():
    rng = np.random.default_rng(0)
    joints, seen = rng.uniform(0, 100, (6, 16, 2)), np.ones((6, 16))
    heads = np.tile(np.array([[10., 10], [30, 30]]), (6, 1, 1))
    whole = pckh_row(joints + 3, joints, heads, seen)
    assert (whole["mean"], whole["interval"], whole["people"]) == (100, [100, 100], 6)
    heads[0], heads[1, 1] = np.nan, heads[1, 0]
    row = pckh_row(joints + 3, joints, heads, seen)
    assert (row["mean"], row["people"], row["left_out"]) == (100, 4, 2)
    heads[:] = 0
    row = pckh_row(joints + 3, joints, heads, seen)
    assert np.isnan(row["mean"]) and (row["people"], row["left_out"]) == (0, 6)


def test_photographs_may_be_named_by_pairs():
    values = torch.rand(6, generator=torch.Generator().manual_seed(0))
    pairs = [("val", 1), ("val", 1), ("val", 2), ("train", 1), ("train", 1), ("train", 2)]
    assert (bootstrap_interval(values, photos=pairs, n=50)
            == bootstrap_interval(values, photos=[0, 0, 1, 2, 2, 3], n=50))


def test_boxes_that_touch_nobody_may_show_people_too():
    "With an overlap of 0 as least each box and each person is still taken once."
    boxes = [[0, 0, 1, 1], [9, 9, 1, 1]]
    found = boxes_of_people(boxes, [0, 0], [[0, 0, 1, 1], [5, 5, 1, 1]], [0, 0], least=0)
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize("kind", [torch.as_tensor, np.ndarray.tolist])
def test_every_step_of_pck_takes_tensors_and_lists(kind):
    preds, joints, visible = people(20, 14)
    sizes = person_size(joints, visible, LSP14.torso)
    given = [kind(array) for array in (preds, joints, visible)]
    np.testing.assert_array_equal(person_size(*given[1:], LSP14.torso), sizes)
    hits, counts = keypoint_hits(preds, joints, visible, sizes, 0.2)
    for mine, wanted in zip(keypoint_hits(*given, kind(sizes), 0.2), (hits, counts)):
        np.testing.assert_array_equal(mine, wanted)
    np.testing.assert_array_equal(joint_rates(kind(hits), kind(counts)), joint_rates(hits, counts))
    hits, counts = hits.sum(0), counts.sum(0)
    assert mean_rate(kind(hits), kind(counts)) == mean_rate(hits, counts)
    assert pooled_rate(kind(hits), kind(counts)) == pooled_rate(hits, counts)


def test_oks_broadcasts_each_of_its_arrays():
    "Predictions beside several labellings of one person, and labels that say whom to count."
    generator = np.random.default_rng(0)
    preds, joints = generator.uniform(0, 9, (4, 1, 5, 2)), generator.uniform(0, 9, (5, 2))
    visible, sigmas = np.eye(3, 5), np.full(5, 0.1)
    scores = oks(preds, joints, visible, 50.0, sigmas)
    assert scores.shape == (4, 3)
    for i, j in np.ndindex(4, 3):
        assert scores[i, j] == oks(preds[i, 0], joints, visible[j], 50.0, sigmas)
    assert (oks(joints, joints, visible, 50.0, sigmas) == 1).all()

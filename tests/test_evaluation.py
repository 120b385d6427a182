"""Judging: conditions beside the number, other keypoint sets, people who are not there."""
import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from data_fixture import coco_file, picture
from PIL import Image

from dppt_nb.checkpoints import load_network, read_about
from dppt_nb.checks import DataError
from dppt_nb.compare import compare_networks
from dppt_nb.cropset import known_people, pack_marks
from dppt_nb.evaluation import (
    answer_in_terms_of,
    coco_annotations,
    evaluate,
    evaluate_checkpoint,
    format_scores,
    predict_joints,
    score_answers,
    score_joints,
)
from dppt_nb.judged import stored_score
from dppt_nb.keypoints import COCO17, LSP14, MPII16, KeypointSet, map_keypoints
from dppt_nb.metrics import pck
from dppt_nb.models import create_model
from dppt_nb.recipes import Recipe
from dppt_nb.runner import load_judges, train_recipe
from dppt_nb.shards import StoreHeader
from dppt_nb.store import (
    STORE_MARGIN,
    crop_rows,
    from_synthetic,
    load_people,
    synthetic_people,
)
from dppt_nb.studies import photos_of
from dppt_nb.synthetic import make_people
from dppt_nb.trainer import Trainer
from dppt_nb.writing import write_store

SIZE = (64, 48)
TINY = Recipe(
    image_size=SIZE, overrides=dict(width=32, depth=1, heads=2), epochs=1, batch_size=16,
    warmup_steps=3,
)

# without hips
UPPER = KeypointSet("upper", COCO17.names[:11], (), (), COCO17.sigmas[:11])


def store_of(folder, splits, name="coco", keypoints=COCO17):
    "A crop store of synthetic people under the name of a data set."
    crops = from_synthetic(make_people(len(splits), keypoints, SIZE, seed=1, margin=STORE_MARGIN))
    crops = replace(crops, split=list(splits), name=name)
    header = StoreHeader(name, keypoints, tuple(crops.images.shape[2:]), STORE_MARGIN, {})
    write_store(folder, header, crop_rows(crops))
    return crops


def test_results_say_in_which_format_and_on_whom(tmp_path, capsys):
    results = train_recipe(TINY, out=tmp_path, device="cpu", bars=False, people=16)
    evaluate_checkpoint(tmp_path, split="test", people=12, device="cpu", bars=False)
    assert "other people" not in capsys.readouterr().out
    judged = evaluate_checkpoint(tmp_path, split="test", people=20, device="cpu", bars=False)
    assert "was of 12 other people of this split" in capsys.readouterr().out
    for known, split, count in ((results, "val", 16), (judged, "test", 20)):
        known = known["conditions"]
        assert known["compute"] in ("fp32", "bf16")
        assert known["threads"] == torch.get_num_threads()
        assert known["people_digest"] == synthetic_people(split, SIZE, count).digest
    assert json.loads((tmp_path / "results.json").read_text())["conditions"]["people"] == 20
    # edited by hand: what is replaced cannot be compared, and the new judging is not lost
    for edited in ({"conditions": None}, {"conditions": {"data": "synthetic", "split": "test"}}):
        (tmp_path / "results.json").write_text(json.dumps(edited))
        evaluate_checkpoint(tmp_path, split="test", people=12, device="cpu", bars=False)
        judged = json.loads((tmp_path / "results.json").read_text())
        assert judged["conditions"]["people"] == 12


def test_people_of_another_keypoint_set_are_judged_on_the_joints_that_both_have(tmp_path, capsys):
    lsp = from_synthetic(make_people(16, LSP14, SIZE, seed=1, margin=STORE_MARGIN))
    Trainer(TINY, lsp, None, tmp_path / "run", "cpu", bars=False).fit()
    store_of(tmp_path / "store", ["test"] * 12, "lspet", COCO17)
    results = evaluate_checkpoint(
        tmp_path / "run", "lspet", tmp_path / "store", "test", device="cpu", bars=False
    )
    said = capsys.readouterr().out
    assert "finds lsp keypoints" in said and "the 12 of 17 that both have" in said
    joints = results["scores"]["PCK@0.2 torso"]["joints"]
    # what the network does not know is not told of as "labelled on nobody"
    assert 0 <= joints["left_wrist"] <= 100 and list(joints) == list(COCO17.names[5:])
    assert "nobody" not in format_scores(results["scores"])


@pytest.mark.parametrize("found, labelled, measure, unknown", [
    (COCO17, LSP14, "PCK@0.5 head", "head_top"),
    (COCO17, MPII16, "PCK@0.5 head", "upper_neck and head_top"),
    (UPPER, COCO17, "PCK@0.2 torso", "right_hip"),
])
def test_a_measure_of_joints_that_the_network_does_not_know_says_so(
    tmp_path, found, labelled, measure, unknown,
):
    "Everybody's are labelled: nobody is left out because something is not visible."
    people = from_synthetic(make_people(8, labelled, SIZE, seed=1, margin=STORE_MARGIN))
    joints, sure = torch.zeros(8, len(found), 2), torch.ones(8, len(found))
    scores = score_answers(joints, sure, people, found, None, tmp_path)
    line, = (line for line in format_scores(scores).splitlines() if line.startswith(measure))
    assert line.endswith(f"  not measured: the network does not know {unknown}")
    # the other measures, and the same people with a network of their own joints, say what they did
    assert sum("unknown" in row for row in scores.values()) == 1
    own = score_answers(people.photo_joints, torch.ones(8, len(labelled)), people, labelled, None,
                        tmp_path)
    assert "not measured" not in format_scores(own) and own[measure]["people"]


@pytest.mark.parametrize("found, gone", [
    (MPII16, set()), (COCO17, {"Head"}), (UPPER, {"Head", "Hip", "Knee", "Ankle"}),
])
def test_a_judged_network_is_told_its_groups_of_pckh(tmp_path, found, gone):
    "All that the network knows whole; what they are of is called by other names than its joints."
    people = from_synthetic(make_people(4, MPII16, SIZE, seed=1, margin=STORE_MARGIN))
    people = replace(people, head_boxes=torch.tensor([[10.0, 10], [20, 25]]).expand(4, 2, 2))
    truth = map_keypoints(people.photo_joints, people.visible, MPII16, found)[0]
    whole = score_joints(people.photo_joints, people)["PCKh"]["joints"]
    told = score_answers(truth, torch.ones(4, len(found)), people, found, None, tmp_path)
    assert set(whole) - set(told["PCKh"]["joints"]) == gone
    assert told["PCKh"]["joints"]["Mean@0.10"] == told["PCKh"]["joints"]["Elbow"] == 100


def test_who_is_left_out_of_oks_is_not_said_to_have_no_visible_size():
    "Nothing is labelled of the joints that both know, or the area is not known."
    row = dict(mean=50.0, interval=[40.0, 60.0], joints={}, people=3, left_out=2)
    lines = format_scores({"OKS": row, "PCK@0.2 torso": row}).splitlines()
    assert [line.partition("left out: ")[2] for line in lines] == [
        "none of their joints counts, or their area is not known)", "their size is not visible)",
    ]


def test_a_joint_of_people_who_are_left_out_is_not_called_unlabelled():
    people = synthetic_people("test", SIZE, 4)
    seen = torch.ones_like(people.visible)
    seen[:2, 0], seen[2:, 5] = 0, 0    # a nose, or a torso
    told = format_scores(score_joints(people.photo_joints, replace(people, visible=seen)))
    assert "    nose              labelled on nobody who is measured\n" in told
    seen[2:, 0], seen[2:, 5] = 0, 1
    told = format_scores(score_joints(people.photo_joints, replace(people, visible=seen)))
    assert "    nose              labelled on nobody\n" in told


def test_whose_area_nobody_knows_is_left_out_of_oks():
    "A store may hold areas of some people only."
    hands = KeypointSet("hands", ("nose", "left_wrist", "right_wrist"), (), (), (.026, .062, .062))
    people = from_synthetic(make_people(4, hands, SIZE, seed=1, margin=STORE_MARGIN))
    areas = torch.tensor([900.0, 900, torch.nan, 900])
    known, some = (replace(people, visible=torch.ones_like(people.visible), areas=a)
                   for a in (areas.nan_to_num(900), areas))
    joints = people.photo_joints + torch.tensor([0.0, 1, 2, 3]).reshape(4, 1, 1)
    whole = score_joints(joints[[0, 1, 3]], known.select([0, 1, 3]))["OKS"]
    told = score_joints(joints, some)["OKS"]
    assert told == whole | {"left_out": 1} and told["people"] == 3


def test_intervals_draw_photographs_with_all_people_in_them():
    apart = synthetic_people("test", SIZE, 24)
    together = replace(apart, image_ids=torch.arange(24) // 6)
    joints = apart.photo_joints + 6 * torch.randn(24, 17, 2, generator=torch.manual_seed(0))
    joints[:6] += 40    # a photograph on which everybody is missed
    alone, grouped = (score_joints(joints, crops) for crops in (apart, together))
    assert alone and alone.keys() == grouped.keys()
    width = lambda row: row["interval"][1] - row["interval"][0]
    for name, row in grouped.items():
        assert row["mean"] == alone[name]["mean"] and width(row) > 1.2 * width(alone[name])
    stored = stored_score(pck(joints, together.photo_joints, together.visible, COCO17), together)
    assert stored["interval"] == grouped["PCK@0.2 torso"]["interval"]
    assert photos_of(stored) == together.image_ids.tolist()


def coco_folder(root, people=3):
    "A folder as COCO's own: a file of validation people, and their photographs."
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    found = [
        dict(id=i, image_id=i, bbox=[10, 5, 50, 50], area=2000, num_keypoints=17,
             keypoints=[n for k in range(17) for n in (15 + 2 * k, 10 + 2 * k, 2)])
        for i in range(1, people + 1)
    ]
    for i in range(1, people + 1): picture(i).save(root / "val2017" / f"{i}.jpg")
    text = json.dumps(coco_file(found, people))
    (root / "annotations" / "person_keypoints_val2017.json").write_text(text)
    return root


def test_on_coco_the_published_score_is_said_with_its_conditions(tmp_path, capsys):
    root, run = coco_folder(tmp_path / "coco"), tmp_path / "run"
    people = from_synthetic(make_people(16, COCO17, SIZE, seed=1, margin=STORE_MARGIN))
    Trainer(TINY.change(model="tokenpose_s_v1"), people, None, run, "cpu", bars=False).fit()
    judge = dict(data="coco", root=root, split="val", device="cpu", bars=False)
    assert "AP" in evaluate_checkpoint(run, **judge)["scores"]
    assert (
        "published AP of tokenpose_s_v1: 72.5 (TokenPose, Table 7), on all of COCO val2017 at "
        "256 x 192 in a detector's boxes; here: 3 people at 64 x 48 in annotated boxes, with "
        "another width, depth, heads\n"
    ) in capsys.readouterr().out
    # other people than COCO's, whatever they are called
    file = {"annotations": "annotations/person_keypoints_val2017.json"}
    evaluate_checkpoint(run, **judge, reader_options=file)
    assert "published AP" not in capsys.readouterr().out
    # of this network nothing was published
    Trainer(TINY, people, None, tmp_path / "nano", "cpu", bars=False).fit()
    evaluate_checkpoint(tmp_path / "nano", **judge)
    assert "published AP" not in capsys.readouterr().out


def test_joints_in_another_spelling_have_ap_too(tmp_path, capsys):
    root = coco_folder(tmp_path / "coco")
    file = root / "annotations" / "person_keypoints_val2017.json"
    judge = dict(data="coco", root=root, split="val", device="cpu", bars=False, out=tmp_path / "r")
    plain = evaluate_checkpoint("tokenpose_nano", **judge)["scores"]
    content = json.loads(file.read_text())
    kind = content["categories"][0]
    kind["keypoints"] = [name.replace("_", " ").title() for name in kind["keypoints"]]
    file.write_text(json.dumps(content))
    assert evaluate_checkpoint("tokenpose_nano", **judge)["scores"]["AP"] == plain["AP"]


def test_who_was_learned_from_is_known_in_another_file_and_split(tmp_path, capsys):
    crops = store_of(tmp_path / "all", ["val"] * 8)
    first = replace(crops.select(range(4)), split=["train"] * 4)
    header = StoreHeader("coco", COCO17, tuple(crops.images.shape[2:]), STORE_MARGIN, {})
    write_store(tmp_path / "first", header, crop_rows(first))
    train_recipe(TINY, "coco", tmp_path / "first", tmp_path / "run", "cpu", bars=False)
    capsys.readouterr()
    # who begins with it knows them too
    second = replace(crops.select(range(4, 6)), split=["train"] * 2)
    write_store(tmp_path / "second", header, crop_rows(second))
    more = TINY.change(start=str(tmp_path / "run"))
    train_recipe(more, "coco", tmp_path / "second", tmp_path / "more", "cpu", bars=False)
    about, _ = read_about(tmp_path / "more" / "config.json")
    assert known_people(about.model_dump(), crops) == 6
    capsys.readouterr()
    judge = dict(data="coco", root=tmp_path / "all", split="val", device="cpu", bars=False)
    evaluate_checkpoint(tmp_path / "run", **judge)
    assert "run was trained on 4 of these 8 people: the score says too much" in (
        capsys.readouterr().out
    )
    compare_networks(tmp_path / "run", "tokenpose_nano", **judge)
    assert "trained on 4 of these 8 people" in capsys.readouterr().out
    evaluate_checkpoint("tokenpose_nano", out=tmp_path / "other", **judge)
    assert "trained on" not in capsys.readouterr().out


def test_photographs_of_two_splits_may_have_the_same_numbers():
    crops = replace(synthetic_people("test", SIZE, 6), image_ids=torch.tensor([1, 1, 2, 1, 2, 2]))
    crops = replace(crops, split=["train"] * 3 + ["val"] * 3)
    assert crops.photos.tolist() == [0, 0, 1, 2, 3, 3]


def test_one_or_two_joints_tell_nobody():
    crops = synthetic_people("test", SIZE, 4)
    few = torch.zeros_like(crops.visible)
    few[:, 0] = 1
    known = pack_marks(replace(crops, name="mine", visible=few))
    assert known_people(known, replace(crops, visible=few)) == 0


def test_crops_with_fewer_pixels_than_the_network_reads_are_said(tmp_path, capsys):
    store_of(tmp_path, ["val"] * 4)
    load_people("coco", tmp_path, ("val",), SIZE, False)
    assert "WARNING" not in capsys.readouterr().out
    load_people("coco", tmp_path, ("val",), (128, 96), False)
    words = f"WARNING: {tmp_path} holds crops of 96x72, and people for 128x96 are cut as 192x144"
    assert words in capsys.readouterr().out


def test_answers_are_put_under_the_names_that_the_people_have():
    crops = synthetic_people("test", SIZE, 5)
    truth = crops.photo_joints
    as_lsp, _ = map_keypoints(truth, torch.ones(5, 17), COCO17, LSP14)
    named, left = answer_in_terms_of(crops, as_lsp, LSP14)
    counted = left.visible > 0
    assert torch.equal(named[counted], truth[counted]) and not left.visible[:, :5].any()
    assert torch.equal(left.visible[:, 5:], crops.visible[:, 5:])
    with pytest.raises(DataError, match="has none"):
        corners = replace(
            COCO17, name="corners", names=tuple(f"corner {i}" for i in range(17)), flip_pairs=(),
        )
        answer_in_terms_of(crops, truth, corners)


def test_the_mirrored_test_mirrors_what_the_network_finds(tmp_path):
    lsp = from_synthetic(make_people(16, LSP14, SIZE, seed=1, margin=STORE_MARGIN))
    network = Trainer(TINY, lsp, None, None, "cpu", bars=False).fit()
    coco = synthetic_people("test", SIZE, 6)
    as_lsp = replace(
        coco, keypoint_set=LSP14, joints=coco.joints[:, :14], visible=coco.visible[:, :14]
    )
    one = predict_joints(network, coco, TINY, bars=False, keypoint_set=LSP14)[0]
    assert torch.equal(one, predict_joints(network, as_lsp, TINY, bars=False)[0])


GERMAN = ("Nase", "Knie links", "Knie rechts", "left elbow")


def german_run(root):
    "A data set whose joints nobody knows by name, and a run that learned from it, in its folder."
    points = [[10 * n, 20, 2, 30, 30 + n, 2, 50, 40, 2, 40, 20, 2] for n in range(1, 4)]
    content = coco_file([
        dict(id=n, image_id=n, keypoints=p, bbox=[5, 5, 60, 50], area=900)
        for n, p in enumerate(points, 1)
    ])
    content["categories"][0]["keypoints"] = list(GERMAN)
    for n in range(1, 4): picture(n).save(root / f"{n}.jpg")
    (root / "people.json").write_text(json.dumps(content))
    people = load_people("coco", root, "all", SIZE, bars=False, annotations="people.json")["all"]
    Trainer(TINY, people, None, root / "run", "cpu", bars=False).fit()
    return dict(data="coco", root=root, split="val", device="cpu", bars=False)


@pytest.fixture
def german(tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    return german_run(tmp_path), tmp_path / "run"


def test_conditions_say_whether_this_network_was_mirrored(german):
    "Its own pairs change places, not those that are named for the people who judge it."
    how, run = german
    pairs = dict(annotations="people.json", flip_pairs="Knie links:Knie rechts")
    with_pairs, without = (
        evaluate_checkpoint(run, **how, reader_options=pairs, mirror=mirror)
        for mirror in (True, False)
    )
    assert with_pairs["scores"] == without["scores"]
    assert not with_pairs["conditions"]["mirror"]
    values = json.loads((run / "config.json").read_text())
    values["keypoint_set"]["flip_pairs"] = [[1, 2]]
    (run / "config.json").write_text(json.dumps(values))
    none = dict(annotations="people.json", flip_pairs="none")
    assert evaluate_checkpoint(run, **how, reader_options=none)["conditions"]["mirror"]


def test_ap_by_sigmas_that_nobody_knows_says_so(german, capsys):
    how, run = german
    path = run.parent / "people.json"
    said = "as the OKS sigma of Nase, Knie links, Knie rechts (3 of 4 keypoints)"
    judge = lambda: evaluate_checkpoint(run, **how, reader_options=dict(annotations="people.json"))
    capsys.readouterr()
    assert "AP" in judge()["scores"]
    out = capsys.readouterr().out
    assert said in out and out.count("no mirror pairs are known") == 1
    content = json.loads(path.read_text())
    content["categories"][0]["sigmas"] = [.05, .072, .072, .08]
    path.write_text(json.dumps(content))
    judge()
    assert "as the OKS sigma of" not in capsys.readouterr().out


def test_answers_of_an_earlier_judging_do_not_stay_beside_a_score(german, capsys):
    how, run = german
    answers, options = run / "keypoint-results.json", dict(annotations="people.json")
    evaluate_checkpoint(run, **how, reader_options=options)
    assert answers.exists() and "is removed" not in capsys.readouterr().out
    more = json.loads((run.parent / "people.json").read_text())
    for entry in more["images"] + more["annotations"]: entry["id"] += 10
    for a in more["annotations"]: a |= dict(image_id=a["image_id"] + 10, bbox=[6, 6, 60, 50])
    (run.parent / "more.json").write_text(json.dumps(more))
    both = dict(annotations=["people.json", "more.json"])
    assert "AP" not in evaluate_checkpoint(run, **how, reader_options=both)["scores"]
    assert not answers.exists() and f"{answers} is removed" in capsys.readouterr().out


def test_only_missing_validation_people_make_a_training_without_them(tmp_path, capsys):
    store_of(tmp_path / "alone", ["train"] * 8)
    assert load_judges("coco", tmp_path / "alone", SIZE, bars=False) is None
    assert "without validation people: coco has train" in capsys.readouterr().out
    store_of(tmp_path / "both", ["train"] * 8 + ["val"] * 4)
    assert len(load_judges("coco", tmp_path / "both", SIZE, bars=False)) == 4
    shard = next((tmp_path / "both").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match="both"):
        load_judges("coco", tmp_path / "both", SIZE, bars=False)


def test_a_number_of_people_is_for_synthetic_ones(tmp_path):
    store_of(tmp_path / "store", ["train"] * 8)
    with pytest.raises(DataError, match="--people .* coco has its own"):
        load_people("coco", tmp_path / "store", ("train",), SIZE, bars=False, people=4)


@pytest.mark.parametrize("size, good", [
    (np.int64(2), True), (3, True), (0, False), (-1, False), (2.0, False), ("2", False),
])
def test_people_are_judged_in_batches_of_a_whole_number(size, good):
    people = from_synthetic(make_people(5, COCO17, SIZE, seed=1, margin=1.5))
    network = create_model("tokenpose_nano", image_size=SIZE, **TINY.overrides)
    judged = lambda: evaluate(network, people, TINY, batch_size=size, bars=False)
    if good: assert judged()["PCK@0.2 torso"]["people"]
    else:
        with pytest.raises(DataError, match=f"^batch_size is {size!r}; it must be"): judged()


def test_nobody_to_measure_is_said_in_words():
    assert format_scores({}) == "nobody could be measured"


def test_training_and_judging_other_people_than_the_run_began_with_is_refused(tmp_path, capsys):
    "Who was left out of the data set is said once, though learners and judges are read one by one."
    store_of(tmp_path / "store", ["train"] * 8 + ["val"] * 4)
    settings = dict(
        data="coco", root=tmp_path / "store", out=tmp_path / "run", device="cpu", bars=False
    )
    train_recipe(TINY, **settings)
    assert capsys.readouterr().out.count("left out") == 1
    crops = from_synthetic(make_people(12, COCO17, SIZE, seed=9, margin=STORE_MARGIN))
    crops = replace(crops, split=["train"] * 8 + ["val"] * 4, name="coco")
    header = StoreHeader("coco", COCO17, tuple(crops.images.shape[2:]), STORE_MARGIN, {})
    write_store(tmp_path / "store", header, crop_rows(crops), overwrite=True)
    with pytest.raises(DataError, match="people_digest"):
        train_recipe(TINY, resume=True, **settings)
    assert load_network(tmp_path / "run")[2] == COCO17


def save_people(root, file="annotations/person_keypoints_val.json"):
    "Six people of COCO's keypoints, two in a picture, side by side."
    rng, annotations = np.random.default_rng(0), []
    for i in range(6):
        box = [10. + 110 * (i % 2), 15., 70., 130.]
        points = box[:2] + rng.uniform(.05, .95, (17, 2)) * box[2:]
        triples = np.concatenate([points, np.full((17, 1), 2.)], 1).ravel().tolist()
        annotations.append(dict(id=i + 1, image_id=i // 2 + 1, category_id=1, bbox=box,
                                area=5000., iscrowd=0, keypoints=triples))
    images = [dict(id=i, file_name=f"{i}.png", width=200, height=160) for i in (1, 2, 3)]
    (root / "images").mkdir(parents=True)
    for i in images: Image.new("RGB", (200, 160)).save(root / "images" / i["file_name"])
    categories = [dict(id=1, name="person", keypoints=list(COCO17.names))]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / file).write_text(json.dumps(content))
    return annotations


def test_in_a_detectors_boxes_pck_is_of_the_people_whom_they_show(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    root, people = tmp_path / "data", save_people(tmp_path / "data")
    # nobody finds person 3; one box is between two people, and one shows person 1 less well
    rows = [
        dict(image_id=a["image_id"], category_id=1, bbox=a["bbox"], score=.9)
        for a in people[::-1] if a["id"] != 3
    ]
    rows += [dict(image_id=2, category_id=1, bbox=[60., 15, 70, 130], score=.8),
             dict(image_id=1, category_id=1, bbox=[14., 10, 70, 130], score=.99)]
    (root / "boxes.json").write_text(json.dumps(rows))
    crops = load_people("coco", root, ("val",), SIZE, False, boxes="boxes.json")["val"]
    assert len(crops) == 7 and not crops.visible.any()
    truth = coco_annotations("coco", root, "val")
    shown = [a for a in people[::-1] if a["id"] != 3]
    points = np.array([a["keypoints"] for a in shown]).reshape(5, 17, 3)[..., :2]
    answers = np.concatenate([points, np.zeros((2, 17, 2))])
    answers[0, :4] += 500
    # in the order of the boxes; crops are cut picture by picture
    middles = np.array([np.add(r["bbox"][:2], np.divide(r["bbox"][2:], 2)) for r in rows])
    pictures = np.array([r["image_id"] for r in rows])
    order = [
        int(np.flatnonzero((pictures == i) & (np.abs(middles - c).max(1) < 1e-3))[0])
        for i, c in zip(crops.image_ids.tolist(), crops.centers.numpy())
    ]
    assert sorted(order) == list(range(7))
    joints, sure = torch.tensor(answers[order]).float(), torch.ones(7, 17)
    scores = score_answers(joints, sure, crops, COCO17, truth, tmp_path, SIZE)
    assert "PCK is of the 5 of 6 people whom a box shows; the others" in capsys.readouterr().out
    byhand = pck(answers[:5], points, np.ones((5, 17)), COCO17)
    assert scores["PCK@0.2 torso"]["people"] == 5 and 90 < byhand["mean"] < 100
    assert scores["PCK@0.2 torso"]["mean"] == pytest.approx(byhand["mean"], abs=1e-6)
    assert 0 < scores["AP"]["mean"] < 100
    assert scores["AP"]["people"] == 6    # who are annotated, not the seven boxes


def test_boxes_may_lie_in_the_zip_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    root, people = tmp_path / "data", save_people(tmp_path / "data")
    rows = [dict(image_id=a["image_id"], category_id=1, bbox=a["bbox"], score=.9) for a in people]
    (root / "boxes.json").write_text(json.dumps(rows))
    packed = shutil.make_archive(root, "zip", root)
    judge = dict(data="coco", split="val", device="cpu", bars=False, out=tmp_path / "r")
    folder, inside = (
        evaluate_checkpoint("tokenpose_nano", root=place, boxes="boxes.json", **judge)
        for place in (root, packed)
    )
    assert inside["scores"] == folder["scores"] and inside["conditions"]["boxes_digest"]


def test_people_of_two_files_have_pck_and_the_reason_why_there_is_no_ap(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    root, two = tmp_path / "data", ["a.json", "b.json"]
    save_people(root, "a.json")
    content = json.loads((root / "a.json").read_text())
    for i, image in enumerate(content["images"], 4):
        image |= dict(id=i, file_name=f"{i}.png")
        Image.new("RGB", (200, 160)).save(root / "images" / f"{i}.png")
    for person in content["annotations"]: person |= dict(image_id=person["image_id"] + 3)
    (root / "b.json").write_text(json.dumps(content))
    reader = dict(annotations=two, images="images", val_share=.4)
    judge = dict(data="coco", root=root, split="val", device="cpu", bars=False, out=tmp_path / "r")
    scores = evaluate_checkpoint("tokenpose_nano", **judge, reader_options=reader)["scores"]
    assert [*scores] == ["PCK@0.2 torso"] and scores["PCK@0.2 torso"]["people"] == 4
    assert "no AP: AP is counted on one annotation file, and" in capsys.readouterr().out
    # in a detector's boxes, here of one of the two files, there is nothing else to tell
    row = dict(image_id=1, category_id=1, bbox=[10, 10, 70, 130], score=.9)
    (root / "boxes.json").write_text(json.dumps([row]))
    judge |= dict(boxes="boxes.json", split="all")
    with pytest.raises(DataError, match="AP is counted on one annotation file"):
        evaluate_checkpoint("tokenpose_nano", **judge, reader_options=reader | {"val_share": 0.})


def test_what_can_be_done_about_a_split_without_people_can_be_done(tmp_path, monkeypatch):
    monkeypatch.setenv("DPPT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    save_people(root, "result.json")
    load = lambda *splits, **words: load_people("coco", root, splits, SIZE, bars=False, **words)
    with pytest.raises(DataError) as error: load("train")
    assert str(root) in str(error.value) and "it has val 6" in str(error.value)
    assert "say --annotations train=result.json, or hold some out" in str(error.value)
    assert len(load("train", annotations=["train=result.json"])["train"]) == 6
    shared = load("train", "val", val_share=.1)
    assert [len(shared[s]) for s in ("train", "val")] == [4, 2]
    with pytest.raises(DataError, match="judge on others with --split, or"): load("test")
    (root / "result.json").rename(root / "train.json")
    with pytest.raises(DataError, match="name their file with --annotations val=FILE"):
        load("val", annotations=["train.json"])


def test_what_a_store_cannot_do_anything_about_is_refused(tmp_path):
    store_of(tmp_path / "store", ["val"] * 8)
    for words in (dict(boxes="boxes.json"), dict(category="dog"), dict(annotations=["a.json"])):
        with pytest.raises(DataError, match=f"--{next(iter(words))} says what crops are cut from"):
            load_people("coco", tmp_path / "store", ("val",), SIZE, bars=False, **words)
    with pytest.raises(DataError, match="--category goes with data sets in COCO's format"):
        load_people("synthetic", None, ("val",), SIZE, people=4, category="dog")


def test_stored_answers_are_as_good_as_they_say(root, monkeypatch):
    "README's picture of six people: the hits follow from the joints, the command draws them again."
    monkeypatch.syspath_prepend(str(root / "tools"))    # it imports another one there
    answers = tool(root, "answers")
    results = json.loads(answers.RESULTS.read_text())
    for row in results["people"]:
        found, true, visible = (torch.tensor([row[k]]) for k in ("found", "true", "visible"))
        result = pck(found, true, visible, LSP14)
        assert (int(result["hits"].sum()), int(result["counts"].sum())) == (
            row["hits"], row["counts"]
        )
    shares = [row["hits"] / row["counts"] for row in results["people"]]
    assert shares == sorted(shares) and len(answers.draw(results).axes) == len(shares)


def tool(root, name):
    "A program of the folder tools, as a module."
    spec = importlib.util.spec_from_file_location(name, root / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_seventy_photographs_are_cut_out_of_coco(root, tmp_path):
    "Two empty photographs a split more than are wanted stay behind; one that is missing is named."
    coco_70 = tool(root, "coco_70")
    wanted = json.loads(coco_70.IDS.read_text())
    content = {}
    for split in ("val2017", "train2017"):
        (tmp_path / split).mkdir()
        ids = [*wanted[split], 900_001, 900_002]
        for number in ids: (tmp_path / split / f"{number}.jpg").write_bytes(b"")
        content[split] = dict(
            images=[dict(id=n, file_name=f"{n}.jpg") for n in ids],
            annotations=[dict(id=n + k, image_id=n) for n in ids for k in (0, 1_000_000)],
            categories=[dict(id=1, name="person")],
        )
    def run():
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for split, found in content.items():
            path = tmp_path / "annotations" / f"person_keypoints_{split}.json"
            path.write_text(json.dumps(found))
        words = ["--root", str(tmp_path), "--out", str(tmp_path / "mini")]
        return CliRunner().invoke(coco_70.main, words)
    assert "70 photographs, 140 people" in run().output
    cut = json.loads((tmp_path / "mini" / "annotations" / "person_keypoints.json").read_text())
    ids = [image["id"] for image in cut["images"]]
    assert ids == sorted(wanted["val2017"] + wanted["train2017"])
    assert len([*(tmp_path / "mini" / "images").iterdir()]) == 70
    gone = content["val2017"]["images"].pop(0)["id"]
    assert f"ids [{gone}] are not in" in run().output


@pytest.mark.parametrize("name, words", [("answers", []), ("scores", ["--out", "scores.json"])])
def test_tools_say_what_is_wrong_in_a_sentence(root, tmp_path, name, words):
    done = CliRunner().invoke(tool(root, name).main, ["--root", str(tmp_path), *words])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert f"Error: {tmp_path} has no joints.mat" in done.output


def test_judging_leaves_every_part_in_its_mode():
    "A network that is judged while it learns goes on learning, and what is frozen stays so."
    crops = from_synthetic(make_people(4, COCO17, SIZE, seed=1, margin=STORE_MARGIN))
    model = create_model("tokenpose_nano", 17, SIZE, width=32, depth=1, heads=2).train()
    model.backbone.eval()
    modes = {name: part.training for name, part in model.named_modules()}
    quiet = predict_joints(model, crops, TINY, bars=False)
    assert modes == {name: part.training for name, part in model.named_modules()}
    assert torch.equal(quiet[0], predict_joints(model.eval(), crops, TINY, bars=False)[0])
    with pytest.raises(DataError):
        predict_joints(model.train(), crops, TINY, batch_size=0, bars=False)
    assert model.training

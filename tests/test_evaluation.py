"""Judging: conditions beside the number, other keypoint sets, people who are not there."""
import json
import math
from dataclasses import replace

import pytest
import torch

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.evaluation import (
    answer_in_terms_of,
    evaluate_checkpoint,
    format_scores,
    predict_joints,
)
from dppt_nb.keypoints import COCO17, LSP14, map_keypoints
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
from dppt_nb.synthetic import make_people
from dppt_nb.training import Trainer
from dppt_nb.writing import write_store

SIZE = (64, 48)
TINY = Recipe(
    image_size=SIZE, overrides=dict(width=32, depth=1, heads=2), epochs=1, batch_size=16,
    warmup_steps=3,
)


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
    assert 0 <= joints["left_wrist"] <= 100 and math.isnan(joints["nose"])    # NaN: not judged


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


def test_nobody_to_measure_is_said_in_words():
    assert format_scores({}) == "nobody could be measured"


def test_training_and_judging_other_people_than_the_run_began_with_is_refused(tmp_path):
    store_of(tmp_path / "store", ["train"] * 8 + ["val"] * 4)
    settings = dict(
        data="coco", root=tmp_path / "store", out=tmp_path / "run", device="cpu", bars=False
    )
    train_recipe(TINY, **settings)
    crops = from_synthetic(make_people(12, COCO17, SIZE, seed=9, margin=STORE_MARGIN))
    crops = replace(crops, split=["train"] * 8 + ["val"] * 4, name="coco")
    header = StoreHeader("coco", COCO17, tuple(crops.images.shape[2:]), STORE_MARGIN, {})
    write_store(tmp_path / "store", header, crop_rows(crops), overwrite=True)
    with pytest.raises(DataError, match="people_digest"):
        train_recipe(TINY, resume=True, **settings)
    assert load_network(tmp_path / "run")[2] == COCO17

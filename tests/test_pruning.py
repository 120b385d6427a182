"""Pruning: what stays, by whose choice, and when; and the small networks that travel with the
package, one of which prunes."""
import copy
import importlib.util
import json
import math
import tomllib

import numpy as np
import pytest
import torch
from sampling import sample

from dppt_nb.checkpoints import load_network
from dppt_nb.crops import normalize
from dppt_nb.heatmaps import average_flip
from dppt_nb.keypoints import COCO17
from dppt_nb.merging import match_tokens, merge
from dppt_nb.models import create_model
from dppt_nb.pruning import (
    REDUCERS,
    KeepPlaces,
    KeepRandom,
    draw_kept,
    joints_kept,
    keep_patches,
    keep_ratio_at,
    keep_top,
    often_kept,
    patch_scores,
    patches_left,
    sum_by_owner,
    whole_grid,
)
from dppt_nb.recipes import Recipe
from dppt_nb.released import load_released
from dppt_nb.synthetic import make_people
from dppt_nb.tokenpose import Attention, PoseTransformer

SHIPPED = ("tokenpose_nano", "ppt_nano_d12")    # trained on people made by program
OF_PHOTOGRAPHS = {
    f"{name}_lspet"
    for name in (
        "tokenpose_s", "ppt_s", "dppt_s", "tokenpose_nano", "dppt_nano", "sdpose_nano",
        "tokenpose_lite",
    )
}


def test_schedule_of_the_release():
    ratios = [keep_ratio_at(epoch) for epoch in np.linspace(0, 300, 3001)]
    assert all(r == 1 for r in ratios[:101]) and all(math.isclose(r, 0.7) for r in ratios[1100:])
    assert (np.diff(ratios) <= 0).all() and (np.diff(ratios[101:1100]) < 0).all()
    for epoch in (10, 33, 55, 109.5):  # EViT's formula, written out; warm-up 10, then 100
        assert math.isclose(
            keep_ratio_at(epoch), 0.7 + 0.3 * (math.cos((epoch - 10) / 100 * math.pi) + 1) * 0.5
        )
    assert keep_ratio_at(4, final=0.5, start=2, end=6) == 0.75


@pytest.mark.parametrize("start, end", [(5, 5), (10, 3), (-1, 5)])
def test_wrong_schedules_are_refused(start, end):
    with pytest.raises(ValueError, match="start must come before end"):
        keep_ratio_at(1, start=start, end=end)


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.7, 0.5, 0.3, 0.01])
def test_patches_left_are_those_of_the_network(ratio):
    model = create_model("ppt_s", 5, (128, 96), keep_ratio=ratio).eval()
    with torch.no_grad(): kept = model.trace(torch.randn(1, 3, 128, 96)).kept[0]
    assert [48, *(kept[layer].shape[1] for layer in (3, 6, 9))] == patches_left(48, ratio)


def test_patches_left_of_the_release():
    assert patches_left(256, 0.7) == [256, 180, 126, 89]


PLACES = torch.arange(48.) % 7  # many are alike
WAYS = {**REDUCERS, "same places": KeepPlaces(PLACES)}


def lively(way, **overrides):
    "A network whose attention differs from patch to patch, reduced in one of the ways."
    torch.manual_seed(4)
    model = create_model("ppt_nano", 5, (128, 96), **overrides).eval()
    for block in model.encoder.blocks: block.attention.qkv.weight.data *= 4
    model.encoder.reducer = WAYS[way]
    return model


def check_record(trace, patches=48):
    "What must hold of every layer's record, whoever wrote it."
    for cycle, layers in enumerate(zip(trace.kept, trace.owner, trace.patch_tokens)):
        for layer, (kept, owner, tokens) in enumerate(zip(*layers)):
            count = kept.shape[1]
            assert tokens.shape[1] == count and owner.shape[1] == patches
            assert (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < patches
            # every token owns the patch that it began as, and nobody owns what is gone
            assert torch.equal(owner.gather(1, kept), torch.arange(count).expand_as(kept))
            assert owner.min() >= -1 and owner.max() < count
            before = trace.column_owner(layer, cycle)
            assert ((before >= 0) | (owner < 0)).all()                     # nothing comes back
            assert before.max() + 1 == trace.columns[cycle][layer].shape[1]


@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize("name", WAYS)
def test_fast_path_and_record_of_every_reducer(name, cycles):
    model, images = lively(name, cycles=cycles), torch.randn(3, 3, 128, 96)
    for ratio, left in ((0.7, 17), (0.2, 1)):
        model.keep_ratio = ratio
        with torch.no_grad(): trace, answer = model.trace(images), model(images, cycles=cycles)
        kept, owner = trace.kept[-1][-1], trace.owner[-1][-1]
        assert kept.shape == (3, left)
        assert torch.allclose(answer, trace.heatmaps[-1], atol=1e-4 * answer.abs().max().item())
        check_record(trace)
        # pruning leaves each token its own patch, merging leaves nobody out
        alone = torch.stack([row[row >= 0].bincount(minlength=left) for row in owner])
        if name == "merge": assert (owner >= 0).all() and (alone.sum(1) == 48).all()
        else: assert (alone == 1).all()
        if ratio < 0.7: continue
        if name == "first": assert torch.equal(kept, torch.arange(17).expand(3, -1))
        # 20 places have 4, 5 or 6
        if name == "same places": assert (kept == kept[0]).all() and (kept % 7 >= 4).all()
        if name == "random": assert len({tuple(row) for row in kept.tolist()}) == 3


@pytest.mark.parametrize("name", REDUCERS)
def test_no_reduction_is_the_plain_network_to_the_bit(name):
    reduced, images = lively(name, reduce=name), torch.randn(2, 3, 128, 96)
    plain = create_model("tokenpose_nano", 5, (128, 96)).eval()
    plain.load_state_dict(reduced.state_dict())
    assert reduced.encoder.reducer is REDUCERS[name]
    with torch.no_grad():
        assert not torch.allclose(reduced(images), plain(images))
        reduced.keep_ratio = 1.0
        assert torch.equal(reduced(images), plain(images))
        assert torch.equal(reduced.trace(images, 2).heatmaps[1], plain.trace(images, 2).heatmaps[1])


def some_tokens(people=3, J=2, patches=7, width=4):
    x, code = torch.randn(people, J + patches, width), torch.randn(1, J + patches, width)
    return whole_grid(x, code, J), torch.randn(people, 2, J + patches, 5)


def merge_by_hand(x, code, keys, sizes, groups, count):
    """ToMe's Sec. 3 for one person, in lists: `groups` are the patches in each token, patch tokens
    only."""
    length = lambda v: math.sqrt(sum(float(a) ** 2 for a in v))
    alike = lambda a, b: sum(float(p) * float(q) for p, q in zip(a, b)) / length(a) / length(b)
    while len(x) > count:
        edges = []
        for a in range(0, len(x), 2):
            b = max(range(1, len(x), 2), key=lambda b: alike(keys[a], keys[b]))
            edges.append((alike(keys[a], keys[b]), a, b))
        merged = sorted(edges, reverse=True)[: min(len(x) - count, len(x) // 2)]
        members = {n: [n] for n in range(len(x))}
        for _, a, b in merged: members[b] += members.pop(a)
        mean = lambda rows, n: sum(sizes[m] * rows[m] for m in members[n]) / sum(
            sizes[m] for m in members[n]
        )
        x, code, keys = ([mean(rows, n) for n in members] for rows in (x, code, keys))
        groups = [sorted(p for m in members[n] for p in groups[m]) for n in members]
        sizes = [sum(sizes[m] for m in members[n]) for n in members]
    return x, code, sizes, groups


@pytest.mark.parametrize("counts", [(6,), (4,), (1,), (5, 3, 2)])
def test_merging_equals_the_paper_written_as_loops(counts):
    torch.manual_seed(0)
    tokens, keys = some_tokens()
    rows = torch.rand(3, 2, 2, 9)
    hand = [
        (list(x[2:]), list(tokens.code[0, 2:]), [1] * 7, [[n] for n in range(7)]) for x in tokens.x
    ]
    for count in counts:
        keys = torch.randn(3, 2, 2 + tokens.kept.shape[1], 5)
        first = tokens.x[:, :2]
        tokens = merge(tokens, rows, keys, count)
        assert torch.equal(tokens.x[:, :2], first) and not tokens.code[:, :2].isnan().any()
        for person in range(3):
            x, code, sizes, groups = hand[person]
            mean = list(keys[person].mean(0)[2:])
            hand[person] = merge_by_hand(x, code, mean, sizes, groups, count)
            x, code, sizes, groups = hand[person]
            assert torch.allclose(tokens.x[person, 2:], torch.stack(x), atol=1e-5)
            assert torch.allclose(tokens.code[person, 2:], torch.stack(code), atol=1e-5)
            assert tokens.sizes[person].tolist() == sizes and sum(sizes) == 7
            owned = [(tokens.owner[person] == n).nonzero().flatten().tolist() for n in range(count)]
            assert owned == groups


def test_only_the_most_similar_are_merged_and_all_others_stay_as_they_were():
    tokens, keys = some_tokens(people=1, patches=6)
    keys[:, :, 2 + 4] = 3 * keys[:, :, 2 + 1]                # patches 1 and 4 look the same way
    assert match_tokens(keys.mean(1)[:, 2:], 1)[0].tolist() == [0, 1, 2, 3, 1, 5]
    merged = merge(tokens, torch.rand(1, 2, 2, 8), keys, 5)
    assert merged.owner[0].tolist() == [0, 1, 2, 3, 1, 4]
    assert merged.kept[0].tolist() == [0, 1, 2, 3, 5]
    assert torch.allclose(merged.x[0, 2 + 1], (tokens.x[0, 2 + 1] + tokens.x[0, 2 + 4]) / 2)
    rest = [0, 1, 2, 4, 5, 7]
    assert torch.equal(merged.x[0, [0, 1, 2, 4, 5, 6]], tokens.x[0, rest])


def test_proportional_attention_is_attention_to_all_that_were_merged():
    "A token of size 3 weighs as much as three equal tokens (ToMe, Sec. 3)."
    attention, x = Attention(8, 2).eval(), torch.randn(1, 4, 8)
    copies = torch.cat((x, x[:, 3:], x[:, 3:]), 1)                                   # 3 + 3 equal
    bias = torch.tensor([[1.0, 1, 1, 3]]).log()
    with torch.no_grad():
        for rows in (0, 2, 4):
            mixed, weights, _ = attention(x, rows, bias)
            wanted, shares, _ = attention(copies, 6)
            assert torch.allclose(mixed, wanted[:, :4], atol=1e-6)
            if rows:
                summed = torch.cat((shares[..., :3], shares[..., 3:].sum(-1, keepdim=True)), -1)
                assert torch.allclose(weights, summed[:, :, :rows], atol=1e-6)


def test_sums_by_owner():
    values = torch.tensor([[[1.0, 2, 4, 8]], [[1, 2, 4, 8]]])
    owner = torch.tensor([[0, 0, -1, 1], [-1, 1, 1, 0]])
    assert sum_by_owner(values, owner, 2).tolist() == [[[3, 8]], [[8, 6]]]
    assert sum_by_owner(values[:, 0], owner, 3).tolist() == [[3, 8, 0], [8, 6, 0]]


def test_a_merged_patch_shows_its_owner_and_a_dropped_one_is_silent():
    head = create_model("ppt_nano", 5, (128, 96)).head.eval()
    maps = [torch.zeros(1, 32, 32, 24), torch.zeros(1, 64, 16, 12), torch.randn(1, 128, 8, 6)]
    tokens, owner = torch.randn(1, 2, 128), torch.arange(48)[None] % 3 - 1     # -1, 0, 1, -1 ...
    whole = torch.cat((torch.zeros(1, 1, 128), tokens), 1)[:, owner[0] + 1]
    given = []
    gone = owner[..., None] < 0
    hook = head.from_patches.register_forward_hook(
        lambda module, args, out: out if len(out[0]) == 2 else out.masked_fill(gone, 0)
    )
    with torch.no_grad():
        for x, o in ((tokens, owner), (whole, None)): given.append(head.pixels(x, maps, o))
    hook.remove()
    assert torch.allclose(*given, atol=1e-6)


@pytest.mark.parametrize("name", REDUCERS)
def test_gradients_reach_what_is_left(name):
    model = lively(name).train()
    model(torch.randn(2, 3, 128, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.tokens.embed.weight.grad.any()


def test_another_reducer_is_one_row():
    def keep_last(tokens, attention, keys, count):
        return keep_patches(tokens, torch.arange(tokens.kept.shape[1])[-count:].expand(2, -1))
    REDUCERS["last"] = keep_last
    try: model = create_model("ppt_nano", 5, (128, 96), reduce="last").eval()
    finally: del REDUCERS["last"]
    with torch.no_grad(): kept = model.trace(torch.randn(2, 3, 128, 96)).kept[0][-1]
    assert torch.equal(kept, torch.arange(31, 48).expand(2, -1))


def test_lots_are_seeded_and_fair():
    tokens, keys = some_tokens(people=500, patches=10)
    draw = lambda seed: KeepRandom(seed)(tokens, None, keys, 4).kept
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    often = torch.bincount(draw(1).flatten(), minlength=10) / 500
    assert (often - 0.4).abs().max() < 5 * math.sqrt(0.4 * 0.6 / 500)
    torch.manual_seed(3)
    before = torch.rand(1)
    torch.manual_seed(3)
    draw(1)
    assert torch.equal(torch.rand(1), before)  # nobody else's lots are touched


def test_a_fixed_mask_keeps_the_best_places_also_when_it_chooses_several_times():
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    # order: the best places first
    scores = torch.zeros(48)
    scores[order] = torch.arange(48, 0, -1.0)
    tokens, keys = some_tokens(people=1, patches=48)
    for count in (34, 24, 17):
        tokens = KeepPlaces(scores)(tokens, None, keys, count)
        assert tokens.kept[0].tolist() == sorted(order[:count].tolist())


def test_whether_a_joint_lies_in_a_kept_patch():
    kept, size, grid = torch.tensor([[0, 7], [1, 2]]), (64, 32), (4, 2)  # patches of 16 x 16 pixels
    joints = torch.tensor([[[15.4, 15.4], [15.6, 15.4], [31, 63], [-9, -9], [99, 99]]]).expand(
        2, -1, -1
    )
    assert joints_kept(kept, joints, size, grid).tolist() == [
        [True, False, True, True, True],
        [False, True, False, False, False],
    ]
    assert often_kept(kept, 8).tolist() == [0.5, 0.5, 0.5, 0, 0, 0, 0, 0.5]


def test_the_shipped_pruner_keeps_the_joints(pruner):
    "What the lesson shows: a joint's own patch stays more often than patches do."
    network, images = pruner
    people = make_people(len(images), image_size=(128, 96), seed=2)
    with torch.no_grad(): kept = network.trace(images, look=()).kept[0]
    for layer in network.config.prune_at:
        there = (
            joints_kept(kept[layer], people.joints, (128, 96), network.config.grid)[
                people.visible > 0
            ]
            .float()
            .mean()
        )
        assert there > kept[layer].shape[1] / 48 + 0.15


def test_scores_read_the_attention_given():
    shares = torch.zeros(2, 3, 4, 6)
    shares[0, 1, 2, 5], shares[1, 0, 0, 1] = 0.6, 0.3
    assert patch_scores(shares)[0].argmax() == 5 and patch_scores(shares)[1].argmax() == 1
    assert math.isclose(patch_scores(shares)[0, 5], 0.2, rel_tol=1e-6)


def test_drawn_survivors():
    image = np.full((32, 24, 3), 100, np.uint8)
    owner = torch.full((12,), -1)
    owner[[0, 11]] = torch.tensor([0, 1])
    drawn = draw_kept(image, owner, (4, 3), dim=0.5)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and (image == 100).all()
    light = drawn[::8, ::8, 0] == 100
    assert light.sum() == 2 and light[0, 0] and light[3, 2]
    assert (drawn[8:, :8] == [86, 70, 110]).all()    # half of what it was, half violet
    with pytest.raises(ValueError, match="32 x 24 pixels does not divide into 5 x 3 patches"):
        draw_kept(image, torch.zeros(15).long(), (5, 3))
    image[:8, :8], image[8:16, 8:16] = 40, 80                      # patches 0 and 4 become one
    merged = draw_kept(image, torch.tensor([0, 1, -1, 2, 0, *[-1] * 7]), (4, 3))
    assert (merged[:8, :8] == 60).all() and (merged[8:16, 8:16] == 60).all()
    assert (merged[:8, 8:16] == 100).all() and (merged[:8, 16:] == [79, 55, 115]).all()


@pytest.mark.parametrize("reduce", sample(["prune", "first", "merge"], 0))
def test_a_pruning_network_compiles_and_exports(reduce):
    "Token counts are fixed by the keep ratio, so the graph is one piece."
    model = create_model(
        "ppt_nano", 5, (128, 96), depth=3, prune_at=(0, 1), reduce=reduce
    ).eval()
    images = torch.randn(2, 3, 128, 96)
    with torch.no_grad():
        answer = model(images)
        assert torch.allclose(
            torch.export.export(model, (images,)).module()(images), answer, atol=1e-5
        )
        assert torch.allclose(
            torch.compile(model, backend="eager", fullgraph=True)(images), answer, atol=1e-5
        )


@pytest.fixture(scope="module")
def weights(root): return root / "dppt_nb" / "weights"


@pytest.fixture(scope="module")
def packer(root):
    "The tool that packs a run, as a module."
    spec = importlib.util.spec_from_file_location("packer", root / "tools" / "pack_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pruner(weights):
    "The twelve-layer network that was trained with pruning, and unseen people."
    return load_network(weights / "ppt_nano_d12")[0], normalize(
        make_people(24, image_size=(128, 96), seed=2).images
    )


def test_all_shipped_networks_are_known_small_and_packed(weights, root):
    assert {f.name for f in weights.iterdir()} == {*SHIPPED, *OF_PHOTOGRAPHS}
    assert sum(f.stat().st_size for f in weights.rglob("*") if f.is_file()) < 30e6
    packed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["dppt_nb"]
    assert {f for f in weights.rglob("*") if f.is_file()} <= {
        f for glob in packed for f in (root / "dppt_nb").glob(glob)
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_hold_numbers_and_words_only(weights, name):
    assert sorted(f.name for f in (weights / name).iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]
    content = (weights / name / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    assert {v["dtype"] for v in header.values()} <= {"F16", "I64"}
    assert len(content) == 8 + length + max(v["data_offsets"][1] for v in header.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_say_how_they_came_about(weights, packer, name):
    told = json.loads((weights / name / "config.json").read_text())
    assert packer.recipe_of(told["trained"]["command"]) == Recipe.from_dict(told["recipe"])
    assert (
        told["trained"]["people"] == 8000
        and told["trained"]["epochs"] == told["epoch"] == told["recipe"]["epochs"]
    )
    drawn, *photographs = told["judged"]
    assert (drawn["people"], drawn["split"]) == (1000, "test")
    assert told["data"] == drawn["data"] == "synthetic"
    assert [row["data"] for row in photographs] == ["lspet", "coco"]
    for row in (drawn["scores"], told["check"]["scores"]):
        low, high = row["PCK@0.2 torso"]["interval"]
        assert 50 < low < row["PCK@0.2 torso"]["mean"] < high < 100


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_score_what_they_say(weights, packer, name):
    told = json.loads((weights / name / "config.json").read_text())["check"]
    found = packer.judge(weights / name, people=told["people"])
    assert {k: found[k] for k in told if k != "scores"} == {
        k: told[k] for k in told if k != "scores"
    }
    # other processors round otherwise: a few joints at the border of 3,000 may fall on its other
    # side
    assert (
        abs(found["scores"]["PCK@0.2 torso"]["mean"] - told["scores"]["PCK@0.2 torso"]["mean"])
        < 0.5
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_load_alike_by_folder_and_by_name(weights, name):
    networks = [
        load_network(weights / name)[0], load_network(name)[0],
        PoseTransformer.from_pretrained(weights / name),
    ]
    for network in networks[1:]:
        assert network.config == networks[0].config and not network.training
        assert all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(network.state_dict().values(), networks[0].state_dict().values())
        )
    assert networks[2].about["judged"][0]["scores"]


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_of_networks_of_drawn_people_say_what_these_find_on_photographs(
    weights, packer, name
):
    "In the table and in words, the same for both; a network that was judged on none says so."
    judged = json.loads((weights / name / "config.json").read_text())["judged"]
    card = (weights / name / "README.md").read_text()
    assert packer.score_lines(judged) in card
    assert packer.SYNTHETIC["limits"].format(found=packer.seen_on_photos(judged)) in card
    told = "13 joints of athletes (LSPET) and 17 joints of everyday people (COCO)"
    assert told in packer.seen_on_photos(judged)
    assert packer.seen_on_photos(judged[:1]) == "it was not measured on real people"


def test_packing_refuses_what_it_cannot_stand_for(packer):
    with pytest.raises(SystemExit, match="does not fit into half precision"):
        packer.halve({"fine": torch.ones(2), "wide": torch.tensor([1e6])})
    halves = packer.halve({"weight": torch.tensor([1 / 3]), "counter": torch.tensor(70_000)})
    assert halves["weight"].dtype == torch.float16 and halves["counter"] == 70_000
    with pytest.raises(SystemExit, match="does not begin with dppt train"):
        packer.recipe_of("dppt eval here")
    assert (
        packer.recipe_of("dppt train tokenpose_nano --epochs 3 --rotation 5").augmentation.rotation
        == 5
    )


@pytest.mark.parametrize("data, changes, told", [
    ("synthetic", {}, ""), ("synthetic", dict(teacher="tokenpose_nano"), ""),
    ("lspet", {}, "it learned from people of lspet"),
    ("synthetic", dict(backbone_weights="lite0.pth"), "its backbone was trained before"),
    ("synthetic", dict(start="dppt_nano_lspet"), "it began with dppt_nano_lspet"),
    ("synthetic", dict(teacher="tokenpose_lite_lspet"), "it was taught by tokenpose_lite_lspet"),
    ("synthetic", dict(teacher="x.pth", teacher_model="ppt_s"), "it was taught by a released netw"),
    ("synthetic", dict(start="tokenpose_nano", backbone_weights="lite0.pth"), ""),
])
def test_a_card_of_drawn_people_is_of_networks_that_know_no_photograph(
    packer, tmp_path, data, changes, told
):
    recipe = Recipe(**changes)
    known = packer.photos_behind(data, recipe)
    assert known.startswith(told) and bool(known) == bool(told)
    if not told: return
    network = load_network("tokenpose_nano")[0]
    network.about["recipe"] = recipe.to_dict()
    network.save_pretrained(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps({"data": data}))
    words = ["run", str(tmp_path), "mine", "dppt train tokenpose_nano"]
    with pytest.raises(SystemExit, match=r"may know photographs \(it.*; pack it with `card`"):
        packer.main(words, standalone_mode=False)


def test_choices_are_the_same_every_time_and_in_any_company(pruner):
    network, images = pruner
    with torch.no_grad():
        kept, again, alone = (network.trace(x).kept[0][-1] for x in (images, images, images[5:6]))
    assert torch.equal(kept, again)
    # two scores may tie but for rounding
    assert len(set(kept[5].tolist()) & set(alone[0].tolist())) >= kept.shape[1] - 1
    assert len({tuple(row) for row in kept.tolist()}) > 1  # and it does look at the picture


def test_indices_of_indices_are_places_in_the_picture(pruner):
    """Each choice repeated from the attention that it was made by: number among survivors -> place
    in the grid."""
    network, images = pruner
    with torch.no_grad(): trace = network.trace(images)
    places, J = torch.arange(48).expand(len(images), -1), network.num_keypoints
    for layer, (attention, columns, kept) in enumerate(
        zip(trace.attention[0], trace.columns[0], trace.kept[0])
    ):
        assert torch.equal(columns, places) and attention.shape[-1] == J + places.shape[1]
        if layer in network.config.prune_at:
            chosen = keep_top(
                patch_scores(attention[:, :, :J, J:]), math.ceil(0.7 * places.shape[1])
            )
            places = torch.stack([row[pick] for row, pick in zip(places, chosen)])
        assert torch.equal(kept, places)
    assert kept.shape[1] == patches_left(48, 0.7)[-1] == 17


def test_a_learned_network_that_drops_nothing_is_the_plain_one(pruner):
    network, images = pruner
    plain = create_model(
        "tokenpose_nano", 17, (128, 96), depth=12, width=64, pyramid_blocks=1
    ).eval()
    network, plain = copy.deepcopy(network), load_released(plain, network.state_dict())
    with torch.no_grad():
        assert not torch.allclose(network(images), plain(images), atol=1e-3)
        network.keep_ratio = 1
        assert torch.allclose(network(images), plain(images), atol=1e-6)


def test_a_network_answers_alike_on_patches_that_were_noted_as_its_own(monkeypatch, root, pruner):
    "What `tools/whose_choice.py` swaps: own patches change nothing, another's do."
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = importlib.import_module("whose_choice")
    network, images = pruner
    reducer = network.encoder.reducer
    with torch.no_grad():
        noted = tool.Choices(network)
        usual = [noted(part) for part in images.split(8)]
        again = tool.Given(network, noted.calls)
        for part, answer in zip(images.split(8), usual):
            assert torch.equal(again(part), answer)
        turned = [[kept.flip(0) for kept in call] for call in noted.calls]
        assert not torch.allclose(tool.Given(network, turned)(images[:8]), usual[0], atol=1e-3)
    assert network.encoder.reducer is reducer
    monkeypatch.setattr(network.encoder, "reducer", REDUCERS["first"])    # it stays too
    with torch.no_grad(): tool.Given(network, noted.calls)(images[:8])
    assert network.encoder.reducer is REDUCERS["first"]
    kept = tool.kept_at_the_end(noted.calls, mirror=False)
    assert kept.shape == (24, 17) and torch.equal(kept[:8], noted.calls[0][-1])


def test_of_a_mirrored_test_the_patches_of_the_plain_pictures_are_counted(
    monkeypatch, root, pruner
):
    "Their joints are not mirrored either."
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = importlib.import_module("whose_choice")
    network, images = pruner
    noted = tool.Choices(network)
    with torch.no_grad():
        for part in images.split(8): average_flip(noted, part, COCO17)
        kept = network.trace(images, look=()).kept[0][-1]
    assert torch.equal(tool.kept_at_the_end(noted.calls, mirror=True), kept)

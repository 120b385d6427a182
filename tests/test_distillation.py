"""Distillation: alignment of pruned with whole maps, zero loss for equals, teachers that do not
fit."""
from types import SimpleNamespace

import pytest
import torch

import dppt_nb.distillation as page
from dppt_nb.checks import DataError
from dppt_nb.distillation import (
    AttentionObjective,
    FeatureObjective,
    GuideObjective,
    OutputObjective,
    Teacher,
    align_attention,
    attention_loss,
    feature_loss,
    match_layers,
    output_loss,
)
from dppt_nb.heatmaps import divergence
from dppt_nb.models import create_model
from dppt_nb.pruning import REDUCERS, new_owner
from dppt_nb.runs import weights_print

SIZE = (128, 96)


def network(name="tokenpose_nano", seed=0, **overrides):
    torch.manual_seed(seed)
    return create_model(name, image_size=SIZE, **{**dict(width=32, heads=2), **overrides}).eval()


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(9)
    return SimpleNamespace(images=torch.randn(3, 3, *SIZE), weights=torch.ones(3, 17))


def lessons(teacher, student, **attention):
    return [
        OutputObjective(teacher, student),
        FeatureObjective(teacher, student),
        AttentionObjective(teacher, student, **attention),
        *([GuideObjective(teacher, student)] if student.config.prune_at else []),
    ]


def losses(objectives, student, batch):
    look = tuple(sorted({layer for o in objectives for layer in o.look}))
    seen = student.trace(batch.images, 1, look)
    return {k: v for o in objectives for k, v in o(seen, batch, None).items()}


def test_a_student_that_is_the_teacher_has_nothing_to_learn(batch):
    wise, student = network(), network("dppt_nano")
    student.load_state_dict(wise.state_dict())
    for kind in ("kl", "mse"):
        for heads in ("mean", "each"):
            student.keep_ratio = 1.0
            same = losses(
                lessons(Teacher(wise), student, kind=kind, heads=heads, match="even"), student,
                batch,
            )
            assert all(abs(same[name]) < 1e-5 for name in ("output", "features", "attention"))
            student.keep_ratio = 0.5
            pruned = losses(
                lessons(Teacher(wise), student, kind=kind, heads=heads, match="even"), student,
                batch,
            )
            assert all(pruned[name] > 1e-8 for name in ("output", "features", "attention"))
            assert all(
                pruned[name] > 10 * abs(same[name]) for name in ("output", "features", "attention")
            )


def test_attention_of_a_pruned_copy_is_the_aligned_teachers_where_the_tokens_are_the_same(batch):
    """In the pruning layer itself, and in the next one if the tokens there are what the teacher
    would have with only these."""
    wise, student = network(), network("dppt_nano", prune_at=(1,), keep_ratio=0.5)
    student.load_state_dict(wise.state_dict())
    with torch.no_grad(): told, ours = wise.trace(batch.images), student.trace(batch.images)
    for layer in (0, 1):    # nothing has been dropped before these
        wanted = align_attention(told.attention[0][layer][:, :, :17], ours.column_owner(layer), 48)
        assert torch.allclose(ours.attention[0][layer][:, :, :17], wanted, atol=1e-5)
    columns = ours.columns[0][2]
    assert columns.shape[1] == 24 and not torch.equal(columns[0], torch.arange(24))


def test_a_wrong_alignment_is_caught(batch, monkeypatch):
    wise, student = network(), network("dppt_nano", prune_at=(1,), keep_ratio=0.5)
    student.load_state_dict(wise.state_dict())
    right = losses(lessons(Teacher(wise), student, match="even"), student, batch)["attention"]

    def careless(attention, owner, count):    # the first columns instead of the survivors'
        first = torch.arange(owner.shape[1])
        return align_attention(attention, first.where(first < count, -1).expand_as(owner), count)
    monkeypatch.setattr(page, "align_attention", careless)
    wrong = losses(lessons(Teacher(wise), student, match="even"), student, batch)["attention"]
    assert wrong > 1.1 * right


def test_alignment_composes_over_two_prunings():
    scores = torch.randn(1, 2, 3, 3 + 10)
    first, second = torch.tensor([[1, 3, 4, 8, 9]]), torch.tensor([[0, 2, 4]])
    attention, owned = scores.softmax(-1), torch.full((1, 10), -1)
    five = owned.scatter(1, first, torch.arange(5)[None])
    three = owned.scatter(1, first.gather(1, second), torch.arange(3)[None])
    step = torch.tensor([[0, -1, 1, -1, 2]])
    assert torch.equal(new_owner(five, step), three)
    assert three.argsort()[0, -3:].tolist() == [1, 4, 9]
    at_once = align_attention(attention, three, 3)
    in_steps = align_attention(align_attention(attention, five, 5), step, 3)
    assert torch.allclose(at_once, in_steps, atol=1e-6)
    gathered = torch.cat((attention[..., :3], attention[..., [4, 7, 12]]), -1)
    assert torch.equal(at_once, gathered / gathered.sum(-1, keepdim=True))
    fewer = torch.cat((scores[..., :3], scores[..., [4, 7, 12]]), -1)
    assert torch.allclose(at_once, fewer.softmax(-1), atol=1e-6)


def test_columns_of_one_owner_are_summed():
    "Merged patches 0, 2 and 3 by hand; patch 1 was dropped."
    row = torch.tensor([[[[0.2, 0.1, 0.3, 0.15, 0.25]]]])
    wanted = torch.tensor([0.2, 0.1 + 0.15 + 0.25]) / 0.7
    assert torch.allclose(align_attention(row, torch.tensor([[0, -1, 0, 0]]), 1)[0, 0, 0], wanted)


@pytest.mark.parametrize("reduce", REDUCERS)
def test_a_student_of_any_kind_that_drops_nothing_has_nothing_to_learn(batch, reduce):
    wise, student = network(), network("dppt_nano", reduce=reduce, keep_ratio=1.0)
    student.load_state_dict(wise.state_dict())
    same = losses(lessons(Teacher(wise), student, match="even"), student, batch)
    assert all(abs(same[name]) < 1e-5 for name in ("output", "features", "attention"))


@pytest.mark.parametrize("reduce", REDUCERS)
def test_a_step_towards_the_teacher_lowers_the_loss(batch, reduce):
    wise, student = network(seed=1), network("dppt_nano", reduce=reduce, keep_ratio=0.5)
    objectives = lessons(Teacher(wise), student)
    total = lambda: sum(losses(objectives, student, batch).values())
    before = total()
    before.backward()
    assert student.tokens.embed.weight.grad.any()
    with torch.no_grad():
        for p in student.parameters():
            if p.grad is not None: p -= 1e-3 * p.grad / p.grad.norm().clamp(min=1e-9)
        assert total() < before


def test_objectives_are_modules_that_neither_train_nor_save_the_teacher(batch):
    wise, student = network(depth=8), network("dppt_nano")
    objectives = lessons(Teacher(wise), student)
    assert all(isinstance(o, torch.nn.Module) for o in objectives)
    assert not [name for o in objectives for name, _ in o.named_parameters()]
    assert not [name for o in objectives for name in o.state_dict()]


def test_the_teacher_goes_where_the_pictures_are():
    wise = Teacher(network())
    wise(SimpleNamespace(images=torch.randn(1, 3, *SIZE, device="meta")))
    assert {p.device.type for p in wise.network.parameters()} == {"meta"}


def test_a_teacher_in_half_precision_teaches(batch):
    student = network(prune_at=(1,))
    half = network(seed=1).bfloat16()
    told = losses(lessons(Teacher(half), student), student, batch)
    assert all(torch.isfinite(loss) for loss in told.values())
    assert weights_print(half) != weights_print(network(seed=2).bfloat16())


def test_divergence_equals_the_formula_also_of_shares_that_are_nearly_nothing():
    p, q = torch.rand(4, 7).softmax(-1), torch.rand(4, 7).softmax(-1)
    assert torch.allclose(divergence(q.log(), p.log()), (p * (p / q).log()).sum(-1), atol=1e-6)
    flat = lambda r: (r.log() / 3).softmax(-1)
    assert torch.allclose(
        divergence(q.log(), p.log(), 3.0), 9 * (flat(p) * (flat(p) / flat(q)).log()).sum(-1),
        atol=1e-5,
    )
    assert (divergence(q.log(), p.log()) >= 0).all()
    # logits as far apart as a sharp heatmap's: nothing may be cut off before the temperature
    ours, wanted = torch.zeros(2, 3072)
    ours[7], wanted[7] = 30, 60
    r, s = ((x.double() / 8).softmax(-1) for x in (ours, wanted))
    right = 64 * (s * (s / r).log()).sum()
    assert torch.allclose(divergence(ours, wanted, 8.0).double(), right, rtol=1e-4)


def test_attention_of_zero_is_far_away_but_finite():
    p, q = torch.rand(4, 2, 3, 7).softmax(-1), torch.eye(7)[:3].expand(4, 2, 3, 7)
    assert attention_loss(q, p).isfinite() and attention_loss(p, q).isfinite()
    assert torch.allclose(
        attention_loss(p, q, "mse", "each"), (p - q).square().sum(-1).mean(), atol=1e-6
    )


def test_one_pass_of_the_teacher_serves_all_and_leaves_no_gradient(batch):
    wise, student = network(), network("dppt_nano", seed=1)
    calls, plain = [], wise.trace
    wise.trace = lambda *args, **more: calls.append(args) or plain(*args, **more)
    teacher = Teacher(wise.train())
    objectives = lessons(teacher, student)
    sum(losses(objectives, student, batch).values()).backward()
    assert len(calls) == 1 and not wise.training and all(p.grad is None for p in wise.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.encoder.parameters())
    rows = [rows is not None for rows in teacher(batch).attention[0]]
    assert rows == [layer in teacher.look for layer in range(4)]


def test_each_lesson_alone_teaches():
    wise, student = network(), network("dppt_nano", seed=1)
    batch = SimpleNamespace(images=torch.randn(4, 3, *SIZE), weights=torch.ones(4, 17))
    for make in (OutputObjective, FeatureObjective, AttentionObjective, GuideObjective):
        student = network("dppt_nano", seed=1).train()
        objective, optimizer = (
            make(Teacher(wise), student),
            torch.optim.AdamW(student.parameters(), 2e-3),
        )
        costs = []
        for _ in range(12):
            loss = sum(losses([objective], student, batch).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            costs.append(loss.item())
        assert costs[-1] < 0.8 * costs[0], make.__name__


@pytest.mark.parametrize("heads", [("mlp", "mlp"), ("mlp", "dot"), ("dot", "mlp")])
def test_heads_of_all_kinds_teach_each_other(batch, heads):
    student, wise = (network(n, head=h) for n, h in zip(("dppt_nano", "tokenpose_nano"), heads))
    loss = losses([OutputObjective(Teacher(wise), student)], student, batch)["output"]
    loss.backward()
    assert (
        loss > 0
        and loss.isfinite()
        and student.encoder.blocks[0].attention.qkv.weight.grad.abs().sum() > 0
    )


def test_joints_without_label_take_no_part(batch):
    wise, student = network(), network("dppt_nano", seed=1)
    with torch.no_grad(): told, ours = wise.trace(batch.images), student.trace(batch.images)
    weights = torch.ones(3, 17)
    weights[:, 5] = 0
    before = output_loss(ours, told, weights)
    told.logits[0][:, 5] += torch.randn(3, 32, 24)
    assert torch.equal(before, output_loss(ours, told, weights))
    assert output_loss(ours, told, torch.zeros(3, 17)) == 0


def test_teachers_of_another_depth_and_width(batch):
    wise, student = network(depth=6, width=48), network("dppt_nano", seed=1)
    features = FeatureObjective(Teacher(wise), student, match="even")
    assert features.layers == [(0, 1), (1, 2), (2, 4), (3, 5)] and features.project[
        0
    ].weight.shape == (48, 32)
    total = sum(
        losses(
            [features, AttentionObjective(features.teacher, student, match="even")], student, batch
        ).values()
    )
    total.backward()
    assert all(p.grad is not None for p in features.parameters())


def test_a_student_half_as_wide_as_tokenpose_b_brings_55_872_parameters():
    small = dict(num_keypoints=17, image_size=(64, 48), patch_size=(4, 3))
    big = create_model("tokenpose_b", **small)
    half = create_model("ppt_s", **small, depth=6, width=96, prune_at=(2, 4))
    teacher = Teacher(big)
    objectives = lessons(teacher, half)
    features = objectives[1]
    assert features.layers == [(1, 3), (3, 7), (5, 11)]
    assert sum(p.numel() for p in features.parameters()) == 55_872 == 3 * (96 * 192 + 192)
    some = SimpleNamespace(images=torch.randn(2, 3, 64, 48), weights=torch.ones(2, 17))
    sum(losses(objectives, half, some).values()).backward()
    assert all(p.grad is None for p in big.parameters())
    assert half.encoder.blocks[0].attention.qkv.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in features.parameters())


def test_the_objectives_of_dppt_are_its_losses_written_out(batch):
    "As the lesson's plain loop adds them up: means over the pairs of layers, one weight each."
    wise, student = network(), network("dppt_nano", seed=1)
    pairs = match_layers(4, 4, "stages", student.config.prune_at)
    with torch.no_grad(): told, ours = wise.trace(batch.images), student.trace(batch.images)
    mean = lambda values: torch.stack(values).mean()
    features = mean([
        feature_loss(ours.keypoint_tokens[0][s], told.keypoint_tokens[0][t]) for s, t in pairs
    ])
    attention = mean([
        attention_loss(
            ours.attention[0][s][:, :, :17],
            align_attention(
                told.attention[0][t][:, :, :17], ours.column_owner(s), ours.columns[0][s].shape[1]
            ),
        )
        for s, t in pairs
    ])
    teacher = Teacher(wise)
    objectives = [
        OutputObjective(teacher, student, 2.0), FeatureObjective(teacher, student, 3.0),
        AttentionObjective(teacher, student, 0.5),
    ]
    with torch.no_grad(): added = losses(objectives, student, batch)
    assert torch.allclose(added["output"], 2 * output_loss(ours, told, batch.weights), rtol=1e-4)
    assert torch.allclose(added["features"], 3 * features, rtol=1e-4)
    assert torch.allclose(added["attention"], 0.5 * attention, rtol=1e-3, atol=1e-7)


def test_the_guide_is_the_divergence_from_the_teachers_late_scores(batch):
    "By hand: of four layers the last third is the last; a student that drops nothing yet."
    wise, student = network(), network("dppt_nano", seed=1)
    student.keep_ratio = 1.0
    with torch.no_grad(): told, ours = wise.trace(batch.images), student.trace(batch.images)

    def shares(trace, layer):
        scores = trace.attention[0][layer][:, :, :17, 17:].sum((1, 2))
        return scores / scores.sum(-1, keepdim=True)

    late = shares(told, 3)
    apart = [
        (late * (late / shares(ours, layer)).log()).sum(-1).mean()
        for layer in student.config.prune_at
    ]
    with torch.no_grad(): guide = losses([GuideObjective(Teacher(wise), student)], student, batch)
    assert torch.allclose(guide["guide"], torch.stack(apart).mean(), rtol=1e-3)


def test_layers_are_matched_by_name():
    assert match_layers(12, 12, "stages", (3, 6, 9)) == [(2, 2), (5, 5), (8, 8), (11, 11)]
    assert match_layers(12, 24, "stages", (3, 6, 9)) == [(2, 5), (5, 11), (8, 17), (11, 23)]
    assert match_layers(4, 4, "stages", ()) == [(3, 3)] and match_layers(4, 2, "even") == [
        (0, 0), (1, 0), (2, 1), (3, 1),
    ]
    assert match_layers(4, 4, "depth") == match_layers(4, 4, "even")
    with pytest.raises(ValueError, match="even"): match_layers(6, 12, "depth")
    with pytest.raises(ValueError, match="stages"): match_layers(6, 12, "last")


@pytest.mark.parametrize(
    "other, lesson, words",
    [
        (dict(num_keypoints=14), OutputObjective, "keypoints 14"),
        (dict(image_size=(64, 48)), FeatureObjective, "image_size"),
        (dict(patch_size=(2, 2)), AttentionObjective, "equal grids"),
        (dict(prune_at=(1,)), GuideObjective, "drops patches itself"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(other, lesson, words):
    wise = create_model(
        "tokenpose_nano", **{**dict(num_keypoints=17, image_size=SIZE, width=32, heads=2), **other}
    )
    with pytest.raises(DataError, match=words): lesson(Teacher(wise), network("dppt_nano"))


def test_whether_a_teacher_prunes_is_asked_of_what_it_does_today():
    "Its layers may be set at any time, as `config_now` has them."
    student, wise, pruned = network("dppt_nano"), network(), network("ppt_nano")
    wise.encoder.prune_at, pruned.encoder.prune_at = (1,), ()
    with pytest.raises(DataError, match="drops patches itself"):
        GuideObjective(Teacher(wise), student)
    GuideObjective(Teacher(pruned), student)
    # and so are the layers of a student
    student.encoder.prune_at = (2,)
    assert GuideObjective(Teacher(pruned), student).look == (2,)
    for lesson in (FeatureObjective, AttentionObjective):
        assert lesson(Teacher(pruned), student).layers == [(1, 1), (3, 3)]


def test_lessons_that_cannot_be_given_are_refused():
    with pytest.raises(DataError, match="attention heads"):
        AttentionObjective(Teacher(network()), network("dppt_nano", heads=4), heads="each")
    with pytest.raises(DataError, match="drops no patches"):
        GuideObjective(Teacher(network()), network())


def test_length_of_tokens_does_not_count():
    tokens = torch.randn(2, 17, 32)
    assert (
        feature_loss(5 * tokens + 2, tokens) < 1e-6 < feature_loss(torch.randn(2, 17, 32), tokens)
    )
    assert (
        attention_loss(
            torch.rand(2, 4, 17, 30).softmax(-1).flip(1), torch.rand(2, 4, 17, 30).softmax(-1),
            heads="mean",
        ).ndim
        == 0
    )


def test_a_batch_with_other_images_is_asked_about_anew(batch):
    teacher, mine = Teacher(network()), SimpleNamespace(images=batch.images)
    first = teacher(mine)
    assert teacher(mine) is first
    mine.images = batch.images.flip(-1)
    assert not torch.equal(teacher(mine).heatmaps[0], first.heatmaps[0])


@pytest.mark.parametrize("keypoints", [1, 17])
def test_lessons_of_attention_read_a_whole_trace_too(batch, keypoints):
    "A trace without `look` has rows of all tokens, of which only those of keypoints are compared."
    student = network("dppt_nano", num_keypoints=keypoints)
    teacher = Teacher(network(seed=1, num_keypoints=keypoints))
    asked = SimpleNamespace(images=batch.images)
    for lesson in (AttentionObjective(teacher, student), GuideObjective(teacher, student)):
        whole, part = student.trace(batch.images, 1), student.trace(batch.images, 1, lesson.look)
        for mine, wanted in zip(*(lesson(t, asked, None).values() for t in (whole, part))):
            torch.testing.assert_close(mine, wanted)
        with pytest.raises(DataError, match="no attention of layer [12], .* look=objective.look"):
            lesson(student.trace(batch.images, 1, ()), asked, None)

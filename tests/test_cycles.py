"""Cycles: what later passes run on, what they teach the first, and the likelihood that teaches
heads which point."""
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sampling import sample
from torch import nn
from weights import same_weights

from dppt_nb.checks import DataError
from dppt_nb.crops import normalize
from dppt_nb.cycles import (
    CycleObjective,
    PoseObjective,
    equal_weights,
    heatmap_cycle_loss,
    kind_of_loss,
    token_loss,
)
from dppt_nb.heatmaps import decode_dark, encode_heatmaps, rescale_joints
from dppt_nb.keypoints import COCO17
from dppt_nb.models import create_model, list_models, macs
from dppt_nb.recipes import get_recipe
from dppt_nb.rle import RegressionObjective, ResidualFlow, joint_shares, rle_loss
from dppt_nb.store import from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.training import make_batch

SIZE, HEAT = (96, 64), (24, 16)


def network(name="sdpose_nano", seed=0, **overrides):
    torch.manual_seed(seed)
    return create_model(name, image_size=SIZE, **{"width": 32, "pyramid_blocks": 1, **overrides})


def people_batch(count=4, seed=13):
    people = make_people(count, image_size=SIZE, seed=seed)
    targets, weights = encode_heatmaps(
        rescale_joints(people.joints, SIZE, HEAT), people.visible, HEAT, sigma=1.0
    )
    return SimpleNamespace(
        images=normalize(people.images), joints=people.joints, visible=people.visible,
        targets=targets, weights=weights,
    )


@pytest.fixture(scope="module")
def batch():
    return people_batch()


def bent_flow(seed, strength=0.2):
    torch.manual_seed(seed)
    flow = ResidualFlow()
    for net in flow.nets:
        nn.init.normal_(net[-1].weight, std=strength)
        nn.init.normal_(net[-1].bias, std=strength)
    return flow


# ---- the forward pass

@torch.no_grad()
def loop_by_hand(model, images, cycles):
    "One cycle after the other, layer after layer; pruning in the first only."
    J, maps = model.num_keypoints, model.backbone(images)
    x, code = model.tokens(maps[-1]), model.tokens.code.expand(len(images), -1, -1)
    kept = torch.arange(x.shape[1] - J).expand(len(images), -1)
    answers = []
    for cycle in range(cycles):
        for layer, block in enumerate(model.encoder.blocks):
            if layer: x = x + code
            x, weights, _ = block.attend(x, x.shape[1])
            if cycle == 0 and layer in model.config.prune_at:
                scores = weights[:, :, :J, J:].mean(1).sum(1)
                stay = (
                    scores.argsort(descending=True)[
                        :, : math.ceil(kept.shape[1] * model.keep_ratio)
                    ]
                    .sort(1)
                    .values
                )
                rows = torch.cat((torch.arange(J).expand(len(x), -1), stay + J), 1)
                x, code, kept = (
                    t[torch.arange(len(x))[:, None], i]
                    for t, i in ((x, rows), (code, rows), (kept, stay))
                )
            x = block.think(x)
        columns = torch.arange(kept.shape[1]).expand_as(kept)
        owner = torch.full((len(x), math.prod(model.config.grid)), -1).scatter(1, kept, columns)
        answers.append((model.head.heatmaps(model.head(x[:, :J], x[:, J:], maps, owner)), kept))
    return answers


@pytest.mark.parametrize(
    "name, overrides",
    [
        ("sdpose_nano", {}), ("sdpose_nano", {"head": "mlp"}), ("sdpose_reg", {}),
        ("sdpose_t", {"init": "residual"}), ("ppt_nano", {"cycles": 3}),
        ("ppt_nano", {"cycles": 2, "keep_ratio": 0.5}),
    ],
)
def test_trace_is_the_loop_by_hand(name, overrides, batch):
    model = network(name, **overrides).eval()
    with torch.no_grad(): trace, deployed = model.trace(batch.images), model(batch.images)
    wanted = loop_by_hand(model, batch.images, model.config.cycles)
    assert len(trace.heatmaps) == len(wanted) == model.config.cycles > 1
    for maps, kept, (answer, survivors) in zip(trace.heatmaps, trace.kept, wanted):
        assert torch.allclose(maps, answer, atol=1e-4 * answer.abs().max().item())
        assert torch.equal(kept[-1], survivors)
    assert torch.allclose(trace.heatmaps[0], deployed, atol=1e-4 * deployed.abs().max().item())
    assert not torch.allclose(
        trace.heatmaps[1], trace.heatmaps[0], atol=1e-4 * deployed.abs().max().item()
    )


PLAIN = {
    "sdpose_t": ("tokenpose_s_v1", dict(depth=6)),
    "sdpose_s_v1": ("tokenpose_s_v1", {}),
    "sdpose_s_v2": ("tokenpose_s_v2", {}),
    "sdpose_b": ("tokenpose_b", dict(hrnet_bottleneck=32)),
    "sdpose_reg": ("tokenpose_s_v1", dict(head="regression")),
    "sdpose_nano": ("tokenpose_nano", {}),
}


@pytest.mark.parametrize("name", sample(list_models("sdpose_*"), 0, 1, 4))
def test_deployed_costs_are_those_of_tokenpose(name):
    plain, overrides = PLAIN[name]
    with torch.device("meta"): cycled, once = create_model(name), create_model(plain, **overrides)
    assert macs(cycled) == macs(once)
    assert {k: v.shape for k, v in cycled.state_dict().items()} == {
        k: v.shape for k, v in once.state_dict().items()
    }


# ---- losses between cycles

def test_token_loss_pulls_both_or_one():
    ours, later = (torch.randn(2, 5, 8, requires_grad=True) for _ in range(2))
    assert torch.allclose(token_loss(ours, later), (ours - later).square().mean())
    both = torch.autograd.grad(token_loss(ours, later), (ours, later))
    assert torch.allclose(both[0], -both[1]) and torch.allclose(
        both[0], 2 * (ours - later).detach() / ours.numel()
    )
    one = torch.autograd.grad(
        token_loss(ours, later, one_way=True), (ours, later), allow_unused=True
    )
    assert torch.equal(one[0], both[0]) and one[1] is None
    assert token_loss(ours.bfloat16(), later.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_heatmap_loss(kind):
    ours, later, weights = (
        torch.randn(3, 4, 6, 5, requires_grad=True), torch.randn(3, 4, 6, 5, requires_grad=True),
        torch.ones(3, 4),
    )
    weights[0, 1] = 0
    loss = heatmap_cycle_loss(ours, later, weights, kind)
    pulls = torch.autograd.grad(loss, (ours, later), allow_unused=True)
    assert (
        loss > 0
        and pulls[1] is None
        and (pulls[0][0, 1] == 0).all()
        and (pulls[0][0, 0] != 0).any()
    )
    assert heatmap_cycle_loss(ours, ours, weights, kind).abs() < 1e-6
    if kind == "cross_entropy":
        p, q = (t.flatten(2).softmax(-1) for t in (later, ours))
        assert torch.allclose(
            loss, ((p * (p / q).log()).sum(-1) * weights).sum() / weights.sum(), atol=1e-5
        )
        # logits have no zero
        assert torch.allclose(
            heatmap_cycle_loss(ours + 7, later - 3, weights, kind), loss, atol=1e-5
        )
    assert heatmap_cycle_loss(ours, later, 0 * weights, kind) == 0


def test_objective_names_what_it_weighs(batch):
    seen = network().trace(batch.images, 3, look=())
    all_three = CycleObjective(3, 0.5, 0.25, 2.0, kind="cross_entropy")(seen, batch, None)
    pairs = lambda made: list(zip(made, made[1:]))
    assert torch.allclose(
        all_three["keypoint_cycles"],
        0.5 * sum(token_loss(a[-1], b[-1]) for a, b in pairs(seen.keypoint_tokens)),
    )
    assert torch.allclose(
        all_three["patch_cycles"],
        0.25 * sum(token_loss(a[-1], b[-1]) for a, b in pairs(seen.patch_tokens)),
    )
    assert torch.allclose(
        all_three["heatmap_cycles"],
        2
        * sum(
            heatmap_cycle_loss(a, b, batch.weights, "cross_entropy") for a, b in pairs(seen.logits)
        ),
    )
    painted = CycleObjective(2, 0, 0, 1)(seen, batch, None)
    assert list(painted) == ["heatmap_cycles"]
    assert torch.allclose(
        painted["heatmap_cycles"], heatmap_cycle_loss(*seen.heatmaps[:2], batch.weights)
    )
    assert (
        list(CycleObjective(2)(seen, batch, None)) == ["keypoint_cycles", "patch_cycles"]
        and CycleObjective(2, 0, 0)(seen, batch, None) == {}
    )
    assert CycleObjective(2).look == () and CycleObjective(3).cycles == 3


def test_more_cycles_than_needed_change_nothing(batch):
    model = network().eval()
    with torch.no_grad():
        two, three = (model.trace(batch.images, cycles, look=()) for cycles in (2, 3))
    for objective in (CycleObjective(2, 1, 1, 1), CycleObjective(2, 1, 1, 1, kind="cross_entropy")):
        a, b = objective(two, batch, None), objective(three, batch, None)
        assert a.keys() == b.keys() and all(torch.allclose(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (dict(cycles=1), "needs at least 2"),
        (dict(cycles=2, kind="kl"), "must be mse or cross_entropy"),
    ],
)
def test_wrong_objectives_are_refused(wrong, sentence):
    with pytest.raises(DataError, match=sentence): CycleObjective(**wrong)


def test_a_trace_that_is_too_short_is_refused(batch):
    with torch.no_grad(): seen = network().trace(batch.images, 1, look=())
    with pytest.raises(DataError, match="the trace has 1 cycles, but 2 are needed"):
        CycleObjective(2)(seen, batch, None)
    with pytest.raises(DataError, match="head='regression'"):
        RegressionObjective()(seen, batch, None)


@pytest.mark.parametrize("name", ["sdpose_nano", "ppt_nano"])
@pytest.mark.parametrize("one_way", [False, True])
def test_token_losses_reach_the_first_cycle(name, one_way, batch):
    """No ground truth, no heatmaps: what enters the first cycle learns from the tokens alone,
    pruned or not."""
    model, entered = network(name, cycles=2), []
    def keep(module, given, made):
        made.retain_grad()
        entered.append(made)
    model.tokens.register_forward_hook(keep)
    seen = model.trace(batch.images, look=())
    losses = CycleObjective(2, 1, 1, one_way=one_way)(seen, batch, None)
    sum(losses.values()).backward()
    assert len(entered) == 1 and (entered[0].grad.flatten(1).norm(dim=1) > 0).all()
    assert model.backbone.levels[0][0][0].weight.grad.norm() > 0
    assert all(p.grad is None for p in model.head.parameters())
    if name == "ppt_nano":  # both ends hold the same survivors of the first cycle
        assert (
            torch.equal(seen.kept[0][-1], seen.kept[1][0])
            and seen.kept[0][-1].shape[1] < seen.columns[0][0].shape[1]
        )
        assert seen.patch_tokens[0][-1].shape == seen.patch_tokens[1][-1].shape


def test_one_way_is_the_gradient_with_the_later_cycle_held_still(batch):
    model = network().eval()
    seen = model.trace(batch.images, 2, look=())
    still = seen.keypoint_tokens[1][-1].detach()
    own = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(
        CycleObjective(2, 1, 0, one_way=True)(seen, batch, None)["keypoint_cycles"], own,
        retain_graph=True, allow_unused=True,
    )
    wanted = torch.autograd.grad(
        F.mse_loss(model.trace(batch.images, 1, look=()).keypoint_tokens[0][-1], still), own,
        allow_unused=True,
    )
    for a, b in zip(ours, wanted):
        assert (
            (a is None or a.abs().max() == 0)
            if b is None
            else torch.allclose(a, b, atol=1e-5 * max(1, b.abs().max().item()))
        )


def losses_of(model, objectives, batch, cycles=2):
    seen = model.trace(batch.images, cycles, look=())
    return {
        name: value
        for objective in objectives
        for name, value in objective(seen, batch, None).items()
    }


@pytest.mark.parametrize(
    "head, kind", [("dot", "cross_entropy"), ("mlp", "mse"), ("regression", "mse")]
)
def test_half_precision_gives_the_same_losses(head, kind, batch):
    model = network(head=head).eval()
    objectives = [CycleObjective(2, 1, 1, 0, kind=kind)] + (
        [RegressionObjective(2)] if head == "regression" else []
    )
    with torch.no_grad():
        single = losses_of(model, objectives, batch)
        with torch.autocast("cpu", torch.bfloat16): half = losses_of(model, objectives, batch)
    for name, value in single.items():
        assert half[name].dtype == torch.float32 and math.isclose(
            half[name].item(), value.item(), rel_tol=1e-2
        ), name


# ---- the flow

@pytest.mark.parametrize("seed", range(4))
def test_flow_is_a_density_with_an_inverse(seed):
    flow = bent_flow(seed).requires_grad_(False)
    line = torch.linspace(-20, 20, 401)
    plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    assert abs(flow.log_prob(plane).exp().sum().item() * 0.1 ** 2 - 1) < 2e-3
    points = 2 * torch.randn(3, 200, 2)
    places, grown = flow.to_normal(points)
    assert torch.allclose(flow.from_normal(places), points, atol=1e-3) and grown.shape == (3, 200)
    areas = torch.func.vmap(torch.func.jacrev(lambda p: flow.to_normal(p)[0]))(points[0]).det()
    assert torch.allclose(areas.abs().log(), grown[0], atol=1e-3)


def test_flow_draws_from_its_density():
    flow = bent_flow(7).requires_grad_(False)
    drawn = flow.from_normal(torch.randn(40_000, 2, generator=torch.Generator().manual_seed(1)))
    line = torch.linspace(-12, 12, 481)
    plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(-1, 2)
    shares = flow.log_prob(plane).exp() * 0.05 ** 2
    mean = (plane * shares[:, None]).sum(0)
    spread = ((plane - mean).square() * shares[:, None]).sum(0).sqrt()
    assert torch.allclose(drawn.mean(0), mean, atol=0.05) and torch.allclose(
        drawn.std(0), spread, rtol=0.05
    )


def test_flow_learns_a_skewed_density():
    generator = torch.Generator().manual_seed(0)
    def errors(count):
        a, b = torch.randn(2, count, generator=generator)
        return torch.stack(((0.5 * a).exp() - 1, 0.3 * b + 0.6 * ((0.5 * a).exp() - 1) ** 2), -1)
    # of a, b, and what the bending adds, whose mean is 0
    entropy = 1 + math.log(2 * math.pi) + math.log(0.5 * 0.3)
    torch.manual_seed(0)
    flow = ResidualFlow()
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        (-flow.log_prob(errors(512)).mean()).backward()
        optimizer.step()
    with torch.no_grad(): reached = -flow.log_prob(errors(50_000)).mean().item()
    assert entropy - 0.02 < reached < entropy + 0.06  # a single Laplace a coordinate: 0.6 above


def test_a_fresh_flow_is_the_standard_normal():
    points = torch.randn(50, 2)
    assert torch.allclose(
        ResidualFlow().log_prob(points), torch.distributions.Normal(0, 1).log_prob(points).sum(-1),
        atol=1e-5,
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert ResidualFlow().log_prob(points.bfloat16()).dtype == torch.float32


# ---- residual log-likelihood

def release_rle(raw, joints, weights, flow):
    "rlepose/models/regression_nf.py and criterion.py, term by term."
    place, spread = raw[..., :2], raw[..., 2:].sigmoid()
    flow_part = spread.log() - flow.log_prob((place - joints) / spread)[..., None]
    plain_part = (spread * math.sqrt(2 * math.pi)).log() + (joints - place).abs() / (
        math.sqrt(2) * spread
    )
    return ((flow_part + plain_part) * weights[..., None]).sum() / len(raw)


def test_the_release_is_twice_ours_with_a_wider_guess():
    flow = bent_flow(3)
    # the release subtracts the other way round
    mirrored = SimpleNamespace(log_prob=lambda error: flow.log_prob(-error))
    joints, weights, apart = torch.rand(6, 17, 2), torch.ones(6, 17), []
    for seed in range(3):
        raw = (
            torch.randn(6, 17, 4, generator=torch.Generator().manual_seed(seed))
            .div(2)
            .requires_grad_()
        )
        error = ((joints - raw[..., :2]) / raw[..., 2:].sigmoid()).abs().sum(-1).mean()
        wider = rle_loss(raw, joints, weights, mirrored) - error + error / math.sqrt(8)
        release = release_rle(raw, joints, weights, flow) / (2 * 17)
        apart.append((release - wider).item())
        ours, theirs = (
            torch.autograd.grad(loss, raw, retain_graph=True)[0] for loss in (wider, release)
        )
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert max(apart) - min(apart) < 1e-3


def test_joints_that_do_not_count_change_nothing():
    flow, raw, joints, weights = (
        bent_flow(1), torch.randn(2, 5, 4, requires_grad=True), torch.rand(2, 5, 2),
        torch.ones(2, 5),
    )
    weights[0, 2] = weights[1, 4] = 0
    loss = rle_loss(raw, joints, weights, flow)
    wild = joints.clone()
    wild[0, 2], wild[1, 4] = float("nan"), 1e9
    again = rle_loss(raw, wild, weights, flow)
    assert torch.equal(loss, again)
    pull, = torch.autograd.grad(again, raw)
    assert pull.isfinite().all() and (pull[0, 2] == 0).all() and (pull[0, 1] != 0).any()
    assert rle_loss(raw, joints, 0 * weights, flow) == 0


def test_likelihood_pulls_towards_the_truth():
    raw = torch.tensor([[[0.3, 0.7, 0.0, 0.0]]], requires_grad=True)
    (pull,) = torch.autograd.grad(
        rle_loss(raw, torch.tensor([[[0.5, 0.5]]]), torch.ones(1, 1), ResidualFlow()), raw
    )
    assert pull[0, 0, 0] < 0 < pull[0, 0, 1]
    assert (pull[0, 0, 2:] > 0).all()  # and spreads wider than the error shrink


def test_told_drawn_and_decoded_in_the_photograph(batch):
    "Shares that are told perfectly come out of the usual decoding at the people's joints."
    people = make_people(12, image_size=(128, 96), seed=5)
    crops = from_synthetic(people)
    model = create_model("sdpose_reg", image_size=(128, 96), head_sigma=1.5)
    told = torch.cat(
        (joint_shares(crops.joints, (128, 96), (32, 24)), torch.full((12, 17, 2), -2.0)), -1
    )
    found, scores = decode_dark(model.head.heatmaps(told), crops.centers, crops.scales, kernel=11)
    x, y = crops.joints.unbind(-1)
    inside = (crops.visible > 0) & (x > 14) & (x < 81) & (y > 14) & (y < 113)
    assert inside.sum() > 100 and (found - crops.photo_joints).norm(dim=-1)[inside].max() < 0.3
    # the peak lies between pixels
    assert torch.allclose(scores[inside], torch.tensor(2.0).sigmoid(), atol=0.12)


def test_shares_are_where_the_targets_are():
    joints = torch.rand(3, 5, 2) * torch.tensor([63.0, 95.0])
    shares = joint_shares(joints, SIZE, HEAT)
    assert torch.allclose(
        shares * torch.tensor([16.0, 24.0]) - 0.5, rescale_joints(joints, SIZE, HEAT), atol=1e-5
    )


def train(steps, cycles=2, name="sdpose_reg", seed=0, start=None, **overrides):
    "A pointing network, taught by likelihood on every cycle and by its own later cycle."
    batch, model = (
        people_batch(8),
        network(
            name,
            seed,
            **{
                "depth": 2, "backbone": "pyramid", "patch_size": (1, 1), "init": "residual",
                "head": "regression",
                **overrides,
            },
        ),
    )
    objectives = (
        [RegressionObjective(cycles), CycleObjective(cycles, 0.01, 0.01, 0.1)]
        if cycles > 1
        else [RegressionObjective()]
    )
    both = nn.ModuleList([model, objectives[0]])
    if start: both.load_state_dict(start)
    optimizer, course = torch.optim.AdamW(both.parameters(), 3e-3), []
    for _ in range(steps):
        losses = losses_of(model.train(), objectives, batch, cycles)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        course.append({name: value.item() for name, value in losses.items()})
    with torch.no_grad(): told = model.eval()(batch.images, logits=True)
    off = (
        (told[..., :2] - joint_shares(batch.joints, SIZE, HEAT)) * torch.tensor([64.0, 96.0])
    ).norm(dim=-1)
    return course, off[batch.weights > 0].median().item(), both.state_dict()


@pytest.mark.parametrize("overrides", [
    pytest.param({}, marks=pytest.mark.soak), {"name": "ppt_nano", "prune_at": (0, 1)},
])
def test_a_pointing_network_with_cycles_learns(overrides):
    course, off, _ = train(60, **overrides)
    assert set(course[0]) == {"rle", "keypoint_cycles", "patch_cycles", "heatmap_cycles"}
    assert course[-1]["rle"] < course[0]["rle"] - 3 and all(
        math.isfinite(v) for row in course for v in row.values()
    )
    assert off < 0.75 * train(0, **overrides)[1]


def test_same_seed_same_losses_and_the_flow_goes_on():
    one, two = train(4), train(4)
    assert one[0] == two[0] and all(torch.equal(one[2][k], two[2][k]) for k in one[2])
    assert train(4, seed=1)[0] != one[0]
    again = train(1, start=one[2], seed=2)[0][0]  # weights and flow come back from a state
    assert math.isclose(again["rle"], train(5)[0][4]["rle"], rel_tol=1e-5)


def test_the_page_says_what_its_training_printed():
    page = Path(__file__).resolve().parent.parent / "nbs/machinery/rle.ipynb"
    cells = json.loads(page.read_text())["cells"]
    told = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    printed = "".join(line for cell in cells for out in cell.get("outputs", ())
                      for line in out.get("text", ()))
    found = re.findall(r"median error ([\d.]+) pixels, (\d+)% within 8", printed)
    (plain, within), (likely, within_it) = found
    assert f"({plain} pixels and {within} % against {likely} and {within_it})" in told
    assert float(plain) < float(likely) and int(within) > int(within_it)    # slightly ahead


def test_one_flow_serves_all_cycles(batch):
    model, objective = network(head="regression"), RegressionObjective(2)
    seen = model.trace(batch.images, 3, look=())
    joints = joint_shares(batch.joints, SIZE, HEAT)
    loss = objective(seen, batch, None)["rle"]
    assert torch.allclose(
        loss, sum(rle_loss(raw, joints, batch.weights, objective.flow) for raw in seen.logits[:2])
    )
    loss.backward()
    assert (
        any(p.grad.abs().max() > 0 for p in objective.parameters())
        and objective.look == ()
        and objective.cycles == 2
    )
    with pytest.raises(DataError, match="at least 1"): RegressionObjective(0)


def test_a_head_of_probabilities_learns_by_no_squared_error():
    "Fitted to bells it would be put through a softmax in use, and every score would be nearly 0."
    with pytest.raises(DataError, match="take 'auto'"): kind_of_loss("dot", "mse")
    assert kind_of_loss("mlp", "cross_entropy") == "cross_entropy"


def test_asking_for_equal_weights_leaves_the_network_as_it_is():
    "In training mode each forward pass moves the running means of its norms."
    model = create_model("sdpose_nano", 17, (64, 48), width=32, depth=1, heads=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    people = from_synthetic(make_people(4, COCO17, (64, 48), seed=1, margin=1.5))
    recipe = get_recipe("tokenpose_nano", image_size=(64, 48))
    batch = make_batch(people, torch.arange(4), recipe, None, torch.Generator(), (16, 12))
    found = equal_weights(model, PoseObjective(model), batch)
    assert all(0 < weight < math.inf for weight in found) and model.training
    assert same_weights(model, before)
    assert not model.encoder._forward_hooks

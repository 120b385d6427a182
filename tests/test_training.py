"""Training: resuming to the bit, folders that are in the way, results with their conditions."""
import copy
import json
import math
import shutil
from dataclasses import replace
from functools import cache

import pytest
import tiny_fixture
import torch
from forked import FORKED
from sampling import sample
from weights import same_weights

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.codec import EncodedCrops, encode_crop
from dppt_nb.cycles import CycleObjective, PoseObjective
from dppt_nb.evaluation import evaluate, predict_joints
from dppt_nb.files import make_folder
from dppt_nb.heatmaps import encode_heatmaps
from dppt_nb.keypoints import COCO17
from dppt_nb.loop import batch_count, make_objectives
from dppt_nb.models import create_model
from dppt_nb.optim import Average, make_optimizers, rate_share, schedule_notes
from dppt_nb.recipes import LESSONS, RECIPES, Lesson, Recipe, get_recipe
from dppt_nb.runner import notes_on, train_recipe
from dppt_nb.store import from_synthetic
from dppt_nb.synthetic import make_people
from dppt_nb.terminal import Terminated
from dppt_nb.tokenpose import PoseTransformer
from dppt_nb.trainer import Trainer
from dppt_nb.training import Loop, make_batch

SIZE = (64, 48)
TINY = dict(
    model="tokenpose_nano", image_size=SIZE, overrides=tiny_fixture.TINY | dict(depth=2), epochs=3,
    batch_size=16, warmup_steps=3,
)


@pytest.fixture(scope="module")
def people():
    return from_synthetic(make_people(48, COCO17, SIZE, seed=1, margin=1.5))


def trainer(people, out=None, **changes):
    return Trainer(Recipe(**TINY).change(**changes), people, people, out, "cpu", bars=False)


@pytest.fixture(scope="module")
def through(people):
    "A trainer at the end of its run, whom nobody stopped; it is only looked at."
    run = trainer(people)
    run.fit()
    return run


@pytest.fixture(scope="module")
def begun_run(people, tmp_path_factory):
    "The folder of a run of one epoch of three; it is only read."
    folder = tmp_path_factory.mktemp("begun") / "run"
    trainer(people, folder).fit(epochs=1)
    return folder


@pytest.fixture
def begun(begun_run, tmp_path):
    "A copy of that folder."
    return shutil.copytree(begun_run, tmp_path / "run")


@pytest.mark.parametrize("start", [Loop, Trainer])
@pytest.mark.parametrize("wrong, kind", [
    ("a/store", "of type str"), (None, "None"), ({"train": None}, "of type dict"),
    ([], "of type list"),
])
def test_people_of_another_kind_are_one_sentence(people, start, wrong, kind):
    told = r"{0} is " + kind + r"; give a CropSet, as load_people\(...\)\['{0}'\] is"
    with pytest.raises(DataError, match=told.format("train")): start("tokenpose_nano", wrong)
    network = create_model("tokenpose_nano")
    with pytest.raises(DataError, match=told.format("crops").replace("crops'", "test'")):
        evaluate(network, wrong, Recipe(**TINY))
    if start is Loop or wrong is None: return    # without people to look at it trains
    with pytest.raises(DataError, match=told.format("val")): start("tokenpose_nano", people, wrong)


def test_nobody_to_look_at_is_no_error(people):
    "A set of which a caller chose nobody: found out after the first epoch, which was lost by it."
    nobody = people.select([])
    judged = Trainer(Recipe(**TINY).change(epochs=1), people, nobody, None, "cpu", bars=False)
    network = judged.fit()
    assert "score" not in judged.history[0]
    joints, scores = predict_joints(network, nobody, Recipe(**TINY), bars=False)
    assert joints.shape == (0, 17, 2) and scores.shape == (0, 17)
    assert not any(row["people"] for row in evaluate(network, nobody, Recipe(**TINY)).values())


@pytest.mark.parametrize("which", [
    [True], torch.ones(49).bool(), [48], [-49], [1.5], 3, None, [[0]], ["train"], {0: 1},
    torch.zeros(3, 1).bool(),
])
def test_a_mask_or_numbers_of_other_people_choose_nobody(people, which):
    with pytest.raises(DataError, match="has 48 rows; name some by a split") as error:
        people.select(which)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="-1 people are asked for"): people.draw(-1, 0)
    assert len(people.select([0, -1])) == 2 and len(people.select(torch.ones(48).bool())) == 48


@pytest.mark.parametrize(
    "changes",
    sample([
        dict(), dict(optimizer="adam", ema=0.0, schedule="steps", milestones=(1, 2)),
        dict(optimizer="adamw"), dict(precision="bf16"), dict(precision="fp32"),
        dict(unbiased=False, flip_shift=True),
    ], 0, 1),
)
def test_killed_and_resumed_is_the_same_to_the_bit(people, tmp_path, through, changes):
    network = trainer(people, **changes).fit() if changes else through.network()
    trainer(people, tmp_path / "run", **changes).fit(epochs=1)
    resumed = trainer(people, tmp_path / "run", **changes).fit(resume=True)
    assert same_weights(network, resumed)


def test_killed_while_writing_goes_on_from_the_last_whole_checkpoint(people, begun, monkeypatch):
    first = trainer(people, begun)
    import dppt_nb.runs as runs
    real = runs.write_json

    def power_cut(path, values):
        if path.name == "training.json": raise KeyboardInterrupt
        real(path, values)

    monkeypatch.setattr(runs, "write_json", power_cut)
    with pytest.raises(KeyboardInterrupt): first.fit(resume=True)
    monkeypatch.undo()
    again = trainer(people, begun)
    again.resume()
    assert again.epoch == 1 and (begun / "state-0001.safetensors").exists()


def test_another_seed_is_another_run(people, begun_run):
    one, two = load_network(begun_run)[0], trainer(people, seed=1).fit(epochs=1)
    assert not same_weights(one, two)


def test_training_leaves_global_randomness_alone(people):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer(people).fit(epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns(people):
    run = trainer(people, epochs=12, lr=1e-2, matrix_lr=0.05, eval_every=12)
    run.fit()
    # nats in a Gaussian of sigma 1: knowing the place cannot cost less
    floor = math.log(2 * math.pi * math.e)
    assert run.history[-1]["pose"] - floor < 0.75 * (run.history[0]["pose"] - floor)


def test_objectives_add_up(people):
    class Constant(torch.nn.Module):
        def forward(self, trace, batch, progress): return {"extra": batch.images.new_tensor(2.0)}
    run = trainer(people)
    run.objectives = [PoseObjective(run.model), Constant()]
    losses = run.train_epoch()
    assert set(losses) == {"pose", "extra"} and losses["extra"] == 2.0


@pytest.mark.parametrize("none", [[], (), PoseObjective, {}])
def test_no_objectives_are_not_taken_for_the_recipes_own(people, none):
    with pytest.raises(DataError, match="give a list of at least one, or leave it out"):
        Loop(Recipe(**TINY), people, "cpu", objectives=none)
    run = Loop(Recipe(**TINY), people, "cpu")
    with pytest.raises(DataError, match="give a list of at least one"): run.objectives = none
    with pytest.raises(DataError, match="holds 'pose', which cannot be called"):
        Loop(Recipe(**TINY), people, "cpu", objectives=["pose"])


def test_another_network_in_a_loop_is_refused_since_nobody_would_train_it(people):
    "So are objectives that learn; those that do not, and a wrapper of the same weights, are taken."
    class Learns(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
        def forward(self, trace, batch, progress): return {"scaled": self.scale ** 2}
    run, mine = trainer(people), trainer(people).model
    with pytest.raises(DataError, match="the loop's model cannot be exchanged: its optimisers"):
        run.model = mine
    with pytest.raises(DataError, match="the loop's objectives cannot be exchanged"):
        run.objectives = [PoseObjective(run.model), Learns()]
    wrapper = torch.nn.DataParallel(run.model)
    run.model = wrapper
    assert run.model is wrapper


@pytest.mark.parametrize("given, words", [
    (lambda t: {"late": 0.5}, "Late gives 'late' as a float;"),
    (lambda t: {"late": t.logits[0].mean((1, 2, 3))},
     r"Late gives 'late' as a tensor of shape \(16,\);"),
    (lambda t: t.logits[0].mean(), "Late gives a Tensor in place of named losses;"),
    (lambda t: None, "Late gives a NoneType in place of named losses;"),
])
def test_what_is_no_loss_is_one_sentence_that_names_the_objective(people, given, words):
    class Late(torch.nn.Module):
        def forward(self, trace, batch, progress): return given(trace)
    run = trainer(people)
    run.objectives = [PoseObjective(run.model), Late()]
    with pytest.raises(DataError, match=words) as error: run.train_epoch()
    assert "\n" not in str(error.value)


def test_a_loss_that_is_not_a_number_stops_with_a_sentence(people, tmp_path):
    run = trainer(people, tmp_path)
    run.objectives = [lambda seen, batch, progress: {"pose": seen.logits[0].sum() * math.nan}]
    with pytest.raises(DataError, match="in step 1, in epoch 1; start again with a lower --lr"):
        run.fit()
    assert not (tmp_path / "training.json").exists()
    assert run.step == 1    # of three: the epoch was not trained to its end


def test_weights_that_are_not_numbers_are_not_saved_and_the_rate_may_be_lowered(people, tmp_path):
    "The loss of the last step is good, and its gradient breaks the weights."
    class Trap(torch.nn.Module):
        def forward(self, trace, batch, progress):
            here = trace.logits[0].mean()
            if progress.step < 5: return {"trap": here * 0}
            return {"trap": (here - here.detach()).abs().sqrt()}    # 0, of infinite slope

    good = trainer(people, tmp_path)
    good.objectives.append(Trap())
    with pytest.raises(DataError, match="after step 6, in epoch 2, .* not finite; epoch 1, the"):
        good.fit()
    assert json.loads((tmp_path / "training.json").read_text())["step"] == 3
    assert [p.name for p in tmp_path.glob("state*")] == ["state-0001.safetensors"]
    assert all(v.isfinite().all() for v in load_network(tmp_path)[0].state_dict().values())
    slower = trainer(people, tmp_path, lr=1e-4, matrix_lr=1e-3)
    slower.objectives.append(Trap())
    slower.resume()
    assert slower.optimizers[0].param_groups[0]["peak"] == 1e-4 and slower.epoch == 1


def test_with_half_precision_one_bad_gradient_stops_all_optimisers(people):
    run = trainer(people, precision="fp16")
    matrix = run.optimizers[1].param_groups[0]["params"][0]    # Muon's, and AdamW has the rest
    before = {k: p.detach().clone() for k, p in run.model.named_parameters()}
    handle = matrix.register_hook(lambda gradient: gradient * math.inf)
    batch = make_batch(
        people, torch.arange(2), run.recipe, None, run.draws, run.model.heatmap_size
    )
    run.train_step(batch)
    assert run.skipped == 1 and run.scaler.get_scale() == 2 ** 15
    assert all(torch.equal(p, before[k]) for k, p in run.model.named_parameters())
    handle.remove()
    for _ in range(12): run.train_step(batch)    # a scale that fits is found, then it trains
    assert any(not torch.equal(p, before[k]) for k, p in run.model.named_parameters())
    run.check_tensors()


def test_the_best_network_is_kept_beside_the_last(people, tmp_path):
    run = trainer(people, tmp_path, lr=0.05, epochs=5)
    run.fit()
    scores = [row["score"] for row in run.history]
    best = json.loads((tmp_path / "best" / "config.json").read_text())
    assert best["epoch"] == 1 + scores.index(max(scores))
    again = evaluate(
        load_network(tmp_path / "best")[0], people, run.recipe.change(mirror=False), bars=False
    )
    assert round(again["PCK@0.2 torso"]["mean"], 2) == max(scores)


def test_a_finished_run_that_is_resumed_writes_nothing(tmp_path):
    settings = dict(data="synthetic", out=tmp_path, device="cpu", bars=False, people=16)
    first = train_recipe(Recipe(**TINY), **settings)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = train_recipe(Recipe(**TINY), resume=True, **settings)
    assert again == json.loads(json.dumps(first)) and len(stamps) >= 5
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_other_threads_and_formats_are_refused_unless_allowed(people, tmp_path, capsys):
    trainer(people, tmp_path, precision="fp32").fit(epochs=1)
    saved = json.loads((tmp_path / "training.json").read_text())
    assert (saved["threads"], saved["compute"]) == (torch.get_num_threads(), "fp32")
    known = json.loads((tmp_path / "config.json").read_text())
    assert known["compute"] == "fp32" and known["people_digest"] == saved["people_digest"]
    muon = {"fp32": "bf16", "bf16": "fp32"}[saved["muon"]]
    for name, other in (("threads", 64), ("compute", "bf16"), ("muon", muon)):
        (tmp_path / "training.json").write_text(json.dumps({**saved, name: other}))
        with pytest.raises(DataError, match=f"began with {name} {other}, .*--allow-drift"):
            trainer(people, tmp_path, precision="fp32").fit(resume=True)
        trainer(people, tmp_path, precision="fp32").resume(allow_drift=True)
    # a record of before the names were short
    former = {"fp32": "float32", "bf16": "bfloat16"}
    (tmp_path / "training.json").write_text(json.dumps({**saved, "muon": former[saved["muon"]]}))
    trainer(people, tmp_path, precision="fp32").resume()
    (tmp_path / "training.json").write_text(json.dumps({**saved, "muon": former[muon]}))
    with pytest.raises(DataError, match=f"began with muon {muon}, .*--allow-drift"):
        trainer(people, tmp_path, precision="fp32").resume()


def test_other_people_of_the_same_number_are_refused(people, begun):
    moved = replace(people, joints=people.joints + 1)
    with pytest.raises(DataError, match="people_digest"):
        Trainer(Recipe(**TINY), moved, None, begun, "cpu", bars=False).fit(resume=True)


def test_a_network_of_somebody_is_not_replaced(people, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"somebody's own")
    (tmp_path / "state-of-the-art.safetensors").write_bytes(b"too")
    with pytest.raises(DataError, match="model.safetensors that no training wrote there"):
        trainer(people, tmp_path).fit()
    with pytest.raises(DataError, match="no run to go on with, there is no training.json"):
        trainer(people, tmp_path).fit(resume=True)
    (tmp_path / "model.safetensors").unlink()
    trainer(people, tmp_path).fit(epochs=1)
    assert (tmp_path / "state-of-the-art.safetensors").read_bytes() == b"too"


@pytest.mark.parametrize(
    "number, size, count",
    [(190, 128, 2), (10_000, 64, 156), (96, 20, 5), (5, 64, 1), (129, 128, 1)],
)
def test_no_batch_is_larger_than_asked_by_more_than_one(number, size, count):
    assert batch_count(number, size) == count
    parts = torch.arange(number).tensor_split(count)
    assert max(map(len, parts)) <= size + 1 and sum(map(len, parts)) == number


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_stop_by_hand_names_what_is_saved(people, tmp_path, stop):
    class Stops(torch.nn.Module):
        def forward(self, trace, batch, progress):
            if progress.step == 4: raise stop
            return {"nothing": trace.logits[0].sum() * 0}
    run = trainer(people, tmp_path)
    run.objectives.append(Stops())
    with pytest.raises(stop, match="stopped; epoch 1 of 3, .* is saved in .*--resume"): run.fit()
    again = trainer(people, tmp_path)
    again.objectives.append(Stops())
    again.resume()
    assert again.epoch == 1
    early = trainer(people)
    early.objectives.append(Stops())
    with pytest.raises(stop, match="before an epoch was saved"): early.fit()


@pytest.mark.parametrize(
    "field, value, words", [("seed", 4, "seed = 0"), ("rotation", 3.0, "augmentation")]
)
def test_a_run_of_another_recipe_is_refused(people, begun, field, value, words):
    with pytest.raises(DataError, match=words):
        trainer(people, begun, **{field: value}).fit(resume=True)
    with pytest.raises(DataError, match="--resume"): trainer(people, begun).fit()


def test_checkpoint_comes_back_and_says_what_is_wrong(people, tmp_path):
    network = trainer(people, tmp_path).fit(epochs=1)
    again, recipe, keypoints = load_network(tmp_path / "model.safetensors")
    assert recipe == Recipe(**TINY) and keypoints == COCO17
    assert same_weights(network, again)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(DataError, match="is not the file that its config"): load_network(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="config.json"): load_network(tmp_path)


def test_results_carry_intervals_and_counts(people):
    row = evaluate(trainer(people).network(), people, Recipe(**TINY), bars=False)["PCK@0.2 torso"]
    assert row["interval"][0] <= row["mean"] <= row["interval"][1]
    torso = people.visible[:, list(COCO17.torso)].bool().all(1)
    assert (row["people"], row["left_out"]) == (int(torso.sum()), int((~torso).sum()))
    assert set(row["joints"]) == set(COCO17.names) and row == json.loads(json.dumps(row))


def test_a_lesson_from_outside_is_one_row(people, tmp_path):
    class Calm(torch.nn.Module):
        "Large heatmap logits cost something; it learns how much each joint may say."
        cycles, look = 1, ()

        def __init__(self, weight):
            super().__init__()
            self.weight, self.scale = weight, torch.nn.Parameter(torch.ones(17, 1, 1))

        def forward(self, trace, batch, progress):
            return {"calm": self.weight * (self.scale * trace.logits[0]).square().mean()}

    LESSONS["calm"] = Lesson(lambda model, teacher, recipe: Calm(recipe.weight("calm")))
    try:
        changes = dict(lessons={"calm": 0.01})
        through = trainer(people, **changes)
        network = through.fit()
        trainer(people, tmp_path, **changes).fit(epochs=1)
        resumed = trainer(people, tmp_path, **changes)
        again = resumed.fit(resume=True)
        with pytest.raises(DataError, match="lessons = .*calm"):
            trainer(people, tmp_path, lessons={"calm": 0.02}).fit(resume=True)
    finally: del LESSONS["calm"]
    assert through.history[-1]["calm"] > 0
    assert (through.beside[0].scale < 1).all()    # it was trained along
    assert torch.equal(through.beside[0].scale, resumed.beside[0].scale)
    assert same_weights(network, again)
    with pytest.raises(DataError, match="'calm', which is not in LESSONS"):
        trainer(people, **changes)
    with pytest.raises(DataError, match="'output' is a field of the recipe"):
        trainer(people, lessons={"output": 1.0})


def test_other_objectives_are_another_run(people, tmp_path):
    def run(weight):
        made = trainer(people, tmp_path)
        made.objectives.append(CycleObjective(2, weight, 0))
        return made
    run(0.1).fit(epochs=1)
    with pytest.raises(DataError, match="objectives = "): run(0.2).fit(resume=True)
    with pytest.raises(DataError, match="objectives = "): trainer(people, tmp_path).fit(resume=True)
    run(0.1).fit(resume=True, epochs=2)


def test_papers_recipe_is_the_papers():
    recipe = RECIPES["tokenpose_s_v1_coco"]
    assert (recipe.optimizer, recipe.lr, recipe.epochs, recipe.batch_size, recipe.milestones) == (
        "adam", 1e-3, 300, 128, (200, 260),
    )
    assert [round(rate_share(recipe, e * 100, 100), 9) for e in (0, 250, 299)] == [1, 0.1, 0.01]
    assert not schedule_notes(recipe, 100)


@pytest.mark.parametrize("changes, words", [
    (dict(epochs=200), "not divided after 200, 260 epochs, because the run has 200"),
    (dict(epochs=201), "not divided after 260 epochs"),
    (dict(epochs=300, warmup_steps=3000), "--warmup-steps is 3000, the run has 3000"),
])
def test_odd_learning_rates_are_said(changes, words):
    (note,) = schedule_notes(RECIPES["tokenpose_s_v1_coco"].change(**changes), 10)
    assert note.startswith("WARNING") and words in note


@pytest.mark.parametrize("head, loss, said", [
    ("mlp", "cross_entropy", True), ("mlp", "auto", False), ("dot", "auto", False),
])
def test_scores_that_will_say_nothing_are_said(people, tmp_path, head, loss, said):
    "What such a head paints are logits: a peak of 20 may be a joint that is not there."
    overrides = TINY["overrides"] | dict(head=head)
    run = trainer(people, tmp_path, overrides=overrides, loss=loss, warmup_steps=0)
    assert ["scores say nothing" in note for note in notes_on(run)] == [True] * said


def test_a_dot_head_that_answers_for_another_spread_is_said(people, tmp_path):
    "Its heatmaps are scaled so that an ideal answer of its own spread has peak 1."
    run = trainer(people, tmp_path, sigma=2.0, warmup_steps=0)
    target, _ = encode_heatmaps(torch.tensor([[[12.0, 16.0]]]), torch.ones(1, 1), (32, 24), 2.0)
    peak = run.model.head.heatmaps(target.clamp(min=1e-30).log()).max().item()
    assert peak == pytest.approx(0.25, abs=1e-3)
    note, = notes_on(run)
    assert "of --sigma 2 reach 0.25 in place of 1" in note
    fitting = TINY["overrides"] | dict(head_sigma=2.0)
    assert not notes_on(trainer(people, tmp_path, overrides=fitting, sigma=2.0, warmup_steps=0))


def test_every_recipe_builds_its_network_and_its_lessons():
    @cache
    def teacher(name, image_size):
        with torch.device("meta"): return create_model(name, image_size=image_size)

    for name, recipe in RECIPES.items():
        with torch.device("meta"):    # shapes without numbers are enough
            student = create_model(recipe.model, image_size=recipe.image_size, **recipe.overrides)
        taught_by = next(
            (f"tokenpose_{size}" for size in ("nano", "lite") if size in name), "tokenpose_s_v1"
        )
        objectives = make_objectives(student, recipe, teacher(taught_by, recipe.image_size))
        assert len(objectives) == 1 + sum(recipe.weight(lesson) > 0 for lesson in LESSONS)
        assert make_optimizers(student, recipe)[0].param_groups and get_recipe(name) == recipe


TAUGHT = dict(model="dppt_nano", output=1.0, features=1.0, attention=0.5, guide=0.3)


@pytest.fixture(scope="module")
def teacher(people):
    # wider than the student, so that the feature lesson has weights of its own
    torch.manual_seed(3)
    wider = dict(TINY["overrides"], width=24)
    return create_model("tokenpose_nano", image_size=SIZE, **wider).eval()


def taught(people, teacher, out=None, **changes):
    return Trainer(
        Recipe(**TINY).change(**{**TAUGHT, **changes}), people, people, out, "cpu", bars=False,
        teacher=teacher,
    )


def test_a_taught_run_resumes_to_the_bit_with_what_its_objectives_learned(
    people, teacher, tmp_path
):
    changes = dict(overrides=dict(TINY["overrides"], prune_at=(1,)), anneal=(0.0, 0.9))
    through = taught(people, teacher, **changes)
    network = through.fit()
    taught(people, teacher, tmp_path, **changes).fit(epochs=1)
    resumed = taught(people, teacher, tmp_path, **changes)
    again = resumed.fit(resume=True)
    assert same_weights(network, again)
    assert len(list(through.beside.parameters())) > 0
    assert all(
        torch.equal(a, b) for a, b in zip(through.beside.parameters(), resumed.beside.parameters())
    )
    assert set(through.history[-1]) >= {"pose", "output", "features", "attention", "guide"}
    assert load_network(tmp_path)[0].keep_ratio == again.keep_ratio


def test_both_papers_together_are_a_recipe(people, teacher, tmp_path):
    changes = dict(
        overrides=dict(TINY["overrides"], prune_at=(1,), cycles=2), keypoint_cycles=0.1,
        patch_cycles=0.1, heatmap_cycles=0.5,
    )
    through = taught(people, teacher, **changes).fit()
    taught(people, teacher, tmp_path, **changes).fit(epochs=2)
    run = taught(people, teacher, tmp_path, **changes)
    again = run.fit(resume=True)
    assert same_weights(through, again)
    assert set(run.history[-1]) >= {
        "pose", "pose_later", "output", "features", "attention", "keypoint_cycles", "patch_cycles",
        "heatmap_cycles",
    }
    deployed, _, _ = load_network(tmp_path)
    images = torch.randn(2, 3, *SIZE)
    # one pass is what is used
    with torch.no_grad():
        assert torch.allclose(deployed(images), deployed.trace(images).heatmaps[0], atol=1e-5)


@pytest.mark.parametrize("supervise, names", [("all", {"pose", "pose_later"}), ("last", {"pose"})])
def test_cycles_that_are_held_to_the_truth(people, supervise, names):
    run = trainer(people, model="sdpose_nano", supervise=supervise)
    losses = run.train_epoch()
    assert set(losses) == names


def test_half_precision_gives_the_same_losses_with_cycles_and_a_teacher(people, teacher):
    changes = dict(
        overrides=dict(TINY["overrides"], prune_at=(1,), cycles=2, keep_ratio=1.0),
        keypoint_cycles=0.1,
        patch_cycles=0.1,
    )
    both = []
    for kind in ("fp32", "bf16"):
        run = taught(people, teacher, precision=kind, **changes)
        batch = make_batch(
            people, torch.arange(16), run.recipe, None, run.draws, run.model.heatmap_size
        )
        both.append(run.train_step(batch))
    assert set(both[0]) == set(both[1])
    for name in both[0]:
        assert abs(both[0][name] - both[1][name]) <= 1e-2 * max(abs(both[0][name]), 1e-2), name


def test_the_regression_head_learns_by_residual_log_likelihood(people, tmp_path):
    run = trainer(
        people, tmp_path, overrides=dict(TINY["overrides"], head="regression", cycles=2), epochs=4
    )
    run.fit()
    assert run.history[-1]["rle"] < run.history[0]["rle"] and len(list(run.beside.parameters())) > 0
    names = set(load_network(tmp_path)[0].state_dict())
    assert names == set(run.model.state_dict())    # the flow is not in the file


def test_what_an_objective_learns_is_trained_and_left_behind(people, teacher, tmp_path):
    run = taught(people, teacher, tmp_path, overrides=dict(TINY["overrides"], prune_at=(1,)))
    before = [p.clone() for p in run.beside.parameters()]
    run.fit(epochs=1)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.beside.parameters()))
    # strict: nothing of the teacher and of the objectives is in the file
    assert set(load_network(tmp_path)[0].state_dict()) == set(run.model.state_dict())


def test_the_teacher_is_not_touched(people, teacher):
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    taught(people, teacher, overrides=dict(TINY["overrides"], prune_at=(1,))).fit(epochs=1)
    assert not teacher.training and all(
        torch.equal(v, before[k]) for k, v in teacher.state_dict().items()
    )


def test_another_teacher_is_refused(people, teacher, tmp_path):
    changes = dict(overrides=dict(TINY["overrides"], prune_at=(1,)))
    taught(people, teacher, tmp_path, **changes).fit(epochs=1)
    torch.manual_seed(4)
    other = create_model("tokenpose_nano", image_size=SIZE, **dict(TINY["overrides"], width=24))
    with pytest.raises(DataError, match="taught_by"):
        taught(people, other, tmp_path, **changes).fit(resume=True)
    with pytest.raises(DataError, match="--teacher"): taught(people, None, **changes)


def test_the_keep_ratio_falls_along_its_schedule(people):
    run = trainer(
        people, model="ppt_nano", anneal=(0.0, 1.0),
        overrides=dict(TINY["overrides"], prune_at=(1,), keep_ratio=0.5),
    )
    ratios = []
    for _ in range(3):
        run.history.append(run.epoch_row(None))
        ratios.append(run.model.keep_ratio)
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > ratios[-1] >= 0.5
    # validation sees what training has reached
    assert run.network().keep_ratio == run.model.keep_ratio


def test_a_run_from_before_a_field_existed_goes_on(people, begun, through):
    saved = json.loads((begun / "training.json").read_text())
    for newer in ("teacher", "anneal", "supervise"): saved["recipe"].pop(newer)
    saved.pop("taught_by")
    (begun / "training.json").write_text(json.dumps(saved))
    again = trainer(people, begun)
    again.fit(resume=True)
    assert [row["pose"] for row in again.history] == [row["pose"] for row in through.history]


def test_average_follows_by_the_rule_and_copies_counters():
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.BatchNorm1d(1))
    average, mine = Average(model, 0.5), model[0].weight.detach().clone()
    for step in range(1, 40):
        torch.nn.init.constant_(model[0].weight, step)
        model[1].num_batches_tracked += 3
        average.update_parameters(model)
        mine.lerp_(model[0].weight.detach(), 1 - min(0.5, (1 + step) / (10 + step)))
        assert torch.equal(average.module[0].weight, mine)
    assert average.module[1].num_batches_tracked == 3 * 39
    assert not any(p.requires_grad for p in average.parameters())


def test_a_copy_of_an_average_follows_the_same_model():
    model = torch.nn.Linear(3, 1)
    average = Average(model, 0.5)
    average.update_parameters(model)
    twin = copy.deepcopy(average)
    torch.nn.init.constant_(model.weight, 5)
    for each in (average, twin): each.update_parameters(model)
    assert torch.equal(twin.module.weight, average.module.weight)
    assert not torch.equal(twin.module.weight, model.weight)


@pytest.mark.parametrize(
    "name, value",
    [
        ("batch_size", 0), ("batch_size", -3), ("epochs", 0), ("eval_every", 0),
        ("image_size", (128,)), ("betas", (0.9,)), ("overrides", [1]), ("decode", "foo"),
        ("kernel", 4), ("sigma", -1.0), ("ema", 2.0), ("warmup_steps", -5), ("lr", 1e30),
        ("seed", -1), ("optimizer", "sgd"), ("schedule", "linear"), ("precision", "fp8"),
        ("lr", "fast"),
    ],
)
def test_values_that_no_run_can_have_are_refused_at_once(name, value):
    with pytest.raises(DataError, match=f"{name} is "): Recipe().change(**{name: value})


def test_a_lost_network_comes_back_with_resume(people, tmp_path):
    network = trainer(people, tmp_path).fit()
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text("{")
    trainer(people, tmp_path).fit(resume=True)
    assert all(
        torch.equal(v, load_network(tmp_path)[0].state_dict()[k])
        for k, v in network.state_dict().items()
    )


@pytest.mark.parametrize("damage", ["cut", "gone", "no state", "a list"])
def test_a_damaged_state_is_one_sentence(people, begun, damage):
    state, training = begun / "state-0001.safetensors", begun / "training.json"
    if damage == "cut": state.write_bytes(state.read_bytes()[:1000])
    if damage == "gone": state.unlink()
    if damage == "no state":
        training.write_text(
            json.dumps({k: v for k, v in json.loads(training.read_text()).items() if k != "state"})
        )
    if damage == "a list": training.write_text("[]")
    with pytest.raises(DataError, match="cannot go on|go on from another state") as caught:
        trainer(people, begun).fit(resume=True)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_number_is_null_in_json(tmp_path):
    from dppt_nb.files import write_json
    write_json(tmp_path / "a.json", {"score": math.nan, "rows": [(1.0, math.inf)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"score": None, "rows": [[1.0, None]]}


def test_a_run_folder_is_one_that_from_pretrained_reads(people, tmp_path):
    trainer(
        people, tmp_path, model="ppt_nano",
        overrides=dict(TINY["overrides"], prune_at=(1,), keep_ratio=0.5),
    ).fit(epochs=1)
    ours, theirs = load_network(tmp_path)[0], PoseTransformer.from_pretrained(tmp_path)
    assert (
        theirs.about["recipe"]["model"] == "ppt_nano"
        and theirs.about["keypoint_set"]["names"]
        and theirs.keep_ratio == 0.5
    )
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad(): assert torch.allclose(ours(images), theirs(images), atol=1e-6)


def test_imagenet_weights_start_the_backbone(tmp_path):
    from safetensors.torch import save_file

    from dppt_nb.augmentation import Augmentation
    small = from_synthetic(make_people(4, COCO17, (64, 64), seed=1, margin=1.5))
    donor = create_model("tokenpose_b", image_size=(64, 64)).backbone
    state = {
        k: torch.full_like(v, 0.25) if v.is_floating_point() else v
        for k, v in donor.state_dict().items()
    }
    save_file(
        {f"backbone.{k}": v.contiguous() for k, v in state.items()}, tmp_path / "hrnet.safetensors"
    )
    recipe = Recipe(
        model="tokenpose_b", image_size=(64, 64),
        backbone_weights=str(tmp_path / "hrnet.safetensors"), augmentation=Augmentation(),
    )
    run = Trainer(recipe, small, device="cpu", bars=False)
    assert all((p == 0.25).all() for p in run.model.backbone.parameters())
    with pytest.raises((DataError, ValueError, OSError), match="nowhere"):
        Trainer(replace(recipe, backbone_weights="nowhere.pth"), small, device="cpu", bars=False)
    with pytest.raises(ValueError, match="stem|backbone"):
        Trainer(replace(recipe, model="tokenpose_s_v1"), small, device="cpu", bars=False)


def make_often(folder):
    for _ in range(1000): make_folder(folder)


def test_runs_may_share_an_output_folder(tmp_path):
    "Two processes that try the folder at once do not take each other's trial file for a failure."
    both = [FORKED.Process(target=make_often, args=(tmp_path,)) for _ in range(2)]
    for process in both: process.start()
    for process in both: process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert not list(tmp_path.iterdir())


def test_crops_that_are_fetched_ahead_train_the_same_bits(people, tmp_path):
    contents = [encode_crop(image.permute(1, 2, 0).numpy()) for image in people.images]
    size = tuple(people.images.shape[2:])
    streamed = replace(people, images=EncodedCrops(contents, size, "jpeg", "this test"))
    decoded = replace(people, images=streamed.images[:])
    one, two = trainer(decoded, epochs=2), trainer(streamed, tmp_path / "run", epochs=2)
    one.fit()
    two.fit(epochs=1)
    two = trainer(streamed, tmp_path / "run", epochs=2)    # and goes on with them
    two.fit(resume=True)
    assert one.history[0]["pose"] == two.history[0]["pose"]
    for a, b in zip(one.model.parameters(), two.model.parameters()): assert torch.equal(a, b)


def test_crops_on_the_device_are_not_fetched(people):
    "A device may be named with its number or without; a recorded step needs the people's numbers."
    loop, asked = trainer(people, epochs=1), []
    loop.device = torch.device("cpu", 0)
    loop.train_people = lambda index: asked.append(len(index)) or {}
    list(loop.train_batches(loop.batches()))
    assert asked == [16, 16, 16]

"""Endless people: the same for the same seed and epoch, others otherwise; a run that goes on."""
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from weights import same_weights

from dppt_nb import endless, synthetic
from dppt_nb.checks import DataError
from dppt_nb.cli import main
from dppt_nb.endless import EndlessPeople, endless_people
from dppt_nb.recipes import Recipe
from dppt_nb.store import load_people, synthetic_people
from dppt_nb.trainer import Trainer

SIZE = (64, 48)


@pytest.fixture(autouse=True, scope="module")
def small_chunks(made_anew):
    "Eight people at once, so that twenty are three chunks."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "CHUNK", 1)
        yield


def same(a, b):
    names = ("images", "joints", "visible", "affine", "centers", "scales", "ids")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def pictures(*sets):
    "Every picture as bytes."
    return {image.numpy().tobytes() for crops in sets for image in crops.images}


@pytest.fixture(scope="module")
def crops(small_chunks):
    return endless_people(3, 1, 20, SIZE)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_seed_and_epoch_are_the_same_people(crops, workers):
    assert same(crops, endless_people(3, 1, 20, SIZE, workers=workers))
    fewer = endless_people(3, 1, 13, SIZE, workers=workers)
    assert same(crops.select(slice(13)), fewer)


def test_another_seed_and_another_epoch_are_others(crops):
    others = [endless_people(s, e, 8, SIZE) for s, e in ((3, 0), (3, 2), (2, 1), (0, 0))]
    others += [synthetic_people(split, SIZE, 8) for split in ("train", "val", "test")]
    assert len(pictures(crops, *others)) == 20 + 7 * 8


def test_renewing_keeps_the_place_and_the_digest(crops):
    mine = endless_people(3, 0, 20, SIZE)
    place, digest, first = mine.images.data_ptr(), mine.digest, mine.images.clone()
    plain = synthetic_people("val", SIZE, 2)
    before = plain.images.clone()
    plain.renew(0, 5)
    assert torch.equal(plain.images, before)  # ordinary people stay
    mine.renew(3, 1)
    assert same(mine, crops) and not torch.equal(first, mine.images)
    assert (mine.images.data_ptr(), mine.digest) == (place, digest)
    mine.renew(3, 0)
    assert torch.equal(first, mine.images)  # back again
    moved = mine.to("cpu").select(slice(9))
    moved.renew(3, 1)
    assert same(moved, crops.select(slice(9)))
    assert len({digest, moved.digest, endless_people(0, 0, 20, (32, 24)).digest}) == 3


class Renewing(Trainer):
    "A trainer that asks for new people when an epoch begins."
    def train_epoch(self, *given):
        self.train_set.renew(self.recipe.seed, self.epoch)
        return super().train_epoch(*given)


def test_a_run_that_goes_on_sees_the_same_people(tmp_path):
    recipe = Recipe(
        model="tokenpose_nano", image_size=SIZE, epochs=3, batch_size=8, warmup_steps=3,
        overrides=dict(width=32, depth=1, heads=2),
    )
    run = lambda out, **how: Renewing(
        recipe, endless_people(0, 0, 16, SIZE), None, out, "cpu", bars=False
    ).fit(**how).state_dict()
    through = run(None)
    run(tmp_path, epochs=1)
    resumed = run(tmp_path, resume=True)
    assert same_weights(through, resumed)
    still = Trainer(recipe, synthetic_people("train", SIZE, 16), None, None, "cpu", bars=False)
    assert not same_weights(still.fit(), through)


def test_the_command_line_knows_the_word(monkeypatch):
    import dppt_nb.store as store
    monkeypatch.setitem(store.SYNTHETIC_PEOPLE, "train", 12)
    monkeypatch.setitem(store.SYNTHETIC_PEOPLE, "val", 6)
    sets = load_people("synthetic", None, ("train", "val"), (32, 24), people="endless")
    assert isinstance(sets["train"], EndlessPeople) and [*map(len, sets.values())] == [12, 6]
    assert not isinstance(sets["val"], EndlessPeople)
    with pytest.raises(DataError, match="--people counts people made by program"):
        load_people("coco", "somewhere", people="endless")
    for words in (["eval", "x", "--people", "endless"], ["train", "x", "--people", "0"]):
        assert CliRunner().invoke(main, words).exit_code == 2


def test_a_renewal_is_timed_by_a_part_of_it(crops, monkeypatch):
    "Eight chunks for each thread, after one that warms up; whoever is here stays."
    made, make, clock = [], endless._make, iter([100.0, 103.0])
    monkeypatch.setattr(
        endless, "_make", lambda *given: made.append((given[2], given[-1])) or make(*given)
    )
    monkeypatch.setattr(endless, "usable_cores", lambda: 2)
    monkeypatch.setattr(endless, "chunk_size", lambda size, device: 1)
    monkeypatch.setattr(endless, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    before = crops.images.clone()
    assert crops.time_renewal() == 3.0 * 20 / 16 and made == [(1, 2), (16, 2)]
    assert torch.equal(crops.images, before) and crops.epoch == (3, 1)


def test_people_who_stay_cost_nothing(crops):
    plain = synthetic_people("val", SIZE, 4)
    assert (plain.renewals(3, 0, 9), plain.time_renewal()) == (0, 0.0)
    # of seed 3 those of epoch 1 are here
    found = [crops.renewals(*given) for given in ((3, 1, 9), (3, 0, 9), (4, 1, 9), (3, 1, 1))]
    assert found == [7, 9, 8, 0]

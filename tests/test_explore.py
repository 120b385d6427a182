"""The explorers, driven without a browser; `test_jupyterlab.py` has them in a kernel and in one."""
import copy
import io
import re
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dppt_nb.checkpoints import load_network
from dppt_nb.checks import DataError
from dppt_nb.demo import attention_overlay
from dppt_nb.explore import (
    explore_attention,
    explore_cycles,
    explore_film,
    explore_pair,
    explore_photo,
    explore_reduction,
)
from dppt_nb.pictures import FREE_PHOTOS, free_photo
from dppt_nb.stills import (
    Film,
    attention_pictures,
    read_film,
    read_upload,
    reduce_person,
    shared_attention,
    sharpness,
)
from dppt_nb.store import synthetic_people
from dppt_nb.tokenpose import PoseTransformer
from dppt_nb.views import (
    View,
    attention_on_grid,
    attention_picture,
    crop_person,
    plain_crops,
    show_attention,
    show_pictures,
    view_person,
)

NETWORKS = {name: load_network(name) for name in ("tokenpose_nano", "ppt_nano_d12")}
JOINTS = NETWORKS["tokenpose_nano"][2]


@pytest.fixture(scope="module")
def crop():
    "Somebody made by program."
    recipe = NETWORKS["tokenpose_nano"][1]
    return plain_crops(synthetic_people("test", recipe.image_size, 5), recipe)[4]


@pytest.fixture(scope="module")
def views(crop):
    "The same person as both networks see them, the first in two cycles."
    (plain, *known), (pruned, *others) = NETWORKS.values()
    return [view_person(plain, crop, *known, 2), view_person(pruned, crop, *others)]


@pytest.fixture(scope="module")
def reduced(crop):
    return reduce_person(NETWORKS["ppt_nano_d12"][0], crop, *NETWORKS["ppt_nano_d12"][1:],
                         ratios=(0.5, 1.0), rounds=1)


@pytest.fixture(scope="module")
def film(crop):
    "Two frames: a network that knows nothing, and one that does."
    network, recipe, _ = NETWORKS["tokenpose_nano"]
    film = Film(crop[None], JOINTS, recipe.decode, recipe.kernel)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        film.add(PoseTransformer(network.config).eval(), 0)
    film.add(network, 24)
    return film


# Views

def test_attention_lies_where_its_patches_are(views):
    plain, pruned = views
    J, joint = len(JOINTS), 9
    whole = plain.trace.attention[1][2][0, 1, joint, J:]
    assert torch.equal(attention_on_grid(plain, 2, joint, 1, cycle=1), whole)
    shares = attention_on_grid(pruned, 11, joint)
    left = pruned.trace.columns[0][11][0]
    assert shares.isnan().sum() == len(shares) - len(left)
    assert torch.equal(shares[left], pruned.trace.attention[0][11][0, :, joint, J:].mean(0))
    assert attention_picture(pruned, shares).shape == pruned.crop.shape


@pytest.mark.parametrize("patch", [0, 5, 6 * 5 + 2, 8 * 6 - 1])
def test_heat_of_a_patch_lies_on_the_patch(patch):
    "Its middle is in the middle of the patch, also at the edge of the picture."
    view = View(np.full((128, 96, 3), 90, np.uint8), None, None, None, (8, 6), JOINTS)
    shares = torch.eye(8 * 6)[patch]
    hot = attention_picture(view, shares).astype(int) - attention_picture(view, 0 * shares)
    place = np.argwhere(np.abs(hot).sum(-1) == np.abs(hot).sum(-1).max())
    row, column = divmod(patch, 6)
    corner = np.array((16 * row, 16 * column))
    # one of the four pixels around the middle is among the hottest; at the edge heat stays as high
    assert ((place - corner >= 0) & (place - corner < 16)).all()
    assert (np.abs(place - corner - 7.5) == 0.5).all(1).any()
    assert np.array_equal(attention_overlay(torch.from_numpy(view.photo), shares, (8, 6)),
                          attention_picture(view, shares))


def test_attention_that_was_not_recorded_is_refused(crop):
    network, *known = NETWORKS["tokenpose_nano"]
    view = view_person(network, crop, *known, look=(1,))
    attention_on_grid(view, 1, 0)
    with pytest.raises(DataError, match="no attention of layer 3"): attention_on_grid(view, 2, 0)


def test_a_crop_may_be_a_view_of_a_picture(crop, views, recwarn):
    "Pillow's cannot be written to, of which PyTorch warns; a mirrored one has negative strides."
    network, *known = NETWORKS["tokenpose_nano"]
    always = torch.is_warn_always_enabled()    # else once a process
    torch.set_warn_always(True)
    try:
        view = view_person(network, np.asarray(Image.fromarray(crop)), *known)
        reduce_person(NETWORKS["ppt_nano_d12"][0], np.asarray(Image.fromarray(crop)),
                      *NETWORKS["ppt_nano_d12"][1:], ways=("prune",), ratios=(0.5,), rounds=1)
    finally: torch.set_warn_always(always)
    assert np.array_equal(view.joints[0], views[0].joints[0])
    assert not [str(w.message) for w in recwarn]
    view_person(network, crop[:, ::-1], *known)


def test_a_network_whose_pruning_layers_were_set_can_be_reduced(crop):
    network, *known = NETWORKS["tokenpose_nano"]
    network = copy.deepcopy(network)
    network.encoder.prune_at = (1,)
    half, = reduce_person(
        network, crop, *known, ways=("prune",), ratios=(0.5,), rounds=1
    ).values()
    assert half.view.trace.kept[0][1].shape == (1, 24)


def test_what_lies_outside_of_the_photograph_is_not_shown():
    network, *known = NETWORKS["tokenpose_nano"]
    crop = crop_person(free_photo("camera"), FREE_PHOTOS["camera"], network.image_size)
    view = view_person(network, crop, *known)
    rows, columns = view.part
    assert view.crop.shape[0] < len(crop) and not crop[rows.stop:].any()
    assert view.drawn().shape == view.kept().shape == view.heat(0).shape == view.crop.shape
    black = view_person(network, np.zeros_like(crop), *known)
    assert black.crop.shape == crop.shape


def test_tables_of_attention_have_a_cell_for_each_layer_and_head(views):
    figure = show_attention(views[0], "nose", (0, 3), cycle=1)
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "2", "3", "4", "mean"]
    with pytest.raises(DataError, match="no 'elbow'"): show_attention(views[0], "elbow", (0,))


# Explorers, without a browser

def explorers(views, reduced, film):
    "Every explorer that looks things up, and a step of each of its controls."
    plain, pruned = views
    return {
        "attention": (explore_attention(pruned), dict(joint="left_knee", layer=3, head=2)),
        "reduction": (explore_reduction(reduced), dict(ratio=0.5, way="merge", layer=5)),
        "cycles": (explore_cycles(plain), dict(cycle=2, joint="nose")),
        "pair": (explore_pair(plain, views[0]), dict(joint="left_wrist", layer=2)),
        "film": (explore_film(film), dict(epoch=0, joint="left_wrist")),
    }


def test_a_step_looks_things_up_and_sets_the_figure_anew(views, reduced, film, monkeypatch):
    made = explorers(views, reduced, film)

    def asked(*given, **more): pytest.fail("a slider asked the network")
    monkeypatch.setattr(PoseTransformer, "forward", asked)
    for name, (explorer, steps) in made.items():
        images = [ax.images[0] for ax in explorer.figure.axes]
        for control, value in steps.items():
            before = explorer.image.value, explorer.words.value
            assert explorer.controls[control].value != value, (name, control)
            explorer.controls[control].value = value
            assert explorer.image.value != before[0], f"{name}: {control} changes no picture"
            assert explorer.words.value != before[1], f"{name}: {control} changes no word"
        assert [ax.images[0] for ax in explorer.figure.axes] == images, "artists stay"


def test_controls_have_labels_and_pictures_have_words(views, reduced, film):
    for explorer, _ in explorers(views, reduced, film).values():
        assert all(control.description for control in explorer.controls.values())
        assert 'role="status"' in explorer.words.value
        words = re.search('<img alt="([^"]+)" src="data:image/png;base64', explorer.image.value)
        assert words and words[1] in explorer.words.value
        shown = explorer._repr_mimebundle_()
        assert "controls" in shown["text/plain"] and len(shown) == 2


def test_the_still_twin_shows_what_the_explorer_shows(views):
    explorer = explore_attention(views[1])
    for name, value in dict(joint="left_hip", layer=4, head="mean").items():
        explorer.controls[name].value = value
    pictures, sentence = attention_pictures(views[1], "left_hip", 4, "mean")
    shown = [ax.images[0].get_array() for ax in explorer.figure.axes]
    assert all(np.array_equal(a, b) for a, b in zip(shown, pictures.values()))
    assert sentence in explorer.words.value
    still = show_pictures([pictures])
    assert [ax.get_title() for ax in still.axes] == list(pictures)


def test_without_ipywidgets_one_sentence_says_what_to_install(views, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(DataError, match=r'pip install -e "\.\[notebooks\]"'):
        explore_cycles(views[0])


# What they look up

def test_reduction_leaves_the_network_as_it_was_and_costs_less(reduced):
    network = NETWORKS["ppt_nano_d12"][0]
    assert network.keep_ratio == 0.7 and network.encoder.reducer.__name__ == "prune"
    left = {s: r.view.trace.kept[0][-1].shape[1] for s, r in reduced.items()}
    assert left == {("prune", 0.5): 6, ("prune", 1.0): 48, ("merge", 0.5): 6, ("merge", 1.0): 48}
    assert reduced["prune", 0.5].macs < reduced["prune", 1.0].macs == reduced["merge", 1.0].macs
    assert all(r.milliseconds > 0 for r in reduced.values())


def test_shared_attention_is_one_with_itself_and_nothing_where_nothing_is_shared():
    ours = torch.rand(48)
    assert shared_attention(ours, ours) == pytest.approx(1)
    assert shared_attention(torch.tensor([1.0, 0]), torch.tensor([0, 1.0])) == 0


def test_films_are_read_as_they_were_saved(film, tmp_path):
    film.save(tmp_path / "film.safetensors")
    again = read_film(tmp_path / "film.safetensors", JOINTS, NETWORKS["tokenpose_nano"][1])
    assert again.epochs == [0, 24] and np.array_equal(again.photos, film.photos)
    assert torch.equal(torch.stack(again.frames), torch.stack(film.frames))
    blurred, sharp = (sharpness(frame[0]) for frame in film.frames)
    assert sharp > 5 * blurred
    recipe, weights = NETWORKS["tokenpose_nano"][1], Path(load_network.__code__.co_filename)
    with pytest.raises(DataError, match="17 joints, .* has 16"):
        from dppt_nb.keypoints import MPII16
        read_film(tmp_path / "film.safetensors", MPII16, recipe)
    with pytest.raises(DataError, match="is no film"):
        read_film(weights.parent / "weights/tokenpose_nano/model.safetensors", JOINTS, recipe)


# A photograph of one's own

def upload(content, name="mine.jpg"):
    return ({
        "name": name, "type": "image/jpeg", "size": len(content), "last_modified": datetime.now(),
        "content": memoryview(content),
    },)


def saved(picture, **settings):
    file = io.BytesIO()
    picture.save(file, "JPEG", **settings)
    return file.getvalue()


def test_uploads_are_turned_as_exif_says_and_made_small():
    tag = Image.Exif()
    tag[0x0112] = 6
    wide = Image.new("RGB", (3000, 1000), "red")
    assert read_upload(upload(saved(wide))).shape == (341, 1024, 3)
    assert read_upload(upload(saved(wide, exif=tag))).shape == (1024, 341, 3)


def test_an_upload_without_loss_is_the_photograph_itself():
    file, photo = io.BytesIO(), free_photo("camera")
    Image.fromarray(photo).save(file, "png")
    assert np.array_equal(read_upload(upload(file.getvalue(), "mine.png")), photo)


def test_an_upload_is_asked_about_and_a_bad_one_becomes_a_sentence():
    explorer = explore_photo(NETWORKS, free_photo("camera"))
    first = explorer.image.value
    assert "joints are drawn" in explorer.words.value
    explorer.controls["file"].value = upload(saved(Image.fromarray(free_photo("astronaut"))))
    second = explorer.image.value
    assert second.split("src")[1] != first.split("src")[1]
    explorer.controls["file"].value = upload(b"no picture", "notes.jpg")
    said = explorer.words.value
    assert "notes.jpg cannot be read as a photo" in said and "the photo in bytes" not in said
    assert "The pictures are still the former ones." in said
    assert explorer.image.value == second    # and what is said of it, which is still so
    explorer.controls["file"].value = ()
    for frame in ((40, 41), (40, 40)):
        explorer.controls["across"].value = frame
        assert "the frame is less than 2 % wide or high" in explorer.words.value
    explorer.controls["across"].value = (40, 42)
    assert "joints are drawn" in explorer.words.value
    assert "are drawn" in explorer.image.value.partition("src")[0]
    explorer.controls["across"].value = (10, 90)
    explorer.controls["network"].value = "ppt_nano_d12"
    assert "17 of 48 patches left" in explorer.words.value


def test_a_view_of_one_layer_is_shown_and_explored(crop):
    "Only what was recorded is offered."
    network, *known = NETWORKS["tokenpose_nano"]
    view = view_person(network, crop, *known, look=(2,))
    assert show_attention(view, "nose", (2,)).axes
    with pytest.raises(DataError, match="no attention of layer 1"):
        show_attention(view, "nose", (0,))
    explorer = explore_attention(view)
    assert explorer.controls["layer"].options == (3,)
    with pytest.raises(DataError, match="no attention"):
        explore_attention(view_person(network, crop, *known, look=()))


@pytest.mark.parametrize("give", [
    lambda path: str(path), lambda path: path, lambda path: Image.open(path),
    lambda path: np.asarray(Image.open(path)) / 255,
])
def test_a_photo_is_given_as_to_a_predictor(give):
    path = Path(__file__).resolve().parent.parent / "dppt_nb" / "photos" / "astronaut.jpg"
    explorer = explore_photo(NETWORKS, give(path))
    assert "joints are drawn" in explorer.words.value


def test_what_cannot_be_explored_is_one_sentence(views, crop, film):
    network = load_network("dppt_nano_lspet")
    other = view_person(network[0], crop, *network[1:])
    empty = Film(film.photos, film.keypoint_set, film.decode, film.kernel, film.unbiased)
    for action, words in (
        (lambda: explore_photo({}, free_photo("astronaut")), "no network"),
        (lambda: explore_photo({"a": "tokenpose_nano"}, free_photo("astronaut")), "is no network"),
        (lambda: explore_photo(NETWORKS, "gone.jpg"), "gone.jpg does not exist"),
        (lambda: explore_pair(views[0], other), "find different joints"),
        (lambda: explore_reduction({}), "nothing is reduced"),
        (lambda: explore_film(empty), "no epoch"),
        (lambda: show_attention(views[0], "nose", (99,)), "no layer 100 of"),
        (lambda: show_attention(views[0], "nose", (0,), 9), "no layer 1 of cycle 10"),
        (lambda: attention_on_grid(views[0], 0, 0, 99), "no head 100"),
        (lambda: view_person(network[0], crop, network[1], JOINTS), "finds 14 keypoints"),
    ):
        with pytest.raises(DataError, match=words): action()


def test_a_pair_is_explored_as_far_as_both_have_layers(views, crop):
    small, recipe, joints = NETWORKS["tokenpose_nano"]
    other = PoseTransformer(replace(small.config, depth=2)).eval()
    explorer = explore_pair(view_person(other, crop, recipe, joints), views[0])
    assert explorer.controls["layer"].max == 2

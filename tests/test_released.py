"""Released layouts, for everybody: checkpoints made by program give the heatmaps that were worked
out once, plainly and in float64, and are stored here as numbers."""
import pytest
import torch
from released_fixture import (
    DEPTH,
    IMAGE,
    JOINTS,
    LAYOUTS,
    PATCH,
    pictures,
    plain_heatmaps,
    released,
)

from dppt_nb import create_model, load_released

SCALES = {"tokenpose_s_v1": 192**-0.5, "sdpose_t": 24**-0.5}
# layout -> a network that is released in it
NETWORK = {"tokenpose": "tokenpose_s_v1", "parallel": "tokenpose_s_v1", "mmpose": "sdpose_t"}
# of every joint in every picture, the heatmap at rows 0, 5, 10, 15 of columns 1 and 8
EXPECTED = {
    "tokenpose_s_v1": [
        -1.683568, -0.011042, -1.273711, -1.832875, 1.363195, 0.900918, -0.315658, -2.135241,
        -1.773857, 0.095047, -1.442555, -1.898597, 1.527327, 0.854943, -0.439743, -2.168503,
        -1.782671, -0.051620, -1.260917, -1.888647, 1.354849, 0.800213, -0.205234, -2.169169,
        -1.683536, -0.011144, -1.273773, -1.832800, 1.363208, 0.901072, -0.315826, -2.135233,
        -1.773788, 0.094922, -1.442595, -1.898503, 1.527370, 0.855099, -0.439872, -2.168474,
        -1.782607, -0.051735, -1.260946, -1.888561, 1.354856, 0.800373, -0.205347, -2.169151,
    ],
    "sdpose_t": [
        -1.581642, -0.000234, -1.242517, -1.818162, 1.337741, 0.823998, -0.258411, -2.102279,
        -1.725183, 0.209472, -1.643717, -1.775708, 1.371659, 0.866541, -0.653198, -2.186666,
        -1.792699, -0.138500, -1.227658, -1.905407, 1.237632, 0.829419, -0.069297, -2.234704,
        -1.581653, -0.000321, -1.242638, -1.818089, 1.337751, 0.824124, -0.258602, -2.102279,
        -1.725106, 0.209316, -1.643750, -1.775590, 1.371756, 0.866662, -0.653278, -2.186618,
        -1.792608, -0.138628, -1.227661, -1.905311, 1.237591, 0.829530, -0.069325, -2.234673,
    ],
}


def some(heatmaps): return heatmaps[:, :, ::5, 1::7].double()


def loaded(name, state):
    model = create_model(
        name, num_keypoints=JOINTS, image_size=IMAGE, depth=DEPTH, patch_size=PATCH
    )
    return load_released(model, state).eval()


@pytest.mark.parametrize("name", SCALES)
def test_stored_numbers_are_those_of_the_plain_network(name):
    wanted = torch.tensor(EXPECTED[name], dtype=torch.float64)
    found = some(plain_heatmaps(pictures(), SCALES[name]))
    torch.testing.assert_close(found.flatten(), wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_released_layout_gives_the_stored_heatmaps(layout):
    model = loaded(NETWORK[layout], released(layout))
    with torch.no_grad(): found = model(pictures())
    wanted = torch.tensor(EXPECTED[NETWORK[layout]], dtype=torch.float64)
    assert wanted.std() > 0.1
    torch.testing.assert_close(some(found).flatten(), wanted, atol=1e-4, rtol=0)
    everywhere = plain_heatmaps(pictures(), SCALES[NETWORK[layout]]).float()
    torch.testing.assert_close(found, everywhere, atol=1e-4, rtol=0)


def test_the_two_networks_differ_by_their_attention_scale():
    assert max(abs(a - b) for a, b in zip(*EXPECTED.values(), strict=True)) > 1e-2


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_what_does_not_fit_is_named(change):
    state = released("tokenpose")
    name = "features.mlp_head.1.bias"
    if change == "missing": del state[name]
    if change == "unknown": state["features.nonsense"] = state[name]
    if change == "shape": state[name] = state[name][:-1]
    word = {"missing": "head.1.bias is missing", "unknown": "nonsense is unknown"}
    with pytest.raises(ValueError, match=word.get(change, "shape")):
        loaded("tokenpose_s_v1", state)

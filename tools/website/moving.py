"""The moving picture of the landing page: patches leave a pruned network layer by layer, and the
skeleton is found in the end. An SVG whose movement is CSS; it stands still, at its end, for readers
who asked their system for less motion.

    PYTHONPATH=tools python -m website.moving    # the README's, a file of its own
"""
import base64
import io
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from dppt_nb.checkpoints import load_network
from dppt_nb.crops import normalize
from dppt_nb.heatmaps import heatmap_coordinates, rescale_joints
from dppt_nb.locks import write_whole
from dppt_nb.pruning import DROPPED
from dppt_nb.synthetic import make_people

IN_README = Path(__file__).resolve().parents[2] / "nbs" / "images" / "moving.svg"
NETWORK, CROWD, SEED = "ppt_nano_d12", 64, 900    # nobody of this seed was trained on
SIZE, SCALE, GAP = (256, 192), 2, 12
COLOURS = {"left": "#56B4E9", "right": "#E69F00", "middle": "#F0E442"}
SECONDS, FIRST, STEP, SKELETON = 10, 1.5, 1.8, 7.0    # the whole, the first pruning, between, end


@cache
@torch.no_grad()
def traced():
    """Everybody's picture, patches kept by layer, joints and scores. The network reads the picture
    at its own size."""
    network, recipe, points = load_network(NETWORK)
    size = tuple(side * SCALE for side in SIZE)
    pictures = make_people(CROWD, points, size, seed=SEED).images
    small = torch.nn.functional.interpolate(pictures.float(), recipe.image_size, mode="area")
    trace = network.trace(normalize(small.round().to(torch.uint8)))
    heatmaps = trace.heatmaps[0]                                                # (B, J, h, w)
    joints, scores = heatmap_coordinates(heatmaps)
    joints = rescale_joints(joints, heatmaps.shape[2:], SIZE)
    return network, points, pictures, trace, joints, scores.mean(1)


def stages(trace, person):
    "Layer -> the patches that it drops, and how many it leaves."
    found, before = {}, trace.columns[0][0][person].tolist()
    for layer, kept in enumerate(trace.kept[0]):
        now = kept[person].tolist()
        if len(now) < len(before):
            found[layer + 1] = (sorted(set(before) - set(now)), len(now))
        before = now
    return found


def embedded(picture):
    "A picture (3, H, W) uint8 as an address that holds it."
    out = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(out, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def squares(patches, grid, kind):
    "The squares over patches, one path."
    down, across = grid
    high, wide = SIZE[0] / down, SIZE[1] / across
    path = "".join(
        f"M{p % across * wide - .2:g} {p // across * high - .2:g}"
        f"h{wide + .4:g}v{high + .4:g}h{-wide - .4:g}z" for p in patches    # without a seam
    )
    return f'<path class="{kind}" d="{path}"/>'


def skeleton(joints, points):
    "Limbs and joints in the colours of their sides."
    colour = lambda names: COLOURS[next((n for n in names if n != "middle"), "middle")]
    limbs = "".join(
        '<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" stroke="{}"/>'.format(
            *joints[a].tolist(), *joints[b].tolist(), colour((points.sides[a], points.sides[b]))
        )
        for a, b in points.limbs
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in joints.tolist()
    )
    return f'<g class="skeleton">{limbs}{dots}</g>'


def moment(seconds): return f"{100 * seconds / SECONDS:.1f}%"


def shown_from(name, start, end=SECONDS):
    "Keyframes of something that is there from `start` to `end` only."
    close = "" if end >= SECONDS else f"{moment(end - .15)}{{opacity:1}}{moment(end)}{{opacity:0}}"
    return (
        f"@keyframes {name}{{0%,{moment(start)}{{opacity:0}}{moment(start + .5)}{{opacity:1}}"
        f"{close}to{{opacity:{int(end >= SECONDS)}}}}}"
    )


def style(count):
    "What moves, when, for `count` prunings."
    times = [FIRST + k * STEP for k in range(count)]
    rules = [
        "path{shape-rendering:crispEdges}.skeleton path{shape-rendering:auto}",
        "text{font:600 19px system-ui,sans-serif;fill:currentColor}",
        f".gone{{fill:#{bytes(DROPPED).hex()};fill-opacity:.8}}.flash{{fill:#D55E00;opacity:0}}",
        ".skeleton path{stroke-width:4;stroke-linecap:round;fill:none}.skeleton circle{fill:#fff}",
        ".say{opacity:0}.say.last{opacity:1}",
        "@media (prefers-reduced-motion:no-preference){",
        f".moves{{animation-duration:{SECONDS}s;animation-iteration-count:infinite}}",
        ".say.last{opacity:0}", shown_from("skeleton", SKELETON),
        ".skeleton{animation-name:skeleton}", shown_from("say0", -.5, times[0]),
        ".say0{animation-name:say0}",
    ]
    for k, time in enumerate(times, 1):
        end = times[k] if k < count else SECONDS
        rules += [
            shown_from(f"gone{k}", time + .4), f".gone{k}{{animation-name:gone{k}}}",
            f"@keyframes flash{k}{{0%,{moment(time)}{{opacity:0}}{moment(time + .3)}{{opacity:.75}}"
            f"{moment(time + 1.1)},to{{opacity:0}}}}", f".flash{k}{{animation-name:flash{k}}}",
            shown_from(f"say{k}", time, end), f".say{k}{{animation-name:say{k}}}",
        ]
    return "<style>" + "".join(rules) + "}</style>"


def person_group(place, person):
    "One person: picture, the patches that leave, the skeleton."
    network, points, pictures, trace, joints, _ = traced()
    grid = network.config.grid
    parts = [f'<image width="{SIZE[1]}" height="{SIZE[0]}" href="{embedded(pictures[person])}"/>']
    for k, (gone, _) in enumerate(stages(trace, person).values(), 1):
        parts += [squares(gone, grid, f"gone moves gone{k}"),
                  squares(gone, grid, f"flash moves flash{k}")]
    bones = skeleton(joints[person], points).replace('"skeleton"', '"skeleton moves"')
    return f'<g transform="translate({place * (SIZE[1] + GAP)} 0)">{"".join(parts)}{bones}</g>'


def surest(count):
    "The people of whose joints the network is surest."
    scores = traced()[-1]
    return scores.argsort(descending=True)[:count].tolist()


def words(trace, person):
    "What is said below the people, pruning by pruning."
    rows = stages(trace, person)
    total = len(trace.columns[0][0][person])
    return [f"All {total} patches"] + [
        f"Layer {layer} of {len(trace.kept[0])}: {left} of {total} patches left"
        for layer, (_, left) in rows.items()
    ]


def moving_picture(count=3):
    "The SVG, as text."
    network, _, _, trace, _, _ = traced()
    people = surest(count)
    said = words(trace, people[0])
    wide, high = count * (SIZE[1] + GAP) - GAP, SIZE[0] + 34
    lines = "".join(
        f'<text class="say moves say{k}{" last" if k == len(said) - 1 else ""}" x="{wide / 2:g}" '
        f'y="{high - 8}" text-anchor="middle">{text}</text>' for k, text in enumerate(said)
    )
    alt = (
        f"{count} synthetic people and the patches that a pruned network keeps: "
        f"{'; '.join(said).lower()}. The patches of the background turn violet first, and in the "
        "end the skeletons are drawn."
    )
    groups = "".join(person_group(place, person) for place, person in enumerate(people))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" '
        f'aria-label="{alt}">{style(len(said) - 1)}{groups}{lines}</svg>'
    )


def for_readme():
    "The picture by itself: without a page whose colour its words could take."
    words = "text{fill:#1f2328}@media (prefers-color-scheme:dark){text{fill:#e6edf3}}"
    return moving_picture().replace("</style>", words + "</style>", 1)


if __name__ == "__main__":
    write_whole(IN_README, for_readme().encode())
    print(IN_README, f"{IN_README.stat().st_size / 1e3:.0f} kB")

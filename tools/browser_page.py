"""Build the page that runs networks in the reader's browser: one folder that needs no server and
asks nothing of anybody. `python tools/browser_page.py --out _site/try`"""
import base64
import gzip
import hashlib
import io
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import click
import numpy as np
from PIL import Image
from website import npm

from dppt_nb.checkpoints import find_network, load_network, shipped_networks
from dppt_nb.checks import DataError
from dppt_nb.export import export_onnx, needed
from dppt_nb.files import cache_folder
from dppt_nb.locks import write_whole
from dppt_nb.recipes import needs_teacher
from dppt_nb.synthetic import make_people
from dppt_nb.terminal import Place, Sentence

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "site" / "try"
RUNTIME = (
    "onnxruntime-web", "1.22.0",
    "Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg==",
    ("dist/ort.wasm.min.js", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
)
# What the page calls the networks that ship, in its order: the first is loaded at once.
LABELS = {
    "dppt_s_lspet": "DPPT-S", "ppt_s_lspet": "PPT-S", "tokenpose_s_lspet": "TokenPose-S",
    "tokenpose_lite_lspet": "TokenPose Lite",
    "dppt_nano_lspet": "DPPT nano", "tokenpose_nano_lspet": "TokenPose nano",
    "sdpose_nano_lspet": "SDPose nano",
    "ppt_nano_d12": "PPT nano, drawn people",
    "tokenpose_nano": "TokenPose nano, drawn people",
}
TRAINED_ON = {
    "lspet": "photographs of athletes, one in each (Leeds Sports Pose Extended, joints marked by "
             "workers on the web)",
    "synthetic": "people drawn by program, never on a photograph",
}
# What is measured lies in results files, which are read. In the first one people were looked at
# once, in boxes that were given, as the page does in a box; in the second one also twice.
RESULTS = ROOT / "nbs" / "results"
ONE_PASS = RESULTS / "one_pass.json"
SECOND_LOOK = RESULTS / "second_look.json"
MEASURE = "PCK@0.2 torso"
ONE_LOOK = "with one look in boxes that were given"
CALLED = {"lspet": "athletes of LSPET", "coco": "everyday people of COCO",
          "synthetic": "drawn people"}
DRAWN_PEOPLE = 6
# What the page itself embeds, in files of these names.
RUNTIME_PARTS = ("worker", "ort-mjs", "ort-wasm")
OWN_NAMES = {*RUNTIME_PARTS, "list", "astronaut", *(f"person-{i}" for i in range(DRAWN_PEOPLE))}


# Networks

def exported(name):
    "The ONNX file of a network, form 'tokens'; kept until network or code changes."
    folder = find_network(name)
    sources = [*sorted(folder.glob("*.*")), *sorted((ROOT / "dppt_nb").glob("*.py"))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:20]
    path = cache_folder() / "browser" / f"{key}.onnx"
    if not path.is_file():
        network, _, keypoint_set = load_network(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(network, keypoint_set, path, form="tokens")
    return path.read_bytes()


def lean(content):
    """The ONNX file with smaller weights, where no bit is lost by it; the run-time makes them
    float32 again when it loads them."""
    onnx = needed("onnx")
    model = onnx.load_from_string(content)
    for weights in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(weights)
        parts = shrunk(values) if values.dtype == np.float32 and values.size >= 64 else None
        if parts is None: continue
        for node in widening(weights.name, len(parts)): model.graph.node.insert(0, node)
        model.graph.initializer.remove(weights)
        for name, part in zip((f"{weights.name}_small", f"{weights.name}_scale"), parts):
            model.graph.initializer.append(onnx.numpy_helper.from_array(part, name))
    return model.SerializeToString()


def shrunk(values):
    """Float16; or whole numbers and the scale of each channel; None where neither is exact. What
    `checkpoints.shrink_weights` rounds, this finds again in a graph, where names and axes are
    others: nothing is lost here."""
    half = values.astype(np.float16)
    if (half.astype(np.float32) == values).all(): return [half]
    for axis in (0, values.ndim - 1):
        rest = tuple(i for i in range(values.ndim) if i != axis)
        most = np.abs(values).max(rest, keepdims=True) / np.float32(127)
        # the scale itself is lost by a rounding, so its neighbours are tried too
        for scale in (most, np.nextafter(most, np.float32(0)), np.nextafter(most, np.float32(9e9))):
            whole = np.round(values / np.where(scale > 0, scale, 1))
            exact = (whole * scale == values).all(rest, keepdims=True)
            most = np.where(exact, scale, most)
        whole = np.round(values / np.where(most > 0, most, 1)).astype(np.int8)
        if (whole.astype(np.float32) * most == values).all(): return [whole, most]
    return None


def widening(name, parts):
    "The operations that make float32 of what `shrunk` gave, the last one first."
    helper, small, wide = needed("onnx").helper, f"{name}_small", f"{name}_wide"
    float32 = needed("onnx").TensorProto.FLOAT
    if parts == 1: return [helper.make_node("Cast", [small], [name], to=float32)]
    return [
        helper.make_node("Mul", [wide, f"{name}_scale"], [name]),
        helper.make_node("Cast", [small], [wide], to=float32),
    ]


def described(name, label, content):
    "What the page knows of a network before it is loaded."
    onnx = needed("onnx")
    model = onnx.load_from_string(content)
    facts = json.loads({prop.key: prop.value for prop in model.metadata_props}["dppt"])
    network, recipe, keypoint_set = load_network(name)
    if not facts["unbiased"]:
        raise DataError(f"{name} was trained with unbiased=False, which the page cannot do")
    return dict(
        name=Path(name).name, label=label, depth=network.config.depth,
        **{field: facts[field] for field in ("image_size", "grid", "mean", "std", "kernel")},
        names=keypoint_set.names, limbs=keypoint_set.limbs, sides=keypoint_set.sides,
        about=sentence(name, network, recipe),
    )


def sentence(name, network, recipe):
    "What a network is, what it was trained on and what it finds, in plain words."
    about, config = network.about, network.config
    data = about.get("data") or "unknown data"
    size = sum(weights.numel() for weights in network.parameters()) / 1e6
    teacher = ", taught by a network that keeps all patches" if needs_teacher(recipe) else ""
    begun = f", begun from the weights of {Path(recipe.start).name}" if recipe.start else ""
    if recipe.backbone_weights and not recipe.start:    # a start has a backbone too
        begun = ", begun with a backbone that others had trained on ImageNet"
    trained = TRAINED_ON.get(data, data)
    if begun: trained = trained.removesuffix(", never on a photograph")
    share = f"{100 * config.keep_ratio:.0f} % of the patches stay in each of "
    share += f"{len(config.prune_at)} layers"
    return (
        f"{size:.1f} million parameters, {config.depth} layers; "
        f"{share if config.prune_at else 'keeps all patches'}{teacher}{begun}. Finds "
        f"{config.num_keypoints} joints. Trained on {trained}."
        f"{judged(name, about)}"
    )


def one_pass(name):
    """Of a network that ships: whom it was judged on with one pass, what it found, and of how many
    joints."""
    if name not in shipped_networks(): return []    # a folder of the same name is another network
    runs = json.loads(ONE_PASS.read_text())["runs"]
    return [(run["data"], run["people"], run["joints"], run["score"], run["interval"])
            for run in runs if run["network"] == name]


def as_stored(row):
    "The same of a row of its config.json."
    score = row["scores"][MEASURE]
    joints = sum(share is not None for share in score["joints"].values())
    return row["data"], score["people"], joints, score["mean"], score["interval"]


def judged(name, about):
    """How well a network did on people it had not seen: with one look in a given box, as the page
    does, where that is stored; else as its config.json says."""
    rows, how = one_pass(name), ONE_LOOK
    if not rows:
        told = about.get("judged") or []
        told = [row for row in (told if isinstance(told, list) else [told])
                if MEASURE in row["scores"]]
        rows = [as_stored(row) for row in told]
        mirrored = {bool(row.get("mirror")) for row in told}
        how = ("in boxes that were given, averaged with the mirrored picture, which the page "
               "does not do")
        if mirrored == {False}: how = ONE_LOOK
    drawn_only = about.get("data") == "synthetic" and all(row[0] == "synthetic" for row in rows)
    unknown = " It was not measured on photographs." if drawn_only else ""
    if not rows: return unknown
    parts = [
        f"{score:.0f} % on {people} {CALLED.get(data, f'people of {data}')} "
        f"({joints} joints, 95 % interval {low:.0f} to {high:.0f} %)"
        for data, people, joints, score, (low, high) in rows
    ]
    return (
        " Of the joints of people that it had not seen it finds, within a fifth of the torso's "
        f"length, {how}, {'; '.join(parts)}.{unknown}"
    )


def worth_of_a_box(networks):
    "What a box is worth, of the network of which that is measured; None where it is not there."
    told = json.loads(SECOND_LOOK.read_text())
    if told["network"] not in networks: return None
    given, whole = (told["results"]["lspet"][box] for box in ("of the labels", "the whole photo"))
    return (
        f"What a box is worth: on {given['people']} {CALLED['lspet']} {LABELS[told['network']]} "
        f"found {given['one']:.0f} % of the joints in the box of the labels, looking once; in the "
        f"whole photo {whole['one']:.0f} % looking once and {whole['two']:.0f} % looking twice."
    )


def limits(name):
    "What a network's card says of people that it knows little of; None without such words."
    card = find_network(name) / "README.md"
    if not card.is_file(): return None
    found = re.search(r"^## Who is under-represented, and limits\s+(.+?)(?=^##|\Z)",
                      card.read_text(), re.M | re.S)
    return found and " ".join(found[1].split())


# The folder

def base64_of(content): return base64.b64encode(content).decode()
def packed(content): return base64_of(gzip.compress(content, 6, mtime=0))


def embed(out, name, text):
    "A script that hands the page a text; a script is loaded without a server too."
    script = f"EMBEDDED[{json.dumps(name)}]={json.dumps(text)};\n"
    write_whole(out / "embedded" / f"{name}.js", script.encode())
    return len(script)


def embed_runtime(out):
    "onnxruntime-web and the worker that uses it."
    found = npm.files(*RUNTIME)
    code, script, wasm = (found[path] for path in RUNTIME[3])
    worker = code.decode() + "\n" + (SOURCE / "worker.js").read_text()
    for name, text in zip(RUNTIME_PARTS, (worker, packed(script), packed(wasm))):
        embed(out, name, text)


def embed_samples(out):
    "The photograph that is free to share, and a few people drawn by program."
    photo = files("dppt_nb") / "photos" / "astronaut.jpg"
    embed(out, "astronaut", base64_of(photo.read_bytes()))
    people = make_people(DRAWN_PEOPLE, image_size=(256, 192), seed=7, margin=1.25)
    for i, image in enumerate(people.images):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        embed(out, f"person-{i}", base64_of(buffer.getvalue()))


def embed_network(out, name, label):
    "One network; what the page's list says of it."
    content = lean(exported(name))
    facts = described(name, label, content)
    size = embed(out, facts["name"], packed(content))
    print(f"{facts['name']}: {size / 1e6:.1f} MB")
    return facts | {"megabytes": round(size / 1e6)}


def known_networks():
    "Names and labels of all networks that ship, in the page's order."
    names = shipped_networks()
    order = [name for name in LABELS if name in names]
    return {name: LABELS.get(name, name) for name in [*order, *sorted(set(names) - set(order))]}


def glossary_of(home):
    "The address of the site's glossary, beside its first page; nothing where there is no site."
    folder, slash, page = home.rpartition("/")
    if page and not page.endswith(".html"): folder, slash = home, "/"
    return home and f"{folder}{slash}glossary.html"


def check_names(networks):
    "Refuse networks whose names on the page, the last of their folders, are no files of their own."
    taken = {}    # no case: some disks know none
    for folder in networks:
        name = Path(folder).name
        other = taken.setdefault(name.casefold(), folder)
        if not re.fullmatch(r"[\w.-]+", name):
            why = "the page takes names of letters, digits, dots, dashes and underscores only"
        elif name.casefold() in OWN_NAMES: why = f"the page has a file {name} of its own"
        elif other != folder: why = f"{other} has the same name"
        else: continue
        raise DataError(f"{folder} cannot be on the page ({why}); rename the folder.")


def build_page(out, networks, home=""):
    "Write the folder; `networks` are names or folders with labels, `home` a link to the site."
    check_names(networks)
    out = Path(out)
    (out / "embedded").mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        if path.name != "worker.js": shutil.copyfile(path, out / path.name)
    embed_runtime(out)
    embed_samples(out)
    facts = [embed_network(out, name, label) for name, label in networks.items()]
    told = [worth_of_a_box(networks), *map(limits, networks)]
    told = dict.fromkeys(filter(None, told))    # each once
    constants = dict(
        NETWORKS=facts, LIMITS=list(told), DRAWN_PEOPLE=DRAWN_PEOPLE,
        RUNTIME=" ".join(RUNTIME[:2]), HOME=home, GLOSSARY=glossary_of(home),
    )
    text = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    write_whole(out / "embedded" / "list.js", text.encode())
    return out / "index.html"


def read_pair(text):
    "A network and what the page calls it, from FOLDER=LABEL."
    folder, _, label = text.rpartition("=")
    if not (folder and label):
        raise DataError(f"--network {text!r} is no FOLDER=LABEL, such as runs/mine=Mine")
    find_network(folder)    # one that is not there is said before anything is built
    return folder, label


@click.command(cls=Sentence)
@click.option(
    "--out", type=Place(), default="_site/try", show_default=True, help="folder to write"
)
@click.option("--home", default="", help="address of the site, for a link back to it")
@click.option(
    "--network", "networks", multiple=True, metavar="FOLDER=LABEL",
    help="a network that does not ship, or fewer than all that do; may be given several times",
)
def main(out, home, networks):
    """Build the page that runs networks in the reader's browser: one folder that needs no server
    and asks nothing of anybody."""
    print(f"open {build_page(out, dict(map(read_pair, networks)) or known_networks(), home)}")


if __name__ == "__main__": main()

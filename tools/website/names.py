"""Where everything of the repository stands on the site: which file became which page, and which
page explains a name of the package."""
import ast
import configparser
import json
import re
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import relpath

ROOT = Path(__file__).resolve().parent.parent.parent
NBS, PACKAGE = ROOT / "nbs", ROOT / "dppt_nb"
TEXTS = {  # files of the repository that are pages of the site
    "CONTRIBUTING.md": "project/contributing.md", "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md", "THIRD_PARTY.md": "project/third_party.md",
    "data/README.md": "project/data.md", "README.md": "project/index.md",
}


@cache
def github():
    "Address of the repository, as settings.ini has it."
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    return settings["DEFAULT"]["git_url"]


@cache
def notebooks():
    "Path in the repository -> page of the site, for every notebook."
    found = sorted(NBS.glob("*.ipynb")) + sorted(NBS.glob("*/*.ipynb"))
    pages = {path: f"{path.relative_to(NBS).with_suffix('.md')}" for path in found}
    return {str(path.relative_to(ROOT)): page for path, page in pages.items()} | {
        "nbs/index.ipynb": "project/index.md", "nbs/pages.ipynb": "map.md"
    }


def lessons():
    "The lessons' notebooks, in the order in which they are read."
    return sorted(NBS.glob("[0-9][0-9]_*.ipynb"))


@cache
def floors():
    """The modules of the package from the ground floor up, as the test of the house lists them;
    those that it has not been told of come last."""
    text = (ROOT / "tests" / "test_package.py").read_text()
    names = next(
        node.value for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FLOORS"
    )
    order = ast.literal_eval(names.func.value).split()
    there = [path.stem for path in sorted(PACKAGE.glob("[a-z]*.py"))]
    return sorted(there, key=lambda name: order.index(name) if name in order else len(order))


@cache
def exported(module):
    "Names that a module of the package offers."
    for node in ast.parse((PACKAGE / f"{module}.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


@cache
def cells_of(module):
    "Name -> (notebook, cell id) of the cell that defines it, from nbdev's marks in the module."
    where, found = None, {}
    for line in (PACKAGE / f"{module}.py").read_text().splitlines():
        if mark := re.match(r"# %% (\S+\.ipynb) #(\w+)", line):
            where = (mark[1].removeprefix("../"), mark[2])
        # a module's own `__getattr__` is no name that it offers
        name = re.match(r"(?:def|class)\s+(\w+)|(?!__)(\w+)(?:\s*:[^=]+)?\s*=[^=]", line)
        if name and where: found.setdefault(name[1] or name[2], where)
    return found


@cache
def homes():
    "Name -> the module that offers it, for names that only one module offers."
    found = {}
    for module in floors():
        for name in exported(module) if module != "moved" else ():
            found.setdefault(name, []).append(module)
    return {name: modules[0] for name, modules in found.items() if len(modules) == 1}


def reference(name):
    """Page and anchor of the reference for `name`, `module.name` or `dppt_nb.module.name`, or None;
    of a method or a field those of its class."""
    parts = name.removeprefix("dppt_nb.").split(".")
    if len(parts) == 1 and name.startswith("dppt_nb.") and parts[0] in floors():
        return f"api/{parts[0]}.md"
    if parts[0] in floors() and len(parts) > 1 and parts[1] in exported(parts[0]):
        return f"api/{parts[0]}.md#{parts[1]}"
    if parts[0] in homes(): return f"api/{homes()[parts[0]]}.md#{parts[0]}"
    return None


def anchor_of(text):
    "The anchor of a heading, as Jupyter and GitHub write it, in lower case."
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def slugify(text, separator):
    "Anchors of the site's headings: those that links between the notebooks use."
    return anchor_of(text)


def between(page, other):
    "The link from one page of the site to another."
    return relpath(other, str(PurePosixPath(page).parent))


def target(link, source, page):
    "Where a link of the repository's file `source` leads to on the site's `page`."
    place, _, anchor = link.partition("#")
    anchor = f"#{anchor_of(anchor)}" if anchor else ""
    if not place or re.match(r"[a-z]+:", place): return link if place else anchor
    path = ((ROOT / source).parent / place).resolve()
    if not path.is_relative_to(ROOT): return link
    path = str(path.relative_to(ROOT))
    if path in TEXTS: return between(page, TEXTS[path]) + anchor
    if path in notebooks(): return between(page, notebooks()[path]) + anchor
    module = PurePosixPath(path)
    if path.startswith("dppt_nb/") and module.stem in floors():
        return between(page, f"api/{module.stem}.md")
    if path.startswith("nbs/images/"): return between(page, path.removeprefix("nbs/"))
    return f"{github()}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"


def title_of(notebook):
    "A page's title: the first heading of its first cell."
    text = "".join(json.loads(Path(notebook).read_text())["cells"][0]["source"])
    return re.search(r"^# +(.+?)\s*$", text, re.M)[1]


def subtitle_of(notebook):
    "A page's subtitle: the quotation under its title, which says what the page shows."
    text = "".join(json.loads(Path(notebook).read_text())["cells"][0]["source"])
    quoted = re.search(r"(?:^>.*\n?)+", text, re.M)
    return re.sub(r"^>\s?", "", quoted[0], flags=re.M).strip() if quoted else ""

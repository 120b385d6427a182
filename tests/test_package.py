"""The package as a whole: light imports, floors, sizes, the contract of names, one version, links
that lead somewhere."""
import ast
import configparser
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, NBS = ROOT / "dppt_nb", ROOT / "nbs"
MODULES = sorted(p.stem for p in PACKAGE.glob("[a-z]*.py"))
HEAVY = (
    "matplotlib", "cv2", "nbdev", "fastcore", "IPython", "ipywidgets", "pyarrow", "pycocotools",
)
# Ground floor first: a module imports only from modules above it. A new module gets its place here.
FLOORS = (
    "moved checks terminal locks matlab files splits draws faces spelling keypoints ownsets "
    "skeletons heat crops augmentation heatmaps coco matching metrics scoring pictures photos "
    "tables datasets dice poses clothes bodies strokes scenes synthetic codec shards writing "
    "cutting cropset endless feed store backbones tokens hrnet lite pruning merging heads config "
    "plumbing tokenpose models distillation cycles rle fields recipes released checkpoints optim "
    "steps evaluation compare runs devices progress report keeping loop training trainer runner "
    "together costs forms export inference predictor detectors tracking video views stills explore "
    "studies alike judged study claims demo options commands cli "
    "train"
).split()
# A network is saved and loaded by methods of its own, which fetch the page on checkpoints when they
# are called and not before.
LATE = {"plumbing": {"checkpoints"}}
PAGES = sorted(
    page for folder in (".", "machinery", "solutions") for page in NBS.glob(f"{folder}/*.ipynb")
)
LESSONS = sorted(NBS.glob("[0-9][0-9]_*.ipynb"))
TEXTS = [*PAGES, *(ROOT / name for name in (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "THIRD_PARTY.md", "CHANGELOG.md",
    "data/README.md",
))]


def named(path): return str(path.relative_to(ROOT))


@cache
def tree(module): return ast.parse((PACKAGE / f"{module}.py").read_text(), module)


@cache
def cells(path): return json.loads(path.read_text())["cells"]


def source(cell): return "".join(cell["source"])


# Imports

def loaded_after(statement):
    "Modules that are loaded in a fresh interpreter after `statement`."
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], check=True, capture_output=True,
        text=True,
    )
    names = re.findall(r"^import time:[\s\d]+\|[\s\d]+\|\s*([\w.]+)$", run.stderr, re.M)
    assert "sys" in names or len(names) > 10, run.stderr
    return {name.split(".")[0] for name in names}


def test_import_is_light():
    assert not {"torch", "numpy", *HEAVY} & loaded_after("import dppt_nb")


def test_modules_need_no_jupyter_and_draw_nothing_yet():
    "One interpreter imports all modules; the first that brings something heavy along is named."
    program = f"""
import importlib, sys
for module in {MODULES!r}:
    importlib.import_module("dppt_nb." + module)
    found = set({HEAVY!r}) & set(sys.modules)
    if found: sys.exit(f"{{module}} imports {{', '.join(sorted(found))}}")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def imported(module):
    "Modules of the package that `module` names in an import, at its top or inside a function."
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "dppt_nb":
            found |= set(node.module.split(".")[1:2]) or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {part[1] for part in parts if part[0] == "dppt_nb" and len(part) > 1}
    return found & set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_floors_above_it(module):
    assert module in FLOORS, f"{module} is new: give it its floor in FLOORS"
    above = FLOORS[: FLOORS.index(module)]
    wrong = sorted(imported(module) - set(above) - LATE.get(module, set()))
    assert not wrong, f"{module} imports {wrong}, which stand below it or on its own floor"


def test_contract_of_names():
    import dppt_nb
    from dppt_nb.crops import crop_affine
    from dppt_nb.metrics import evaluate_coco, pck, pckh
    assert all(map(callable, (crop_affine, evaluate_coco, pck, pckh)))
    assert all(
        callable(getattr(dppt_nb, name))
        for name in ("create_model", "list_models", "load_released", "macs")
    )
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"): dppt_nb.nonsense
    sizes = dict(
        tokenpose="t s_v1 s_v2 b l_d6 l_d24 nano", ppt="s b l_d6 nano", dppt="s b l_d6 nano",
        sdpose="t s_v1 s_v2 b nano",
    )
    assert {f"{family}_{size}" for family, row in sizes.items() for size in row.split()} <= set(
        dppt_nb.list_models()
    )


def test_the_version_is_one():
    import dppt_nb
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini")
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    newest = re.search(r"^## ([^\s,]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert settings["DEFAULT"]["version"] == dppt_nb.__version__ == cited == newest


# Sizes and habits

def test_modules_are_of_a_size_to_be_read():
    "Lines of 501 and more."
    lines = {m: len((PACKAGE / f"{m}.py").read_text().splitlines()) for m in MODULES}
    assert not {m: n for m, n in lines.items() if n > 500}


def functions(module):
    "Every function of a module, with its name in the module."
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef): yield node.name, node
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef): yield f"{node.name}.{part.name}", part


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    sizes = {
        n.name: n.end_lineno - n.lineno + 1
        for n in ast.walk(tree(module))
        if isinstance(n, ast.FunctionDef)
    }
    assert not {name: size for name, size in sizes.items() if size > 45}


def is_public(name): return not any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_is_described(module):
    classes = [
        (n.name, n) for n in tree(module).body if isinstance(n, ast.ClassDef)
    ]
    silent = [
        name
        for name, node in [*functions(module), *classes]
        if is_public(name) and not ast.get_docstring(node) and not is_short_override(name, node)
    ]
    assert not silent


def is_short_override(name, node):
    """Methods whose meaning their base class gives: `forward` of a described module and a one-line
    property or method."""
    return "." in name and (node.name == "forward" or node.end_lineno - node.lineno < 2)


@pytest.mark.parametrize("module", MODULES)
def test_public_arguments_are_typed(module):
    untyped = []
    for name, node in functions(module):
        if "." in name or not is_public(name) or is_command(node): continue
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
        untyped += [f"{name}({arg})" for arg in bare]
    assert not untyped


def is_command(node):
    "A command of `dppt`: click's options give its arguments their types and their help."
    return any("command" in ast.unparse(mark) for mark in node.decorator_list)


# Pages

@pytest.mark.parametrize("path", PAGES, ids=named)
def test_notebook_is_small_and_stores_no_errors(path):
    notebook = json.loads(path.read_text())
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in notebook["metadata"]
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]


@pytest.mark.parametrize("path", LESSONS, ids=named)
def test_a_lesson_has_at_most_about_eighty_cells(path):
    assert len(cells(path)) <= 85


def prose(path):
    "The text that a reader reads: Markdown without its code."
    if path.suffix == ".md": return path.read_text()
    return "\n\n".join(source(c) for c in cells(path) if c["cell_type"] == "markdown")


def unfenced(text): return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def headings(path):
    "Anchors of a page's headings, as Jupyter and GitHub write them, in lower case."
    found = re.findall(r"^#{1,6} +(.+?)\s*$", unfenced(prose(path)), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in found]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def links(path):
    "Targets within the project of all links and pictures in a page's prose."
    text = re.sub(r"`[^`\n]*`", "", unfenced(prose(path)))
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
    found += re.findall(r"(?:src|href)=[\"']([^\"']+)", text)
    return [unquote(to) for to in found if not re.match(r"[a-z]+:|attachment:", to)]


def missing(path, link):
    "What is wrong with a link, or nothing."
    place, _, anchor = link.partition("#")
    target = (path.parent / place).resolve() if place else path
    if not target.exists(): return f"{link}: there is no {place}"
    if anchor and target.suffix in (".ipynb", ".md"):
        there = re.sub(r"[^\w\- ]", "", anchor.lower())
        if there not in headings(target): return f"{link}: {target.name} has no heading {anchor}"
    return None


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_lead_somewhere(path):
    assert not [wrong for link in links(path) if (wrong := missing(path, link))]


def test_links_are_found(tmp_path):
    "The checks above see a page's links, and a wrong one."
    assert links(NBS / "index.ipynb")
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n\n[a](page.md#one-two) [b](gone.ipynb) [c](#three)\n")
    wrong = [missing(page, link) for link in links(page)]
    assert wrong[0] is None and "no gone.ipynb" in wrong[1] and "no heading" in wrong[2]


def count_cells(line):
    "Cells of a line of a table; a bar in a cell is written with a backslash."
    return len(re.split(r"(?<!\\)\|", line.removeprefix("|").removesuffix("|")))


def table_rows(text):
    "The tables of a Markdown text: of each the number of cells in every line."
    tables, lines = [], [line.strip() for line in text.splitlines()]
    for above, line in zip(lines, lines[1:]):
        if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line):
            tables.append([count_cells(above), count_cells(line)])
        elif tables and line.startswith("|") and above.startswith("|"):
            tables[-1].append(count_cells(line))
    return tables


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_tables_have_as_many_cells_in_every_line(path):
    "GitHub shows the raw text of a table whose head and rule differ, and cuts longer rows."
    assert [set(rows) for rows in table_rows(unfenced(prose(path))) if len(set(rows)) > 1] == []


def test_a_table_with_a_cell_too_many_is_seen():
    two = "| a | b |\n|---|---|---|\n| 1 | 2 |\n\n| c |\n|---|\n| 3 |"
    assert table_rows(two) == [[2, 3, 2], [1, 1, 1]]


def test_every_page_is_on_the_index_or_on_the_list_of_pages():
    linked = links(NBS / "index.ipynb") + links(NBS / "pages.ipynb")
    listed = {(NBS / link.partition("#")[0]).resolve() for link in linked}
    mine = {p.resolve() for p in PAGES if p.parent.name != "solutions" and p.name != "index.ipynb"}
    assert not {p.name for p in mine - listed}


@pytest.mark.parametrize("path", [p for p in TEXTS if p.name != "CHANGELOG.md"], ids=named)
def test_pages_are_named_by_links_not_by_numbers(path):
    """A bare `04` tells no reader where to go, and is wrong when pages move; what pages were called
    before stands in a table of the changelog."""
    text = unfenced(prose(path))
    assert not re.findall(r"`[01]\d(?:_\w+)?`|\b(?:page|notebook|lesson)s? [01]\d\b", text)


def test_text_names_no_place_on_a_machine():
    mine = [
        p
        for folder in ("nbs", "dppt_nb", "data")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".ipynb", ".py", ".md")
    ]
    told = [
        p.name for p in mine if re.search(r"/(work|root|home)/\w+|/tmp/\w+/\w+\.py", p.read_text())
    ]
    assert not told


def test_the_oldest_pytorch_that_is_allowed_is_tried():
    floor = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    tried = (ROOT / ".github/workflows/test.yml").read_text()
    assert f"pip install torch=={floor}.0 " in tried


def test_no_mark_of_a_notebook_is_left_in_the_package():
    "nbdev takes its own marks out of exported cells; others would stay as comments."
    left = [path.name for path in (ROOT / "dppt_nb").glob("*.py") if "\n#| " in path.read_text()]
    assert left == []


def test_every_package_that_may_be_installed_has_its_licence_named():
    "Of pyproject.toml; the note on licences and photographs goes with what is built."
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[\w-]+", package)[0] for group in groups for package in group}
    told = set(re.findall(r"[\w-]+", (ROOT / "THIRD_PARTY.md").read_text()))
    assert sorted(names - told) == []
    assert "THIRD_PARTY.md" in project["license-files"]


def test_the_weights_that_ship_are_small_and_say_their_licence():
    "All of them stay below the 30 MB that tools/try_wheel.sh allows the wheel; packed anew, too."
    files = [path for path in (PACKAGE / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30_000_000
    cards = [path.read_text() for path in files if path.name == "README.md"]
    tool = (ROOT / "tools" / "pack_network.py").read_text()
    assert len(cards) == len({path.parent for path in files}) > 0
    for card in (*cards, tool): assert "the licence of this project, Apache-2.0. " in card
    drawn = [card for card in cards if "never seen a photograph" in card]
    limits = re.search(r"The people that it learned from are .*?It needs a box\.", tool, re.S)[0]
    assert drawn and all(limits in card for card in drawn)


def test_weights_of_others_within_what_ships_are_named():
    "At the beginning of the note, which says what is copied, and by the network's name."
    recipes = {path.parent.name: json.loads(path.read_text())["recipe"]
               for path in (PACKAGE / "weights").glob("*/config.json")}
    begun = [name for name, recipe in recipes.items() if recipe.get("backbone_weights")]
    told = (ROOT / "THIRD_PARTY.md").read_text()
    assert begun and all(f"`{name}`" in told for name in begun)
    assert "in the weights of one network, the first blocks of a backbone" in told.split("|")[0]


def test_what_is_built_from_has_no_tests_that_cannot_run(tmp_path):
    "Setuptools packs tests/test_*.py of its own accord, and not the fixtures that they want."
    pytest.importorskip("setuptools", minversion="77")
    files = "pyproject.toml MANIFEST.in LICENSE THIRD_PARTY.md tools/pypi.md dppt_nb/__init__.py"
    for name in (*files.split(), "tests/test_package.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("dist/*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "THIRD_PARTY.md" in names and not [name for name in names if name.startswith("tests")]

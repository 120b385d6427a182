"The pages that are no notebook: landing page, map, list of the reference; and the list of all."
import ast
import json
import re
from functools import cache

from dppt_nb.claims import of_epochs
from dppt_nb.judged import difference, format_interval, of_row, row_score
from dppt_nb.studies import unpack_bits
from website.moving import CROWD, moving_picture
from website.names import (
    NBS,
    PACKAGE,
    ROOT,
    TEXTS,
    cells_of,
    exported,
    floors,
    lessons,
    notebooks,
    subtitle_of,
    title_of,
)
from website.pages import adapt, fenced

COMPARED = {    # rows of the landing page's table, and what they are called there
    "tokenpose": "TokenPose, nothing dropped", "ppt": "PPT, patches dropped",
    "dppt": "**DPPT**, a PPT that a TokenPose teaches", "sdpose": "SDPose, two cycles in training",
    "sd_dppt": "both papers together", "tokenpose_taught": "TokenPose, taught as DPPT is",
}

# Folder of a study -> what its tables are called, their section of the study's pages, and what its
# README says of the crops.
COMPARING = {
    "study_lspet_nano": (
        "The first nano study", "machinery/study_rows.md#the-first-study",
        "Crops stored as JPEG 92.",
    ),
    "study_lspet_nano_h200": (
        "The second nano study, with three teachers",
        "13_study.md#which-of-the-teachers-signals", "Crops stored as WebP 61.",
    ),
    "study_lspet_nano_fresh": (
        "Nano, fresh seeds", "13_study.md#fresh-seeds", "Crops stored as WebP 61.",
    ),
    "study_lspet_nano_budget": (
        "The second nano study, trained longer", "13_study.md#is-it-only-speed",
        "Crops stored as WebP 61.",
    ),
    "study_lspet_s": (
        "The papers' size", "13_study.md#at-the-papers-own-size",
        "The crops differ from seed to seed and have fewer pixels than the network reads: a "
        "person's window has 192 x 144 in seeds 0 and 2 (with more loss in seed 2), and 128 x 96 "
        "in seed 1. All rows of a seed share them, so trust the differences more than the scores.",
    ),
}
# those of the landing page; the study's pages have all
ANSWERING = ("study_lspet_nano_fresh", "study_lspet_s")


def prose_of(page):
    "Prose of a notebook at the top of the folder, cell by cell."
    cells = json.loads((NBS / page).read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@cache
def index_cells():
    "Prose of the index page, cell by cell."
    return prose_of("index.ipynb")


@cache
def index_rows():
    "Notebook -> what the index page says of it, or of a page of machinery the list of all pages."
    text = "\n".join([*index_cells(), *prose_of("pages.ipynb")])
    rows = re.findall(r"^\| \[[^\]]+\]\(([^)]+\.ipynb)\) \| (.+?) \|$", text, re.M)
    return {f"nbs/{path}": words for path, words in rows}


def module_pages():
    "Module -> its notebook, for all modules that one notebook builds."
    found = {}
    for module in floors():
        if places := cells_of(module): found[module] = next(iter(places.values()))[0]
    return found


def imports(module):
    "Modules of the package that a module imports at its top."
    names = set()
    for node in ast.parse((PACKAGE / f"{module}.py").read_text()).body:
        # an import of many lines keeps the package's name
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.level or node.module.startswith("dppt_nb."):
                names.add(node.module.removeprefix("dppt_nb."))
    return [name for name in floors() if name in names and name != "moved"]


def commands(part):
    "The first block of the index page's commands that has such a line."
    blocks = re.findall(r"^```bash\n(.*?)^```", "\n".join(index_cells()), re.M | re.S)
    return next(block for block in blocks if part in block)


def lesson_cards():
    "A card for each lesson, in their order."
    cards = [
        f"-   **[{title_of(path)}]({notebooks()[source]})**\n\n    {index_rows().get(source, '')}"
        for path in lessons() if (source := str(path.relative_to(ROOT)))
    ]
    return '<div class="grid cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>"


def machinery():
    "Machinery's notebooks in the order of the list of all pages, then what is not on it."
    listed = [path for path in index_rows() if path.startswith("nbs/machinery/")]
    return listed + sorted(p for p in notebooks() if p.startswith("nbs/machinery/")
                           and p not in listed)


def machinery_table():
    "A row for each page of machinery."
    rows = [f"| [{title_of(ROOT / path)}]({notebooks()[path]}) | "
            f"{adapt(index_rows().get(path) or subtitle_of(ROOT / path), path, 'index.md')} |"
            for path in machinery()]
    return "\n".join(["| page | what is there |", "|---|---|", *rows])


def study_tables():
    "The tables of the studies that answer the questions, from their stored runs."
    tables = []
    for name in ANSWERING:
        path = NBS / "results" / name / "runs.json"
        tables += tables_of(json.loads(path.read_text()), name)
    return "\n\n".join(tables)


def tables_of(stored, study):
    "A table for each length of training that the runs of a study, a folder's name, have."
    tables = []
    for epochs in sorted({run["recipe"]["epochs"] for run in stored}):
        runs = of_epochs(stored, epochs)
        if all(len(of_row(runs, name)) > 2 for name in ("tokenpose", "ppt", "dppt")):
            tables.append(study_table(runs, study))
    return tables


def study_table(runs, study):
    "Scores of the compared rows with intervals, and what each gains over PPT."
    lines = ["| trained as | GMACs | seeds | PCK@0.2, % (95 % interval) | over PPT |",
             "|---|--:|--:|---|---|"]
    for name, words in COMPARED.items():
        if not (mine := of_row(runs, name)): continue
        first = next(iter(mine.values()))
        gain = "" if name == "ppt" else format_interval(difference(runs, name, "ppt"), sign=True)
        lines.append(f"| {words} | {first['macs'] / 1e9:.3f} | {len(mine)} "
                     f"| {format_interval(row_score(runs, name))} | {gain} |")
    return f"{about(runs, study)}\n\n" + "\n".join(lines)


def about(runs, study):
    "Which study it is, and of which networks, seeds, teachers, crops and people, in sentences."
    title, place, crops = COMPARING.get(study, (study, "13_study.md", ""))
    compared = [run for run in runs if run["row"] in COMPARED]
    first = next(iter(of_row(runs, "tokenpose").values()))
    told, size = first["conditions"], " x ".join(map(str, first["conditions"]["image_size"]))
    judged = unpack_bits(first["counts"], first["shape"]).any(1).sum()
    machines = " and ".join(sorted({run["conditions"]["device"] for run in compared}))
    return (
        f"**[{title}]({place})**, "
        f"{numbered({run['seed'] for run in compared})}, on {machines}. "
        f"`{told['model']}` and its relatives on {told['data'].upper()}: {told['epochs']} epochs, "
        f"input {size}, {teachers_of(runs)}; "
        f"judged by {judged} of {told['people']} people of the {told['split']} split, those who "
        f"show a torso to measure by. {crops}".rstrip()
    )


def numbered(seeds):
    "Seeds in words."
    *some, last = map(str, sorted(seeds))
    return f"seeds {', '.join(some)} and {last}" if some else f"seed {last}"


def teachers_of(runs):
    "How many teachers the seeds of DPPT had, and which seeds share one."
    taught = {}    # by the print of a teacher's weights
    for seed, run in sorted(of_row(runs, "dppt").items()):
        taught.setdefault(str(run["taught_by"]), []).append(seed)
    shared = [numbered(seeds) for seeds in taught.values() if len(seeds) > 1]
    if len(taught) == 1: return "one teacher for all seeds"
    if not shared: return "one teacher per seed"
    return f"{len(taught)} teachers ({' and '.join(f'{seeds} share one' for seeds in shared)})"


def story():
    "Of the index page's first cell the first words, its picture left out, and the table of ways."
    parts = [part for part in index_cells()[0].split("\n\n") if part[0] not in "#>!"]
    found = (next(part for part in parts if part[0] not in "|*`"),
             next(part for part in parts if part.startswith("| you want")))
    # its sections stand on the README's page
    return [adapt(part, "nbs/index.ipynb", "index.md").replace("](#", "](project/index.md#")
            for part in found]


def landing_page(with_browser):
    "The first page."
    title, subtitle = re.search(r"^# (.+?)\n+> (.+?)\n", index_cells()[0], re.S).groups()
    words, wanted = story()
    svg = moving_picture().replace("<svg ", '<svg class="moving" ', 1)
    try_it = '\n\n<a class="md-button" href="try/index.html">Try it in this browser</a>' \
        if with_browser else ""
    return f"""---
title: Home
hide: [navigation, toc]
---

<div class="hero" markdown>
<div markdown>

# {title}

> {subtitle}

{words}{try_it}

{fenced(commands("make demo"), "bash")}

</div>
<figure>
<input class="still" type="checkbox" id="still"><label class="still" for="still"> Hold still</label>
<div class="moving-place">{svg}</div>
<figcaption>A pruned network of twelve layers that ships with the package, and the three of {CROWD}
synthetic people, new to it, of whose joints it is surest. Orange patches leave: the keypoint tokens
attend to them least.</figcaption>
</figure>
</div>

{wanted}

## Joints in a photograph

{fenced(commands("pip install -e ."), "bash")}

DPPT's formulas here are ours, since only its abstract was known; no network was trained on all of
COCO; and the weights learned from photographs that are not cleared for products
([use and terms](project/index.md#use)).

## What each lesson is worth

{study_tables()}

[The study](13_study.md) has the answers and a verdict on each claim of the papers,
[its other page](machinery/study_rows.md) all rows of all studies.

## The lessons

{lesson_cards()}

## The machinery

<details markdown><summary>Pages that are read when they are needed</summary>

{machinery_table()}

</details>
"""


def map_page():
    "What the house is made of, from the ground floor up, and what stands on what."
    rows = []
    for floor, (module, notebook) in enumerate(module_pages().items(), 1):
        below = ", ".join(f"[{name}](#{name})" for name in imports(module)) or "nothing of ours"
        page = f"[{title_of(ROOT / notebook)}]({notebooks()[notebook]})"
        name = f'<span id="{module}"></span>[`{module}`](api/{module}.md)'
        rows.append(f"| {floor} | {name} | {page} | {below} |")
    return f"""# The map

> Lessons are one story, read in order. Machinery is read when it is needed.

```text
photo + person boxes -> crops -> tokens -> encoder -> keypoint tokens -> heatmaps -> keypoints
                          ^                   ^
                    augmentation      token reduction and cycles: how the encoder runs
                                      distillation: how it is taught
```

## Lessons

{lesson_cards()}

## Machinery

{machinery_table()}

## Floors

A module uses only modules of floors below its own; each is written on one page.

| floor | module | page | stands on |
|--:|---|---|---|
{chr(10).join(rows)}
"""


def reference_page():
    "All modules with what they offer."
    rows = []
    for module in floors():
        names = ", ".join(
            f"[`{name}`]({module}.md#{name})" for name in exported(module)
        ) if module != "moved" else ""
        rows.append(f"## [{module}]({module}.md) {{: #{module} }}\n\n{names}")
    return "# Reference\n\n> Everything that the package offers, module by module.\n\n" \
        + "\n\n".join(rows) + "\n"


def titled(pages):
    "Entries of the list of pages: title and page."
    return [{title_of(ROOT / path): notebooks()[path]} for path in pages]


def navigation():
    "The list of pages, as MkDocs takes it."
    own = {str(path.relative_to(ROOT)) for path in lessons()} | {
        *(f"nbs/{name}.ipynb" for name in ("index", "pages", "papers", "glossary")), *machinery()
    }
    answers = [path for path in notebooks() if path not in own]
    about = {"README": "project/index.md"} | {
        re.search(r"^# +(.+)$", (ROOT / source).read_text(), re.M)[1]: page
        for source, page in TEXTS.items() if source != "README.md"
    }
    return [
        {"Home": "index.md"},
        {"Lessons": [*titled(str(p.relative_to(ROOT)) for p in lessons()),
                     {"Answers": titled(answers)}]},
        {"Machinery": ["map.md", *titled(machinery())]},
        {"Papers": "papers.md"},
        {"Glossary": "glossary.md"},
        {"Reference": ["api/index.md", *[{m: f"api/{m}.md"} for m in floors()]]},
        {"Project": [{title: page} for title, page in about.items()]},
    ]

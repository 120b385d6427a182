"""The site: pages from notebooks, the reference, the papers, and what a browser says of them."""
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from website import api, home, moving, names, pages  # noqa: E402

from dppt_nb.judged import format_interval, row_score  # noqa: E402

LESSONS = names.lessons()
PART = ("index.md", "14_train.md", "api/locks.md", "glossary.md")
SIZES = (390, 1440)
AXE = "{preload: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}"


# Pages

@pytest.mark.parametrize(("text", "made"), [
    ("[a](03_heatmaps.ipynb#Reading-a-heatmap)", "[a](03_heatmaps.md#reading-a-heatmap)"),
    ("[a](machinery/costs.ipynb)", "[a](machinery/costs.md)"),
    ("[a](../CONTRIBUTING.md)", "[a](project/contributing.md)"),
    ("[a](../dppt_nb/pruning.py)", "[a](api/pruning.md)"),
    ("[a](../tools/pack_network.py)", "[a](https://github.com/dppt-nb/dppt-nb/blob/main/tools/pack_network.py)"),
    ("[a](https://arxiv.org/abs/2304.05548)", "[a](https://arxiv.org/abs/2304.05548)"),
    ("`patch_scores` and `no_such_name`",
     "[`patch_scores`](api/pruning.md#patch_scores) and `no_such_name`"),
    ("`Trainer.fit()`", "[`Trainer.fit()`](api/trainer.md#Trainer)"),
    ("[`prune`](07_pruning.ipynb)", "[`prune`](07_pruning.md)"),
    ("# `prune`", "# `prune`"),
    ("```python\n[a](x.ipynb) `prune`\n```", "```python\n[a](x.ipynb) `prune`\n```"),
    ("so:\n- one\n- two", "so:\n\n- one\n- two"),
])
def test_markdown_of_a_notebook_becomes_that_of_the_site(text, made):
    assert pages.adapt(text, "nbs/07_pruning.ipynb", "07_pruning.md") == made


def test_code_is_fenced_by_more_than_it_holds():
    assert pages.fenced("a\n````\nb", "text").startswith("`````text\n")


def test_a_lesson_becomes_a_page(tmp_path):
    page = pages.from_notebook("nbs/07_pruning.ipynb", "07_pruning.md", tmp_path)
    assert not re.search(r"^#\|", page, re.M)
    shown = re.findall(r'<img src="([^"]+)" alt="([^"]*)"', page)
    assert shown and all((tmp_path / place).stat().st_size and len(alt) > 20
                         for place, alt in shown)
    anchors = set(re.findall(r'id="cell-(\w+)"', page))
    assert {cell for _, cell in names.cells_of("pruning").values()} <= anchors


def pictures_of(path):
    "The cells of a notebook that have a picture, as the texts name them."
    cells = json.loads((ROOT / path).read_text())["cells"]
    shows = lambda cell: any(
        pages.IMAGES.keys() & output.get("data", {}) for output in cell.get("outputs", [])
    )
    return {f"{path.removeprefix('nbs/')}#{cell['id']}" for cell in cells if shows(cell)}


def test_every_picture_has_a_text_and_every_text_a_picture():
    there = set().union(*map(pictures_of, names.notebooks()))
    assert len(there) > 100 and there == set(pages.written_pictures())


@pytest.mark.parametrize("source", sorted(
    path for path in names.notebooks() if path.startswith("nbs/0")
))
def test_the_reference_leads_to_cells_that_are_shown(source, tmp_path):
    "Also where a lesson hides the cell that defines a name."
    module = pages.module_of(json.loads((ROOT / source).read_text())["cells"])
    if module is None: pytest.skip("this lesson exports nothing")
    page = pages.from_notebook(source, names.notebooks()[source], tmp_path)
    anchors = re.findall(rf"{Path(source).stem}\.md#(cell-\w+)", api.page_of(module))
    assert anchors and [a for a in anchors if f'id="{a}"' not in page] == []


def test_the_reference_has_every_name_its_arguments_and_its_cell():
    page = api.page_of("pruning")
    assert all(f"## `{name}` {{: #{name} }}" in page for name in names.exported("pruning"))
    assert "| `shares` | `Tensor` | (B, heads, J, N) attention of keypoint tokens" in page
    assert f"07_pruning.md#cell-{names.cells_of('pruning')['prune'][1]}" in page
    assert "at 0x" not in page


@pytest.fixture(scope="module")
def reference():
    "Every module's page of reference."
    return {module: api.page_of(module) for module in names.floors()}


@pytest.mark.parametrize("inside", [
    " at 0x", "FieldInfo", "AfterValidator", "<factory>", "<class", "<function", "_empty",
])
def test_the_reference_shows_no_insides(reference, inside):
    "Addresses differ from build to build; checks of fields are no types."
    assert [module for module, page in reference.items() if inside in page] == []


def test_the_reference_has_words_for_everything(reference):
    assert {"train", "feed", "cli"} <= set(reference)
    bare = re.compile(r"^## `([^`]+)` .*\n\n(?:\[Where|## |\Z)", re.M)
    assert {m: found for m, page in reference.items() if (found := bare.findall(page))} == {}
    thin = [m for m, page in reference.items() if len(page.splitlines()) < 3]
    anchors = {m: re.findall(r"\{: #(\S+) \}", page) for m, page in reference.items()}
    assert thin == [] and [m for m, ids in anchors.items() if len(set(ids)) < len(ids)] == []
    assert not re.search(r"^A [aeio]\w*:", "\n".join(reference.values()), re.M)


@pytest.mark.parametrize(("module", "line"), [
    ("recipes", "| `betas` | `tuple` | `(0.9, 0.99)` | how long Adam remembers gradients and "),
    ("recipes", "| `overrides` | `dict` | `dict()` | further arguments of `create_model` |"),
    ("recipes", "| `epochs` | `int` | `30` | passes over the people |"),
    ("shards", "| `crop_size` | `tuple[int, int]` |  | (height, width) of the stored crops, "),
    ("cli", "An option of commands: `--data`, synthetic, lspet, lsp, coco "),
    ("backbones", "Pixels()"), ("files", "A tuple: `(OSError, EOFError, "),
    ("locks", "An int: `255`"), ("train", "Nothing is left here: "),
])
def test_a_line_of_the_reference(reference, module, line):
    assert any(text.startswith(line) for text in reference[module].splitlines())


def test_every_page_is_in_the_list_of_pages():
    import docs
    def flat(entry):
        if isinstance(entry, str): return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for value in values for page in flat(value)]
    listed = flat(home.navigation())
    assert sorted(listed) == sorted(docs.makers())


def test_the_landing_page_has_commands_study_and_lessons():
    page = home.landing_page(with_browser=False)
    runs = json.loads((ROOT / "nbs/results/study_lspet_s/runs.json").read_text())
    assert "make demo" in page and "make test" in page and "try/" not in page
    assert "pip install -e ." in page and "dppt predict" in page
    assert format_interval(row_score(runs, "dppt")) in page
    assert all(f"]({path.stem}.md)" in page for path in LESSONS)


def test_the_moving_picture_is_the_networks_own():
    svg = moving.moving_picture()
    tree = ElementTree.fromstring(svg)
    assert len(svg) < 400_000 and "prefers-reduced-motion" in svg and tree.get("aria-label")
    _, points, _, trace, joints, _ = moving.traced()
    person = moving.surest(1)[0]
    gone = [patch for patches, _ in moving.stages(trace, person).values() for patch in patches]
    left = trace.kept[0][-1][person].tolist()
    assert sorted(gone + left) == list(range(len(gone) + len(left)))
    first = tree.find("{http://www.w3.org/2000/svg}g")
    left_out = [p.get("d") for p in first if "gone" in p.get("class", "")]
    assert sum(path.count("M") for path in left_out) == len(gone)
    assert len(first.findall(".//{http://www.w3.org/2000/svg}circle")) == len(joints[person])


def test_the_picture_of_the_readme_is_that_of_the_landing_page():
    stored = ElementTree.parse(ROOT / "nbs/images/moving.svg").getroot()
    made = ElementTree.fromstring(moving.for_readme())
    assert stored.get("aria-label") == made.get("aria-label")
    squares = lambda tree: [p.get("d") for p in tree.findall(".//*[@class]") if p.get("d")]
    assert squares(stored) and squares(stored) == squares(made)
    assert "prefers-color-scheme" in (ROOT / "nbs/images/moving.svg").read_text()


# The papers

def tables(notebook):
    "Rows of all tables of a page, as dictionaries by the head of their column."
    cells = json.loads((ROOT / "nbs" / notebook).read_text())["cells"]
    for cell in cells:
        lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "markdown" else []
        for k, line in enumerate(lines):
            parts = [part.strip() for part in line.strip()[1:-1].split("|")]
            if k + 1 < len(lines) and re.match(r"\|[-:| ]+\|$", lines[k + 1]): head = parts
            elif line.startswith("|") and not re.match(r"\|[-:| ]+\|$", line):
                yield dict(zip(head, parts))


def test_the_papers_name_what_is_there():
    from dppt_nb.config import PoseConfig
    from dppt_nb.models import VARIANTS
    from dppt_nb.recipes import Recipe
    settings = {field.name for kind in (Recipe, PoseConfig) for field in fields(kind)}
    here = [row["here"] for row in tables("papers.ipynb") if "here" in row]
    named = [name for cell in here for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 60
    assert not [n for n in named if names.reference(n) is None and n not in settings]
    plain = {cell for cell in here if cell and "`" not in cell and cell != "not built"}
    assert plain and plain <= set(VARIANTS)


def test_the_papers_print_what_the_package_keeps():
    "Two tables of the page against the scores and costs that the package itself keeps."
    from dppt_nb.costs import PUBLISHED_COSTS
    from dppt_nb.models import PUBLISHED
    rows = {row["here"]: row for row in tables("papers.ipynb") if "GFLOPs" in row and row["here"]}
    theirs = {r.model: r for r in PUBLISHED_COSTS if r.source.startswith("SDPose, Table 1")}
    assert len(rows) > 8 and set(theirs) <= set(rows)
    for name, row in theirs.items():
        assert (row.parameters, row.giga) == (rows[name]["params, M"], rows[name]["GFLOPs"])
    sdpose = {name: text.split()[0] for name, text in PUBLISHED.items() if "SDPose" in text}
    assert sdpose == {name: rows[name]["AP"] for name in sdpose}
    # of these two a cost is known, and no AP
    assert set(PUBLISHED) == {r.model for r in PUBLISHED_COSTS} - {"sdpose_reg", "tokenpose_t"}


# Lessons in Colab

@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_a_lesson_opens_in_colab_and_installs_there_only(path):
    import colab
    text = path.read_text()
    again = colab.with_colab(json.loads(text), path.name)
    assert again == json.loads(text), "run `python tools/colab.py`, which adds badge and cell"
    head, first = ("".join(cell["source"]) for cell in again["cells"][:2])
    assert f"blob/main/nbs/{path.name})" in head and first.startswith("#| hide\n")
    body = first.partition('if "google.colab" in sys.modules and ')[2].partition("\nif ")[0]
    body = body.splitlines()[1:]
    assert len(body) == 3 and all(line.startswith("    ") for line in body)


def test_the_cell_for_colab_fetches_the_project_once(tmp_path, monkeypatch):
    "Run again it stands in the clone: another one inside would take minutes. Elsewhere it is idle."
    import colab
    from IPython.core.inputtransformer2 import TransformerManager
    did = []

    class Shell:
        def system(self, command): did.append(command)

        def run_line_magic(self, name, rest):
            did.append(name)
            if name == "cd":
                (tmp_path / "dppt-nb/dppt_nb").mkdir(parents=True)
                (tmp_path / "dppt-nb/nbs").mkdir()
                monkeypatch.chdir(tmp_path / "dppt-nb/nbs")

    monkeypatch.chdir(tmp_path)
    run = lambda: exec(TransformerManager().transform_cell(colab.CELL), {"get_ipython": Shell})
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    run()
    assert not did
    monkeypatch.setitem(sys.modules, "google.colab", True)
    run()
    assert len(did) == 3 and did[0].startswith("git clone") and did[1:] == ["pip", "cd"]
    run()
    assert len(did) == 3


def test_a_lesson_in_another_folder_says_where_lessons_are_run(tmp_path, monkeypatch, capsys):
    import colab
    from IPython.core.inputtransformer2 import TransformerManager
    run = lambda: exec(TransformerManager().transform_cell(colab.CELL), {})
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.chdir(ROOT / "nbs")
    run()
    assert not capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    run()
    said = capsys.readouterr().out
    assert said.startswith("Lessons are run in their own folder, nbs of a clone") and (
        f"not in {tmp_path}" in said
    )


# In a browser

def built(folder, only):
    "A site, or a few of its pages, in `folder`; a skip where a package for it is not to be had."
    pytest.importorskip("mkdocs", reason="the site needs `pip install -e .[docs]`")
    pytest.importorskip("material", reason="the site needs `pip install -e .[docs]`")
    import docs
    from website import npm

    from dppt_nb.checks import DataError
    try:
        axe = npm.files(*npm.AXE)["axe.min.js"].decode()
        docs.copy_served(folder / "tried")
    except DataError as error:
        pytest.skip(f"the site takes files from npm: {error}")
    docs.make_site(folder / "docs", folder / "site", only)
    return folder / "site", axe


def look(site, axe, browser, width, scheme, found, passed=()):
    """What is wrong with pages in a window of that width; axe, if it is there, passes over what
    `passed` selects."""
    from playwright.sync_api import sync_playwright
    wrong = []
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chrome.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        tab.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: re.match("https?:", r.url) and wrong.append(f"asks {r.url}"))
        for page in found:
            tab.goto((site / page).as_uri())
            wrong += [f"{page}: {what}" for what in faults(tab, axe, passed)]
        chrome.close()
    return wrong


def faults(tab, axe, passed):
    "What a reader of this page would stumble over."
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    wide = tab.evaluate(script)
    formulas = tab.locator(".arithmatex").count(), tab.locator(".arithmatex .katex").count()
    serious = []
    if axe:
        tab.evaluate(axe)
        report = tab.evaluate(f"axe.run({{exclude: {list(passed)}}}, {AXE})")
        serious = [v for v in report["violations"] if v["impact"] in ("serious", "critical")]
    return (
        [f"{wide} px wider than the window"] * (wide > 0)
        + [f"{formulas[0]} formulas, {formulas[1]} set"] * (formulas[0] != formulas[1])
        + ["a formula is not understood"] * tab.locator(".katex-error").count()
        + [f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}"
           for v in serious]
    )


def test_a_printed_table_is_seen_whole_in_a_wide_window(tmp_path, chromium_program):
    "Its last column too; in a narrow one it is scrolled, with letters that can be read."
    site, _ = built(tmp_path, ("13_study.md",))
    from playwright.sync_api import sync_playwright
    cut = """[...document.querySelectorAll('.output pre > code')].map(
        box => [box.scrollWidth - box.clientWidth, parseFloat(getComputedStyle(box).fontSize)])"""
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=chromium_program, args=["--no-sandbox"])
        wide, narrow = (chrome.new_page(viewport=dict(width=w, height=900)) for w in (1440, 390))
        for tab in (wide, narrow): tab.goto((site / "13_study.html").as_uri())
        boxes, scrolled = wide.evaluate(cut), narrow.evaluate(cut)
        assert len(boxes) > 8 and not [box for box in boxes if box[0] > 0 or box[1] < 8.5]
        assert any(more > 0 for more, _ in scrolled) and min(size for _, size in scrolled) > 13
        assert not faults(wide, None, ()) and not faults(narrow, None, ())
        chrome.close()


def test_a_page_is_printed_dark_on_white_and_options_are_found(tmp_path, chromium_program):
    "Where the reader's scheme is dark, too; the search reads no sign of an option as its own."
    site, _ = built(tmp_path, ("11_inference.md", "14_train.md"))
    from playwright.sync_api import sync_playwright
    lightness = """() => ["color", "backgroundColor"].map(of => {
        const parts = getComputedStyle(document.body)[of].match(/[\\d.]+/g).map(Number)
        return parts[0] + parts[1] + parts[2]})"""
    wrong = []
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=chromium_program, args=["--no-sandbox"])
        tab = chrome.new_page(viewport=dict(width=1440, height=900), color_scheme="dark")
        tab.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        tab.goto((site / "14_train.html").as_uri())
        assert tab.evaluate(lightness)[0] > 600 > 200 > tab.evaluate(lightness)[1]
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate(lightness)[0] < 100 and tab.evaluate(lightness)[1] == 3 * 255
        tab.emulate_media(media="screen", color_scheme="dark")
        tab.click(".md-search__input")
        for asked in ("--refine", "--min-score", "dppt train --plan", "PCK@0.2:", "-heatmap",
                      "--every", "--or-whole", "keep_ratio"):
            for words, answer in (("qqqq", "No matching"), (asked, "matching document")):
                tab.fill(".md-search__input", words)
                tab.keyboard.press("End")    # the search listens to keys
                place = tab.locator(".md-search-result__meta")
                place.filter(has_text=re.compile(rf"^\s*{answer}|^\s*\d+ {answer}")).wait_for()
            if asked == "keep_ratio":    # not all that has one of its parts
                assert tab.locator(".md-search-result__item").count() == 1
            if asked == "--min-score":    # both parts in one section
                links = tab.locator(".md-search-result__link").evaluate_all(
                    "all => all.map(link => link.href)"
                )
                assert any("11_inference.html?h=min+score" in link for link in links), links
        chrome.close()
    assert not wrong


def test_pages_in_a_browser(tmp_path, chromium_program):
    site, axe = built(tmp_path, PART)
    found = [page.replace(".md", ".html") for page in PART]
    for width, scheme in zip(SIZES, ("light", "dark")):
        wrong = look(site, axe, chromium_program, width, scheme, found, ["pre"])    # many words
        assert not wrong, "\n".join(wrong)


@pytest.mark.soak
def test_the_whole_site_in_a_browser(tmp_path, chromium_program):
    "Links included, since the build is strict."
    site, axe = built(tmp_path, ())
    found = [str(p.relative_to(site)) for p in sorted(site.rglob("*.html"))]
    found = [page for page in found if page != "404.html" and not page.startswith("try/")]
    assert len(found) > 90
    wrong = look(site, None, chromium_program, 390, "light", found)
    wrong += look(site, axe, chromium_program, 1440, "dark", found, ["pre"])
    for scheme in ("light", "dark"):    # the colours of code
        wrong += look(site, axe, chromium_program, 1440, scheme, ["14_train.html"])
    assert not wrong, "\n".join(wrong)


# Landing page

def test_runs_of_several_lengths_get_a_table_each():
    path = ROOT / "nbs" / "results" / "study_lspet_nano_budget" / "runs.json"
    made = home.tables_of(json.loads(path.read_text()), path.parent.name)
    # of both lengths there are three seeds of the three networks that are compared first
    assert len(made) == 2 and "30 epochs" in made[0] and "60 epochs" in made[1]


def captions():
    "The captions of the landing page's tables, by their study and epochs."
    found = {}
    for path in (ROOT / "nbs" / "results").glob("*/runs.json"):
        for table in home.tables_of(json.loads(path.read_text()), path.parent.name):
            caption = table.partition("\n\n")[0]
            found[path.parent.name, re.search(r"(\d+) epochs", caption)[1]] = caption
    return found


def test_every_table_of_the_landing_page_says_which_study_it_is():
    "No two captions are alike, and each leads to its section of the study's pages."
    made, landing = captions(), home.landing_page(with_browser=False)
    assert len(made) > 5 and len(set(made.values())) == len(made)
    assert {study for study, _ in made} == set(home.COMPARING)
    def headings(page):
        text = (ROOT / "nbs" / page.replace(".md", ".ipynb")).read_text()
        return {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
                for head in re.findall(r'"#+ (.+?)(?:\\n)?"', text)}
    for caption in made.values():
        page, place = re.search(r"\]\(([a-z0-9_/]+\.md)#([^)]+)\)", caption).groups()
        assert place in headings(page), caption
    shown = {study for (study, _), caption in made.items() if caption in landing}
    assert shown == set(home.ANSWERING)


def test_the_captions_tell_teachers_and_crops_of_their_study():
    made = captions()
    fresh, large = made["study_lspet_nano_fresh", "12"], made["study_lspet_s", "14"]
    assert "seeds 3, 4, 5 and 6" in fresh and "3 teachers (seeds 5 and 6 share one)" in fresh
    assert "one teacher per seed" in made["study_lspet_nano_h200", "12"]
    assert "one teacher for all seeds" in made["study_lspet_nano", "12"]
    assert "differ from seed to seed" in large and "fewer pixels than the network reads" in large


def test_the_landing_pages_links_inside_the_readme_lead_to_its_page():
    story = home.index_cells()[0]
    assert "](#" in story    # there are some
    page = home.landing_page(with_browser=False)
    assert "](#" not in page and "](project/index.md#use)" in page
    # the words of the README, not its picture, which stands here as the page's own
    assert "is cut into patches" in page and "moving.svg" not in page

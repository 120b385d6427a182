"From a notebook with its stored outputs, or a Markdown file, to a page of the site."
import base64
import json
import re
from functools import partial
from html import escape
from pathlib import Path

from PIL import Image

from website.names import ROOT, between, github, lessons, reference, target

IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([\w-]+)[^\n]*\n?", re.M)
ALONE = ("nbs/papers.ipynb", "nbs/glossary.ipynb")    # their own tab: no list of pages beside them
COLAB = "https://colab.research.google.com/assets/colab-badge.svg"
PICTURES = Path(__file__).with_name("pictures.json")
COUNTED = [0, 0]    # pictures with a text written for them, and without


def outside_code(text, change):
    "Markdown with `change` applied to what is no code block."
    parts = re.split(r"(^(`{3,}|~{3,})[^\n]*\n.*?^\2[^\n]*$)", text, flags=re.M | re.S)
    # a match brings the block and its fence: text, block, fence, text, ...
    return "".join(
        part if i % 3 == 1 else change(part) for i, part in enumerate(parts) if i % 3 != 2
    )


def adapt(text, source, page):
    "Markdown of the file `source` for the site's `page`: links, names, lists."
    def change(part):
        part = re.sub(
            r"(\]\(\s*<?)([^)\s>]+)", lambda m: m[1] + target(m[2], source, page), part
        )
        part = re.sub(
            r"((?:src|href)=[\"'])([^\"']+)", lambda m: m[1] + target(m[2], source, page), part
        )
        return separate_lists(link_names(part, page))
    return outside_code(text, change)


def link_names(text, page):
    "Names of the package in code marks become links to their reference; headings stay as they are."
    def link(match):
        to = reference(match[1])
        return f"[{match[0]}]({between(page, to)})" if to else match[0]
    # neither inside a link's words nor in a heading
    name = re.compile(r"(?<![\[`\w])`([A-Za-z_][\w.]*)(?:\(\))?`(?!\]|`)")
    lines = text.split("\n")
    return "\n".join(line if line.startswith("#") else link_in(name, link, line) for line in lines)


def link_in(name, link, line):
    "The line with names linked outside of its links."
    parts = re.split(r"(\[[^\]]*\]\([^)]*\))", line)
    return "".join(part if i % 2 else name.sub(link, part) for i, part in enumerate(parts))

LONGEST = 160    # letters of a line, for which the style sheet has a size


def separate_lists(text):
    "A blank line before each list, and four blanks of indent for what belongs to an item."
    text = re.sub(r"^( {2,3})(?=[-*] |\d+\. )", "    ", text, flags=re.M)
    item = r"(?:[-*]|\d+\.) "
    return re.sub(rf"^(?! *{item}|\s*$)(.+)\n(?={item})", r"\1\n\n", text, flags=re.M)


def fenced(text, language, title=""):
    "A block of code, with a fence longer than any within."
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    title = f' title="{title}"' if title else ""
    return f"{fence}{language}{title}\n{text.rstrip()}\n{fence}"


def written_pictures():
    "What pictures show, for those that were described by hand: page#cell -> text."
    return json.loads(PICTURES.read_text())


def described(cells, number, source, place):
    """A text for a cell's picture, its first or a later one: what was written for it, or what the
    page says around it."""
    cell = cells[number]
    own = written_pictures().get(f"{source.removeprefix('nbs/')}#{cell['id']}")
    COUNTED[not own] += 1
    if own: return own if isinstance(own, str) else own[min(place, len(own) - 1)]
    heading, spoken = "", ""
    for before in cells[:number]:
        if before["cell_type"] == "markdown":
            found = re.findall(r"^#+ +(.+)$", "".join(before["source"]), re.M)
            heading = found[-1] if found else heading
    for after in cells[number + 1 :]:
        if after["cell_type"] == "markdown":
            spoken = first_sentence("".join(after["source"]))
            break
    return f"Picture of the section {plain(heading)}. {spoken}".strip()


def plain(text): return re.sub(r"[*`_#>]|\[([^\]]*)\]\([^)]*\)", r"\1", text)


def first_sentence(text):
    "The first sentence of a text that is no heading."
    text = plain(re.sub(r"^#.*$", "", text, flags=re.M)).strip().replace("\n", " ")
    return re.split(r"(?<=[.!?:]) ", text)[0]


def picture(data, kind, name, folder, alt):
    "Write a picture of an output into `folder`; its tag."
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.{IMAGES[kind]}"
    content = "".join(data[kind])
    file.write_bytes(content.encode() if kind == "image/svg+xml" else base64.b64decode(content))
    size = ""
    if kind != "image/svg+xml":
        with Image.open(file) as image: size = f' width="{image.width}" height="{image.height}"'
    return f'<p class="picture"><img src="{{place}}/{file.name}" alt="{escape(alt())}"{size} ' \
           'loading="lazy"></p>'


def html_output(html):
    "HTML of an output without styles and scripts, which would reach beyond it."
    html = re.sub(r"<(style|script).*?</\1>", "", html, flags=re.S).strip()
    return f'<div class="output" markdown="0">\n{html}\n</div>' if html else ""


def printed(text):
    """What was printed, with the length of its longest line where that is long, in tens: CSS makes
    letters small enough for it."""
    letters = -(-max(map(len, text.splitlines()), default=0) // 10) * 10
    long = f" .letters-{min(letters, LONGEST)}" if letters >= 80 else ""
    return fenced(text, f"{{.text .output{long}}}")


def output(out, name, folder, alt):
    "One stored output as Markdown."
    if out["output_type"] == "stream":
        text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(out["text"]))
        return printed(text) if text.strip() else ""
    data = out.get("data", {})
    for kind in IMAGES:
        if kind in data: return picture(data, kind, name, folder, alt)
    if any("widget" in kind for kind in data): return ""
    if "text/html" in data: return html_output("".join(data["text/html"]))
    if "text/markdown" in data: return "".join(data["text/markdown"])
    return printed("".join(data.get("text/plain", "")))


def code(cell, module):
    "A code cell without nbdev's directives; what is exported says into which module."
    text = "".join(cell["source"])
    marks = set(DIRECTIVE.findall(text))
    text = DIRECTIVE.sub("", text)
    if not text.strip(): return ""
    exported = {"export", "exports", "exporti"} & marks
    block = fenced(text, "python", f"dppt_nb/{module}.py" if exported else "")
    # a cell that exports says it in its metadata alone: nbdev would write the mark into the package
    hidden = cell.get("metadata", {}).get("jupyter", {}).get("source_hidden")
    if "code-fold" in marks or hidden: block = folded(block)
    if not exported: return block
    return f'<div class="cell" id="cell-{cell["id"]}"></div>\n\n{block}'


def folded(block):
    "Code that readers need not see, behind a line that opens it."
    return f"<details class=\"code\" markdown><summary>Code</summary>\n\n{block}\n\n</details>"


def module_of(cells):
    "The module into which a notebook exports, or None."
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = re.search(r"^#\|\s*default_exp\s+(\w+)", text, re.M)
    return found[1] if found else None


def shown(cells, number, source, page, docs):
    "What a cell printed and drew; its pictures go beside the page."
    name, cell, drawn = Path(page).stem, cells[number], 0
    folder = (docs / page).parent / "pictures" / name
    for k, out in enumerate(cell.get("outputs", [])):
        alt = partial(described, cells, number, source, drawn)
        drawn += any(kind in out.get("data", {}) for kind in IMAGES)
        made = output(out, f"{cell['id']}-{k}", folder, alt)
        yield made.replace("{place}", f"pictures/{name}")


def is_hidden(cell):
    "Whether a page does not show the cell."
    return bool(re.search(r"^#\|\s*hide\b", "".join(cell["source"]), re.M))


def from_notebook(source, page, docs):
    "The Markdown of a notebook."
    cells = json.loads((ROOT / source).read_text())["cells"]
    module, parts = module_of(cells), []
    for number, cell in enumerate(cells):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(adapt(without_badge(text), source, page))
        elif cell["cell_type"] == "code" and not is_hidden(cell):
            parts += [code(cell, module), *shown(cells, number, source, page, docs)]
    parts.insert(1, head_of(source, page, module))
    alone = "---\nhide: [navigation]\n---" if source in ALONE else ""
    return "\n\n".join(part for part in [alone, *parts] if part) + "\n"


def without_badge(text):
    "The badge's picture lies on another server; the head of the page has the link in words."
    return re.sub(r"\[!\[[^\]]*\]\(" + re.escape(COLAB) + r"\)\]\([^)]*\)\n*", "", text)


def head_of(source, page, module):
    "Under a page's first cell: where to run it, and what of it is in the package."
    place = github().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{place}/blob/main/{source}"
    links = [f"[Notebook]({github()}/blob/main/{source})"]
    if ROOT / source in lessons(): links.insert(0, f"[Open in Colab]({colab})")
    if module: links.append(f"[Reference of `{module}`]({between(page, f'api/{module}.md')})")
    links.append(f"[Glossary and symbols]({between(page, 'glossary.md')})")
    return '<div class="where" markdown>\n\n' + " · ".join(links) + "\n\n</div>"


def from_text(source, page):
    "The Markdown of a text file of the repository."
    return adapt((ROOT / source).read_text(), source, page)


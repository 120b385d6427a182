"""Write README.md from nbs/index.ipynb: what a reader of the index page sees, with links that work
at the top folder. With `--absolute FILE` it is written there with links that work anywhere."""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = re.compile(r"^\s*#\s*\|\s*(hide|default_exp)\b", re.M)
PAGES = "https://github.com/dppt-nb/dppt-nb/blob/main/"
PICTURES = "https://raw.githubusercontent.com/dppt-nb/dppt-nb/main/"


def readme(path):
    "The Markdown of the notebook at `path`, without hidden cells and nbdev's directives."
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not HIDDEN.search(cell.source)]
    for cell in notebook.cells: cell.source = re.sub(r"^\s*#\s*\|.*\n", "", cell.source, flags=re.M)
    notebook.metadata["language_info"] = {"name": "python"}    # so that code is coloured
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r"\]\((?!https?://|#)(?!\.\./)", "](nbs/", text)
    text = re.sub(r'(src|href)="(?!https?://|#|\.\./)', r'\1="nbs/', text)
    text = text.replace("](../", "](").replace('="../', '="')
    return (
        "<!-- Written from nbs/index.ipynb by `make readme`: edit it there. -->\n"
        + re.sub(r"\n{3,}", "\n\n", text).strip()
        + "\n"
    )


def absolute(text):
    "The same Markdown for a place where the repository's files are not beside it."
    text = re.sub(r"(!\[[^]]*\])\((?!https?://)", rf"\1({PICTURES}", text)
    return re.sub(r"\]\((?!https?://|#)", f"]({PAGES}", text)


if __name__ == "__main__":
    text = readme(ROOT / "nbs" / "index.ipynb")
    if sys.argv[1:2] == ["--absolute"]: Path(sys.argv[2]).write_text(absolute(text))
    else: ROOT.joinpath("README.md").write_text(text)

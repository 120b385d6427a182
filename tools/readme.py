"""Write README.md from nbs/index.ipynb: what a reader of the index page sees, with picture links
that work at the top folder."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

from dppt_nb.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = re.compile(r"^\s*#\s*\|\s*(hide|default_exp)\b", re.M)


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


if __name__ == "__main__":
    write_whole(ROOT / "README.md", readme(ROOT / "nbs" / "index.ipynb").encode())

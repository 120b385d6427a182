"""Write README.md from nbs/index.ipynb: what a reader of the index page sees, with links that work
at the top folder; and tools/pypi.md, the same with links that work away from the repository."""
import re
from pathlib import Path

import click
import nbformat
from nbconvert import MarkdownExporter

from dppt_nb.locks import write_whole

ROOT = Path(__file__).resolve().parent.parent
PAGES = "https://github.com/dppt-nb/dppt-nb/blob/main/"
FILES = "https://raw.githubusercontent.com/dppt-nb/dppt-nb/main/"
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


def away(text):
    "The README's `text` with whole addresses, as the package index needs them."
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?://|#)", r"\1" + FILES, text)
    text = re.sub(r'src="(?!https?://|#)', f'src="{FILES}', text)
    text = re.sub(r'href="(?!https?://|#)', f'href="{PAGES}', text)
    return re.sub(r"\]\((?!https?://|#)", "](" + PAGES, text)


@click.command()
def main():
    "Write README.md and tools/pypi.md from nbs/index.ipynb."
    text = readme(ROOT / "nbs" / "index.ipynb")
    write_whole(ROOT / "README.md", text.encode())
    write_whole(ROOT / "tools" / "pypi.md", away(text).encode())


if __name__ == "__main__": main()

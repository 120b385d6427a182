"""Give every lesson its badge "Open in Colab", and a cell that installs the project where it runs
there; a lesson that has both stays as it is."""
import json
from pathlib import Path

import click

from dppt_nb.locks import write_whole

NBS = Path(__file__).resolve().parent.parent / "nbs"
REPOSITORY = "dppt-nb/dppt-nb"
CELL = f"""\
#| hide
import os
import sys

# in Colab only, and there once: the project and what its pages need
if "google.colab" in sys.modules and not os.path.isdir("../dppt_nb"):
    !git clone -q --depth 1 https://github.com/{REPOSITORY}
    %pip install -q ./dppt-nb "fastcore<2"
    %cd dppt-nb/nbs
if not os.path.isdir("results"):
    print("Lessons are run in their own folder, nbs of a clone of dppt-nb; here cells that read "
          "the stored results stop, since they are not in", os.getcwd())"""


def badge(name):
    "The badge of a lesson, as Markdown."
    place = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/nbs/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({place})"


def with_colab(notebook, name):
    "The notebook with badge and cell."
    head, cells = notebook["cells"][0], notebook["cells"]
    title, _, rest = "".join(head["source"]).partition("\n\n")
    if not rest.startswith(badge(name)): rest = f"{badge(name)}\n\n{rest}"
    head["source"] = f"{title}\n\n{rest}".splitlines(keepends=True)
    first = dict(
        cell_type="code", id=f"c01ab{name[:2]}0", metadata={}, execution_count=None, outputs=[],
        source=CELL.splitlines(keepends=True),
    )
    if cells[1].get("id") == first["id"]: del cells[1]    # of another day, or the same
    cells.insert(1, first)
    return notebook


@click.command()
def main():
    "Give every lesson its badge, and the cell that installs the project in Colab."
    for path in sorted(NBS.glob("[0-9][0-9]_*.ipynb")):
        notebook = with_colab(json.loads(path.read_text()), path.name)
        text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        if text != path.read_text(): write_whole(path, text.encode())


if __name__ == "__main__": main()

"""Run notebooks top to bottom and store their outputs, skipping the cells that say they are not to
be run."""
import argparse
import base64
import io
import os
import re
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import clean_nb
from nbdev.config import get_config
from PIL import Image

from dppt_nb.locks import write_whole
from dppt_nb.skeletons import in_256_colours

NBS = Path(__file__).resolve().parent.parent / "nbs"
SKIP = re.compile(r"^\s*#\s*\|\s*(eval:\s*false|slow|cuda)\b", re.M)


def every_page():
    "Lessons, machinery and answers, in the order in which they are read."
    patterns = ("*.ipynb", "machinery/*.ipynb", "solutions/*.ipynb")
    return [path for pattern in patterns for path in sorted(NBS.glob(pattern))]


def drop_widgets(notebook):
    "A stored page has no kernel: a widget is not kept, and a still stands beside it."
    view = "application/vnd.jupyter.widget-view+json"
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        cell.outputs = [output for output in cell.outputs if view not in output.get("data", {})]
    notebook.metadata.pop("widgets", None)


def drop_bars(notebook):
    """A bar that has ended leaves styles and empty places, which are not kept. What is written
    beside it is, as plain text too."""
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.get("text/plain") == "<IPython.core.display.HTML object>":
                html = re.sub(r"<style>.*?</style>", "", data["text/html"], flags=re.S)
                words = re.sub(r"<[^>]+>", "", html.replace("<p>", "\n")).strip()
                if not words or "<progress" in html: continue
                data["text/plain"] = words
            kept.append(output)
        if "outputs" in cell: cell.outputs = kept


def join_streams(notebook):
    "What a cell prints is one piece, however often the kernel sent some of it."
    for cell in notebook.cells:
        joined = []
        for output in cell.get("outputs", []):
            stream = output.output_type == "stream"
            if stream and joined and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else: joined.append(output)
        if "outputs" in cell: cell.outputs = joined


def smaller(
    picture: bytes, # a PNG file
) -> bytes:
    "The same picture in 256 colours, where that takes fewer bytes."
    image = Image.open(io.BytesIO(picture))
    if image.mode == "P" or image.convert("RGBA").getextrema()[3][0] < 255: return picture
    made = io.BytesIO()
    in_256_colours(image.convert("RGB")).save(made, "PNG", optimize=True)
    return min(picture, made.getvalue(), key=len)


def shrink_pictures(notebook):
    "Stored pictures in 256 colours: a third of the bytes that everybody who clones has to fetch."
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" not in data: continue
            picture = smaller(base64.b64decode(data["image/png"]))
            data["image/png"] = base64.b64encode(picture).decode()


def clean(notebook):
    "As `nbdev_clean` does, which keeps what settings.ini allows; folded cells stay folded."
    config = get_config(path=NBS)
    of_page, of_cell = (
        config.get(f"allowed_{kind}_keys").split() for kind in ("metadata", "cell_metadata")
    )
    clean_nb(notebook, allowed_metadata_keys=of_page, allowed_cell_metadata_keys=of_cell)


def run(path):
    "Execute the notebook at `path` in place; its outputs come from this run and no other."
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and SKIP.search(cell.source):
            cell.metadata["tags"] = ["skip-execution"]
    start = time.time()
    NotebookClient(
        notebook, timeout=3600, kernel_name="python3", skip_cells_with_tag="skip-execution",
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    drop_widgets(notebook)
    drop_bars(notebook)
    join_streams(notebook)
    shrink_pictures(notebook)
    clean(notebook)
    write_whole(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode())
    print(f"{path.name}: {time.time() - start:.0f} s, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(NBS.parent), os.environ.get("PYTHONPATH")])
    )
    os.environ.pop("MPLBACKEND", None)    # pictures are stored where Jupyter's own backend draws
    parser = argparse.ArgumentParser(description="Run pages in place, and store what they show.")
    parser.add_argument("pages", nargs="*", type=Path, help="notebooks; every page unless given")
    pages = parser.parse_args().pages or every_page()
    for path in pages:
        if path.suffix != ".ipynb" or not path.is_file(): parser.error(f"{path} is no notebook")
    for path in pages: run(path.resolve())

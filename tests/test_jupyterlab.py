"""The explorers in a kernel, and the lessons and the explorers in JupyterLab: opened in headless
Chromium, over one server, and some of them run."""
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dppt_nb.pictures import free_photo

LESSONS = sorted(path.name for path in (
    Path(__file__).resolve().parent.parent / "nbs"
).glob("[01]*.ipynb"))
RUN = "00_tour.ipynb", "12_explore.ipynb"    # which are run too; `test_notebooks.py` runs all

PAGE = [
    "import torch",
    "from dppt_nb.checkpoints import load_network",
    "from dppt_nb.explore import explore_attention, explore_photo",
    "from dppt_nb.pictures import free_photo",
    "from dppt_nb.views import crop_person, view_person",
    "torch.set_num_threads(1)",
    "network = load_network('tokenpose_nano')",
    "crop = crop_person(free_photo(), (40, 40, 320, 640), (128, 96))",
    "view = view_person(network[0], crop, *network[1:])",
]


def notebook(*cells):
    import nbformat
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    page.metadata["kernelspec"] = dict(name="python3", display_name="python3", language="python")
    return page


def test_in_a_kernel_and_stored_without_a_model_that_is_gone(root, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="runs a kernel: pip install nbclient")
    page = notebook(
        "\n".join(PAGE), "explorer = explore_attention(view)\nexplorer",
        "explorer.controls['layer'].value = 2\nprint(explorer.words.value)",
    )
    nbclient.NotebookClient(page, timeout=300, kernel_name="python3").execute()
    view = "application/vnd.jupyter.widget-view+json"
    assert view in page.cells[1].outputs[0]["data"] and "layer 2" in page.cells[2].outputs[0].text
    spec = importlib.util.spec_from_file_location("pages", root / "tools" / "run_notebooks.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.drop_widgets(page)
    assert view not in json.dumps(page)
    assert page.cells[1].outputs == [] and "layer 2" in page.cells[2].outputs[0].text


# In JupyterLab

@pytest.fixture(scope="module")
def lab(chromium_program, root, tmp_path_factory):
    "One JupyterLab over copies of the lessons: the folder, and what `drive` needs to get there."
    pytest.importorskip("jupyterlab", reason="this needs `pip install jupyterlab`")
    from lab_fixture import jupyterlab
    folder = tmp_path_factory.mktemp("lab")
    for name in LESSONS: shutil.copy(root / "nbs" / name, folder)
    for name in ("images", "results"): shutil.copytree(root / "nbs" / name, folder / name)
    with jupyterlab(folder) as where: yield folder, chromium_program, *where


def drive(task, name, lab, limit):
    """A browser in JupyterLab, by `lab_fixture.py`; what is not done after `limit` seconds is ended
    with all that it started, and the steps that it reached are shown."""
    folder, *more = lab
    tool, log = Path(__file__).with_name("lab_fixture.py"), folder / "steps.log"
    with log.open("w") as out:
        driver = subprocess.Popen(
            [sys.executable, tool, task, name, folder, *more], stdout=out, stderr=out,
            start_new_session=True,
        )
    try: code = driver.wait(limit)
    except subprocess.TimeoutExpired: code = f"not done after {limit} s"
    with contextlib.suppress(ProcessLookupError): os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert code == 0, f"{code}\n{log.read_text()[-3000:]}"
    return log.read_text()


@pytest.mark.browser
def test_by_keyboard_and_by_upload_in_jupyterlab(lab):
    import nbformat
    cells = "\n".join(PAGE), "explore_attention(view)", "explore_photo({'a': network}, crop)"
    nbformat.write(notebook(*cells), lab[0] / "page.ipynb")
    Image.fromarray(free_photo("astronaut")).save(lab[0] / "me.png")
    said = drive("keys", "page.ipynb", lab, limit=600)
    assert "moved the slider" in said and "uploaded" in said


@pytest.mark.browser
@pytest.mark.soak
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_opens_in_jupyterlab(lab, name):
    "Some are run, too."
    said = drive("run" if name in RUN else "open", name, lab, limit=1200)
    assert "no complaint is shown" in said
    assert ("cells were run, none complained" in said) == (name in RUN)


@pytest.mark.browser
@pytest.mark.soak
@pytest.mark.parametrize("fault, told", [("kernel", "Select Kernel"), ("file", "File Load Error")])
def test_what_jupyterlab_complains_about_is_seen(lab, fault, told):
    "A kernel that is not there, for which it asks; a file that is no notebook."
    import nbformat
    page = notebook("1 + 1")
    if fault == "kernel": page.metadata["kernelspec"]["name"] = "nowhere"
    nbformat.write(page, path := lab[0] / "odd.ipynb")
    if fault == "file": path.write_text(path.read_text()[:-20])
    with pytest.raises(AssertionError, match=f"JupyterLab says: .*{told}"):
        drive("open", "odd.ipynb", lab, limit=600)


def running(word):
    "Numbers of the processes that were started with a word."
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return [line.split()[0] for line in found.splitlines() if word in line]


@pytest.mark.soak
def test_what_hangs_in_the_browser_is_ended(tmp_path):
    "A browser that never answers."
    pytest.importorskip("playwright", reason="looking at pages needs `pip install playwright`")
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nsleep 60\n")
    sleeper.chmod(0o755)
    with pytest.raises(AssertionError, match="not done after 10 s"):
        drive("open", "page.ipynb", (tmp_path, sleeper, "http://127.0.0.1:9", "none"), limit=10)
    assert not running(str(sleeper))

"""JupyterLab in a headless Chromium, in a process of its own, so that a test can end it whatever
hangs: `python tests/lab_fixture.py open|run|keys NOTEBOOK FOLDER CHROMIUM ADDRESS TOKEN`. The
server is started once, by `jupyterlab`. Says what it does, step by step; ends with 0 where all of
it was seen."""
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGE = ".widget-html img"
START_WITHIN = 120    # seconds; a busy machine is no fault
COMPLAINTS = ".jp-Dialog, .Toastify__toast--error, .Toastify__toast--warning"
STARTED = time.time()


def say(words):
    "A step, and when it was reached."
    print(f"{time.time() - STARTED:6.1f} s  {words}", flush=True)


@contextlib.contextmanager
def jupyterlab(folder):
    "JupyterLab over a folder, on a free port: its address, and a token."
    token, log = secrets.token_hex(8), folder / "lab.log"
    quiet = folder / "jupyterlab_settings_dir/@jupyterlab/apputils-extension"
    quiet.mkdir(parents=True)
    # it would ask whether to fetch news, in front of the notebook
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--port=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
        "--LabApp.check_for_updates_class="
        "jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    place = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR")
    }
    with log.open("w") as out:
        lab = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=folder, env=os.environ | place
        )
    try: yield address(log, lab), token
    finally:
        lab.terminate()
        try: lab.wait(20)
        except subprocess.TimeoutExpired: lab.kill()


def address(log, lab):
    "Where the server listens, once it answers."
    begin = time.time()
    while lab.poll() is None and time.time() - begin < START_WITHIN:
        words = [w for w in log.read_text().split() if w.startswith("http://127.0.0.1:")]
        if words:
            base = words[0].split("/lab")[0].split("/?")[0]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(base + "/api", timeout=5).read()
                return base
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def clear(path):
    "Take outputs and numbers out of a notebook, so that what stands there later was made here."
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        if cell["cell_type"] == "code": cell |= dict(outputs=[], execution_count=None)
    path.write_text(json.dumps(content))


def ask(lab, method, what):
    "The server's answer to a request, from JSON; None where it is empty."
    base, token = lab
    request = urllib.request.Request(
        f"{base}/api/{what}", method=method, headers={"Authorization": f"token {token}"}
    )
    answer = urllib.request.urlopen(request, timeout=30).read()
    return json.loads(answer) if answer else None


def open_page(page, lab, path):
    """Open a notebook, wait for its kernel, and see whether JupyterLab complains. The page shows an
    idle kernel before there is one, so the server is asked too."""
    base, token = lab
    page.goto(f"{base}/doc/tree/{path.name}?token={token}&reset")
    page.locator(f".jp-Notebook .jp-Cell, {COMPLAINTS}").first.wait_for()
    begin, ready = time.time(), False
    while not ready and not page.locator(COMPLAINTS).count() and time.time() - begin < START_WITHIN:
        page.wait_for_timeout(300)
        kernels = [session["kernel"] for session in ask(lab, "GET", "sessions")
                   if session["path"] == path.name]
        ready = any(k["connections"] and k["execution_state"] == "idle" for k in kernels)
    no_complaint(page)
    assert ready, f"the kernel of {path.name} was not idle within {START_WITHIN} s"
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    page.wait_for_timeout(1000)    # what it would complain about when all is there
    no_complaint(page)
    say("the notebook is open, its kernel is idle, no complaint is shown")


def no_complaint(page):
    "JupyterLab asks nothing and reports no error."
    told = page.locator(COMPLAINTS).all_inner_texts()
    assert not told, f"JupyterLab says: {json.dumps(told)[:2000]}"


def run_all(page, path):
    "Run all cells of a notebook that is open."
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    say("all cells were asked for")
    wait_until_run(page, path)


def wait_until_run(page, path):
    """Until every cell has its number in the saved file (in the page only those in sight have one),
    or nothing has happened for a minute; no cell may have complained."""
    before, since, left = None, time.time(), [None]
    while left and time.time() - since < 60:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(2000)
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        left = ["".join(c["source"]) for c in cells if c["source"] and not c["execution_count"]]
        busy = page.locator(".jp-Notebook-ExecutionIndicator").get_attribute("data-status")
        if busy == "busy" or len(left) != before: before, since = len(left), time.time()
    wrong = [
        output for cell in cells for output in cell["outputs"]
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert not wrong, json.dumps(wrong)[:2000]
    assert not left, f"{len(left)} cells were not run, the first one is:\n{left[0]}"
    say(f"all {len(cells)} cells were run, none complained")


def pictures(page): return page.eval_on_selector_all(IMAGE, "e => e.map(i => i.src)")


def changed(page, number, old):
    "Wait until an explorer shows another picture."
    page.wait_for_function(
        "([all, n, old]) => document.querySelectorAll(all)[n].src != old",
        arg=[IMAGE, number, old],
    )


def use_explorers(page, folder):
    "A slider by keyboard, then the upload of a photograph."
    page.locator(IMAGE).nth(1).wait_for()
    before, words = pictures(page), page.locator("[role=status]").first.inner_text()
    handle = page.get_by_role("slider").first
    handle.focus()
    handle.press("ArrowLeft")
    changed(page, 0, before[0])
    page.wait_for_function(    # the words come after the picture
        "words => document.querySelector('[role=status]').innerText != words", arg=words
    )
    say("an arrow key moved the slider, and the figure changed")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="choose a picture").click()
    chosen.value.set_files(folder / "me.png")
    changed(page, 1, before[1])
    say("a photograph was uploaded, and the figure changed")


def end_kernels(lab, name):
    "A kernel goes on when its page is closed."
    for session in ask(lab, "GET", "sessions"):
        if session["path"] == name: ask(lab, "DELETE", f"sessions/{session['id']}")


def main(task, name, folder, chromium, *lab):
    "Open a notebook; where that is the task, run it, or use its explorers too."
    folder, faults = Path(folder), []
    if task != "open": clear(folder / name)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.set_default_timeout(1000 * START_WITHIN)
        page.on("pageerror", lambda error: faults.append(str(error)))
        try:
            open_page(page, lab, folder / name)
            if task != "open": run_all(page, folder / name)
            if task == "keys": use_explorers(page, folder)
        finally: page.screenshot(path=folder / "last.png")
        browser.close()
    end_kernels(lab, name)
    assert not faults, f"the page says: {json.dumps(faults)[:2000]}"
    say("done")


if __name__ == "__main__": main(*sys.argv[1:])

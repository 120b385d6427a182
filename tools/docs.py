"""Build the site into _site/ from the notebooks, the package and the results: `make docs`.

Nothing of it asks another server when it is read: fonts are the system's, KaTeX and a part of the
search come from npm, once, and are kept in the cache folder, $DPPT_CACHE."""
import argparse
import logging
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from website import api, home, names, npm, pages

from dppt_nb.checks import DataError

ROOT = names.ROOT
BROWSER = ROOT / "tools" / "browser_page.py"    # builds the page that runs a network


def copy_served(docs):
    "Put beside the pages what they load besides their own text."
    for name, version, digest, patterns in npm.SERVED:
        for path, content in npm.files(name, version, digest, patterns).items():
            place = docs / "assets" / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    shutil.copytree(ROOT / "nbs" / "images", docs / "images")


def makers():
    "Page of the site -> what makes its Markdown, given the folder for its pictures."
    made = {page: partial(pages.from_notebook, source, page)
            for source, page in names.notebooks().items()}
    made |= {page: lambda docs, source=source, page=page: pages.from_text(source, page)
             for source, page in names.TEXTS.items() if source != "README.md"}
    made |= {f"api/{module}.md": lambda docs, module=module: api.page_of(module)
             for module in names.floors()}
    return made | {
        "api/index.md": lambda docs: home.reference_page(),
        "map.md": lambda docs: home.map_page(),
        "index.md": lambda docs: home.landing_page(BROWSER.exists()),
    }


def write_pages(docs, only=()):
    "The Markdown of the site, or of a few of its pages."
    for page, make in makers().items():
        if only and page not in only: continue
        place = docs / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(make(docs))


def render(docs, out, whole=True):
    "Markdown to HTML; a link that leads nowhere ends it, unless only a few pages are built."
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("mkdocs").setLevel(logging.WARNING if whole else logging.ERROR)
    config = load_config(
        str(ROOT / "tools" / "website" / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(out),
        strict=whole, **(dict(nav=home.navigation()) if whole else {}),
    )
    config.extra["browser"] = BROWSER.exists()
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


def make_site(docs, out, only=()):
    "Everything, from empty folders."
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    copy_served(docs)
    write_pages(docs, only)
    render(docs, out, whole=not only)
    if BROWSER.exists() and not only:
        done = subprocess.run(
            [sys.executable, BROWSER, "--out", out / "try", "--home", "../index.html"]
        )
        if done.returncode: sys.exit(done.returncode)    # it said why


def main():
    "Read the command line and build."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_site")
    parser.add_argument("--only", nargs="*", default=(), help="a few pages, such as 07_pruning.md")
    given = parser.parse_args()
    if unknown := set(given.only) - set(makers()):
        parser.error(f"there is no page {min(unknown)}; there are {', '.join(makers())}")
    try:
        make_site(ROOT / "_docs", given.out, given.only)
    except DataError as error:
        sys.exit(str(error))
    described, silent = pages.COUNTED
    print(f"{described} pictures have a text of their own, {silent} one taken from the page")
    print(f"{len(list(given.out.rglob('*.html')))} pages in {given.out}; open index.html there")


if __name__ == "__main__":
    main()

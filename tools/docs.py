"""Build the site into _site/ from the notebooks, the package and the results: `make docs`.

Nothing of it asks another server when it is read: fonts are the system's, KaTeX and a part of the
search come from npm, once, and are kept in the cache folder, $DPPT_CACHE."""
import argparse
import logging
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

from dppt_nb.files import cache_folder
from website import api, home, names, pages

ROOT = names.ROOT
# from npm: package, version, what of it is served
SERVED = [
    ("katex", "0.16.22", ("dist/katex.min.js", "dist/katex.min.css", "dist/fonts/*.woff2")),
    ("iframe-worker", "1.0.4", ("shim/index.js",)),
]
BROWSER = ROOT / "tools" / "browser_page.py"


def npm_package(name, version, cache):
    "The folder of a package of npm, fetched once."
    folder = cache / "npm" / f"{name}-{version}"
    if folder.exists(): return folder
    unpacked = folder.with_suffix(".tmp")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    try:
        subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", unpacked],
            check=True, stdout=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"npm could not fetch {name}@{version}: {error}; the site needs npm, once")
    with tarfile.open(next(unpacked.glob("*.tgz"))) as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / "package").rename(folder)
    shutil.rmtree(unpacked)
    return folder


def copy_served(docs, cache):
    "Copy what the pages load besides their own text."
    for name, version, patterns in SERVED:
        package = npm_package(name, version, cache)
        for file in [file for pattern in patterns for file in sorted(package.glob(pattern))]:
            place = docs / "assets" / name / file.relative_to(package)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        shutil.copy(package / "LICENSE", docs / "assets" / name / "LICENSE")
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
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


def make_site(docs, out, cache, only=()):
    "Everything, from empty folders."
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    copy_served(docs, cache)
    write_pages(docs, only)
    render(docs, out, whole=not only)
    if BROWSER.exists() and not only:
        subprocess.run([sys.executable, BROWSER, "--out", out / "try"], check=True)


def main():
    "Read the command line and build."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_site")
    parser.add_argument("--only", nargs="*", default=(), help="a few pages, such as 07_pruning.md")
    given = parser.parse_args()
    make_site(ROOT / "_docs", given.out, cache_folder(), given.only)
    described, silent = pages.COUNTED
    print(f"{described} pictures have a text of their own, {silent} one taken from the page")
    print(f"{len(list(given.out.rglob('*.html')))} pages in {given.out}; open index.html there")


if __name__ == "__main__":
    main()

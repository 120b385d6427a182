"""Build the site into _site/ from the notebooks, the package and the results: `make docs`.

Nothing of it asks another server when it is read: fonts are the system's, KaTeX and a part of the
search come from npm and are kept in the cache folder, `--cache` or $DPPT_CACHE."""
import argparse
import logging
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

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


def write_pages(docs):
    "All Markdown of the site."
    written = {page: pages.from_notebook(source, page, docs)
               for source, page in names.notebooks().items()}
    written |= {page: pages.from_text(source, page)
                for source, page in names.TEXTS.items() if source != "README.md"}
    written |= {f"api/{module}.md": api.page_of(module) for module in names.floors()}
    written |= {"api/index.md": home.reference_page(), "map.md": home.map_page()}
    written["index.md"] = home.landing_page(BROWSER.exists())
    for page, text in written.items():
        place = docs / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def build(docs, out):
    "Markdown to HTML; a link that leads nowhere ends it."
    from mkdocs.commands.build import build as run
    from mkdocs.config import load_config
    config = load_config(
        str(ROOT / "tools" / "website" / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(out),
        strict=True, nav=home.navigation(),
    )
    config.plugins.on_startup(command="build", dirty=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run(config)


def main():
    "Read the command line and build."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_site")
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    from dppt_nb.files import cache_folder
    docs = ROOT / "_docs"
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir()
    copy_served(docs, given.cache or cache_folder())
    write_pages(docs)
    build(docs, given.out)
    if BROWSER.exists():
        subprocess.run([sys.executable, BROWSER, "--out", given.out / "try"], check=True)
    print(f"{len(list(given.out.rglob('*.html')))} pages in {given.out}; open index.html there")


if __name__ == "__main__":
    main()

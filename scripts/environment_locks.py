"""Remake the lock files of environments: `python scripts/environment_locks.py tensorflow`, all without a name.

One for each Python, for all machines: lines of one kind of machine have a marker. Hashes are in, addresses are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from buildx.resolve import uv_environment, uv_program, with_links
from packager.environments.interpreters import KNOWN
from packager.environments.recipe import CLASSIC, LOCKS, TENSORFLOW, Recipe


def main(names: list[str]) -> None:
    """Remake the named recipes' locks. Ends with uv's own words when one does not resolve."""
    for recipe in (CLASSIC, TENSORFLOW):
        if not names or recipe.name in names:
            for minor in KNOWN:
                _remake(recipe, minor)


def _remake(recipe: Recipe, minor: str) -> None:
    lock = LOCKS / f"{recipe.name}-py{minor.replace('.', '')}.txt"
    environment = uv_environment(os.environ)
    with tempfile.TemporaryDirectory() as work:
        asked = Path(work, "asked.in")
        asked.write_text("\n".join(recipe.asked()) + "\n")
        command = ["pip", "compile", "-q", str(asked), "-o", str(lock), "--python-version", minor, "--universal"]
        command += ["--upgrade", "--generate-hashes", "--no-annotate", "--no-header", "--only-binary", ":all:"]
        subprocess.run([uv_program(), *with_links(command, environment)], env=environment, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])

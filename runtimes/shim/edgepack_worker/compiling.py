"""Compiles the modules of a folder; run once when an environment is made."""

from __future__ import annotations

import compileall
import os
import py_compile
import re


def main(folder: str) -> None:
    """Compile all but test suites; what does not compile (templates, other dialects) is left as it is."""
    folder = os.path.realpath(folder)
    compileall.compile_dir(
        folder,
        quiet=2,
        rx=re.compile(re.escape(folder) + r"/(.*/)?tests?/"),
        stripdir=folder,
        # by content: no times in it, and the folder never changes
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )

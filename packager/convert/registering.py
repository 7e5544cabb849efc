"""Runs a program that registers a model, and says how that ended. It runs in a confined child, in the environment of
the program's own libraries; `vessl` is ours there.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

RESULT = "result.json"


def main(text: str) -> None:
    """Run the program of a job as `python program.py` would, in its own folder; a reason is left where it fails."""
    job = json.loads(text)
    folder, program = Path(job["folder"]), Path(job["program"])
    _prepare(folder, program)
    refused = _run(program)
    (folder / RESULT).write_text(json.dumps({"refused": refused}))
    sys.stdout.flush()
    os._exit(0)  # threads that the program left behind would keep the child alive


def _prepare(folder: Path, program: Path) -> None:
    from vessl.registration import register_into

    made = folder / "model"
    made.mkdir()
    register_into(made, program.parent)
    os.chdir(program.parent)
    # behind the standard library and our shims, before the packages
    at = next(at for at, part in enumerate(sys.path) if (Path(part) / "edgepack_worker").is_dir()) + 1
    sys.path.insert(at, str(program.parent))
    sys.argv = [program.name]


def _run(program: Path) -> str | None:
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as error:
        return None if error.code in (None, 0) else f"it ended with {_words(error.code)[:200]!r}"
    except BaseException as error:  # whatever the program raises is its user's to read
        line = _line_of(error, program)
        return f"{line}{type(error).__name__}: {_words(error)}"
    return None


def _words(said: object) -> str:
    """Text of an object of the program's, in one line; the name of its class where it has none."""
    try:
        return " ".join(str(said).split())[:300]
    except BaseException:  # `__str__` is the program's own code too
        return type(said).__name__


def _line_of(error: BaseException, program: Path) -> str:
    """Where in the program it went wrong, as far as it shows."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(program)]
    return f"line {lines[-1]}: " if lines else ""

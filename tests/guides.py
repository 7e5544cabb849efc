"""Runs a guide's commands as a reader types them: in a copy of the examples, with the programs of this checkout."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PORT = re.compile(r"http://localhost:8080")
_CURL = re.compile(r"\bcurl (?!-f)")  # without an option it ends with 0 whatever it is answered
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(guide: Path) -> list[str]:
    """The lines of its `sh` blocks, in order, without comments; a line that ends in a backslash goes on."""
    text = "\n".join(block.group(1) for block in _BLOCK.finditer(guide.read_text()))
    lines = (line.split("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class Reader:
    """Somebody who follows a guide. `edgepack serve` stays up until the end; where it listens, later lines ask it."""

    def __init__(self, folder: Path, examples: tuple[str, ...]) -> None:
        self.place = folder
        for name in examples:
            shutil.copytree(ROOT / "examples" / name, folder / "examples" / name)
        self.url = ""
        self._open = ExitStack()

    def follow(self, guide: Path) -> list[str]:
        """Run all of a guide's commands; returns what each printed. Raises AssertionError for one that fails."""
        return [self._done(line) for line in commands_of(guide)]

    def _done(self, line: str) -> str:
        words = shlex.split(line)
        if words[0] == "cd":
            self.place = (self.place / words[1]).resolve()
            return ""
        if words[:2] == ["edgepack", "serve"]:
            return self._serve(words)
        asked = _CURL.sub("curl --fail-with-body ", _PORT.sub(self.url or "http://localhost:8080", line))
        done = subprocess.run(
            ["bash", "-c", asked],
            cwd=self.place,
            env=_environ(),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def _serve(self, words: list[str]) -> str:
        data = self.place / ".served"
        command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", *words[1:]]
        command += ["--port", "0", "--data", str(data)]
        process = self._open.enter_context(
            subprocess.Popen(
                command, cwd=self.place, env=_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        self._open.callback(process.terminate)
        assert process.stdout and process.stderr
        said = process.stdout.readline()
        assert " on http" in said, said + process.stderr.read()
        self.url = said.split(" on ")[1].split()[0]
        _until_ready(self.url)
        return said

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def _until_ready(url: str, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=10).close()
            return
        except (urllib.error.URLError, OSError) as error:
            assert time.monotonic() < deadline, error
            time.sleep(0.05)


def _environ() -> dict[str, str]:
    """The programs of this checkout first, as after `. .venv/bin/activate`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

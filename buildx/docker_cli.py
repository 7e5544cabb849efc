"""`docker buildx`, called as a program: whether it is there, which driver builds, and one build."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import BadInput, BuildFailed

_PROBE_S = 30
_INSTEAD = "use --builder direct"
_ERROR = re.compile(r"^(?:ERROR|error):\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class DockerCli:
    """docker's command line with the plugin. `driver` is that of the chosen builder; `docker` is the engine itself.

    `shown` lets the program draw its progress on our terminal; else its output is kept for the error message.
    """

    environ: Mapping[str, str]
    version: str
    driver: str
    shown: bool

    @classmethod
    def find(cls, environ: Mapping[str, str], *, shown: bool) -> DockerCli:
        """Look for the program, the plugin and its builder. Raises BadInput that names the missing piece."""
        try:
            found = _run(environ, ["buildx", "version"])
        except FileNotFoundError as error:
            raise BadInput(
                f"the program 'docker' is not installed: {_INSTEAD}, or install docker's command line"
            ) from error
        if found.returncode:
            raise BadInput(f"docker buildx is not installed: {_INSTEAD}, or install the buildx plugin")
        inspected = _run(environ, ["buildx", "inspect"])
        driver = re.search(r"^Driver:\s*(\S+)", inspected.stdout, re.MULTILINE)
        if inspected.returncode or driver is None:
            raise BadInput(f"docker buildx has no builder that answers: {_last(inspected.stderr)}; {_INSTEAD}")
        return cls(environ, found.stdout.strip(), driver[1], shown)

    def build(self, context: Path, platform: str, options: Sequence[str], epoch: int) -> None:
        """Build a context. Raises BuildFailed with the builder's last words; Ctrl-C ends it too."""
        # no network: all that is needed lies in the context; attestations would hold the time of the build
        command = ["buildx", "build", "--provenance=false", "--network=none", f"--platform={platform}", *options]
        if not self.shown:
            command.append("--progress=plain")
        environ = {**self.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        process = subprocess.Popen(
            ["docker", *command, str(context)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=None if self.shown else subprocess.DEVNULL,
            stderr=None if self.shown else subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            said = process.communicate()[1] or ""
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if process.returncode:
            last = "its last lines stand above" if self.shown else _last(said)
            raise BuildFailed(f"docker buildx build ended with {process.returncode}: {last}")


def _run(environ: Mapping[str, str], arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = ["docker", *arguments]
    try:
        return subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, errors="replace", timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"'{' '.join(command)}' gave no answer in {_PROBE_S} s: {_INSTEAD}, or mend the engine"
        ) from error


def _last(said: str) -> str:
    """The builder's error line, else its last one."""
    errors = _ERROR.findall(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (errors or lines or ["it said nothing"])[-1][:300]

"""When an image says it was created: never the time of the build, so that the same project gives the same bytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgepack.errors import BadInput

_FIXED = 1_704_067_200  # 2024-01-01: "no time is known" without tools showing 1970, which users take for a fault
_GIT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Created:
    """A moment, where it comes from, and the commit where there is one."""

    time: datetime
    reason: str
    revision: str | None = None

    @property
    def text(self) -> str:
        """RFC 3339, UTC."""
        return self.time.strftime("%Y-%m-%dT%H:%M:%SZ")


def created_for(project: Path, environ: Mapping[str, str]) -> Created:
    """SOURCE_DATE_EPOCH, else the last commit that touched the project, else a fixed date."""
    seconds, revision, why_not = _last_commit(project)
    given = environ.get("SOURCE_DATE_EPOCH", "").strip()
    if given:
        return Created(_moment(given), "SOURCE_DATE_EPOCH", revision)
    if seconds:
        return Created(_moment(seconds), "the project's last commit", revision)
    return Created(_moment(str(_FIXED)), f"a fixed date: {why_not} and SOURCE_DATE_EPOCH is not set")


def _moment(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(f"SOURCE_DATE_EPOCH is '{seconds}': expected seconds since 1970, a whole number") from error


def _last_commit(project: Path) -> tuple[str | None, str | None, str]:
    """Its time and name, else why there is none."""
    folder = project if project.is_dir() else project.parent
    command = ["git", "-C", str(folder), "log", "-1", "--format=%ct %H", "--", str(project.resolve())]
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, None, "git does not answer"
    seconds, _, revision = done.stdout.strip().partition(" ")
    if done.returncode == 0 and revision:
        return seconds, revision, ""
    if "dubious ownership" in done.stderr:
        # not overridden: a repository's own configuration can name programs that git runs
        return None, None, "git does not read a repository of another owner (see git's safe.directory)"
    return None, None, "the project is in no git repository"

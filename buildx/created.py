"""When an image says it was created: never the time of the build, so that the same project gives the same bytes."""

from __future__ import annotations

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
    seconds, revision = _last_commit(project)
    given = environ.get("SOURCE_DATE_EPOCH", "").strip()
    if given:
        return Created(_moment(given), "SOURCE_DATE_EPOCH", revision)
    if seconds:
        return Created(_moment(seconds), "the project's last commit", revision)
    return Created(
        _moment(str(_FIXED)), "a fixed date: the project is in no git repository and SOURCE_DATE_EPOCH is not set"
    )


def _moment(seconds: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput(f"SOURCE_DATE_EPOCH is '{seconds}': expected seconds since 1970, a whole number") from error


def _last_commit(project: Path) -> tuple[str | None, str | None]:
    folder = project if project.is_dir() else project.parent
    command = ["git", "-C", str(folder), "log", "-1", "--format=%ct %H", "--", str(project.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    seconds, _, revision = done.stdout.strip().partition(" ")
    return (seconds, revision) if done.returncode == 0 and revision else (None, None)

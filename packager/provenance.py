"""Where a bundle comes from: the commit and branch of the project, and what made the models. Part of the report.

It stands in the parity report, a referrer, so that it never changes the bundle's digest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack import __version__
from packager.artifact import ModelArtifact

_TIMEOUT_S = 5


def provenance(root: Path, steps: Sequence[ModelArtifact]) -> dict[str, Any]:
    """Commit, branch and whether files differ from it, where the project is in git; and the models as uploaded."""
    found: dict[str, Any] = {"edgepack": __version__, **_git(root)}
    models = {step.source.name: _model(step) for step in steps}
    return {**found, "models": models}


def _model(step: ModelArtifact) -> dict[str, Any]:
    proven = step.parity or {}
    told = {"framework": step.framework, "file": step.source.model.name, "summary": step.summary, "digest": step.digest}
    proven = {"training": step.training, **proven}
    carried = {key: proven[key] for key in ("original", "versions", "parameters", "training") if proven.get(key)}
    return {**{key: str(value) for key, value in told.items()}, **carried}


def _git(root: Path) -> dict[str, Any]:
    commit = _said(root, "rev-parse", "HEAD")
    if not commit:
        return {}
    branch = _said(root, "rev-parse", "--abbrev-ref", "HEAD")
    is_changed = bool(_said(root, "status", "--porcelain", "--untracked-files=no", "."))
    return {"commit": commit, "branch": branch or "HEAD", "has_changes": is_changed}


def _said(root: Path, *arguments: str) -> str:
    """What git says of a folder; nothing where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

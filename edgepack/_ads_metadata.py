"""What ADS keeps beside a model: provenance, taxonomy and custom metadata; and `runtime.yaml`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

METADATA, RUNTIME = "model_metadata.json", "runtime.yaml"
TESTS = "ArtifactTestResults"
_GIT_S = 5
_MOST_PARAMETERS = 200
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "tensorflow": "tensorflow"}


def runtime_yaml(
    conda: str | None, python: str | None, training_conda: str | None, provenance: Mapping[str, Any]
) -> str:
    """The text of runtime.yaml: every value a JSON string, which YAML reads as it stands."""
    is_path = bool(conda) and "://" in str(conda)
    slug = str(conda).rstrip("/").rpartition("/")[2] if conda else ""
    inference = {
        "INFERENCE_ENV_PATH": conda if is_path else "",
        "INFERENCE_ENV_SLUG": slug,
        "INFERENCE_ENV_TYPE": "published" if is_path else "data_science",
        "INFERENCE_PYTHON_VERSION": python or f"{sys.version_info[0]}.{sys.version_info[1]}",
    }
    training = {"ARTIFACT_DIRECTORY": "", **{key.upper(): value or "" for key, value in provenance.items()}}
    return "\n".join(
        [
            'MODEL_ARTIFACT_VERSION: "3.0"',
            "MODEL_DEPLOYMENT:",
            "  INFERENCE_CONDA_ENV:",
            *_lines(inference, 4),
            "MODEL_PROVENANCE:",
            "  TRAINING_CODE:",
            *_lines(training, 4),
            "  TRAINING_CONDA_ENV:",
            *_lines({"TRAINING_ENV_SLUG": training_conda or ""}, 4),
            "",
        ]
    )


def _lines(settings: Mapping[str, Any], indent: int) -> list[str]:
    return [f"{' ' * indent}{key}: {json.dumps(str(value), ensure_ascii=False)}" for key, value in settings.items()]


def git_provenance(folder: Path) -> dict[str, str]:
    """Commit, branch and address of the repository that a folder is in; nothing where it is in none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "git_commit": commit,
        "git_branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "HEAD",
        "repository_url": _git(folder, "config", "--get", "remote.origin.url"),
        "training_script_changed": str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "."))),
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def taxonomy(estimator: Any, framework: str, use_case: str | None) -> dict[str, Any]:
    """What the model is: library, version, class, hyper-parameters, use case."""
    try:
        found = version(_DISTRIBUTIONS.get(framework, framework))
    except PackageNotFoundError:
        found = None
    return {
        "Framework": framework,
        "FrameworkVersion": found,
        "Algorithm": type(estimator).__qualname__,
        "Hyperparameters": _parameters(estimator),
        "UseCaseType": use_case,
        TESTS: {},
    }


def _parameters(estimator: Any) -> dict[str, Any]:
    """Those that the estimator says of itself, as JSON can hold them."""
    found: Any = {}
    if hasattr(estimator, "get_params"):
        found = estimator.get_params()
    elif hasattr(estimator, "save_config"):
        found = json.loads(estimator.save_config())
    elif isinstance(getattr(estimator, "params", None), dict):
        found = estimator.params
    parameters = list(found.items())[:_MOST_PARAMETERS] if isinstance(found, dict) else []
    return {str(name): _plain(value) for name, value in parameters}


def _plain(value: Any) -> Any:
    is_plain = isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain or value is None else str(value)[:200]


def inventory(folder: Path) -> list[str]:
    """The files of an artifact."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

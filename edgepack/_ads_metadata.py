"""What ADS keeps beside a model: provenance, taxonomy and custom metadata; and `runtime.yaml`."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from edgepack.errors import BadInput

METADATA, RUNTIME = "model_metadata.json", "runtime.yaml"
TESTS = "ArtifactTestResults"
DIGESTS = "ArtifactDigests"  # of what prepare() wrote, so that what was edited since is told from it
_GIT_S = 5
_MOST_PARAMETERS = 200
_MODULES = {"pytorch": "torch"}


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
        "repository_url": _without_secrets(_git(folder, "config", "--get", "remote.origin.url")),
        "training_script_changed": str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "."))),
    }


def _without_secrets(address: str) -> str:
    """The address without who asks, and without what such a one may have to say: it travels with the model."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
    module = sys.modules.get(_MODULES.get(framework, framework))  # whose estimator it is: it was imported
    found = getattr(module, "__version__", None)  # several distributions bring one module: xgboost and xgboost-cpu
    return {
        "Framework": framework,
        "FrameworkVersion": None if found is None else str(found),
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


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write one of the artifact's JSON files."""
    path.write_text(json.dumps(value, indent=1, default=str) + "\n", "utf-8")


def read(path: Path) -> dict[str, Any]:
    """The metadata that lies beside a model. Raises BadInput for what `write` did not write."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"'{path}' is not JSON: {error}; delete it, and it is written anew") from error
    if not isinstance(said, dict) or not isinstance(said.get("taxonomy", {}), dict):
        raise BadInput(f"'{path}' is not as prepare() writes it: delete it, and it is written anew")
    return said


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File -> `sha256:...` of those that are there."""
    there = (folder / name for name in names)
    return {path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in there if path.is_file()}


def inventory(folder: Path) -> list[str]:
    """The files of an artifact."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

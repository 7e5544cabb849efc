"""An artifact of ADS as a folder or zip: which files travel, and what `runtime.yaml` says of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from edgepack.errors import BadInput
from packager.archives import Tree, is_zip
from packager.dialects.ads_ignored import Pattern, is_ignored
from packager.plain_yaml import LARGEST, read_yaml

SCORE, RUNTIME, IGNORE = "score.py", "runtime.yaml", ".model-ignore"
_LARGEST_IGNORE = 64 << 10  # bytes


@dataclass(frozen=True)
class RuntimeYaml:
    """What a deployment reads of `runtime.yaml`: the conda environment's name and path, and its Python ("3.11")."""

    slug: str | None = None
    path: str | None = None
    type: str | None = None
    python: str | None = None
    version: str | None = None


def is_artifact(path: Path) -> bool:
    """Whether a folder or zip has a score.py and a runtime.yaml at its top; nothing of it is read but names."""
    if path.is_dir():
        return (path / SCORE).is_file() and (path / RUNTIME).is_file()
    if not is_zip(path):
        return False
    try:
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    tops = {name.partition("/")[0] for name in names}
    prefix = f"{tops.pop()}/" if len(tops) == 1 and SCORE not in names else ""
    return {prefix + SCORE, prefix + RUNTIME} <= set(names)


def without_ignored(tree: Tree) -> Tree:
    """The files that travel: what `.model-ignore` names stays behind, and so does that file. Raises BadInput where it
    names score.py or runtime.yaml.
    """
    if IGNORE not in tree.files:
        return tree
    try:
        text = tree.read(IGNORE, _LARGEST_IGNORE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{IGNORE} in '{tree.name}' is not UTF-8: save it as plain text") from error
    patterns = [Pattern.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    kept = {path: file for path, file in tree.files.items() if path != IGNORE and not is_ignored(path, patterns)}
    for needed in (SCORE, RUNTIME):
        if needed in tree.files and needed not in kept:
            raise BadInput(
                f"{IGNORE} in '{tree.name}' names {needed}, without which nothing is served: remove that line"
            )
    return replace(tree, files=kept)


def runtime_of(tree: Tree) -> RuntimeYaml:
    """What runtime.yaml says. Raises BadInput for what is no YAML, and for values of other kinds than ADS writes."""
    where = f"{RUNTIME} in '{tree.name}'"
    said = read_yaml(tree.read(RUNTIME, LARGEST), where, texts=True)
    if not isinstance(said, dict):
        raise BadInput(f"{where} is no mapping: expected MODEL_DEPLOYMENT: as prepare() writes it")
    deployment = _mapping(said, "MODEL_DEPLOYMENT", where)
    conda = _mapping(deployment, "INFERENCE_CONDA_ENV", where)
    return RuntimeYaml(
        slug=_text(conda, "INFERENCE_ENV_SLUG", where),
        path=_text(conda, "INFERENCE_ENV_PATH", where),
        type=_text(conda, "INFERENCE_ENV_TYPE", where),
        python=_python(_text(conda, "INFERENCE_PYTHON_VERSION", where), where),
        version=_text(said, "MODEL_ARTIFACT_VERSION", where),
    )


def _mapping(said: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = said.get(key)
    if not found:
        return {}
    if not isinstance(found, dict):
        raise BadInput(f"{where}: {key} is no mapping of settings: write one indented line for each")
    return found


def _text(said: Mapping[str, Any], key: str, where: str) -> str | None:
    found = said.get(key)
    if found is None or isinstance(found, str):
        return (found or "").strip() or None
    raise BadInput(f"{where}: {key} is no text: expected one value")


def _python(text: str | None, where: str) -> str | None:
    """`3.11` of `3.11`, `3.11.4` or `>=3.11,<4`."""
    if text is None:
        return None
    parts = text.lstrip("=<>~^ ").split(",")[0].split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        raise BadInput(f"{where}: INFERENCE_PYTHON_VERSION is '{text[:40]}': expected a version like '3.11'")
    return ".".join(parts[:2])

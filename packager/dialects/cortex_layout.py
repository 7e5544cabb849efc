"""Whether an upload is laid out as Cortex lays things out: a `cortex.yaml`, or integer folders with a model in each."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bundle.model_folders import is_version
from packager.archives import is_zip, read_one
from packager.dialects.cortex_api import FILE, Api, read_api
from packager.frameworks.networks import SAVED_MODEL
from packager.plain_yaml import LARGEST

# of files that are a model for sure, whatever lies beside them
_SUFFIXES = (".onnx", ".tflite", ".pkl", ".joblib", ".skops", ".ubj", ".pt", ".keras")

_BESIDE = (".golden.json", "edgepack.lock")  # what packaging one of them leaves


def is_cortex(path: Path) -> bool:
    """Whether a folder or zip is one; only names are looked at."""
    if path.is_dir():
        entries = [each for each in path.iterdir() if not each.name.startswith(".")]
        versions = [each for each in entries if is_version(each.name) and each.is_dir()]
        is_all = len(versions) == len(entries) > 0
        return (path / FILE).is_file() or is_all or any(_holds_model(each) for each in versions)
    names = _names(path) if is_zip(path) else []
    return FILE in names or any(_is_model_in_version(name) for name in names)


def is_models_folder(path: Path) -> bool:
    """Whether a folder is several models, a folder each, with or without versions, and nothing else."""
    if not path.is_dir() or is_cortex(path):
        return False
    entries = [each for each in path.iterdir() if not each.name.startswith(".")]
    folders = [each for each in entries if each.is_dir()]
    others = [each.name for each in entries if not each.is_dir()]
    if not folders or not all(name.endswith(_BESIDE) or name.startswith("README") for name in others):
        return False
    return all(_is_plain(each) and (is_cortex(each) or _holds_model(each)) for each in folders)


def api_name(path: Path) -> str | None:
    """The name of the API of an upload, None for models alone. Raises BadInput where its file does not read."""
    api = api_of(path)
    return None if api is None else api.name


def api_of(path: Path) -> Api | None:
    """The API of an upload; see `api_name`."""
    data = read_one(path, FILE, LARGEST)
    return None if data is None else read_api(data, f"'{FILE}'")


def _names(path: Path) -> list[str]:
    """The paths in a zip without its one top folder. Files of other kinds are zips too: none is judged here."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [each for each in archive.namelist() if not each.endswith("/")]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []
    tops = {each.partition("/")[0] for each in names}
    has_top = len(tops) == 1 and all("/" in each for each in names)
    return [each.partition("/")[2] for each in names] if has_top else names


def _is_plain(folder: Path) -> bool:
    """Whether a folder is no project and no program."""
    return not any(each.suffix in (".toml", ".py") or each.name == FILE for each in folder.iterdir())


def _holds_model(folder: Path) -> bool:
    return any(each.name == SAVED_MODEL or each.suffix in _SUFFIXES for each in folder.iterdir())


def _is_model_in_version(name: str) -> bool:
    top, _, rest = name.partition("/")
    return is_version(top) and "/" not in rest and (rest == SAVED_MODEL or rest.endswith(_SUFFIXES))

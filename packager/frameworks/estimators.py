"""Trained estimators as files: which framework saved one and in which form, told from its bytes without loading it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgepack.errors import BadInput
from packager import pickles
from packager.convert.allowed import is_allowed, shown

FRAMEWORKS = ("sklearn", "xgboost", "lightgbm")
Form = Literal["pickle", "joblib", "skops", "xgboost", "xgboost-estimator", "lightgbm"]

_LARGEST_SCHEMA = 64 << 20  # bytes of a skops file's description
_UBJSON = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner"  # how XGBoost begins its binary form
_OLD_XGBOOST = b"binf"


@dataclass(frozen=True)
class Saved:
    """A saved estimator: its framework and form, the class of the object, and the scikit-learn versions it names."""

    framework: str
    form: Form
    model: str = ""
    versions: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()


def saved_as(path: Path) -> Saved | None:
    """What an estimator's file is, or None for files of other kinds.

    Raises BadInput for a pickle that names what a trained model does not need, or holds another thing than a model.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK\x03\x04"):
        return _skops(path)
    if head.startswith(_UBJSON) or (head.lstrip()[:1] == b"{" and b'"learner"' in head):
        return Saved("xgboost", "xgboost", "xgboost.core.Booster")
    if head.startswith(b"tree\nversion="):
        return Saved("lightgbm", "lightgbm", "lightgbm.basic.Booster")
    if head.startswith(_OLD_XGBOOST):
        raise BadInput(f"'{path.name}' is in XGBoost's old binary form: load it there and save_model('model.ubj')")
    return _pickle(path) if _may_be_pickle(head) else None


def agreed(path: Path, found: str, given: str | None) -> str:
    """The framework, if it is the one that the project names. Raises BadInput otherwise."""
    if given not in (None, found):
        raise BadInput(f"'{path.name}' is a model of {found}, not of '{given}': remove framework", field="framework")
    return found


def _may_be_pickle(head: bytes) -> bool:
    """Protocols 2 to 5 say so, compressed ones look like any archive, 0 and 1 like text that begins with an opcode."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    return pickles.is_packed(head) or (head[:1] in (b"c", b"(", b"]", b"}", b"i") and b"\n" in head)


def _pickle(path: Path) -> Saved | None:
    is_sure = _is_marked(path)
    try:
        found = pickles.scan(path)
    except BadInput:
        if is_sure:
            raise
        return None
    if not is_sure and not found.globals:
        return None
    pickles.check(path, found)
    top = found.top
    framework = None if top is None else {each: each for each in FRAMEWORKS}.get(top.module.partition(".")[0])
    if top is None or framework is None:
        what = f"a {top}" if top else "a plain value"
        raise BadInput(
            f"pickle '{path.name}' holds {what}: expected a fitted estimator of scikit-learn, XGBoost or LightGBM; "
            "package anything else as framework 'custom'"
        )
    form: Form = "joblib" if found.is_joblib or pickles.is_packed(_head(path)) else "pickle"
    names = tuple(sorted(str(each) for each in found.globals))
    return Saved(framework, form, str(top), tuple(sorted(found.versions)), names)


def _is_marked(path: Path) -> bool:
    return _head(path)[:1] == b"\x80"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _skops(path: Path) -> Saved | None:
    """A skops file is a zip with `schema.json`, which names every class in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "schema.json" not in archive.namelist():
                return None
            if archive.getinfo("schema.json").file_size > _LARGEST_SCHEMA:
                raise BadInput(f"'{path.name}' describes itself in more than {_LARGEST_SCHEMA} bytes")
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError, NotImplementedError, RuntimeError):
        return None
    if not isinstance(schema, dict) or "__loader__" not in schema:
        return None
    return _described(path, schema)


def _described(path: Path, schema: dict[str, object]) -> Saved:
    names: set[tuple[str, str]] = set()
    versions: set[str] = set()
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            module, name = node.get("__module__"), node.get("__class__")
            if isinstance(module, str) and isinstance(name, str):
                names.add((module, name))
            place, function = node.get("module_path"), node.get("function")  # a function that an object holds
            if isinstance(place, str) and isinstance(function, str):
                names.add((place, function))
            version = node.get(pickles.VERSION_KEY)
            if isinstance(version, dict) and isinstance(version.get("content"), str):
                versions.add(version["content"].strip('"')[:40])
    top = str(schema.get("__module__")).partition(".")[0]
    refused = [".".join(shown(*each)) for each in sorted(names) if not _is_known(*each)]
    if refused:
        raise BadInput(
            f"'{path.name}' names '{refused[0]}': not loaded; expected only what scikit-learn, XGBoost and LightGBM "
            "save, package code of your own as framework 'custom'"
        )
    if top not in FRAMEWORKS:
        raise BadInput(f"'{path.name}' holds a {schema.get('__class__')!a}: expected a fitted estimator")
    listed = tuple(".".join(shown(*each)) for each in sorted(names))
    return Saved(top, "skops", f"{schema['__module__']}.{schema['__class__']}", tuple(sorted(versions)), listed)


def _is_known(module: str, name: str) -> bool:
    """skops names plain values and its own containers by their classes too."""
    return module in ("builtins", "numpy", "collections", "scipy.sparse") or is_allowed(module, name)

"""Ways to hide what a pickle runs: all are refused by name, and nothing has run: no mark is left."""

from __future__ import annotations

import bz2
import collections
import gzip
import json
import lzma
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.errors import BadInput
from packager.convert.fields import Unsuited
from packager.convert.loading import load
from packager.detect import detect
from packager.frameworks.estimators import saved_as
from packager.pickles import scan

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Harm:
    """Loading it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Late(Harm):
    """… while the items of a list are appended."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (), None, iter([Harm(self.mark)])


class Keyed(Harm):
    """… while those of a dict are set."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, iter([("a", Harm(self.mark))])


class Deep(Harm):
    """… as the state of an object of a class that is allowed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), {"state": {"inner": (Harm(self.mark),)}}


class Partial(Harm):
    """… as what a callable that is allowed calls."""

    def __reduce__(self) -> tuple[Any, ...]:
        import functools

        return functools.partial(os.system, f"touch {self.mark}"), ()


def objects(harm: Harm) -> Any:
    """An array of objects."""
    array = np.empty(2, dtype=object)
    array[:] = [1, harm]
    return array


NESTED: dict[str, Callable[[Path], Any]] = {
    "in a tuple in a dict": lambda mark: {"a": [1, ({"b": Harm(mark)},)]},
    "in an array of objects": lambda mark: {"tree": objects(Harm(mark))},
    "list items": Late,
    "dict items": Keyed,
    "state": Deep,
    "partial": Partial,
    "behind a model's names": lambda mark: [collections.OrderedDict(a=1), np.arange(4), np.float64(2), Harm(mark)],
}


def refuse(path: Path, mark: Path, named: str) -> None:
    """Scan, detection and the guarded unpickler refuse alike; neither a mark nor another file is left."""
    there = sorted(path.parent.iterdir())
    for look in (saved_as, detect):
        with pytest.raises(BadInput) as refused:
            look(path)
        assert named in str(refused.value) and "not loaded" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not mark.exists() and sorted(path.parent.iterdir()) == there


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", NESTED)
def test_harm_is_named_wherever_it_lies_in_every_protocol(place: str, protocol: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(NESTED[place](mark), protocol))
    refuse(path, mark, "posix.system")
    with pytest.raises(Unsuited, match=r"'posix\.system' while loading: stopped"):
        load(str(path), "pickle")
    assert not mark.exists()


# how compression is written, and how it is read back by joblib: told by the first bytes
@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zlib.compress, lambda data: lzma.compress(data, lzma.FORMAT_ALONE)],
)
def test_no_compression_hides_it(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.joblib"
    path.write_bytes(pack(pickle.dumps({"a": Harm(mark)}, 4)))
    refuse(path, mark, "posix.system")


ARGUMENT = b"\x8c\x04true\x85R."  # ('true',), call it, end
CRAFTED = {
    "strings from the memo, others lie last": (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00000h\x00h\x01\x93"
    ).replace(b"00000", b"00")
    + ARGUMENT,
    "a memo entry written twice": (
        b"\x80\x04\x8c\x0bcollectionsq\x000\x8c\x05posixq\x000\x8c\x06systemq\x010h\x00h\x01\x93" + ARGUMENT
    ),
    "strings between that are dropped": (
        b"\x80\x04\x8c\x05posix\x8c\x06system(\x8c\x0bcollections\x8c\x0bOrderedDict1\x93" + ARGUMENT
    ),
    "a string that was doubled": b"\x80\x04\x8c\x05posix\x8c\x06system20\x93" + ARGUMENT,
    "escaped letters": b"\x80\x02V\\u0070osix\nV\\u0073ystem\n\x93(S'true'\ntR.",
    "an object made by INST": b"(S'true'\niposix\nsystem\n.",
    "an object made by OBJ": b"\x80\x02(cposix\nsystem\nX\x04\x00\x00\x00trueo.",
    "a class made by NEWOBJ_EX": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85}\x92.",
    "in a frame": b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93" + ARGUMENT,
}


@pytest.mark.parametrize("trick", CRAFTED)
def test_tricks_of_stack_and_memo_change_no_name(trick: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(CRAFTED[trick])
    assert any(each == "posix.system" for each in scan(path).refused)
    refuse(path, tmp_path / "ran", "posix.system")


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\x80\x04\x8c\x02po\x8c\x03six\x86\x8c\x06system\x93.", "computed while loading"),
        (b"\x80\x04\x8c\x00\x8c\x04join\x93\x8c\x06system\x93.", "computed while loading"),
        (b"\x80\x04C\x05posix\x8c\x06system\x93.", "computed while loading"),
        (b"Pposix.system\n.", "kept outside the file"),
        (b"\x80\x02X\x05\x00\x00\x00posixQ.", "kept outside the file"),
        (b"\x80\x02\x82\x01.", "kept outside the file"),
        (b"\x80\x05\x97.", "kept outside the file"),
    ],
)
def test_names_that_are_not_in_the_file_are_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    assert said in " ".join(scan(path).refused)


@pytest.mark.parametrize(
    "node",
    [
        {"__module__": "posix", "__class__": "system", "__loader__": "TypeNode"},
        {"__module__": "numpy", "__class__": "ufunc", "content": {"module_path": "posix", "function": "system"}},
    ],
)
def test_a_skops_file_with_untrusted_types_is_refused(node: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    ridge = {"__module__": "sklearn.linear_model._ridge", "__class__": "Ridge", "__loader__": "ObjectNode"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", json.dumps({**ridge, "content": {"alpha": [node]}, "protocol": 2}))
    refuse(path, tmp_path / "ran", "posix.system")

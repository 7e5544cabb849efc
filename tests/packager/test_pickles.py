"""Pickles are read without being loaded: what they name, whose class they hold, and what is refused."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import BadInput
from packager.frameworks.estimators import saved_as
from packager.pickles import Global, scan

# What each would do if it were loaded: make a file. Several routes, some of them unknown to deny lists.
ROUTES: dict[str, bytes] = {
    "os.system": b"cos\nsystem\n(S'touch {path}'\ntR.",
    "builtins.exec": b'c__builtin__\nexec\n(S\'open("{path}","w")\'\ntR.',
    "subprocess": b"csubprocess\ncheck_output\n((lS'touch'\naS'{path}'\natR.",
    "importlib": b"cimportlib\nimport_module\n(S'antigravity'\ntR.",
    "sqlite3": b"csqlite3\nconnect\n(S'{path}'\ntR.",
    "joblib.load": b"cjoblib\nload\n(S'{path}'\ntR.",
    "numpy.load": b"cnumpy\nload\n(S'{path}'\ntR.",
    "pandas.read_pickle": b"cpandas\nread_pickle\n(S'{path}'\ntR.",
    "numpy test helper": b'cnumpy.testing._private.utils\nrunstring\n(S\'open("{path}","w")\'\n(dtR.',
    "attribute of a class": b"csklearn.tree._tree\nTree.__reduce__.__globals__\n.",
    "inst": b"(S'touch {path}'\nios\nsystem\n.",
    "sklearn fetcher": b"csklearn.datasets\nfetch_openml\n(S'x'\ntR.",
}


def written(tmp_path: Path, data: bytes, name: str = "model.pkl") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("route", ROUTES)
def test_a_pickle_that_would_run_something_is_refused_by_name_and_not_loaded(route: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = written(tmp_path, ROUTES[route].replace(b"{path}", str(mark).encode()))
    with pytest.raises(BadInput, match=r"pickle 'model\.pkl' names '[^']+'.*not loaded.*framework 'custom'"):
        saved_as(path)
    assert not mark.exists()


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("protocol", range(6))
def test_what_hides_deep_inside_is_found_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps({"a": [1, (np.arange(3), Harm())]}, protocol)
    assert any(each.endswith(".exec") for each in scan(written(tmp_path, data)).refused)


def test_a_name_that_is_used_twice_comes_from_the_memo(tmp_path: Path) -> None:
    """`OrderedDict, OrderedDict`: the second is a memo, and strings lie between them."""
    data = pickle.dumps((collections.OrderedDict(a=1), "os", "system", collections.OrderedDict()), 4)
    assert scan(written(tmp_path, data)).globals == {Global("collections", "OrderedDict")}


def test_a_computed_name_and_an_outside_object_are_refused(tmp_path: Path) -> None:
    computed = b"\x80\x04(\x8c\x02osK\x01t\x8c\x06system\x93."
    assert "computed" in scan(written(tmp_path, computed)).refused[0]
    assert "outside" in scan(written(tmp_path, b"\x80\x02X\x01\x00\x00\x00xQ.")).refused[0]


@pytest.mark.parametrize("packing", [zlib.compress, lambda data: data])
def test_compression_hides_nothing(packing: Any, tmp_path: Path) -> None:
    path = written(tmp_path, packing(pickle.dumps(Harm())))
    with pytest.raises(BadInput, match=r"builtins\.exec"):
        saved_as(path)


def test_a_bomb_is_not_unpacked_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packager.pickles.packed.MOST_BYTES", 1 << 20)
    data = pickle.dumps(bytes(8 << 20), 4)
    with pytest.raises(BadInput, match="unpacks to more than"):
        scan(written(tmp_path, zlib.compress(data)))


def test_a_value_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds a collections\.Counter: expected a fitted estimator"):
        saved_as(written(tmp_path, pickle.dumps(collections.Counter("aab"))))
    with pytest.raises(BadInput, match="holds a plain value"):
        saved_as(written(tmp_path, pickle.dumps([1, 2])))


def test_the_version_in_a_state_is_found(tmp_path: Path) -> None:
    data = (
        b"\x80\x04\x8c\x1bsklearn.linear_model._ridge\x8c\x05Ridge\x93)\x81}(\x8c\x10_sklearn_version\x8c\x051.3.0ub."
    )
    found = saved_as(written(tmp_path, data))
    assert found is not None and (found.framework, found.versions) == ("sklearn", ("1.3.0",))
    assert found.model == "sklearn.linear_model._ridge.Ridge"


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    assert saved_as(written(tmp_path, b"\x08\x07\x12\x00", "a.onnx")) is None
    assert saved_as(written(tmp_path, b"import os\nx = 1\n", "a.py")) is None


@pytest.mark.parametrize(
    "data, framework",
    [
        (b'{"learner":{"attributes":{}}}', "xgboost"),
        (b"{L" + struct.pack(">q", 7) + b"learner{", "xgboost"),
        (b"tree\nversion=v4\nnum_class=1\n", "lightgbm"),
    ],
)
def test_own_formats_are_told_by_content(data: bytes, framework: str, tmp_path: Path) -> None:
    found = saved_as(written(tmp_path, data, "model.bin"))
    assert found is not None and found.framework == framework


@given(st.binary(max_size=200), st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_no_bytes_make_the_scan_fall_over(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, flip: bytes
) -> None:
    whole = pickle.dumps({"x": [1, "a", np.float64(3)]}, 4)
    folder = tmp_path_factory.getbasetemp()
    for data in (b"\x80\x04" + junk, whole[:at] + flip + whole[at + len(flip) :]):
        try:
            scan(written(folder, data, "junk.pkl"))
        except BadInput as error:
            assert "\n" not in str(error)


def test_a_stream_without_end_is_one_line(tmp_path: Path) -> None:
    out = io.BytesIO()
    pickle.dump(list(range(1000)), out)
    with pytest.raises(BadInput, match="not a whole pickle"):
        scan(written(tmp_path, out.getvalue()[:-1]))

"""What `edgepack.ads` sends of a sample, keeps of it, and makes of an answer."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack._ads_schema import columns_of, golden_rows, in_one_line, schema_of
from edgepack._ads_score import score_py
from edgepack._ads_verify import difference as difference_of
from edgepack._ads_verify import payload_of, posted
from edgepack.ads import GenericModel
from edgepack.errors import BadInput, RuntimeFailed
from tests.runtimes.scoring import scoring


class NAType:
    """Stands for pandas.NA, which is not installed here: neither equal nor unequal to anything."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


class Frame:
    """A pandas DataFrame, as far as it is looked at."""

    dtypes = None

    def __init__(self, **columns: Any) -> None:
        self._held, self.columns = columns, list(columns)

    def __getitem__(self, name: str) -> Any:
        return self._held[name]

    def __len__(self) -> int:
        return len(self._held[self.columns[0]])


SAMPLE = Frame(
    when=np.array(["2026-01-02T03:04", "NaT"], "datetime64[ns]"),
    name=np.array(["a", NAType()], object),
    size=np.array([1.5, np.nan]),
    count=np.array([np.int64(3), np.int32(4)], object),
)
PLAIN = {
    "when": ["2026-01-02T03:04:00.000000000", None], "name": ["a", None], "size": [1.5, None], "count": [3, 4],
}  # fmt: skip


def test_a_frame_is_sent_with_times_as_text_and_nothing_where_a_value_is_missing() -> None:
    body, kind = payload_of(SAMPLE)
    sent = json.loads(json.loads(body)["data"])
    assert kind == "application/json"
    assert {name: list(rows.values()) for name, rows in sent.items()} == PLAIN


def test_lists_and_objects_are_sent_with_numbers_of_numpy_and_bytes_as_they_are() -> None:
    assert payload_of([[np.int64(1), np.float32(0.5)], (np.array([True]), NAType())]) == (
        b"[[1, 0.5], [[true], null]]", "application/json",
    )  # fmt: skip
    assert payload_of(b'{"not": JSON') == (b'{"not": JSON', "application/octet-stream")
    for wrong in ([object()], np.array([object()])):
        with pytest.raises(BadInput, match="the rows"):
            payload_of(wrong)


def test_a_column_with_something_missing_is_not_required_and_a_golden_row_has_nothing_there() -> None:
    attributes = schema_of(SAMPLE, "X_sample")["schema"]
    assert {each["name"]: each["required"] for each in attributes} == {
        "when": False, "name": False, "size": False, "count": True,
    }  # fmt: skip
    rows = golden_rows(columns_of(SAMPLE, "X_sample"), [0.5, 1.5])
    assert rows[1] == {"in.when": None, "in.name": None, "in.size": None, "in.count": 4, "out.prediction": 1.5}
    assert len(golden_rows(columns_of(SAMPLE, "X_sample"), [[0.5, float("nan")], [1.0, 2.0]])) == 1


@pytest.mark.parametrize("data", [None, 3, {1, 2}, iter([1])])
def test_what_has_no_rows_is_named(data: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"verify.. is given {type(data).__name__}: expected rows as X_sample has them"):
        GenericModel(None, tmp_path).verify(data)


def test_what_a_library_raised_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    error = ValueError("The feature names should match\nthose of fit:\n" + "- zz\n" * 500)
    assert (
        in_one_line(error).startswith("The feature names should match those of fit: - zz")
        and len(in_one_line(error)) == 300
    )
    assert in_one_line(ValueError()) == "ValueError"
    with pytest.raises(BadInput) as said:
        GenericModel(Raising(error), tmp_path / "model")._answers([[1.0]])
    assert len(str(said.value).splitlines()) == 1 and "give rows as it was fitted with" in str(said.value)
    with pytest.raises(BadInput, match="cannot be pickled") as said:
        GenericModel(Raising(error), tmp_path / "model").prepare()
    assert len(str(said.value).splitlines()) == 1


class Raising:
    """An estimator that neither answers nor pickles."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def predict(self, rows: Any) -> Any:
        raise self.error

    def __reduce__(self) -> Any:
        raise self.error


class Network(GenericModel):
    """A network, which takes its own dtype alone."""

    _takes_tensors = True

    def _predict(self, rows: Any) -> Any:
        assert rows.dtype == np.float32
        return rows.sum(axis=1)


def test_a_network_is_asked_in_the_dtype_it_was_prepared_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As score.py asks it: lists and float64 arrays are what users have at hand."""
    monkeypatch.setattr(Network, "introspect", lambda _: {})
    monkeypatch.setattr("edgepack._ads_model.served", lambda *_: nullcontext("http://nowhere"))
    monkeypatch.setattr("edgepack._ads_model.posted", lambda *_: {"prediction": [3.0]})
    model = Network(object(), tmp_path / "net", serialize=False)
    model.prepare(X_sample=np.array([[1, 2]], np.float32))
    for rows in ([[1, 2]], [[1.0, 2.0]], np.array([[1.0, 2.0]])):
        assert model.verify(rows)["is_same"] is True
    with pytest.raises(BadInput, match=r"the rows are no numbers: .*; give rows as X_sample has them"):
        model.verify([["a", "b"]])
    (tmp_path / "net/input_schema.json").write_text("{}")
    with pytest.raises(BadInput, match="has no dtype of 'inputs': write it anew"):
        model.verify([[1, 2]])


def test_an_array_is_read_in_the_networks_dtype_by_score_py_itself() -> None:
    assert "return np.load(" in score_py("joblib", "m") and "json_data = np.load(" in score_py("torchscript", "m")


def answering(status: int, body: Any) -> AbstractContextManager[tuple[str, Any]]:
    """A server on this machine that answers anything so."""
    return scoring(lambda asked: asked.give(body, status))


def test_rows_go_to_this_machine_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(502, b"the proxy's") as (proxy, seen), answering(200, {"prediction": [1]}) as (url, _):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        assert posted(url, b"[1]", "application/json") == {"prediction": [1]}
        assert seen == []


def test_an_answer_that_is_none_is_one_line() -> None:
    with answering(422, {"error": "step 'churn': KeyError"}) as (url, _), pytest.raises(BadInput, match="KeyError"):
        posted(url, b"[1]", "application/json")
    for status in (200, 500):
        with answering(status, b"<html>") as (url, _), pytest.raises(RuntimeFailed, match="gave no answer"):
            posted(url, b"[1]", "application/json")
    with pytest.raises(RuntimeFailed, match="gave no answer"):
        posted(url, b"[1]", "application/json")


@pytest.mark.parametrize(
    "found, expected, difference",
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([[1.0]], [[1.0]], 0.0),
        (["a"], ["b"], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
        ("a", ["a"], float("inf")),
        ([None], [float("nan")], 0.0),
        ([None], [1.0], float("inf")),
        ([True], [True], 0.0),
    ],
)
def test_two_answers_differ_by_their_worst_value(found: Any, expected: Any, difference: float) -> None:
    assert difference_of(found, expected) == pytest.approx(difference)

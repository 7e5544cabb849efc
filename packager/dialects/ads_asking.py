"""Asking score.py at packaging, in a worker: in which form it reads rows of its fields, and what one prediction is.

ADS does not say either: `input_schema.json` describes the training data, and `output_schema.json` the known answers,
which a booster's scores need not look like. So rows are asked in each form that suits the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from bundle.golden import GoldenRows
from columns.columns import Columns
from columns.json_value import from_rows
from columns.schema import Field, Schema
from columns.types import parse_type
from columns.values import column_from_values, object_array
from edgepack.errors import BadInput, RuntimeFailed, Unreachable
from packager.archives import Tree
from packager.dialects.ads_layout import SCORE
from packager.dialects.ads_rows import likely_rows
from packager.dialects.ads_schema import PREDICTION, object_of
from packager.dialects.ads_score import Score
from packager.golden import made_rows, recipes
from packager.project import GoldenSource
from packager.synthetic import user_rows
from runtimes.worker import Job, Limits, Worker

_SAID = "said"
_MOST_ROWS = 32  # of the user's, that are asked to learn the form
_LIMITS = Limits(start_s=120, request_s=60, memory_bytes=12 << 30)

Asked = Mapping[str, Any]


class Said(msgspec.Struct, frozen=True):
    """What score.py did with rows in one form."""

    prediction: list[Any] | None = None
    error: str = ""


@dataclass(frozen=True)
class Answered:
    """The form in which score.py answered, the type of one prediction, and the rows with their predictions."""

    payload: str
    output: Schema
    rows: Columns
    predictions: list[Any]

    @property
    def golden(self) -> GoldenRows:
        """The rows with score.py's own answers, where they fit one field."""
        if len(self.output) > 1:
            return GoldenRows(self.rows)
        field = self.output.fields[0]
        column = column_from_values(field, self.predictions, json=True)
        return GoldenRows(self.rows, Columns(self.output, {field.name: column}, self.rows.rows))

    def nullable_as(self, said: Schema) -> Answered:
        """The same, its prediction null where output_schema.json says that it may be: no answer need have been one."""
        (field,), (found,) = said.fields, self.output.fields
        if not field.text.endswith("?") or found.text.endswith("?"):
            return self
        return replace(self, output=Schema((Field(found.name, parse_type(f"{found.text}?")),)))


class Asking:
    """A score.py that answers, in a worker; to be closed."""

    def __init__(self, payloads: Sequence[str], inputs: Schema, worker: Worker, asked: str) -> None:
        self._payloads, self._inputs, self._worker, self._asked = payloads, inputs, worker, asked

    @classmethod
    def start(
        cls, score: Score, inputs: Schema, name: str, folder: Path, python: Path, sites: tuple[Path, ...]
    ) -> Asking:
        """Load an artifact's model with the libraries of `sites`. Raises RuntimeFailed with what its code raised."""
        asked = f"form of {max(inputs.names, key=len)}"  # a field beside those of the rows, and no name of theirs
        options = {"entry": SCORE, "probe": asked}
        job = Job(name, "ads", folder, inputs, Schema.parse({_SAID: "string"}), sites, options, python)
        return cls(payloads_of(score, inputs), inputs, Worker.start(job, _LIMITS), asked)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def first_answered(self, golden: GoldenSource | None, tree: Tree, given: Schema | None) -> Answered:
        """Ask the user's rows, or made ones until some are answered; `given` are the fields that the project names.

        Raises BadInput with what score.py raised for the form that suits it best.
        """
        reason = ""
        for rows in self._rows(golden, tree):
            without_gaps: Answered | None = None
            for payload in self._payloads:
                said = self.said(rows, payload)
                if said.prediction is None:
                    reason = reason or said.error
                    continue
                try:
                    answered = Answered(payload, _output(said.prediction, given), rows, said.prediction)
                except BadInput as error:
                    reason = reason or str(error)
                    continue
                if self._answers_gaps(rows, payload):
                    return answered
                without_gaps = without_gaps or answered
            if without_gaps is not None:
                return without_gaps
        raise BadInput(
            f"{SCORE} answers none of the rows made of its fields: {reason}; give [golden] rows that it answers, or a "
            f"file '<its folder>.golden.json' beside it"
        )

    def _answers_gaps(self, rows: Columns, payload: str) -> bool:
        """Whether a row is answered by itself that lacks all that it may lack: pandas makes objects, not numbers, of a
        column that holds nothing else, where the form does not say its type.
        """
        lacking = {field.name: object_array([None]) for field in rows.schema if field.text.endswith("?")}
        first = rows.slice(0, 1)
        return not lacking or self.said(Columns(first.schema, {**first.arrays, **lacking}, 1), payload).error == ""

    def said(self, rows: Columns, payload: str) -> Said:
        """What came of rows in one form. Raises RuntimeFailed where the code ends its process, or hangs."""
        schema = Schema((*rows.schema.fields, Field(self._asked, parse_type("string"))))
        arrays = {**rows.arrays, self._asked: object_array([payload] * rows.rows)}
        try:
            answer = self._worker.infer(Columns(schema, arrays, rows.rows), deadline_s=_LIMITS.request_s)
            return msgspec.json.decode(str(answer.arrays[_SAID][0]), type=Said)
        except Unreachable as error:
            raise RuntimeFailed(f"{SCORE} does not answer: {str(error).partition(': it starts')[0]}") from error
        except msgspec.MsgspecError as error:
            raise BadInput(f"what {SCORE} answers does not read: {error}") from error

    def _rows(self, golden: GoldenSource | None, tree: Tree) -> list[Columns]:
        given = None if golden is None else user_rows(golden, self._inputs, self._inputs)
        if given is not None:
            return [from_rows(given[:_MOST_ROWS], self._inputs)]
        likely = likely_rows(tree, self._inputs)
        made = [made_rows(self._inputs, tree.digest, recipe) for recipe in recipes(self._inputs)]
        return [*([] if likely is None else [likely]), *made]


def payloads_of(score: Score, inputs: Schema) -> list[str]:
    """The forms that may suit, the best one first."""
    if score.generated is not None and score.generated.kind in ("pickle", "xgboost", "lightgbm"):
        first = ["columns", "frame", "array"]  # an object of columns loses nothing on its way through pandas
    elif score.reads_frames:
        first = ["frame", "array"]
    else:
        first = ["columns"]
    is_array = len(inputs) == 1 or all(name.isdigit() for name in inputs.names)
    if is_array and score.reads_arrays:
        first = ["array", *(each for each in first if each != "array")]
    if is_array and not score.reads_frames:
        first = ["rows", *first]
    if score.reads_tensors:
        first = ["tensor", *first]
    others = ("columns", "records", "rows", "data", "record")
    return [*first, *(each for each in others if each not in first)]


def _output(predictions: Sequence[Any], given: Schema | None) -> Schema:
    """The fields that hold these predictions: those given, else `prediction` of the narrowest type. Raises BadInput
    where they have none in common, or a name that no type can hold.
    """
    if given is not None and (len(given) > 1 or _fits(given.fields[0], predictions)):
        return given
    text = type_of(predictions)
    if text is None:
        raise BadInput(f"its predictions {str(predictions)[:100]} are of several types")
    return Schema((Field(PREDICTION, parse_type(text)),))


def _fits(field: Field, values: Sequence[Any]) -> bool:
    try:
        column_from_values(field, list(values), json=True)
    except BadInput:
        return False
    return True


def type_of(values: Sequence[Any]) -> str | None:
    """The type that holds all values, None where they have none in common. Raises BadInput for a member's name that no
    type can hold.
    """
    there = [value for value in values if value is not None]
    mark = "?" if len(there) < len(values) else ""
    kinds = {type(value) for value in there}
    if kinds and kinds <= {int, float}:
        return f"{'int64' if kinds == {int} else 'float64'}{mark}"
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    if kind in (bool, str):
        return f"{'bool' if kind is bool else 'string'}{mark}"
    inner = _list_of(there) if kind is list else _struct_of(there)
    return None if inner is None else f"{inner}{mark}"


def _list_of(values: Sequence[list[Any]]) -> str | None:
    item = type_of([each for value in values for each in value])
    sizes = {len(value) for value in values}
    return None if item is None else f"list<{item}>{f'[{sizes.pop()}]' if len(sizes) == 1 else ''}"


def _struct_of(values: Sequence[dict[str, Any]]) -> str | None:
    names = list(values[0])
    if not names or any(set(value) != set(names) for value in values):
        return None
    members = {name: type_of([value[name] for value in values]) for name in names}
    known = {name: text for name, text in members.items() if text is not None}
    return object_of(known, "in its predictions ") if len(known) == len(members) else None

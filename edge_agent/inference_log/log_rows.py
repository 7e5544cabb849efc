"""`LogRows`: how a pipeline's result rows are written into its log, and read from it again.

In a frame of the log stand some rows as `columns.raw`, with what the log says of each beside the answer: pipeline,
partition, request id and bundle. What depends on a schema alone is worked out once: one row is then a copy of bytes.
Versions of a pipeline that answer beside each other share its log: any thread may write rows of any bundle.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from columns.columns import Columns, constant
from columns.raw import decode_raw, encode_raw
from columns.raw_rows import RawRows
from columns.schema import Field, Schema
from columns.templates import Templates
from columns.types import Scalar
from durable.frames import Frame
from edge_agent.inference_log.long_values import VALUES, without_long_values
from edgepack.errors import BadInput

_log = logging.getLogger(__name__)
_TEXT = Scalar("string")
_ADDED = ("pipeline", "partition", "request_id", "bundle")  # what the log says of each row beside the answer
_FIELDS = {f"metadata.{name}": Field(f"metadata.{name}", _TEXT) for name in _ADDED}
_MOST_KNOWN = 64  # bundles, schemas and the like that are worked out once; then anew
_SEQ = (Field("metadata.seq", Scalar("int64")), Field("metadata.epoch", _TEXT))

Array = np.ndarray[Any, np.dtype[Any]]


class LogRows:
    """The rows of one pipeline's log. `pipeline` and `partition` are what they say of where they come from."""

    def __init__(self, pipeline: str, partition: str) -> None:
        self.pipeline = pipeline
        self.partition = partition
        self._texts = {"metadata.pipeline": _one(pipeline), "metadata.partition": _one(partition)}
        self._bundles: dict[str, Array] = {}
        self._plans: dict[tuple[int, str], tuple[Schema, Schema, dict[str, Array]]] = {}
        self._valued: dict[int, tuple[Schema, tuple[str, ...]]] = {}
        self._encoding = Templates(_raw, varying=("metadata.request_id",))
        self._schemas: dict[tuple[int, tuple[str, ...]], tuple[Schema, Schema]] = {}

    def payloads(self, result: Columns, request_id: str, bundle: str, limit: int) -> list[tuple[bytes, int]]:
        """The frames that hold the rows of a result, with the count of rows of each; values of more than `limit` bytes
        are logged by their digest (0 keeps all).
        """
        if result.rows == 1 and request_id and self.is_short(result, limit):
            return [(self._encoding.encode(self._with_plan(result, request_id, bundle)), 1)]
        texts = self._texts_of(request_id, bundle)
        parts = without_long_values(result, limit)
        return [(self._encoding.encode(self._with_texts(part, texts)), part.rows) for part in parts]

    def alike(self, row: Columns, varying: Sequence[str], request_id: str, bundle: str) -> RawRows:
        """How rows like this one are encoded that differ in these columns, and in a request id of equal length."""
        return RawRows(self._with_plan(row, request_id, bundle), ("metadata.request_id", *varying))

    def is_short(self, row: Columns, limit: int) -> bool:
        """Whether a row holds plain tensors only, none of them long: that is quick to see."""
        known = self._valued.get(id(row.schema))
        if known is None:
            if len(self._valued) > _MOST_KNOWN:
                self._valued.clear()
            names = tuple(name for name in row.schema.names if name.startswith(VALUES))
            known = self._valued[id(row.schema)] = (row.schema, names)
        for name in known[1]:
            array = row.arrays[name]
            if array.dtype == object or array.nbytes > limit > 0:
                return False
        return True

    def block(self, epoch: str, frame: Frame, skip: int) -> Columns | None:
        """A frame without its first `skip` rows, with `metadata.seq` and `metadata.epoch`; None if it does not read."""
        try:
            block = decode_raw(frame.payload)
            if block.rows != frame.rows:
                raise BadInput(f"{block.rows} rows in a frame of {frame.rows}")
        except BadInput as error:  # written by another version: it still goes home as it is
            _log.warning("log row %d of '%s' does not read: %s", frame.first_seq, self.pipeline, error)
            return None
        arrays = {
            **block.arrays,
            "metadata.seq": np.arange(frame.first_seq, frame.end_seq, dtype=np.int64),
            "metadata.epoch": constant(_one(epoch), block.rows),
        }
        return Columns(self._schema(block.schema, _SEQ), arrays, block.rows).slice(skip, block.rows)

    def _texts_of(self, request_id: str, bundle: str) -> dict[str, Array]:
        known = self._bundles.get(bundle)
        if known is None:
            if len(self._bundles) > _MOST_KNOWN:
                self._bundles.clear()
            known = self._bundles.setdefault(bundle, _one(bundle))  # the same array each time: see Templates
        return {**self._texts, "metadata.request_id": _one(request_id), "metadata.bundle": known}

    def _with_plan(self, row: Columns, request_id: str, bundle: str) -> Columns:
        """As `_with_texts`, with all that does not depend on the row worked out once for its schema."""
        plan = self._plans.get((id(row.schema), bundle))
        if plan is None:
            texts = self._texts_of(request_id, bundle)
            whole = self._with_texts(row, texts)
            added = {name: text for name, text in texts.items() if name not in row.arrays and name in whole.schema}
            if len(self._plans) > _MOST_KNOWN:
                self._plans.clear()
            plan = self._plans[id(row.schema), bundle] = (row.schema, whole.schema, added)
        named = np.empty(1, dtype=object)
        named[0] = request_id
        return Columns(plan[1], {**row.arrays, **plan[2], "metadata.request_id": named}, 1)

    def _with_texts(self, part: Columns, texts: dict[str, Array]) -> Columns:
        present = part.arrays
        added = [name for name, text in texts.items() if name not in present and text[0]]
        arrays = dict(present)
        for name in added:
            arrays[name] = constant(texts[name], part.rows)
        return Columns(self._schema(part.schema, tuple([_FIELDS[name] for name in added])), arrays, part.rows)

    def _schema(self, schema: Schema, fields: tuple[Field, ...]) -> Schema:
        # Keyed by identity: hashing a schema costs more than the rest of a one-row record.
        key = (id(schema), tuple([field.name for field in fields]))
        found = self._schemas.get(key)
        if found is None:
            if len(self._schemas) > _MOST_KNOWN:
                self._schemas.clear()
            found = self._schemas[key] = (schema, Schema(schema.fields + fields))
        return found[1]


def _raw(columns: Columns) -> bytes:
    return b"".join(encode_raw(columns))


def _one(text: str) -> Array:
    array = np.empty(1, dtype=object)
    array[0] = text
    return array

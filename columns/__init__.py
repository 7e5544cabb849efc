"""Named, typed columns: the type grammar, `Schema`, `Columns`, and one module for each encoding.

`columns.arrow` and what it uses import pyarrow, nothing else in the whole house; who needs it imports it from there.
"""

from columns.columns import Columns, constant
from columns.focus import focus
from columns.raw import decode_raw, encode_raw
from columns.records import decode_records, encode_records
from columns.schema import Field, Schema
from columns.types import ListOf, Scalar, StructOf, Type, parse_type

__all__ = [
    "Columns",
    "Field",
    "ListOf",
    "Scalar",
    "Schema",
    "StructOf",
    "Type",
    "constant",
    "decode_raw",
    "decode_records",
    "encode_raw",
    "encode_records",
    "focus",
    "parse_type",
]

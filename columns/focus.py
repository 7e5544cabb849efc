"""Which columns of a result a client asked for: `dataset[]` and `dataset.exclude[]`.

A name is `*`, a group (`in`, `out`, `anomaly`, `metadata`), or a single column (`time`, `out.dense_1`).
What is named more closely wins: `metadata.elapsed` asked for stays when `metadata` is excluded; named
equally closely, exclusion wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from columns.columns import Columns
from columns.types import clip
from edgepack.errors import BadInput

_GROUPS = ("time", "in", "out", "anomaly", "metadata")
_KNOWN = ("*", *_GROUPS[:4], "check_failures", "meta", "metadata")
_NOT_NAMED = -1


def focus(
    columns: Columns, chosen: Sequence[str] = (), excluded: Sequence[str] = (), *, others: Sequence[str] = ()
) -> Columns:
    """The columns that are chosen (all where none is named) and not excluded, in the order they have.

    Raises BadInput for a name that no result has; `others` are columns that results may have and these lack.
    """
    wanted = [_canonical(name) for name in chosen] or ["*"]
    unwanted = [_canonical(name) for name in excluded]
    for name in wanted:
        _check(columns, name, "dataset", others)
    for name in unwanted:
        _check(columns, name.partition(".")[0], "dataset.exclude", others)
    kept = [name for name in columns.schema.names if _closeness(name, wanted) > _closeness(name, unwanted)]
    return columns if len(kept) == len(columns.schema) else columns.select(kept)


def _canonical(name: str) -> str:
    if name == "check_failures":
        return "anomaly.count"
    group, dot, rest = name.partition(".")
    return "metadata" + dot + rest if group == "meta" else name


def _check(columns: Columns, name: str, where: str, others: Sequence[str]) -> None:
    if name == "*" or name in _GROUPS or any(_covers(name, each) for each in (*columns.schema.names, *others)):
        return
    known = f"{', '.join(_KNOWN)}, or one of {columns.schema.listing}"
    raise BadInput(f"{where} '{clip(name)}' is not in the result: choose of {known}", field=where)


def _covers(name: str, column: str) -> bool:
    return name == "*" or column == name or column.startswith(name + ".")


def _closeness(column: str, names: list[str]) -> int:
    """How closely `names` name the column: 0 by `*`, then one a dotted part; the closest counts."""
    covering = [name for name in names if _covers(name, column)]
    return max((0 if name == "*" else 1 + name.count(".") for name in covering), default=_NOT_NAMED)

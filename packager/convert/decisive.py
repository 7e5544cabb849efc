"""Rows that decide: those on which two implementations of one model would differ if they differ at all.

Ordinary rows where the model was fitted, zeros, ones, rows that the model keeps (neighbours, support vectors), and for
trees rows at a threshold and beside it, one float apart. Where scalers stand before the trees, the thresholds are
carried back through them. Strings: known categories, unknown ones, none. A row that the original refuses is left out.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import numpy as np

from .anatomy import column_knowledge, first_step, row_sets, sentences, steps_of, takes_gaps
from .fields import Field, Unsuited, rows_of
from .trees import Split, categories, splits

ORDINARY, AT_THRESHOLDS, KEPT, WITH_GAPS, LARGE = 48, 48, 48, 6, 6  # rows of each sort
MAGNITUDES = (10.0, 100.0, 1000.0)
_SEED = 20240229
_WORDS = ("", "zzz", "Zoë", "a b", "NOT seen BEFORE", "0")


def decisive_rows(model: Any, fields: List[Field], dtype: str, layout: str) -> Dict[str, Any]:
    """Columns of rows for a model. Numbers are floats of `dtype` (thresholds neighbour in it) in the fields' types."""
    if layout == "text":
        return {fields[0].name: _texts(model)}
    width = fields[0].size if layout == "matrix" else len(fields)
    if fields[0].size == -1 or width is None:
        raise Unsuited("its input has no length: write it as list<float32>[N] in [steps.input]")
    known = column_knowledge(model, fields, layout)
    draw = np.random.RandomState(_SEED)
    numbers = numeric_rows(model, width, dtype, draw, known)
    numbers = np.concatenate([numbers, *_among_categories(model, numbers[:ORDINARY], draw)])
    if layout == "matrix":
        for at, column in enumerate(known):
            values = [value for value in column.get("values", ()) if isinstance(value, (int, float))]
            if values:  # categories that are numbers: others would be refused
                numbers[:, at] = np.asarray(values)[draw.randint(0, len(values), len(numbers))]
        return {fields[0].name: _cast(numbers, fields[0])}
    return {field.name: _column(field, numbers[:, at], known[at], draw) for at, field in enumerate(fields)}


def answered(ask: Callable[[Dict[str, Any]], Any], rows: Dict[str, Any]) -> Dict[str, Any]:
    """Those of the rows that the original answers, the whole batch at once where it can."""
    count = len(next(iter(rows.values())))
    if _is_answered(ask, rows):
        return rows
    good = [row for row in range(count) if _is_answered(ask, rows_of(rows, slice(row, row + 1)))]
    if not good:
        raise Unsuited(_refusal(ask, rows))
    kept = rows_of(rows, np.array(good))
    if not _is_answered(ask, kept):
        raise Unsuited(_refusal(ask, kept))
    return kept


def numeric_rows(model: Any, width: int, dtype: str, draw: Any, known: List[Dict[str, Any]]) -> Any:
    """The numbers of rows, as floats of 64 bits that `dtype` can hold where it matters."""
    place, spread = _location(model, width, known)
    ordinary = place + spread * draw.standard_normal((ORDINARY, width))
    special = [np.zeros((1, width)), np.ones((1, width)), np.round(ordinary[:4]), np.abs(ordinary[:4])]
    if not place.any():  # nothing tells where rows lie: they may be large
        special += [np.abs(ordinary[:LARGE]) * magnitude for magnitude in MAGNITUDES]
    edges = _edges(model, ordinary[:1] if not len(ordinary) else ordinary, dtype)
    parts = [ordinary, *special, _kept(model, width), *edges, *_gaps(model, ordinary)]
    return np.concatenate([part for part in parts if len(part)])


def _cast(numbers: Any, field: Field) -> Any:
    if field.dtype.kind in "iu":
        info = np.iinfo(field.dtype)
        return np.clip(np.nan_to_num(np.round(numbers)), max(info.min, -(2**31)), min(info.max, 2**31)).astype(
            field.dtype
        )
    if field.dtype.kind == "b":
        return numbers > 0
    with np.errstate(over="ignore"):
        return numbers.astype(field.dtype)


def _column(field: Field, numbers: Any, known: Dict[str, Any], draw: Any) -> Any:
    """One column; `known` may hold the values that the model was fitted with."""
    values = known.get("values")
    if field.scalar == "string":
        pool = [str(value) for value in (values if values is not None and len(values) else ("a", "b"))]
        pool = pool * max(1, 12 // len(pool)) + list(_WORDS[:2])
        return np.array([pool[i] for i in draw.randint(0, len(pool), len(numbers))], dtype=object)
    if values is not None and len(values):
        chosen = np.asarray(values, dtype=np.float64)[draw.randint(0, len(values), len(numbers))]
        return _cast(chosen, field)
    return _cast(numbers, field)


def _location(model: Any, width: int, known: List[Dict[str, Any]]) -> Any:
    """Where rows of the training set lay, as far as the model tells."""
    place, spread = np.zeros(width), np.ones(width)
    first = first_step(model)
    for rows in row_sets(first, width):
        place, spread = rows.mean(axis=0), rows.std(axis=0)
        break
    else:
        found = _safe_splits(first)
        for feature in range(width):
            values = [split.value for split in found if split.feature == feature]
            if values:
                place[feature], spread[feature] = np.mean(values), np.std(values) * 2
    for lowest, highest in (("data_min_", "data_max_"), ("X_min_", "X_max_")):
        low, high = np.ravel(getattr(first, lowest, ())), np.ravel(getattr(first, highest, ()))
        if low.shape == high.shape == (width,):
            place, spread = (low + high) / 2, (high - low) / 4
    for at, column in enumerate(known[:width]):
        place[at], spread[at] = column.get("place", place[at]), column.get("spread", spread[at])
    return np.nan_to_num(place), np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)


def _kept(model: Any, width: int) -> Any:
    sets = row_sets(first_step(model), width)
    if not sets:
        return np.empty((0, width))
    rows = sets[0]
    return np.asarray(rows[:: max(1, len(rows) // KEPT)][:KEPT], dtype=np.float64)


def _safe_splits(model: Any) -> List[Split]:
    try:
        return splits(model)
    except Exception:  # rows at thresholds are one sort of many
        return []


def _edges(model: Any, ordinary: Any, dtype: str) -> List[Any]:
    """Rows that arrive at a split with its threshold, and one float beside it, carried back through what stands before
    the trees.
    """
    *before, last = steps_of(model)
    found = _safe_splits(last)
    chosen = found[:: max(1, len(found) // AT_THRESHOLDS)][:AT_THRESHOLDS]
    if not chosen:
        return []
    try:
        seen = ordinary
        for step in before:
            seen = np.asarray(step.transform(seen))
        made = seen[np.arange(len(chosen)) % len(seen)].astype(np.float64)
        for row, split in zip(made, chosen):
            _lead(row, split)
        for step in reversed(before):
            made = np.asarray(step.inverse_transform(made))
    except Exception:  # a step that has no way back: ordinary rows must do
        return []
    if made.shape[1] != ordinary.shape[1]:
        return []
    return _beside(made, [split.feature for split in chosen], dtype)


def _lead(row: Any, split: Split) -> None:
    """Change a row so that it arrives at a split, with the threshold itself: deep ones are met by few other rows."""
    low: Dict[int, float] = {}
    high: Dict[int, float] = {}
    for feature, value, is_left in split.path:
        if is_left:
            high[feature] = min(high.get(feature, np.inf), value)
        else:
            low[feature] = max(low.get(feature, -np.inf), value)
    for feature in {**low, **high}:
        under, over = low.get(feature, -np.inf), high.get(feature, np.inf)
        if not under < row[feature] < over:
            row[feature] = _between(under, over)
    row[split.feature] = split.value


def _between(under: float, over: float) -> float:
    """A number inside bounds of which one may be infinite."""
    if np.isfinite(under) and np.isfinite(over):
        return (under + over) / 2
    return under + 0.1 * max(1.0, abs(under)) if np.isfinite(under) else over - 0.1 * max(1.0, abs(over))


def _beside(made: Any, features: List[int], dtype: str) -> List[Any]:
    """The rows as they are, and what `dtype` has at the threshold and beside it. A graph of 32 bits is asked the former
    too: thresholds are often values of the training set.
    """
    exact = made.astype(dtype)
    rows = np.arange(len(made))
    found = [made] if dtype == "float64" else [made, exact.astype(np.float64)]
    for toward in (-np.inf, np.inf):
        moved = exact.copy()
        moved[rows, features] = np.nextafter(moved[rows, features], np.asarray(toward, dtype=dtype))
        found.append(moved.astype(np.float64))
    return found


def _among_categories(model: Any, ordinary: Any, draw: Any) -> List[Any]:
    """Rows whose categories are known ones, unknown ones, and numbers between two of them."""
    last = steps_of(model)[-1]
    found = categories(last) if last is model else {}
    if not found:
        return []
    rows = ordinary.copy()
    for feature, values in found.items():
        pool = np.array([*values, max(values) + 1, -1, min(values) + 0.5], dtype=np.float64)
        rows[:, feature] = pool[draw.randint(0, len(pool), len(rows))]
    return [rows]


def _gaps(model: Any, ordinary: Any) -> List[Any]:
    """Rows with missing numbers, where the first step says that it takes them, and with the number that XGBoost was
    told to take for one.
    """
    said = getattr(steps_of(model)[-1], "missing", None)
    found = []
    for gap in (np.nan if takes_gaps(model) else None, said):
        if isinstance(gap, (int, float)):
            rows = ordinary[:WITH_GAPS].copy()
            for row in range(len(rows)):
                rows[row, row % rows.shape[1]] = gap
            found.append(rows)
    return found


def _texts(model: Any) -> Any:
    vocabulary = getattr(first_step(model), "vocabulary_", None)
    texts = sentences(vocabulary) if isinstance(vocabulary, dict) else ["a b c", "edge", "more words here"]
    made = np.empty(len(texts) + len(_WORDS), dtype=object)
    made[:] = [*texts, *_WORDS]
    return made


def _is_answered(ask: Callable[[Dict[str, Any]], Any], rows: Dict[str, Any]) -> bool:
    return _error(ask, rows) is None


def _error(ask: Callable[[Dict[str, Any]], Any], rows: Dict[str, Any]) -> Optional[Exception]:
    try:
        ask(rows)
    except Exception as error:  # whatever the original raises, this row is not one it answers
        return error
    return None


def _refusal(ask: Callable[[Dict[str, Any]], Any], rows: Dict[str, Any]) -> str:
    error = _error(ask, rows_of(rows, slice(0, 1))) or _error(ask, rows)
    text = " ".join(str(error).split())[:300]
    return "the original answers none of the rows made for it: %s: %s" % (type(error).__name__, text)

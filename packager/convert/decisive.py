"""Rows that decide: those on which two implementations of one model would differ if they differ at all.

Ordinary rows where the model was fitted, zeros, ones, rows that the model keeps (neighbours, support vectors), and for
trees rows at a threshold and beside it, one float apart. Where scalers stand before the trees, the thresholds are
carried back through them. Strings: known categories, unknown ones, none. A row that the original refuses is left out.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import numpy as np

from .fields import Field, Unsuited, rows_of
from .trees import thresholds

ORDINARY, AT_THRESHOLDS, KEPT, WITH_GAPS = 48, 40, 48, 6  # rows of each sort
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
    special = [np.zeros((1, width)), np.ones((1, width)), place[None], np.round(ordinary[:4]), np.abs(ordinary[:4])]
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


def _chain(model: Any) -> List[Any]:
    """The steps of a pipeline, pipelines in it laid flat; another model is its own only step."""
    steps = getattr(model, "steps", None)
    if isinstance(steps, list):
        return [part for _, step in steps if step not in (None, "passthrough") for part in _chain(step)]
    inner = getattr(model, "best_estimator_", None)
    return _chain(inner) if inner is not None else [model]


def first_step(model: Any) -> Any:
    """What sees the fields first."""
    return _chain(model)[0]


def is_text(model: Any) -> bool:
    """Whether the first thing that happens is taking words apart."""
    return hasattr(first_step(model), "analyzer") and hasattr(first_step(model), "lowercase")


def column_knowledge(model: Any, fields: List[Field], layout: str) -> List[Dict[str, Any]]:
    """For each column what the model knows of it: `values` (categories), or `place` and `spread`."""
    width = (fields[0].size or 0) if layout == "matrix" else len(fields)
    known: List[Dict[str, Any]] = [{} for _ in range(width)]
    first = first_step(model)
    names = [str(name) for name in getattr(model, "feature_names_in_", [field.name for field in fields])]
    parts = getattr(first, "transformers_", None)
    if parts is None:
        _learn(first, list(range(width)), known)
        return known
    for _, part, columns in parts:
        if not isinstance(part, str):
            chosen = _positions(columns, names, width)
            for step in _chain(part):
                _learn(step, chosen, known)
    return known


def _positions(columns: Any, names: List[str], width: int) -> List[int]:
    if isinstance(columns, str):
        columns = [columns]
    if isinstance(columns, slice):
        return list(range(width))[columns] if not isinstance(columns.start, str) else []
    found = []
    for at, column in enumerate(np.ravel(np.asarray(columns, dtype=object))):
        if isinstance(column, (bool, np.bool_)):
            found += [at] if column else []
        elif isinstance(column, str):
            found += [names.index(column)] if column in names else []
        else:
            found.append(int(column))
    return found


def _learn(step: Any, columns: List[int], known: List[Dict[str, Any]]) -> None:
    categories = getattr(step, "categories_", None)
    vocabulary = getattr(step, "vocabulary_", None)
    for order, column in enumerate(columns):
        if column >= len(known):
            continue
        if isinstance(categories, list) and order < len(categories):
            known[column].setdefault("values", [value for value in categories[order] if value == value])
        if isinstance(vocabulary, dict):
            known[column].setdefault("values", _sentences(vocabulary))
        for name, other in (("mean_", "scale_"), ("center_", "scale_"), ("statistics_", ""), ("data_min_", "")):
            found = np.ravel(np.asarray(getattr(step, name, ()), dtype=object))
            if len(found) == len(columns) and isinstance(found[order], (int, float)):
                known[column].setdefault("place", float(found[order]))
                scale = np.ravel(np.asarray(getattr(step, other, ()) if other else (), dtype=object))
                if len(scale) == len(columns) and isinstance(scale[order], (int, float)):
                    known[column].setdefault("spread", float(scale[order]))


def _location(model: Any, width: int, known: List[Dict[str, Any]]) -> Any:
    """Where rows of the training set lay, as far as the model tells."""
    place, spread = np.zeros(width), np.ones(width)
    first = first_step(model)
    for rows in _row_sets(first, width):
        place, spread = rows.mean(axis=0), rows.std(axis=0)
        break
    else:
        for feature in range(width):
            values = [value for at, value in _safe_thresholds(first) if at == feature]
            if values:
                place[feature], spread[feature] = np.mean(values), np.std(values) * 2
    low, high = getattr(first, "data_min_", None), getattr(first, "data_max_", None)
    if low is not None and high is not None and np.shape(low) == (width,):
        place, spread = (low + high) / 2, (high - low) / 4
    for at, column in enumerate(known[:width]):
        place[at], spread[at] = column.get("place", place[at]), column.get("spread", spread[at])
    return np.nan_to_num(place), np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)


def _row_sets(step: Any, width: int) -> List[Any]:
    """Rows of training data, or averages of such, that a fitted model keeps."""
    found = []
    for name in (
        *("_fit_X", "X_train_", "X_fit_", "support_vectors_", "cluster_centers_", "centroids_", "theta_", "means_"),
        *("subcluster_centers_", "_X_fit", "X_", "n_samples_fit_", "support_vectors", "quantiles_"),
    ):
        rows = getattr(step, name, None)
        rows = rows.toarray() if rows is not None and hasattr(rows, "toarray") else rows
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == width and rows.dtype.kind == "f":
            found.append(rows[:, :])
    return [rows for rows in found if len(rows)]


def _kept(model: Any, width: int) -> Any:
    sets = _row_sets(first_step(model), width)
    if not sets:
        return np.empty((0, width))
    rows = sets[0]
    return np.asarray(rows[:: max(1, len(rows) // KEPT)][:KEPT], dtype=np.float64)


def _safe_thresholds(model: Any) -> Any:
    try:
        return thresholds(model)
    except Exception:  # rows at thresholds are one sort of many
        return []


def _edges(model: Any, ordinary: Any, dtype: str) -> List[Any]:
    """Rows at thresholds and one float below and above, carried back through what stands before the trees."""
    *before, last = _chain(model)
    found = _safe_thresholds(last)
    chosen = found[:: max(1, len(found) // AT_THRESHOLDS)][:AT_THRESHOLDS]
    if not chosen:
        return []
    try:
        seen = ordinary
        for step in before:
            seen = np.asarray(step.transform(seen))
        made = seen[np.arange(len(chosen)) % len(seen)].copy()
        for row, (feature, value) in enumerate(chosen):
            made[row, feature] = value
        for step in reversed(before):
            made = np.asarray(step.inverse_transform(made))
    except Exception:  # a step that has no way back: ordinary rows must do
        return []
    if made.shape[1] != ordinary.shape[1]:
        return []
    return _beside(made, [feature for feature, _ in chosen], dtype)


def _beside(made: Any, features: List[int], dtype: str) -> List[Any]:
    exact = made.astype(dtype)
    rows = np.arange(len(made))
    found = [exact.astype(np.float64)]
    for toward in (-np.inf, np.inf):
        moved = exact.copy()
        moved[rows, features] = np.nextafter(moved[rows, features], np.asarray(toward, dtype=dtype))
        found.append(moved.astype(np.float64))
    return found


def _gaps(model: Any, ordinary: Any) -> List[Any]:
    """Rows with missing numbers, where the first step says that it takes them."""
    if not takes_gaps(model):
        return []
    rows = ordinary[:WITH_GAPS].copy()
    for row in range(len(rows)):
        rows[row, row % rows.shape[1]] = np.nan
    return [rows]


def takes_gaps(model: Any) -> bool:
    """Whether NaN stands for a missing value."""
    first = first_step(model)
    if type(first).__module__.partition(".")[0] in ("xgboost", "lightgbm"):
        return True
    try:
        return bool(first.__sklearn_tags__().input_tags.allow_nan)
    except Exception:  # older than these tags, or a class that lacks them
        pass
    try:
        return bool(first._get_tags().get("allow_nan"))
    except Exception:  # newer or older than these
        return False


def _texts(model: Any) -> Any:
    vocabulary = getattr(first_step(model), "vocabulary_", None)
    texts = _sentences(vocabulary) if isinstance(vocabulary, dict) else ["a b c", "edge", "more words here"]
    made = np.empty(len(texts) + len(_WORDS), dtype=object)
    made[:] = [*texts, *_WORDS]
    return made


def _sentences(vocabulary: Dict[str, Any]) -> List[str]:
    words = sorted(str(word) for word in vocabulary)
    draw = np.random.RandomState(_SEED)
    made = [" ".join(words[i] for i in draw.randint(0, len(words), 1 + row % 9)) for row in range(32)]
    return [*made, made[0].upper(), ", ".join(made[:2]) + "!", words[0] + words[0]]


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

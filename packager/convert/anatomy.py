"""What a fitted model is made of, as far as it matters for rows: its steps, what it knows of its columns, what of the
training set it keeps.
"""

from __future__ import annotations

from typing import Any, Dict, List

import numpy as np

from .fields import Field

_SEED = 20240229


def steps_of(model: Any) -> List[Any]:
    """The steps of a pipeline, pipelines in it laid flat; another model is its own only step."""
    steps = getattr(model, "steps", None)
    if isinstance(steps, list):
        return [part for _, step in steps if step not in (None, "passthrough") for part in steps_of(step)]
    inner = getattr(model, "best_estimator_", None)
    return steps_of(inner) if inner is not None else [model]


def first_step(model: Any) -> Any:
    """What sees the fields first."""
    return steps_of(model)[0]


def is_text(model: Any) -> bool:
    """Whether the first thing that happens is taking words apart."""
    return hasattr(first_step(model), "analyzer") and hasattr(first_step(model), "lowercase")


def takes_labels(step: Any) -> bool:
    """Whether it encodes labels, one a row: LabelEncoder and LabelBinarizer."""
    return hasattr(step, "classes_") and hasattr(step, "inverse_transform") and not hasattr(step, "n_features_in_")


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
            for step in steps_of(part):
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
        if takes_labels(step):
            known[column].setdefault("values", list(step.classes_))
        if isinstance(vocabulary, dict):
            known[column].setdefault("values", sentences(vocabulary))
        for name, other in (("mean_", "scale_"), ("center_", "scale_"), ("statistics_", ""), ("data_min_", "")):
            found = np.ravel(np.asarray(getattr(step, name, ()), dtype=object))
            if len(found) == len(columns) and isinstance(found[order], (int, float)):
                known[column].setdefault("place", float(found[order]))
                scale = np.ravel(np.asarray(getattr(step, other, ()) if other else (), dtype=object))
                if len(scale) == len(columns) and isinstance(scale[order], (int, float)):
                    known[column].setdefault("spread", float(scale[order]))


def row_sets(step: Any, width: int) -> List[Any]:
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


def takes_one_column(model: Any) -> bool:
    """Whether it takes one number a row and does not count columns, as IsotonicRegression."""
    try:
        tags = model.__sklearn_tags__().input_tags
    except AttributeError:  # older than these tags, or a class that lacks them
        return False
    return bool(tags.one_d_array and not tags.two_d_array) or hasattr(model, "X_thresholds_")


def takes_gaps(model: Any) -> bool:
    """Whether NaN stands for a missing value. scikit-learn says it in tags since 0.21, in other ones since 1.6."""
    first = first_step(model)
    if type(first).__module__.partition(".")[0] in ("xgboost", "lightgbm"):
        return True
    try:
        return bool(first.__sklearn_tags__().input_tags.allow_nan)
    except AttributeError:  # older than these tags, or a class that lacks them
        pass
    try:
        return bool(first._get_tags().get("allow_nan"))
    except AttributeError:  # newer or older than these
        return False


def sentences(vocabulary: Dict[str, Any]) -> List[str]:
    """Texts of known words, some of them in other dress."""
    words = sorted(str(word) for word in vocabulary)
    draw = np.random.RandomState(_SEED)
    made = [" ".join(words[i] for i in draw.randint(0, len(words), 1 + row % 9)) for row in range(32)]
    return [*made, made[0].upper(), ", ".join(made[:2]) + "!", words[0] + words[0]]

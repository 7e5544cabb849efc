"""`Original`: a model as its framework runs it, seen through the step's fields; and the fields it tells of itself."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Set

import numpy as np

from .anatomy import column_knowledge, first_step, is_text, takes_labels, takes_one_column
from .fields import Field, Unsuited, layout_of, table

METHODS = {"predictions": "predict", "probabilities": "predict_proba", "transformed": "transform"}


class Original:
    """The model as its framework runs it, seen through the step's fields."""

    def __init__(self, model: Any, job: Dict[str, Any]) -> None:
        self.model, self.library = model, type(model).__module__.partition(".")[0]
        self.names = _names(model)
        given = job["input"]
        self.is_declared = given is not None
        self.is_widened = False  # some estimators refuse floats of 32 bits: they get the same values in 64
        self.declared_output = [_field(each) for each in job["output"]] if job["output"] is not None else None
        self.fields = [_field(each) for each in given] if given is not None else _inferred(model, self.names)
        self.layout = layout_of(self.fields, self.names, is_text(model))
        self.fields = [self._sized(field) for field in self.fields]

    def _sized(self, field: Field) -> Field:
        width = _width(self.model)
        if field.size is None:
            if width is not None and self.layout in ("frame", "stack") and width != len(self.fields):
                raise Unsuited(
                    "[steps.input] has %d fields, the model was fitted with %d columns" % (len(self.fields), width)
                )
            return field
        if width is not None and field.size not in (-1, width):
            raise Unsuited(
                "[steps.input] %s has lists of %d, the model was fitted with %d columns"
                % (field.name, field.size, width)
            )
        if field.size == -1 and width is None:
            raise Unsuited("it does not say how many columns it takes: give [steps.input] as list<float64>[N]")
        return field._replace(size=width if width is not None else field.size)

    def in_floats(self, scalar: str) -> List[Field]:
        """The fields; those that were not declared are floats of the given width."""
        if self.is_declared:
            return self.fields
        return [each._replace(scalar=scalar) if each.dtype.kind == "f" else each for each in self.fields]

    def methods(self) -> Dict[str, str]:
        """Output field → method that gives it."""
        wanted = self.declared_output
        if wanted is None:
            if hasattr(self.model, "predict"):
                both = ("predictions", "probabilities") if self._has_probabilities() else ("predictions",)
                return {name: METHODS[name] for name in both}
            return {"transformed": "transform"}
        if len(wanted) == 1 and wanted[0].name not in METHODS:
            return {wanted[0].name: "predict" if hasattr(self.model, "predict") else "transform"}
        odd = [field.name for field in wanted if field.name not in METHODS]
        if odd:
            raise Unsuited("[steps.output] names '%s': expected predictions, probabilities or one field" % odd[0])
        lacking = [field.name for field in wanted if not hasattr(self.model, METHODS[field.name])]
        if lacking:
            raise Unsuited("[steps.output] names '%s', which this model cannot give" % lacking[0])
        return {field.name: METHODS[field.name] for field in wanted}

    def _has_probabilities(self) -> bool:
        if not hasattr(self.model, "predict_proba"):
            return False
        classes = getattr(self.model, "classes_", None)
        return not isinstance(classes, list)

    def ask(self, fields: List[Field], arrays: Dict[str, Any]) -> Dict[str, Any]:
        """The original's answers, rows first, by output field."""
        if self.is_widened:
            arrays = {
                name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in arrays.items()
            }
        rows = table(self.layout, fields, arrays, self.names)
        if self._is_booster("xgboost"):
            import xgboost

            rows = xgboost.DMatrix(rows, feature_names=self.model.feature_names)
        return {name: _array(getattr(self.model, method)(rows)) for name, method in self.methods().items()}

    def _is_booster(self, library: str) -> bool:
        return self.library == library and type(self.model).__name__ == "Booster"

    def outputs(self, answers: Dict[str, Any], scalar: str) -> List[Field]:
        """The output fields: as declared, else as the answers are."""
        found = [_answer_field(name, array, scalar) for name, array in answers.items()]
        if self.declared_output is None:
            return found
        by_name = {field.name: field for field in found}
        return [_agreed(declared, by_name[declared.name]) for declared in self.declared_output]


def _names(model: Any) -> Optional[List[str]]:
    """The column names that a model was fitted with."""
    if type(model).__name__ == "Booster":
        found = model.feature_names if hasattr(model, "feature_names") else model.feature_name()
        plain = [["f%d" % at for at in range(len(found or ()))], ["Column_%d" % at for at in range(len(found or ()))]]
        return None if not found or list(found) in plain else [str(name) for name in found]
    for part in (model, first_step(model)):
        try:
            found = getattr(part, "feature_names_in_", None)
        except (NotImplementedError, ValueError):  # some of XGBoost's raise where they have none
            found = None
        if found is not None:
            return [str(name) for name in found]
    return None


def _width(model: Any) -> Optional[int]:
    if type(model).__name__ == "Booster":
        return int(model.num_features() if hasattr(model, "num_features") else model.num_feature())
    for part in (model, first_step(model)):
        try:
            found = getattr(part, "n_features_in_", None)
        except (NotImplementedError, ValueError):  # as above
            found = None
        if isinstance(found, (int, np.integer)):
            return int(found)
    return 1 if takes_labels(model) or takes_one_column(model) else None


def _inferred(model: Any, names: Optional[List[str]]) -> List[Field]:
    if is_text(model):
        return [Field("text", "string")]
    if names is not None:
        strings = _string_columns(model, names)
        return [Field(name, "string" if name in strings else "float64") for name in names]
    if takes_labels(model):
        kind = np.asarray(model.classes_).dtype.kind
        return [Field("labels", "string" if kind in "OUS" else "int64" if kind in "iu" else "float64")]
    width = _width(model)
    if width is None:
        raise Unsuited(
            "it does not say which columns it takes: give [steps.input] and [steps.output], or package it as framework "
            "'custom' (BYOP) if it takes no rows of numbers or strings"
        )
    return [Field("inputs", "float64", width)]


def _string_columns(model: Any, names: List[str]) -> Set[str]:
    """Columns whose categories are strings, and columns of text."""
    fields = [Field(name, "float64") for name in names]
    known = column_knowledge(model, fields, "frame")
    return {
        name for name, column in zip(names, known) if any(isinstance(value, str) for value in column.get("values", ()))
    }


def _field(given: List[str]) -> Field:
    name, scalar, size = given
    return Field(name, scalar, size if size is None else int(size))


def _array(answer: Any) -> Any:
    if isinstance(answer, list):
        raise Unsuited("its answer is a list of arrays, one a label: package it as framework 'custom' (BYOP)")
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    array = np.asarray(answer)
    if array.ndim > 2:
        raise Unsuited("its answer has %d axes, expected rows of values" % array.ndim)
    if array.dtype == object and all(isinstance(value, str) for value in array.ravel()):
        return array.astype(str)
    if array.dtype == object:
        raise Unsuited("its answer holds objects, expected numbers or strings")
    return array


def _answer_field(name: str, array: Any, scalar: str) -> Field:
    size = None if array.ndim == 1 else int(array.shape[1])
    if array.dtype.kind in "US":
        return Field(name, "string", size)
    if array.dtype.kind == "b":
        return Field(name, "bool", size)
    if array.dtype.kind in "iu":
        return Field(name, "int64", size)
    return Field(name, scalar, size)


def _agreed(declared: Field, found: Field) -> Field:
    """A declared output: its type may be another one, its length must be the model's."""
    size = found.size if declared.size == -1 else declared.size
    if declared.size == 1 and found.size is None:
        return declared
    if size != found.size:
        raise Unsuited("[steps.output] %s is %s, the model gives %s" % (declared.name, declared.text, found.text))
    if (declared.scalar == "string") != (found.scalar == "string"):
        raise Unsuited("[steps.output] %s is %s, the model gives %s" % (declared.name, declared.text, found.text))
    return declared._replace(size=size)

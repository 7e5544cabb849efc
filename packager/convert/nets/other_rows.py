"""What the rows of one batch do not show: whether a row's answer depends on the rows beside it, and whether an exported
model also answers rows of other lengths. Exporters unroll loops: what they write may know one length alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..fields import Unsuited, line
from .tensors import TensorField

_GROSS = 1e-4  # relative, above 1: the gate compares more finely, with the tolerance of the project
_FEW = 4  # rows

Arrays = Mapping[str, Any]
Ask = Callable[[Arrays], Sequence[Any]]


def check_alone(ask: Ask, rows: Arrays, answers: Sequence[Any], again: Sequence[Any]) -> None:
    """Raise Unsuited where a row asked alone is answered otherwise: nobody could say what is right for it.

    An original that answers differently when asked twice is left to the gate.
    """
    if not _alike(answers, again):
        return
    for at in range(min(_FEW, len(answers[0]))):
        alone = ask({name: array[at : at + 1] for name, array in rows.items()})
        if not _alike(alone, [array[at : at + 1] for array in answers]):
            raise Unsuited(
                f"what it answers to a row depends on the rows beside it (row {at} alone is answered otherwise): "
                "save it as it is for inference"
            )


def refusal(path: str, ask: Ask, rows: Arrays, inputs: Sequence[TensorField]) -> str | None:
    """Why an exported model is not taken: the original answers rows of other lengths, and it does not. None where it
    does, and where no length is free.
    """
    if not any(-1 in each.shape for each in inputs):
        return None
    import onnxruntime  # where lengths are free only: it takes a while

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    advice = "give its length in [steps.input] to run it natively"
    for length, other in _of_other_lengths(rows, inputs):
        expected = _answers(ask, other)
        if expected is None:
            continue
        try:
            found = session.run(None, dict(other))
        except Exception as error:  # onnxruntime raises many kinds
            return f"exported, it does not answer rows of length {length}: {line(error)[:120]}; {advice}"
        if not _alike(found, expected):
            return f"exported, it answers rows of length {length} differently; {advice}"
    return None


def _answers(ask: Ask, rows: Arrays) -> Sequence[Any] | None:
    """What the original says; None for lengths that it refuses: nothing need answer these."""
    try:
        return ask(rows)
    except Exception:  # an original raises anything
        return None


def _of_other_lengths(rows: Arrays, inputs: Sequence[TensorField]) -> Iterator[tuple[int, Arrays]]:
    """Few rows, cut to one value along every free axis, one shorter and some longer."""
    first = next(each for each in inputs if -1 in each.shape)
    whole = int(rows[first.name].shape[1 + first.shape.index(-1)])
    for length in dict.fromkeys((whole + 3, max(1, whole - 1), 1)):
        if length != whole:
            yield length, {each.name: _resized(rows[each.name][:_FEW], each, length - whole) for each in inputs}


def _resized(array: Any, each: TensorField, change: int) -> Any:
    for axis, size in enumerate(each.shape, 1):
        if size < 0:
            array = np.take(array, np.arange(max(1, array.shape[axis] + change)) % array.shape[axis], axis)
    return np.ascontiguousarray(array)


def _alike(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return len(found) == len(expected) and all(_same(a, b) for a, b in zip(found, expected, strict=True))


def _same(found: Any, expected: Any) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(found, expected))
    with np.errstate(all="ignore"):
        apart = np.abs(found - expected) > _GROSS * np.maximum(1, np.abs(expected))
    gaps = np.isnan(expected)
    return bool(np.array_equal(np.isnan(found), gaps) and not (apart & ~gaps).any())

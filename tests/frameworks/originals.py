"""Keeps what a library itself answers, beside the model that it made: run inside the environments, never by the tests.

`<model>.npz` holds rows as `in.<field>` and the answers to the first of them as `<count>.<field>`. Fields are named as
edgepack should name them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = (1, 7, 10_000)
Arrays = Mapping[str, Any]


def normal(*shape: int, rows: int = COUNTS[-1], dtype: str = "float32") -> Any:
    """Rows of a shape, the same on every run."""
    return np.random.RandomState(5).normal(size=(rows, *shape)).astype(dtype)


def whole(*shape: int, below: int, rows: int = COUNTS[-1], dtype: str = "int64") -> Any:
    """Rows of whole numbers."""
    return np.random.RandomState(6).randint(0, below, size=(rows, *shape)).astype(dtype)


def keep(model: Path, rows: Arrays, ask: Callable[[dict[str, Any]], Arrays]) -> None:
    """Ask the original 1, 7 and, where there are so many rows, 10,000 of them at once, and write all of it."""
    most = len(next(iter(rows.values())))
    arrays = {f"in.{name}": array for name, array in rows.items()}
    for count in (count for count in COUNTS if count <= most):
        found = ask({name: array[:count] for name, array in rows.items()})
        arrays.update({f"{count}.{name}": np.asarray(array) for name, array in found.items()})
    np.savez(model.with_name(f"{model.name}.npz"), **arrays)


def one_by_one(ask: Callable[[dict[str, Any]], Arrays]) -> Callable[[dict[str, Any]], Arrays]:
    """Of a model that takes one row at a time."""

    def asked(rows: dict[str, Any]) -> Arrays:
        count = len(next(iter(rows.values())))
        found = [ask({name: array[at : at + 1] for name, array in rows.items()}) for at in range(count)]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    return asked

"""Figures and the table they are printed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value; `promised` is what it must end at, where something is promised."""

    name: str
    value: float
    unit: str
    promised: str = ""


def print_table(figures: list[Figure]) -> None:
    """One line a figure, aligned."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        promised = f"   (promised {figure.promised})" if figure.promised else ""
        print(f"{figure.name:<{width}}  {figure.value:>12,.2f} {figure.unit}{promised}")

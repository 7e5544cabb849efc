"""What the tables of an `edgepack.toml` must say beyond their types: ranges, sizes, names that fit together."""

from __future__ import annotations

import math

from bundle.pipeline import MOST_REPLICAS, MOST_WEIGHT, parse_bytes
from edgepack.errors import BadInput
from packager.grammar import ProjectTable, StepTable


def check_settings(table: ProjectTable) -> None:
    """Raise BadInput for a size or number that is out of its range."""
    for key, size in (("log.max_bytes", table.log.max_bytes), ("resources.memory", table.resources.memory)):
        try:
            parse_bytes(size)
        except BadInput as error:
            raise BadInput(f"{key}: {error}", field=key) from error
    low = {
        "log.max_value_bytes": (table.log.max_value_bytes, 0),
        "resources.gpus": (table.resources.gpus, 0),
        "resources.replicas": (table.resources.replicas, 1),
        **_tolerances(table),
    }
    for key, (value, least) in low.items():
        if not (math.isfinite(value) and value >= least):
            raise BadInput(f"{key} = {value}: expected {least} or more", field=key)
    if table.resources.replicas > MOST_REPLICAS:
        most = f"resources.replicas = {table.resources.replicas}: expected {MOST_REPLICAS} or fewer"
        raise BadInput(most, field="resources.replicas")
    if not 0 < table.resources.cpus < math.inf:
        raise BadInput(f"resources.cpus = {table.resources.cpus}: expected more than 0", field="resources.cpus")


def _tolerances(table: ProjectTable) -> dict[str, tuple[float, int]]:
    given = table.golden.tolerance
    if isinstance(given, dict):
        return {f"golden.tolerance.{name}": (each, 0) for name, each in given.items()}
    return {"golden.tolerance": (given, 0)}


def check_routing(key: str, whole: ProjectTable, table: StepTable) -> None:
    """Raise BadInput for what a step of several models lacks, or must not have."""
    if (table.model is None) == (not table.split):
        raise BadInput(f"{key} needs either a `model` or a `split` between [models.<name>]", field=f"{key}.model")
    for part, names in (("split", list(table.split or {})), ("shadow", table.shadow or [])):
        for name in names:
            if name not in whole.models:
                there = ", ".join(whole.models) or "none"
                raise BadInput(
                    f"{key}.{part} names '{name}': no [models.{name}], there is {there}", field=f"{key}.{part}"
                )
    if table.split and table.optimize is not None:
        raise BadInput(
            f"{key}.optimize beside a split does not say of which model: write it in [models.<name>]",
            field=f"{key}.optimize",
        )
    for name in table.shadow or []:
        if name in (table.split or {}) or (table.shadow or []).count(name) > 1:
            raise BadInput(f"{key}.shadow names '{name}', which is in the step already", field=f"{key}.shadow")
    wrong = [name for name, weight in (table.split or {}).items() if not 1 <= weight <= MOST_WEIGHT]
    if wrong:
        raise BadInput(f"{key}.split.{wrong[0]}: expected a weight of 1 to {MOST_WEIGHT}", field=f"{key}.split")
    if table.key is not None and (not table.split or not table.key.startswith("in.") or table.key == "in."):
        raise BadInput(f"{key}.key = '{table.key}': expected 'in.<field>', beside a split", field=f"{key}.key")


def check_all_used(table: ProjectTable) -> None:
    """Raise BadInput for a model that is named and has no place in a step."""
    used = {name for step in table.steps for name in (*(step.split or {}), *(step.shadow or []))}
    for name in table.models:
        if name not in used:
            raise BadInput(f"[models.{name}] is in no split and no shadow of a step: remove it", field=f"models.{name}")

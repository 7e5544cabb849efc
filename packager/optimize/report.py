"""What the parity report says of quantized models, as it is stored and as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bundle.losses import Loss


def fields(found: Mapping[str, Loss]) -> dict[str, Any]:
    """Losses by field."""
    return {name: msgspec.to_builtins(loss) for name, loss in found.items()}


def table(report: Mapping[str, Any]) -> list[str]:
    """The part on quantized models: a line a model, a line a field; nothing where there are none."""
    lines = []
    for name, each in report.get("optimize", {}).items():
        sizes = each["size_bytes"]
        became = ", ".join(f"{count} {kind}" for kind, count in each["operators"].items())
        lines.append(f"step '{name}' quantized, {each['quantize']}: {became}")
        lines.append(f"  {'bytes':19}{sizes['before']:,} before, {sizes['after']:,} after")
        lines += _losses(each["fields"])
        lines += [f"  {'calibrated with':19}{each['calibration']}"] if each["calibration"] else []
        lines.append(f"  {'tolerance':19}{each['tolerance']:g} of a field's range, and of labels")
    if "loss" in report:
        lines += ["the pipeline, its models quantized", *_losses(report["loss"].get("fields", {}))]
        lines.append(f"  {'allowed on devices':19}{report['loss']['allowed']:g} of a field's range, and of labels")
    return lines


def _losses(fields: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"  {name:19}{_line(loss)}" for name, loss in fields.items()]


def _line(loss: Mapping[str, Any]) -> str:
    distances = f"{loss['max_abs']:.2g} absolute, {loss['max_rel']:.2g} relative"
    flips = f"{loss['label_flips']} label flips, {loss['argmax_flips']} argmax flips"
    return f"{loss['of_range']:.2g} of its range, {distances}, {flips}"

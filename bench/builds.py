"""Cold and warm builds of the example, for each architecture: seconds, CPU seconds, bytes."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from bench.cost import Cost, run
from bench.table import Figure

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "wine-line"
EDGEPACK = str(Path(sys.executable).with_name("edgepack"))


def measure_builds() -> list[Figure]:
    """Three builds an architecture: no layer cached (wheels and .debs are), all cached, and with another model."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "wine-line"
        shutil.copytree(EXAMPLE, project)
        _build(project, "x86", [])  # downloads what is missing
        _build(project, "arm", [])
        for arch in ("x86", "arm"):
            figures += _of(project, arch)
    return figures


def _of(project: Path, arch: str) -> list[Figure]:
    cold = _build(project, arch, ["--no-layer-cache"])
    warm = _build(project, arch, [])
    change_model(project)
    changed = _build(project, arch, [])
    size = json.loads(cold.output)["size_bytes"]
    return [
        Figure(f"build {arch}, wheels cached, no layer cached", cold.seconds, "s", "≤ 6 s"),
        Figure(f"build {arch}, wheels cached, no layer cached, CPU", cold.cpu_s, "s"),
        Figure(f"build {arch}, nothing changed", warm.seconds, "s"),
        Figure(f"build {arch}, nothing changed, CPU", warm.cpu_s, "s"),
        Figure(f"build {arch}, model changed", changed.seconds, "s", "≤ 1 s"),
        Figure(f"build {arch}, model changed, CPU", changed.cpu_s, "s"),
        Figure(f"image {arch}", size / 1e6, "MB", "≤ 110 MB"),
    ]


def _build(project: Path, arch: str, flags: list[str]) -> Cost:
    return run(
        [
            EDGEPACK,
            "build",
            str(project),
            "--arch",
            arch,
            "-o",
            str(project.parent / "out.tar"),
            "--json",
            *flags,
        ]
    )


def change_model(project: Path) -> None:
    """Give the model another producer version: other bytes, the same answers."""
    import onnx

    path = project / "wine-line.onnx"
    model = onnx.load(path)
    model.producer_version = f"{model.producer_version}+"
    path.write_bytes(model.SerializeToString())

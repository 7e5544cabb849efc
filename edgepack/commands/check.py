"""`edgepack check`: everything that packaging would look at, without writing a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands._source import SOURCE, opened_project
from edgepack.errors import EdgepackError

if TYPE_CHECKING:
    from packager.checks import Checklist
    from packager.package import Packaged


@click.command()
@click.argument("source", type=SOURCE, default=Path())
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="A folder of wheels that win over the index, and suffice without one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, wheels: Path | None, as_json: bool) -> None:
    """Check a model file or a project: its versions, fields, validations and golden rows, and that it answers as
    expected.

    SOURCE is a model (a file, or the folder of a SavedModel), or a folder with an edgepack.toml. The model runs in a
    child process. Exit code 2 when a check fails; the line on standard error says which.

    \b
    Example:
      edgepack check examples/wine-line
      edgepack check model.onnx --json
      edgepack check model.pkl --wheels wheelhouse/
    """
    from edgepack.commands import _progress
    from packager.checks import Checklist

    checklist = Checklist(progress=_progress.show, notice=_progress.notice)
    packaged: Packaged | None = None
    try:
        packaged = _packaged(source, checklist, wheels)
    except EdgepackError:
        _progress.clear()
        _report(checklist, None, as_json)
        raise
    _progress.clear()
    _report(checklist, packaged, as_json)


def _packaged(source: Path, checklist: Checklist, wheels: Path | None) -> Packaged:
    from arch.target import host_target
    from edgepack.commands.cache import cache_folder
    from packager.package import package
    from packager.wheels import Told, WheelSource

    with checklist.check("project.reads") as found:
        project = opened_project(source)
        found.append(f"pipeline '{project.name}'")
    checklist.require()
    local = WheelSource(wheels, report=Told(checklist.progress, checklist.notice))
    return package(project, [host_target()], checklist=checklist, cache=cache_folder(os.environ), wheels=local)


def _report(checklist: Checklist, packaged: Packaged | None, as_json: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(report(checklist, packaged)))
        return
    from packager import parity

    refusals = [check for check in checklist.checks if not check.passed]
    for check in checklist.checks:
        # the first refusal is the error line on standard error: it is not said twice
        said = check.looked_at if refusals[:1] == [check] else check.description
        click.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.key:22} {said}")
        if check.fix:
            click.echo(f"     {'':22} fix: {check.fix}")
    for line in parity.table(packaged.parity) if packaged else ():
        click.echo(f"     {line}")
    for line in _runtimes(packaged) if packaged else ():
        click.echo(f"     {line}")
    for note in packaged.notes if packaged else ():
        click.echo(f"note: {note}")


def _runtimes(packaged: Packaged) -> list[str]:
    """What each step runs in that the table above does not have: those that were not converted."""
    converted = packaged.parity.get("steps", {})
    others = [step for step in packaged.spec.steps if step.name not in converted]
    return [
        f"step '{step.name}' runs in {step.runtime}{': ' if step.reason else ''}{step.reason or ''}" for step in others
    ]


def report(checklist: Checklist, packaged: Packaged | None) -> dict[str, Any]:
    """The object that `--json` prints."""
    checks = [
        {"key": c.key, "category": c.category, "passed": c.passed, "description": c.description, "fix": c.fix}
        for c in checklist.checks
    ]
    steps = [
        {
            "name": model.name,
            "framework": model.framework,
            "runtime": model.runtime,
            "reason": model.reason,
            "parity": _figures(packaged.parity, model.name),
        }
        for step in (packaged.spec.steps if packaged else ())
        for model in step.every_model
        if packaged
    ]
    found = {"checks": checks, "steps": steps, "notes": list(packaged.notes) if packaged else []}
    return {**found, "provenance": packaged.parity.get("provenance", {})} if packaged else found


def _figures(parity: dict[str, Any], step: str) -> dict[str, Any]:
    """How a step compared with its original; where it was not converted, how the pipeline did."""
    proven = parity.get("steps", {}).get(step)
    alone = parity.get("others", {}).get(step)  # of a split or shadow
    found = {key: (proven or alone or parity)[key] for key in ("rows", "max_abs", "max_rel", "label_flips")}
    quantized = parity.get("optimize", {}).get(step)
    return {
        **found,
        **({"trail": proven["trail"]} if proven else {}),
        **({"optimize": quantized} if quantized else {}),
    }

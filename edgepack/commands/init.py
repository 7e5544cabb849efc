"""`edgepack init`: from a model to a project: an `edgepack.toml` with the fields that the model has."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from packager.scaffold import Scaffold


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--framework", metavar="NAME", help="What the model was made with. Default: told by its content.")
@click.option("--name", metavar="NAME", help="Of the pipeline, a DNS label. Default: the file's name, made legal.")
@click.option("--input", "inputs", multiple=True, metavar="FIELD=TYPE", help="A field it takes; may be given again.")
@click.option("--output", "outputs", multiple=True, metavar="FIELD=TYPE", help="A field it gives; may be given again.")
@click.option("--golden", metavar="FILE", help="A file of golden rows beside the model.")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="A folder of wheels that win over the index, and suffice without one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    framework: str | None,
    name: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    golden: str | None,
    wheels: Path | None,
    as_json: bool,
) -> None:
    """Write an edgepack.toml beside MODEL, with the fields that the model says it has.

    MODEL is a file, or a folder or zip of code. Nothing is overwritten. Where the model does not say its fields, give
    them, or write them into the file. A program that registers a model with vessl is run once, in a sandbox, and what
    it registers becomes a project beside it.

    \b
    Example:
      edgepack init --framework sklearn model.pkl
      edgepack init step.zip --input x='list<float32>[4]' --output y=float32
    """
    from bundle.pipeline import dns_label
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager.checks import Checklist
    from packager.dialects.vessl_layout import is_program
    from packager.scaffold import source_of, write_project

    fields = {side: _fields(side, given) for side, given in (("input", inputs), ("output", outputs)) if given}
    if golden and not (model.parent / golden).is_file():
        raise BadInput(f"--golden '{golden}' is not a file beside '{model.name}': copy it there", field="golden")
    if is_program(model) and framework in (None, "vessl"):
        _from_program(model, name, fields, golden, wheels, as_json)
        return
    source = source_of(model, framework, fields, dns_label(name) if name else None)
    checklist = partial(Checklist, progress=_progress.show, notice=_progress.notice)
    try:
        found = write_project(
            source, golden=golden, cache=cache_folder(os.environ), wheels=wheels, new_checklist=checklist
        )
    finally:
        _progress.clear()
    _print(found, as_json)


def _from_program(
    program: Path,
    name: str | None,
    fields: dict[str, dict[str, str]],
    golden: str | None,
    wheels: Path | None,
    as_json: bool,
) -> None:
    """A program that registers a model is run once, in a sandbox; what it registers becomes the project."""
    from bundle.pipeline import dns_label
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager.dialects.vessl_program import write_vessl_project

    try:
        found = write_vessl_project(
            program.absolute(),
            cache_folder(os.environ),
            os.environ,
            name=dns_label(name) if name else None,
            fields=fields,
            golden=program.parent / golden if golden else None,
            wheels=wheels,
            notice=_progress.notice,
            progress=_progress.show,
        )
    finally:
        _progress.clear()
    if as_json:
        said = {"name": found.name, "framework": "vessl", "path": str(found.path), "model": found.registered.repository}
        click.echo(json.dumps({**said, "number": found.registered.number}))
        return
    click.echo(f"wrote {found.path.parent}: {found.registered.runner} of '{found.registered.repository}'")
    if not (golden or fields):
        click.echo("to do: name its fields in the edgepack.toml, or put rows that it can answer into golden.json")


def _fields(side: str, given: tuple[str, ...]) -> dict[str, str]:
    """`tensor=list<float32>[4]` → field and type."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, type_ = text.partition("=")
        if not separator or not name.strip() or not type_.strip():
            raise BadInput(f"--{side} '{text}' is not FIELD=TYPE: write it as x='list<float32>[4]'", field=side)
        if name.strip() in found:
            raise BadInput(f"--{side} names '{name.strip()}' twice", field=side)
        found[name.strip()] = type_.strip()
    return found


def _print(found: Scaffold, as_json: bool) -> None:
    if as_json:
        import orjson

        said = {
            "pipeline": found.name,
            "framework": found.framework,
            "path": str(found.path),
            "input": dict(found.input),
            "output": dict(found.output),
            "todo": [f"steps.{side}" for side in found.todo],
        }
        click.echo(orjson.dumps(said))
        return
    click.echo(f"written {found.path}: pipeline '{found.name}', framework {found.framework}")
    for side, fields in (("in", found.input), ("out", found.output)):
        for field, type_ in fields.items():
            click.echo(f"  {side}.{field}: {type_}")
    for side in found.todo:
        click.echo(f"  to do: name the fields of [steps.{side}] in it")
    click.echo(f"next: edgepack check {found.path.parent}")

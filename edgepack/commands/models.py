"""`edgepack models`: what a model registry has: models, their versions, the artifacts of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from packager.registries.mlflow_registry import Artifact, MlflowRegistry, Model


@click.command("models", short_help="List the models of a registry.")
@click.argument("model", required=False, metavar="[NAME[/VERSION]]")
@click.option("--registry", metavar="URL|NAME", help="Default: $MLFLOW_TRACKING_URI, else the only one that is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(model: str | None, registry: str | None, as_json: bool) -> None:
    """List the models of a registry; of a NAME its versions, newest first; of NAME/VERSION its artifacts.

    VERSION is a number, a stage or `latest`; NAME@ALIAS is a version too. A version is a SOURCE of the other commands
    as models:/NAME/VERSION, an artifact by its full path.

    \b
    Example:
      edgepack models --registry https://mlflow.example
      edgepack models wine-quality/latest --json
      MLFLOW_TRACKING_URI=https://mlflow.example edgepack build models:/wine-quality/3
    """
    from edgepack.commands._hub_client import print_json
    from edgepack.commands._source import opened_registry

    with opened_registry(registry, os.environ) as found:
        if model and ("/" in model or "@" in model):
            artifacts, version = _artifacts(found, model)
            rows = [{"name": a.name, "size_bytes": a.size_bytes, "full_path": a.full_path} for a in artifacts]
            said = {"registry": found.session.url, "model": model.partition("/")[0].partition("@")[0]}
            if as_json:
                print_json({**said, "version": version, "artifacts": rows})
            else:
                _show_artifacts(artifacts)
            return
        models = found.models(model or None)
        if as_json:
            print_json({"registry": found.session.url, "models": models})
        elif model:
            _show_versions(models[0])
        else:
            _show_models(models)


def _artifacts(registry: MlflowRegistry, text: str) -> tuple[list[Artifact], str]:
    from packager.registries.address import parse_address

    address = parse_address(f"models:/{text}")
    version, place = registry.resolve(address)
    artifacts = registry.artifacts(place)
    if not all(each.name for each in artifacts):
        raise BadInput(f"the registry lists no files of version {version} of '{address.name}': was it logged whole?")
    return artifacts, version


def _show_models(models: list[Model]) -> None:
    from edgepack.commands._hub_client import print_table

    rows = [
        (each.name, each.user or "", str(len(each.versions)), each.created_at or "", each.updated_at or "")
        for each in models
    ]
    print_table(("name", "user", "versions", "created", "updated"), rows)


def _show_versions(model: Model) -> None:
    from edgepack.commands._hub_client import print_table

    rows = [
        (each.version, each.stage or "", ", ".join(each.aliases), each.created_at or "", each.description or "")
        for each in model.versions
    ]
    print_table(("version", "stage", "aliases", "created", "description"), rows)


def _show_artifacts(artifacts: list[Artifact]) -> None:
    from edgepack.commands._hub_client import print_table

    rows = [(a.name, "" if a.size_bytes is None else str(a.size_bytes), a.full_path) for a in artifacts]
    print_table(("file", "bytes", "full path"), rows)

"""SOURCE of a command: a path, or a model in a registry, which is fetched into the cache when it is named."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packager.project import Project
    from packager.registries.mlflow_registry import MlflowRegistry

# told here, so that a plain path loads nothing of registries; `packager.registries.address` reads what it is
_ADDRESS = re.compile(r"(models|mlflow-artifacts|dbfs|runs|https?):/", re.IGNORECASE)


class SourcePath(click.Path):
    """A path on this machine; a model of a registry becomes one."""

    name = "source"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises as `fetch_source` for an address."""
        if isinstance(value, str) and is_address(value):
            return fetched(value, os.environ)
        return super().convert(value, param, ctx)


SOURCE = SourcePath()


def is_address(text: str) -> bool:
    """Whether a source is written as one in a registry, rightly or not."""
    return _ADDRESS.match(text) is not None


def opened_project(source: Path) -> Project:
    """The project of a source. Raises BadInput that names the file or key at fault."""
    from packager.project import Project

    return Project.open(source, working_folder(source))


def working_folder(source: Path) -> Path | None:
    """Where the lock, made rows and target files of a source lie that was fetched: in the working directory, where
    `dist/` goes as well, because the cache is pruned. None: beside the source, as of any that is a file of the user's.
    """
    from edgepack.commands.cache import cache_folder
    from packager.registries.kept import is_download

    return Path.cwd() if is_download(source, cache_folder(os.environ)) else None


def fetched(address: str, environ: Mapping[str, str]) -> Path:
    """A model of a registry on this machine. Raises BadInput, Unreachable or RuntimeFailed in one line."""
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager.registries.address import parse_address
    from packager.registries.download import fetch_source

    found = parse_address(address)
    try:
        _progress.show("asking the registry")
        with opened_registry(found.registry, environ) as registry:
            return fetch_source(registry, found, cache_folder(environ), _progress.notice)
    finally:
        _progress.clear()


@contextlib.contextmanager
def opened_registry(given: str | None, environ: Mapping[str, str]) -> Iterator[MlflowRegistry]:
    """The registry that is meant (see `_registry_logins`), for the time of a `with`."""
    from edgepack.commands._registry_logins import registry_credentials, registry_url
    from packager.registries.mlflow_registry import MlflowRegistry
    from packager.registries.session import RegistrySession

    url = registry_url(given, environ)
    with RegistrySession(url, registry_credentials(url, environ)) as session:
        yield MlflowRegistry(session)

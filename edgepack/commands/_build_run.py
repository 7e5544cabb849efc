"""What `edgepack build` does with its options: check and pack the model, build, deliver, print."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arch.catalog import Catalog
    from arch.target import Target
    from buildx.options import Options, Workplace
    from edgepack.commands._terminal import TerminalReport
    from packager.package import Packaged
    from packager.project import Project


@dataclass(frozen=True)
class Asked:
    """The options of the command, by the names that they have there."""

    source: Path
    archs: tuple[str, ...]
    accel: str
    targets: tuple[str, ...]
    builder: str
    base: str | None
    wheels: Path | None
    compression: str
    output: Path | None
    push: str | None
    plain_http: bool
    load: bool
    emits: tuple[str, ...]
    no_layer_cache: bool
    locked: bool
    as_json: bool


def run_build(asked: Asked) -> None:
    """Build what was asked for, and print the outcome."""
    from buildx.build import build
    from buildx.engine import Engine
    from edgepack.commands._build_result import emit, show
    from edgepack.commands._push import Push
    from edgepack.commands._source import opened_project
    from edgepack.commands._terminal import TerminalReport
    from edgepack.commands.cache import cache_folder
    from oci.tar import check_place

    if asked.output is not None:
        check_place(asked.output)
    catalog = _catalog(asked.source)
    wanted = wanted_targets(asked.archs, asked.accel, asked.targets, catalog)
    environ, cache, is_pushed = os.environ, cache_folder(os.environ), asked.push is not None
    with (
        TerminalReport() as report,
        Push.opened(asked.push, asked.base, asked.plain_http, environ, cache, report) as registry,
    ):
        engine = Engine.connect(environ) if asked.load else None  # what is missing is said before the work begins
        report.step("checking the model")
        project = opened_project(asked.source)
        packaged = _packaged(asked, project, wanted, catalog, cache, report)
        sinks = [registry] if registry else []
        workplace = _workplace(asked, environ, cache, report)
        built = build(packaged.index, wanted, _options(asked, project), workplace, report, sinks, engine)
        files = emit(built, packaged.spec, asked.emits, is_loaded=asked.load, is_pushed=is_pushed)
    is_auto = asked.builder == "auto"
    show(built, packaged, files, is_auto=is_auto, is_loaded=asked.load, is_pushed=is_pushed, as_json=asked.as_json)


def wanted_targets(
    archs: tuple[str, ...], accel: str, targets: tuple[str, ...], catalog: Catalog | None = None
) -> list[Target]:
    """What the options ask for; without any, this machine's architecture with the accelerator."""
    from arch.target import Target, host_target

    parse = catalog.parse if catalog else Target.parse
    asked = [parse(text) for text in (*targets, *(f"{arch}/{accel}" for arch in archs))]
    return sorted(set(asked)) or [parse(f"{host_target().arch}/{accel}")]


def _catalog(source: Path) -> Catalog:
    from arch.catalog import Catalog
    from edgepack.commands.targets import target_folders

    return Catalog.read(target_folders(source), os.environ)


def _packaged(
    asked: Asked, project: Project, wanted: list[Target], catalog: Catalog, cache: Path, report: TerminalReport
) -> Packaged:
    """The bundle, for the plain targets always: an image shall not depend on which others were built beside it."""
    from arch.target import plain_targets
    from edgepack.commands import _progress
    from packager.checks import Checklist
    from packager.package import package
    from packager.wheels import WheelSource

    return package(
        project,
        {*plain_targets(), *wanted},
        checklist=Checklist(progress=report.step, notice=_progress.notice),
        asked=wanted,
        cache=cache,
        wheels=WheelSource(asked.wheels, asked.locked, report),
        catalog=catalog,
    )


def _options(asked: Asked, project: Project) -> Options:
    from buildx.options import Options

    return Options(
        project.kept_in,
        _touched(asked.source),
        asked.output,
        asked.base,
        asked.wheels,
        asked.compression,
        asked.locked,
        not asked.no_layer_cache,
        builder="buildx" if asked.builder == "buildx" else "direct",
        reference=asked.push,
        keep_file=asked.push is None,
        plain_http=asked.plain_http,
    )


def _workplace(asked: Asked, environ: Mapping[str, str], cache: Path, report: TerminalReport) -> Workplace:
    from buildx.options import Workplace
    from edgepack.commands._credentials import find_credentials
    from edgepack.commands.targets import own_targets

    return Workplace(
        cache,
        environ,
        targets=(own_targets(),),
        terminal=report.is_terminal,
        credentials=lambda host: find_credentials(host, environ, asked.plain_http),
    )


def _touched(source: Path) -> Path:
    """What git is asked about: the folder of an edgepack.toml, or the model file."""
    source = source.absolute()
    return source.parent if source.name == "edgepack.toml" else source

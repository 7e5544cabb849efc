"""`edgepack serve`: packager makes the bundle, the agent serves it: the one place where the two meet."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from edgepack.commands._source import SOURCE, opened_project
from edgepack.errors import BadInput

if TYPE_CHECKING:
    from bundle.model_folders import Found
    from columns.columns import Columns
    from edge_agent.agent import Agent
    from edge_agent.pipelines.active_pipeline import ActivePipeline
    from edge_agent.run import Stop
    from packager.live import LiveSource
    from packager.package import Packaged
    from packager.project import Project

RECORDS = "application/json; format=pandas-records"
_LARGE = 20_000_000  # bytes of wheels: what takes seconds to unpack
_LONGEST_LINE = 2000  # characters of a row that a command line shows; a longer one goes to a file beside the data


@click.command(name="serve", short_help="Serve models on this machine.")
@click.argument("sources", nargs=-1, required=True, type=SOURCE, metavar="SOURCE...")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Where bundle and log are kept.")
@click.option("--wheels", type=click.Path(path_type=Path), help="A folder of wheels that win over the index.")
@click.option(
    "--reload-s",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds in which changed models of a Cortex project or a folder of models are taken; 0: never.",
)
@click.option("--cache-size", type=click.IntRange(1), help="At most so many of these models in memory. Default: all.")
@click.option("--disk-cache-size", type=click.IntRange(1), help="At most so many on the disk. Default: all.")
@click.option(
    "--containers/--no-containers",
    default=True,
    show_default=True,
    help="Start the images of mlflow-image steps with this machine's docker engine; see EDGEPACK_STEP_<NAME>_URL.",
)
def command(
    sources: tuple[Path, ...],
    port: int,
    host: str,
    data: Path | None,
    wheels: Path | None,
    reload_s: float,
    cache_size: int | None,
    disk_cache_size: int | None,
    containers: bool,
) -> int:
    """Check and package each SOURCE, then answer inference requests until Ctrl-C, as a device would.

    SOURCE is a model file, a folder with an edgepack.toml or a cortex.yaml, or a folder of models: those two are
    followed, and what changes in them is served without a failed request. Every row is logged in the data folder;
    POST /logs shows the log.

    \b
    Example:
      edgepack serve ccfraud.onnx
      edgepack serve wine-line/ cooler/ --port 9000
      edgepack serve models/ --reload-s 10
    """
    from edge_agent.http.listening import listen
    from edge_agent.run import stopped_by_signal
    from edgepack.commands._containers import projects_with_images, step_containers

    listen(host, port).close()  # a port in use is told before a model is checked and anything is written
    with (
        stopped_by_signal() as stop,
        TemporaryDirectory(prefix="edgepack-serve-") as work,
        step_containers(projects_with_images(sources), os.environ, allowed=containers),
    ):
        following = Following(reload_s, cache_size, disk_cache_size)
        return _serve(sources, wheels, Place(host, port, data, Path(work)), following, stop)


@dataclass(frozen=True)
class Place:
    """Where to listen, where to keep data (None: by the pipelines' names), and a folder for the moment."""

    host: str
    port: int
    data: Path | None
    work: Path


@dataclass(frozen=True)
class Following:
    """How models that change are followed: seconds (0: not at all), and how many stay in memory and on the disk."""

    reload_s: float = 30.0
    cache_size: int | None = None
    disk_cache_size: int | None = None


def _serve(sources: tuple[Path, ...], wheels: Path | None, place: Place, following: Following, stop: Stop) -> int:
    from edge_agent.config import Config
    from edge_agent.run import run_agent
    from edge_agent.telemetry.events import set_up_logging

    live = [each for source in sources if (each := _live(source, wheels, place)) is not None]
    before = [each.look() for each in live]
    packaged = _package(sources, wheels, live)
    names = [each.spec.name for each in packaged]
    data = (place.data or _default_data(names)).absolute()
    _check_not_enrolled(data)
    layouts = _layouts(packaged, place.work)
    _say_installing(packaged, data)

    def ready(agent: Agent, url: str) -> None:
        for layout in layouts:
            shutil.rmtree(layout)  # what of it serves lies in the data folder
        for name in {*agent.state.installed(), *agent.serving.names} - set(names):
            agent.state.remove(name)
            agent.serving.remove(name)
        _follow(agent, live, before, packaged, following)
        _say_ready(agent, url, data)

    config = Config.read(os.environ, data=data, host=place.host, port=place.port).alone()
    set_up_logging(config.log_format, access=config.access_log, level=logging.WARNING)
    return run_agent(config, layouts, strict=True, alone=True, ready=ready, stop=stop)


def _package(sources: Sequence[Path], wheels: Path | None, live: Sequence[LiveSource]) -> list[Packaged]:
    packaged: dict[str, Packaged] = {}
    followed = {each.source: each for each in live}
    for source in sources:
        projects = followed[source].projects() if source in followed else [opened_project(source)]
        for project in projects:
            made = _packaged(project, wheels)
            for note in made.notes:
                click.echo(note, err=True)
            if made.spec.name in packaged:
                raise BadInput(
                    f"two sources make a pipeline '{made.spec.name}': give one another name in its edgepack.toml"
                )
            packaged[made.spec.name] = made
    return list(packaged.values())


def _packaged(project: Project, wheels: Path | None) -> Packaged:
    from arch.target import host_target
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager import Checklist, package
    from packager.wheels import Told, WheelSource

    checklist = Checklist(progress=_progress.show, notice=_progress.notice)
    local = WheelSource(wheels, report=Told(checklist.progress, checklist.notice))
    made = package(
        project, [host_target()], checklist=checklist, cache=cache_folder(os.environ), wheels=local, here=True
    )
    _progress.clear()
    return made


def _live(source: Path, wheels: Path | None, place: Place) -> LiveSource | None:
    from packager.live import live_source

    return live_source(source, partial(_packaged, wheels=wheels), place.work / "live")


def _follow(
    agent: Agent, live: Sequence[LiveSource], looks: Sequence[Found], packaged: Sequence[Packaged], following: Following
) -> None:
    """Have the agent follow what changes, and serve the versions beside the highest ones."""
    from edge_agent.live.versions import Budget

    if not live:
        return
    budget = Budget(following.cache_size, following.disk_cache_size)
    models = agent.live_models(live, interval_s=following.reload_s or 30.0, budget=budget, trial=False)
    numbers = {each.spec.name: str(each.spec.number) if each.spec.number is not None else "" for each in packaged}
    for source, look in zip(live, looks, strict=True):
        models.adopt(source, look, {name: numbers[name] for name in look.marks})
    models.start(follow=following.reload_s > 0)


def _say_installing(packaged: Sequence[Packaged], data: Path) -> None:
    """Libraries of python steps are unpacked into a data folder once, which may take a minute without a word."""
    from bundle.bundle import bundles
    from edge_agent.folders import Folders

    blobs = {path: blob for each in packaged for path, blob in bundles(each.index)[0].blobs.items()}
    wheels = [blob.descriptor.size for path, blob in blobs.items() if path.startswith("wheels/")]
    if sum(wheels) > _LARGE and not Folders(data).environments.is_dir():
        size = f"{len(wheels)} wheels, {sum(wheels) / 1e6:.0f} MB"
        click.echo(f"installing the libraries of python steps once, into '{data}': {size}", err=True)


def _default_data(names: list[str]) -> Path:
    from platformdirs import user_data_path

    return user_data_path("edgepack") / "serve" / "+".join(names)


def _check_not_enrolled(data: Path) -> None:
    """A device's own data folder is not for trying things: its hub decides what it serves."""
    from edge_agent.folders import Folders
    from edge_agent.state import State

    path = Folders(data).state
    if not path.is_file():
        return
    with ExitStack() as stack:
        state = State.read(path)
        stack.callback(state.close)
        enrolled = state.enrolment()
    if enrolled:
        raise BadInput(
            f"data folder '{data}' belongs to a device of {enrolled.hub}: choose another with --data", field="data"
        )


def _layouts(packaged: Sequence[Packaged], work: Path) -> list[Path]:
    from oci.layout import write_layout

    folders = [work / each.spec.name for each in packaged]
    for each, folder in zip(packaged, folders, strict=True):
        write_layout(each.index, folder)
    return folders


def _say_ready(agent: Agent, url: str, data: Path) -> None:
    resting = agent.serving.resting
    is_alone = len(agent.serving.names) + len(resting) == 1
    for pipeline in agent.serving.pipelines:
        click.echo(f"serving {pipeline.name} on {url} (log: {pipeline.loaded.spec.log.durability}, data: {data})")
    if resting:
        click.echo(f"resting until they are asked for (--cache-size): {', '.join(resting)}")
    for pipeline in agent.serving.pipelines:
        row = pipeline.loaded.bundle.golden().inputs.slice(0, 1)
        if row.rows:  # of a predictor without a sample nobody knows what it takes
            click.echo("try it: " + _try_line(pipeline, is_alone, row, url, data))
    click.echo("Ctrl-C ends it")


def _try_line(pipeline: ActivePipeline, alone: bool, row: Columns, url: str, data: Path) -> str:
    from columns.json_value import QUERY, VALUE
    from columns.records import encode_records

    file = data / f"{pipeline.name}.example.json"
    if pipeline.is_program and alone:
        query = f"?{row[QUERY][0]}" if QUERY in row.schema and row[QUERY][0] else ""
        return curl_line(f"{url}/predict{query}", str(row[VALUE][0]), file, "application/json")
    path = "/infer" if alone else f"/pipelines/{pipeline.name}"
    return curl_line(url + path, encode_records(row, ".").decode(), file)


def curl_line(url: str, row: str, file: Path, media_type: str = RECORDS) -> str:
    """A line to paste into a shell. A row too long for one goes to `file`."""
    body = row
    if len(row) > _LONGEST_LINE:
        file.write_text(row)
        body = f"@{file}"
    return shlex.join(["curl", "-s", url, "-H", f"Content-Type: {media_type}", "--data-binary", body])

"""`edgepack serve`: packager makes the bundle, the agent serves it: the one place where the two meet."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from edgepack.errors import BadInput

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.run import Stop
    from packager.package import Packaged

_LONGEST_LINE = 2000  # characters of a row that a command line shows; a longer one goes to a file beside the data


@click.command(name="serve", short_help="Serve models on this machine.")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE...")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Where bundle and log are kept.")
@click.option("--wheels", type=click.Path(path_type=Path), help="A folder of wheels that win over the index.")
def command(sources: tuple[Path, ...], port: int, host: str, data: Path | None, wheels: Path | None) -> int:
    """Check and package each SOURCE, then answer inference requests until Ctrl-C, as a device would.

    SOURCE is a model file, or a folder with an edgepack.toml. Every row is logged in the data folder; POST /logs
    shows the log.

    \b
    Example:
      edgepack serve ccfraud.onnx
      edgepack serve wine-line/ cooler/ --port 9000
    """
    from edge_agent.listening import listen
    from edge_agent.run import stopped_by_signal

    listen(host, port).close()  # a port in use is told before a model is checked and anything is written
    with stopped_by_signal() as stop, TemporaryDirectory(prefix="edgepack-serve-") as work:
        return _serve(sources, wheels, Place(host, port, data, Path(work)), stop)


@dataclass(frozen=True)
class Place:
    """Where to listen, where to keep data (None: by the pipelines' names), and a folder for the moment."""

    host: str
    port: int
    data: Path | None
    work: Path


def _serve(sources: tuple[Path, ...], wheels: Path | None, place: Place, stop: Stop) -> int:
    from edge_agent.config import Config
    from edge_agent.events import set_up_logging
    from edge_agent.run import run_agent

    packaged = _package(sources, wheels)
    names = [each.spec.name for each in packaged]
    data = (place.data or _default_data(names)).absolute()
    _check_not_enrolled(data)
    layouts = _layouts(packaged, place.work)

    def ready(agent: Agent, url: str) -> None:
        for name in set(agent.serving.names) - set(names):
            agent.state.remove(name)
            agent.serving.remove(name)
        _say_ready(agent, url, data)

    config = Config.read(os.environ, data=data, host=place.host, port=place.port).alone()
    set_up_logging(config.log_format, access=config.access_log, level=logging.WARNING)
    return run_agent(config, layouts, strict=True, ready=ready, stop=stop)


def _package(sources: Sequence[Path], wheels: Path | None) -> list[Packaged]:
    from arch.target import host_target
    from edgepack.commands import _progress
    from edgepack.commands.cache import cache_folder
    from packager import Checklist, Project, package
    from packager.wheels import Told, WheelSource

    packaged: dict[str, Packaged] = {}
    for source in sources:
        checklist = Checklist(progress=_progress.show, notice=_progress.notice)
        project = Project.open(source)
        local = WheelSource(wheels, report=Told(checklist.progress, checklist.notice))
        made = package(
            project, [host_target()], checklist=checklist, cache=cache_folder(os.environ), wheels=local, here=True
        )
        _progress.clear()
        for note in made.notes:
            click.echo(note, err=True)
        if made.spec.name in packaged:
            raise BadInput(
                f"two sources make a pipeline '{made.spec.name}': give one another name in its edgepack.toml"
            )
        packaged[made.spec.name] = made
    return list(packaged.values())


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
    from columns.records import encode_records

    for pipeline in agent.serving.pipelines:
        click.echo(f"serving {pipeline.name} on {url} (log: {pipeline.loaded.spec.log.durability}, data: {data})")
    for pipeline in agent.serving.pipelines:
        path = "/infer" if len(agent.serving.names) == 1 else f"/pipelines/{pipeline.name}"
        row = encode_records(pipeline.loaded.bundle.golden().inputs.slice(0, 1), ".").decode()
        click.echo("try it: " + curl_line(url + path, row, data / f"{pipeline.name}.example.json"))
    click.echo("Ctrl-C ends it")


def curl_line(url: str, row: str, file: Path) -> str:
    """A line to paste into a shell. A row too long for one goes to `file`."""
    body = row
    if len(row) > _LONGEST_LINE:
        file.write_text(row)
        body = f"@{file}"
    header = "Content-Type: application/json; format=pandas-records"
    return shlex.join(["curl", "-s", url, "-H", header, "--data-binary", body])

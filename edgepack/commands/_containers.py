"""The containers of a project's steps while `edgepack serve` runs: started by this machine's docker engine, then ended.

A step whose address is in the environment already is somebody else's to start. Each container has no privileges to
gain, the pipeline's limits of CPU and memory, and a port of this machine's loopback alone.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import urllib3

from bundle.pipeline import address_variable, parse_bytes
from edgepack.errors import BadInput, EdgepackError
from oci.deadline import pools_with_deadline

if TYPE_CHECKING:
    from buildx.engine import Engine
    from packager.project import Project, StepSource

T = TypeVar("T")

PORT = 8080  # that MLflow's images listen on
_READY_S = 120.0
_STOP_S = 10
_PING_S = 2.0
_LABEL = "io.edgepack.step"
_NETWORK = "edgepack"


def projects_with_images(sources: Sequence[Path]) -> list[Project]:
    """Those of some sources that have a step which a container answers. Raises BadInput for one that does not read."""
    from packager.project import TOML, Project

    folders = [each for each in sources if each.name == TOML or (each / TOML).is_file()]
    found = [Project.open(each) for each in folders]
    return [project for project in found if any(step.image is not None for step in project.steps)]


@contextmanager
def step_containers(
    projects: Sequence[Project], environ: MutableMapping[str, str], *, allowed: bool, ready_s: float = _READY_S
) -> Iterator[None]:
    """Start what the projects' steps need, and say in `environ` where each answers. What cannot be started is told in
    one line: its step then refuses requests until it is there. Raises BadInput where one address would be two images'.
    """
    wanted = images_by_variable(projects)
    with ExitStack() as stack:
        engine: Engine | None = None
        for variable, (project, step) in wanted.items():
            if environ.get(variable):
                continue
            try:
                engine = engine or _engine(stack, environ, allowed)
                url = stack.enter_context(_running(engine, project, step, ready_s))
            except EdgepackError as error:
                click.echo(f"step '{step.name}' is a container that is not started: {error}", err=True)
                continue
            environ[variable] = url
            stack.callback(environ.pop, variable, None)
            click.echo(f"step '{step.name}' is answered by {step.image} on {url}", err=True)
        yield


def images_by_variable(projects: Sequence[Project]) -> dict[str, tuple[Project, StepSource]]:
    """The steps that a container answers, by the variable with its address: the first of those that have the same image
    and share it. Raises BadInput where their images differ, for one would be answered by the other's.
    """
    found: dict[str, tuple[Project, StepSource]] = {}
    for project in projects:
        for step in project.steps:
            if step.image is None:
                continue
            variable = address_variable(step.name)
            other, same = found.setdefault(variable, (project, step))
            if same.image != step.image:
                raise BadInput(
                    f"step '{step.name}' of pipeline '{project.name}' and '{same.name}' of '{other.name}' have one "
                    f"address, {variable}, and different images: rename one"
                )
    return found


def _engine(stack: ExitStack, environ: Mapping[str, str], allowed: bool) -> Engine:
    from buildx.engine import Engine

    if not allowed:
        raise BadInput("--no-containers: set EDGEPACK_STEP_<NAME>_URL to where it answers")
    try:
        found = Engine.connect(environ)
    except BadInput as error:
        said = str(error).partition(";")[0]
        raise BadInput(f"{said}; start one, or set EDGEPACK_STEP_<NAME>_URL to where it answers") from error
    stack.callback(found.close)
    return found


@contextmanager
def _running(engine: Engine, project: Project, step: StepSource, ready_s: float) -> Iterator[str]:
    """One container, from its start to its end; its address once it answers."""
    port = _free_port()  # a fixed one: the engine gives another each time that the container starts again
    container = _engine_says(step, lambda: _made(engine, project, step, port))
    try:
        _engine_says(step, container.start)
        yield _engine_says(step, lambda: _address(container, step, port, ready_s))
    finally:
        end(container)


def _engine_says(step: StepSource, work: Callable[[], T]) -> T:
    """Do something with the engine; what it refuses is BadInput, in its own words."""
    import docker.errors

    try:
        return work()
    except (docker.errors.DockerException, OSError) as error:
        said = getattr(error, "explanation", None) or error
        raise BadInput(f"'{step.image}' does not start: {' '.join(str(said).split())[:300]}") from error


def _made(engine: Engine, project: Project, step: StepSource, port: int) -> Any:
    _pull(engine, str(step.image))
    return engine.client.containers.create(
        str(step.image),
        labels={_LABEL: step.name},
        ports={f"{PORT}/tcp": ("127.0.0.1", port)},
        network=_network(engine),
        security_opt=["no-new-privileges"],
        mem_limit=parse_bytes(project.resources.memory),
        nano_cpus=int(project.resources.cpus * 1e9),
        restart_policy={"Name": "on-failure"},
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pull(engine: Engine, image: str) -> None:
    import docker.errors

    try:
        engine.client.images.get(image)
    except docker.errors.ImageNotFound:
        click.echo(f"pulling {image}", err=True)
        engine.client.images.pull(image)


def _network(engine: Engine) -> str:
    """The engine's usual network; one of our own where it has none."""
    names = {network.name for network in engine.client.networks.list()}
    if "bridge" in names:
        return "bridge"
    if _NETWORK not in names:
        engine.client.networks.create(_NETWORK, driver="bridge")
    return _NETWORK


def _address(container: Any, step: StepSource, port: int, ready_s: float) -> str:
    """Wait until the container answers; one that takes longer is served as it is, and refuses until then."""
    end, url = time.monotonic() + ready_s, f"http://127.0.0.1:{port}"
    pools = pools_with_deadline(_PING_S, retries=False)
    while not _answers(pools, url):
        container.reload()
        if container.status not in ("created", "running") or container.attrs["RestartCount"]:
            last = " ".join(container.logs(tail=1).decode(errors="replace").split())[-300:]
            raise BadInput(f"'{step.image}' ended at once: {last or 'it said nothing'}")
        if time.monotonic() > end:
            click.echo(
                f"step '{step.name}' does not answer yet after {ready_s:g} s: it is served as it comes", err=True
            )
            break
        time.sleep(0.2)
    return url


def _answers(pools: urllib3.PoolManager, url: str) -> bool:
    try:
        response = pools.request("GET", f"{url}/ping", timeout=urllib3.Timeout(total=_PING_S), preload_content=False)
        response.close()
        return response.status < 500
    except urllib3.exceptions.HTTPError:
        return False


def end(container: Any) -> None:
    """Stop a container and take it away; one that the engine does not stop in time is killed."""
    import docker.errors

    with suppress(docker.errors.DockerException, OSError):  # what is wrong with the engine, the removal says as well
        container.stop(timeout=_STOP_S)
    try:
        container.remove(force=True, v=True)
    except (docker.errors.DockerException, OSError) as error:
        click.echo(
            f"container {container.short_id} could not be removed: {' '.join(str(error).split())[:200]}", err=True
        )

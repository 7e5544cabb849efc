"""A docker engine, by way of the package `docker`: what it is, loading images into it and saving them out of it.

Building is not here: buildx has no API in that package, so its command line is called (`docker_cli.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arch.target import Target
from edgepack.errors import BadInput, BuildFailed, Unreachable
from oci.image import Image, Index
from oci.tar import tar_bytes

_TIMEOUT_S = 300
_ARCHITECTURES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
_CONTAINERD = "io.containerd.snapshotter"


@dataclass(frozen=True)
class Engine:
    """An engine that answered. `keeps_oci` says that its image store holds OCI images as they are (containerd's)."""

    version: str
    host: Target
    keeps_oci: bool
    client: Any = field(repr=False)

    @classmethod
    def connect(cls, environ: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> Engine:
        """Find the engine as docker's own command line does: DOCKER_HOST, else the current context.

        Raises BadInput without the package or an engine, with what to do.
        """
        docker = _library()
        try:
            client = docker.DockerClient.from_env(environment=dict(environ), version="auto", timeout=timeout_s)
            info = client.info()
        except (docker.errors.DockerException, OSError, ValueError) as error:
            raise BadInput(
                f"no docker engine answers{_where(environ)}: {_reason(error)}; start one or set DOCKER_HOST, or use "
                "--builder direct without --load"
            ) from error
        machine = str(info.get("Architecture", ""))
        if machine not in _ARCHITECTURES:
            raise BadInput(f"the docker engine runs on '{machine[:40]}': expected x86_64 or aarch64")
        drivers = dict(pair for pair in info.get("DriverStatus") or [] if len(pair) == 2)
        keeps_oci = str(drivers.get("driver-type", "")).startswith(_CONTAINERD)
        return cls(str(info.get("ServerVersion", "")), Target(_ARCHITECTURES[machine]), keeps_oci, client)

    def load(self, image: Image, reference: str) -> None:
        """Give the engine an image under a name; streamed, without a file.

        Raises BuildFailed with the engine's own words if it refuses.
        """
        docker = _library()
        try:
            for said in self.client.api.load_image(tar_bytes(Index((image,)), reference)):
                if "error" in said:
                    raise BuildFailed(f"the docker engine does not load '{reference}': {_line(said['error'])}")
        except docker.errors.APIError as error:
            raise BuildFailed(f"the docker engine does not load '{reference}': {_reason(error)}") from error
        except OSError as error:  # every error of requests is one
            raise Unreachable(f"the docker engine went away while it loaded '{reference}': {_reason(error)}") from error

    def save(self, reference: str, path: Path) -> None:
        """Write an image that the engine has to a tar, as `docker save` does. Raises BuildFailed if that fails."""
        docker = _library()
        try:
            pieces: Iterator[bytes] = self.client.api.get_image(reference)
            with path.open("wb") as file:
                file.writelines(pieces)
        except docker.errors.APIError as error:
            raise BuildFailed(f"the docker engine does not give '{reference}' out: {_reason(error)}") from error
        except OSError as error:
            raise BuildFailed(f"'{reference}' could not be taken from the docker engine: {_reason(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self.client.close()


def _library() -> Any:
    try:
        import docker
        import docker.errors
    except ImportError as error:
        raise BadInput(
            "the Python package 'docker' is not installed, by which edgepack speaks to an engine: "
            "pip install 'edgepack[docker]', or use --builder direct without --load"
        ) from error
    return docker


def _where(environ: Mapping[str, str]) -> str:
    host = environ.get("DOCKER_HOST", "")
    return f" at '{host}'" if host else ""


def _reason(error: BaseException) -> str:
    """The engine's own words, else the system's: the package and what it stands on wrap them several times."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return _line(explanation)
    system = next((each for each in _causes(error) if isinstance(each, OSError) and each.errno and each.strerror), None)
    return _line(system.strerror if system else error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was made of, the innermost first."""
    inner = [each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)]
    for each in (*inner, error.__cause__, error.__context__ if not inner else None):
        if each is not None:
            yield from _causes(each)
    yield error


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]

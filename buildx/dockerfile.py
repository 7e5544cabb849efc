"""The Dockerfile that `docker buildx build` is given, as text: a pure function of what the image is made of.

`FROM scratch` and `ADD` of the base's layers, so no registry is asked. Every `RUN` stands in a stage for the machine
that builds, so nothing of the target is executed and no emulator is needed. No `# syntax=` line: it would make the
engine fetch its parser from a registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buildx.wheel_files import Place
from edgepack.errors import BadInput

RECIPE = "recipe"
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Stage:
    """One layer that is made by a RUN: `folder` of the context holds what it is made of."""

    name: str
    folder: str


@dataclass(frozen=True)
class Workshop:
    """The base of the machine that builds, where its Python is, and what is made in it."""

    base: Sequence[str]
    python: str
    stages: Sequence[Stage]


@dataclass(frozen=True)
class Recipe:
    """All that a Dockerfile says. Paths are those of the context; `place` is the image's.

    `base` holds the base of the image; `ready` are layers that are unpacked last as they are.
    """

    workshop: Workshop | None
    base: Sequence[str]
    ready: Sequence[str]
    place: Place
    bytecode: bool
    config: Mapping[str, Any]

    def text(self) -> str:
        """The Dockerfile."""
        made = self._cross_stages(self.workshop) if self.workshop else ()
        return "\n".join([*made, *self._image(), ""])

    def _cross_stages(self, workshop: Workshop) -> Iterator[str]:
        yield "FROM --platform=$BUILDPLATFORM scratch AS workshop"
        yield from (f"ADD {path} /" for path in workshop.base)
        yield f"COPY {RECIPE}/ /{RECIPE}/"
        yield f"ENV PYTHONPATH=/{RECIPE} PYTHONDONTWRITEBYTECODE=1"
        for stage in workshop.stages:
            how = "bytecode" if self.bytecode else "plain"
            command = [workshop.python, "-s", "-m", "buildx.workshop", "/given", "/out", self.place.site, how]
            yield f"\nFROM workshop AS {stage.name}"
            yield f"RUN --mount=type=bind,source={stage.folder},target=/given {json.dumps(command)}"

    def _image(self) -> Iterator[str]:
        yield "\nFROM scratch"
        yield from (f"ADD {path} /" for path in self.base)
        yield from (f"COPY --from={stage.name} /out/ /" for stage in (self.workshop.stages if self.workshop else ()))
        yield from (f"ADD {path} /" for path in self.ready)
        yield from config_lines(self.config)


def config_lines(config: Mapping[str, Any]) -> Iterator[str]:
    """The settings of an image config (image-spec, "Image Configuration") as instructions."""
    yield f"USER {config['User']}"
    yield from (f"EXPOSE {port}" for port in sorted(config.get("ExposedPorts", {})))
    for line in config.get("Env", []):
        name, _, text = line.partition("=")
        yield f"ENV {name}={_quoted(text)}"
    yield f"VOLUME {json.dumps(sorted(config.get('Volumes', {})))}"
    yield from (f"LABEL {_quoted(key)}={_quoted(text)}" for key, text in sorted(config.get("Labels", {}).items()))
    yield f"STOPSIGNAL {config['StopSignal']}"
    check = config["Healthcheck"]
    times = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    options = " ".join(f"--{name}={check[key] // _SECOND_NS}s" for name, key in times.items())
    yield f"HEALTHCHECK {options} CMD {json.dumps(check['Test'][1:])}"
    yield f"ENTRYPOINT {json.dumps(config['Entrypoint'])}"
    yield f"CMD {json.dumps(config['Cmd'])}"


def _quoted(text: str) -> str:
    """A word in double quotes, in which a Dockerfile expands nothing. Raises BadInput for one that it cannot hold."""
    if "\n" in text or "\r" in text:
        raise BadInput(f"{text[:80]!r} holds a line break, which a Dockerfile cannot: use --builder direct")
    for special in ("\\", '"', "$"):
        text = text.replace(special, f"\\{special}")
    return f'"{text}"'

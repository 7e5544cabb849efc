"""What an agent is told at its start: one frozen value, read once from environment and flags, passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from arch.target import Target, host_target
from edge_agent.telemetry.events import FORMATS, LogFormat
from edge_agent.telemetry.trace_collector import Collector
from edgepack.errors import BadInput

IMAGE_DATA = Path("/persist")  # the volume that our images declare


@dataclass(frozen=True)
class Config:
    """Where an agent keeps its data, where it listens, whose it is."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    hub: str | None = None  # URL; needed once, with a token, to enrol
    token: str | None = None
    name: str | None = None  # at the hub; default: the host's name
    target: str | None = None  # what the image was built for, `arm/jetson`; default: this machine's plain target
    ca: Path | None = None  # PEM file: the CA of a hub whose certificate this machine does not trust by itself
    bundle: Path | None = None  # OCI layout folder: active until the first assignment
    seal_s: float = 5.0  # seconds between two trips home of the log
    backoff_first_s: float = 5.0  # seconds; upper end of the first wait after a failure, doubled with each
    backoff_cap_s: float = 3600.0  # seconds; no wait is longer
    trial_s: float = 120.0  # seconds that a bundle has for its golden rows
    reserve_bytes: int = 64 << 20  # of the disk, never filled by bundles
    request_s: float = 15.0  # seconds that an inference may take before its client is told to come back
    receive_s: float = 10.0  # seconds that a client has for the head of a request; for a body longer, by its length
    body_bytes: int = 64 << 20  # the largest body that is taken, also after unpacking
    header_bytes: int = 16 << 10  # the largest head of a request
    connections: int = 1024  # at once; then the idlest is closed
    idle_s: float = 60.0  # seconds that a connection may stay open without a request
    infer_threads: int = 2  # that run models which take longer than handing a request over
    queue: int = 64  # requests that wait for one of these; more are refused at once
    model_control: str = "none"  # whether clients may load and unload pipelines: none, or explicit
    models: Path | None = None  # a folder of models for predictors, by pipeline; see edge_agent.live.folder
    models_s: float = 30.0  # seconds in which a change in it answers; 0: it is looked at once
    sandbox: str = "best"  # that python steps run in: the best this kernel has, or all of it is required
    stop_s: float = 5.0  # seconds for work in progress when the agent is told to stop
    log_format: LogFormat = "text"  # of what goes to standard error: text, or json, an object a line
    access_log: bool = False  # a line a request
    collector: Collector | None = None  # where traces go

    @classmethod
    def read(cls, environment: Mapping[str, str], **flags: object) -> Config:
        """Make the configuration: a flag that is not None wins over the environment, which wins over the
        default.

        Raises BadInput that names the variable whose value does not read.
        """
        said: dict[str, object] = {}
        for name, (variable, kind) in VARIABLES.items():
            if text := environment.get(variable):
                said[name] = _value(variable, kind, text)
        said["collector"] = Collector.read(environment)
        said.update({name: value for name, value in flags.items() if value is not None})
        said.setdefault("data", default_data())
        return cls(**said)  # type: ignore[arg-type]  # names and kinds are those of VARIABLES and of the flags

    def alone(self) -> Config:
        """The same without a hub and without a device's own bundle: `edgepack serve` tries what it is given."""
        return replace(self, hub=None, token=None, ca=None, bundle=None, models=None)


VARIABLES: dict[str, tuple[str, type]] = {
    "data": ("EDGEPACK_DATA", Path),
    "host": ("EDGEPACK_HOST", str),
    "port": ("EDGEPACK_PORT", int),
    "hub": ("EDGEPACK_HUB", str),
    "token": ("EDGEPACK_JOIN_TOKEN", str),
    "name": ("EDGEPACK_NAME", str),
    "target": ("EDGEPACK_TARGET", str),
    "ca": ("EDGEPACK_CA", Path),
    "bundle": ("EDGEPACK_BUNDLE", Path),
    "seal_s": ("EDGEPACK_SEAL_S", float),
    "backoff_first_s": ("EDGEPACK_BACKOFF_FIRST_S", float),
    "trial_s": ("EDGEPACK_TRIAL_S", float),
    "reserve_bytes": ("EDGEPACK_RESERVE_BYTES", int),
    "request_s": ("EDGEPACK_REQUEST_S", float),
    "receive_s": ("EDGEPACK_RECEIVE_S", float),
    "body_bytes": ("EDGEPACK_BODY_BYTES", int),
    "header_bytes": ("EDGEPACK_HEADER_BYTES", int),
    "connections": ("EDGEPACK_CONNECTIONS", int),
    "idle_s": ("EDGEPACK_IDLE_S", float),
    "infer_threads": ("EDGEPACK_INFER_THREADS", int),
    "queue": ("EDGEPACK_QUEUE", int),
    "model_control": ("EDGEPACK_MODEL_CONTROL", str),
    "models": ("EDGEPACK_MODELS", Path),
    "models_s": ("EDGEPACK_MODELS_S", float),
    "sandbox": ("EDGEPACK_SANDBOX", str),
    "log_format": ("EDGEPACK_LOG_FORMAT", str),
    "access_log": ("EDGEPACK_ACCESS_LOG", bool),
}


_CHOICES = {
    "EDGEPACK_LOG_FORMAT": FORMATS,
    "EDGEPACK_MODEL_CONTROL": ("none", "explicit"),
    "EDGEPACK_SANDBOX": ("best", "required"),
}
_YES_OR_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def target_of(config: Config) -> Target:
    """What bundles must be for here. Raises BadInput when the image was built for another architecture."""
    here = host_target()
    said = Target.read(config.target) if config.target else here
    if said.arch != here.arch:
        raise BadInput(f"EDGEPACK_TARGET is '{said}', this machine is {here.arch}: run the image built for it")
    return said


def default_data() -> Path:
    """The image's volume where there is one that we may write to, else the user's data folder."""
    if IMAGE_DATA.is_dir() and os.access(IMAGE_DATA, os.W_OK):
        return IMAGE_DATA
    from platformdirs import user_data_path

    return user_data_path("edgepack") / "agent"


def _value(variable: str, kind: type, text: str) -> object:
    if kind is bool:
        if text.lower() not in _YES_OR_NO:
            raise BadInput(f"environment variable {variable} is '{text}': expected 1 or 0", field=variable)
        return _YES_OR_NO[text.lower()]
    choices = _CHOICES.get(variable)
    if choices and text not in choices:
        expected = " or ".join(choices)
        raise BadInput(f"environment variable {variable} is '{text}': expected {expected}", field=variable)
    try:
        value = kind(text)
    except ValueError as error:
        raise BadInput(f"environment variable {variable} is '{text}': expected a number", field=variable) from error
    if kind in (int, float) and not 0 <= value < float("inf"):
        raise BadInput(f"environment variable {variable} is '{text}': expected zero or more", field=variable)
    return value

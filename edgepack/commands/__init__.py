"""The `edgepack` program: one file a verb; each parses, calls the rooms, prints. A verb is loaded when asked for."""

from __future__ import annotations

import click

from edge_agent.verbs import VerbGroup
from edgepack import __version__

_VERBS = (
    "build",
    "bundle",
    "cache",
    "check",
    "deploy",
    "devices",
    "doctor",
    "hub",
    "infer",
    "init",
    "inspect",
    "introspect",
    "login",
    "logs",
    "models",
    "pipelines",
    "publish",
    "registries",
    "serve",
    "targets",
    "verify",
)


@click.group(cls=VerbGroup, package=__name__, verbs=_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgepack")
def program() -> None:
    """Take a trained model to edge devices.

    \b
    Example:
      edgepack check model.onnx
      edgepack serve model.onnx
      edgepack build model.onnx --arch arm
    """

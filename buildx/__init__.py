"""From a bundle to an OCI image: the direct builder, its bases and its wheels."""

from buildx.build import build
from buildx.options import Options, Workplace
from buildx.outcome import Built, BuiltImage
from buildx.report import Quiet, Report

__all__ = ["Built", "BuiltImage", "Options", "Quiet", "Report", "Workplace", "build"]

"""From an uploaded model to a bundle: detect, inspect, prove parity, pack. Model code runs in children only."""

from packager.checks import Check, Checklist
from packager.package import Packaged, package
from packager.project import Project

__all__ = ["Check", "Checklist", "Packaged", "Project", "package"]

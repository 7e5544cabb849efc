"""From a project to a bundle, as a table of contents: inspect, fit together, ask, prove, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import platformdirs

from arch.target import Target
from bundle.bundle import Bundle, attach_parity, pack
from bundle.golden import GoldenRows
from bundle.pipeline import PipelineSpec
from bundle.store import unpack
from bundle.validations import Validation
from edgepack.errors import BadInput, RuntimeFailed
from oci.digest import Digest
from oci.image import Image, Index
from packager import golden as rows
from packager import parity
from packager.artifact import ModelArtifact, inspect_step
from packager.checks import Check, Checklist
from packager.project import Project

TRIAL_S = 120.0  # seconds in which all golden rows must be answered, a row by itself and all at once


@dataclass(frozen=True)
class Packaged:
    """A bundle that was proven. `referrers` carry the parity report, one for each image of the index."""

    index: Index
    spec: PipelineSpec
    parity: dict[str, Any]
    referrers: tuple[Image, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def package(
    project: Project,
    targets: Iterable[Target],
    *,
    checklist: Checklist | None = None,
    cache: Path | None = None,
    timeout_s: float = TRIAL_S,
) -> Packaged:
    """Make the bundle of a project for some targets. Nothing of the user's is executed in this process.

    The checks made, also those before a failure, are in `checklist`; `cache` is the user's cache folder, asked for
    only where the project cannot be written. Raises BadInput that names what does not fit, RuntimeFailed when a trial
    crashes.
    """
    checklist = checklist or Checklist()
    notes = list(project.notes)
    steps = [inspect_step(step, project.root, checklist) for step in project.steps]
    spec = pipeline_spec(project, steps)
    check_pipeline(spec, steps, checklist)
    files = {path: file for step in steps for path, file in step.files.items()}
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        folder = trial_folder(spec, files, Path(work))
        trial = _Trial(project, steps, folder, timeout_s, cache or platformdirs.user_cache_path("edgepack"))
        golden, report = trial.prove(checklist, notes)
    index = pack(spec, files, golden.encode(), targets)
    referrers = tuple(attach_parity(image, parity.encode(report)) for image in index.images)
    return Packaged(index, spec, report, referrers, tuple(checklist.checks), tuple(notes))


def pipeline_spec(project: Project, steps: list[ModelArtifact]) -> PipelineSpec:
    """What travels as the bundle's config."""
    return PipelineSpec(
        name=project.name,
        steps=[step.spec for step in steps],
        validations=dict(project.validations),
        tolerance=project.golden.tolerance,
        log=project.log,
        resources=project.resources,
    )


def check_pipeline(spec: PipelineSpec, steps: list[ModelArtifact], checklist: Checklist) -> None:
    """Check what concerns steps together and the validations; all of it before the first error is raised."""
    with checklist.check("pipeline.seams") as found:
        for number, (before, after) in enumerate(pairwise(steps), 1):
            _check_seam(number, before, after)
        found.append(f"{len(steps)} {'step' if len(steps) == 1 else 'steps'}")
    for name, expression in spec.validations.items():
        with checklist.check("pipeline.validations") as found:
            Validation.compile(name, expression, steps[0].input, steps[-1].output)
            found.append(f"'{name}'")
    checklist.require()


def trial_folder(spec: PipelineSpec, files: dict[str, Path], work: Path) -> Path:
    """Unpack the bundle without golden rows, as a child will open it."""
    index = pack(spec, files, b"[]\n", [Target("x86")])
    return unpack(Bundle.from_image(index.images[0], index.digest), work)


@dataclass
class _Trial:
    """One pipeline's golden rows: found or made, answered in a child, compared."""

    project: Project
    steps: list[ModelArtifact]
    folder: Path
    timeout_s: float
    cache: Path

    def prove(self, checklist: Checklist, notes: list[str]) -> tuple[GoldenRows, dict[str, Any]]:
        """Return the rows with their answers, and the parity report; made rows are kept with their answers."""
        with checklist.check("golden.rows") as found:
            given, origin = self.found()
            found.append(origin)
        checklist.require()
        with checklist.check("parity.runs"):
            golden, answers = self.answered(given.rows if given else None)
        checklist.require()
        is_made = given is None or given.made_for is not None
        with checklist.check("parity.agrees") as found:
            report = parity.prove(golden, answers, self.project.golden.tolerance, is_made=is_made)
            found.append(f"{report['rows']} rows, largest difference {report['max_rel']:.2g}")
        checklist.require()
        whole = GoldenRows(golden.inputs, golden.outputs or answers.together)
        if is_made and golden.outputs is None:
            notes.extend(filter(None, [rows.keep(whole, self.project.golden, self.cache, self.identity)]))
        return whole, report

    def found(self) -> tuple[rows.Golden | None, str]:
        """The user's rows, or those that an earlier run kept, or None; and where they come from."""
        kept = rows.cached(self.cache, self.identity)
        path = self.project.golden.rows or (kept if kept.is_file() else None)
        if path is None:
            return None, "made from the schema and the model's digest"
        golden = rows.read_golden(path, self.steps[0].input, self.steps[-1].output, self.identity)
        return golden, f"{golden.rows.rows} rows from '{path.name}'"

    def answered(self, given: GoldenRows | None) -> tuple[GoldenRows, parity.Answers]:
        """Ask the given rows, or make rows until the model answers some."""
        if given is not None:
            return given, parity.ask(self.folder, given.inputs, self.timeout_s)
        refused: BadInput | RuntimeFailed | None = None
        for recipe in rows.recipes(self.steps[0].input):
            made = GoldenRows(rows.made_rows(self.steps[0].input, self.identity, recipe))
            try:
                return made, parity.ask(self.folder, made.inputs, self.timeout_s)
            except (BadInput, RuntimeFailed) as error:
                refused = refused or error
        raise BadInput(
            "the model answers none of the rows made for it: "
            f"{refused or 'its inputs are too large'}; give [golden] rows"
        )

    @property
    def identity(self) -> str:
        """What made rows depend on beside the schema."""
        return Digest.of([step.digest.encode() for step in self.steps])


def _check_seam(number: int, before: ModelArtifact, after: ModelArtifact) -> None:
    gives, takes = before.output.to_dict(), after.input.to_dict()
    if gives != takes:
        raise BadInput(
            f"pipeline step {number} '{before.source.name}' gives {_listed(gives)}, "
            f"step {number + 1} '{after.source.name}' takes {_listed(takes)}: rename with tensor_fields"
        )


def _listed(fields: dict[str, str]) -> str:
    return ", ".join(f"'{name}' {type_}" for name, type_ in fields.items())

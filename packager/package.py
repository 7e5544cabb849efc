"""From a project to a bundle, as a table of contents: inspect, fit together, ask, prove, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import platformdirs

from arch.target import Target, host_target
from bundle.bundle import Bundle, attach_parity, pack
from bundle.golden import GoldenRows
from bundle.pipeline import PipelineSpec, wheel_path
from bundle.store import unpack
from bundle.validations import Validation
from columns.columns import Columns
from columns.json_value import JSON_VALUE
from edgepack.errors import BadInput, RuntimeFailed
from oci.digest import Digest
from oci.image import Image, Index
from packager import golden as rows
from packager import parity
from packager.artifact import ModelArtifact
from packager.checks import Check, Checklist
from packager.inspect import inspect_step
from packager.project import Project
from packager.provenance import provenance
from packager.routing import check_keys, others_of, steps_of
from packager.step_environments import StepEnvironments, resolve_environments
from packager.wheels import StepWheels, Told, WheelSource

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
    asked: Iterable[Target] | None = None,
    wheels: WheelSource | None = None,
    here: bool = False,
) -> Packaged:
    """Make the bundle of a project for some targets. Nothing of the user's is executed in this process.

    Where a step has wheels of its own, the targets are those that were `asked` for, if that is given; `here` says that
    this very program will serve the bundle, so that they are for its interpreter.

    The checks made, also those before a failure, are in `checklist`; `cache` is the user's cache folder, asked for
    only where the project cannot be written. Raises BadInput that names what does not fit, RuntimeFailed when a trial
    crashes.
    """
    checklist = checklist or Checklist()
    notes = list(project.notes)
    cache = cache or platformdirs.user_cache_path("edgepack")
    models = [inspect_step(each, project.root, checklist, cache) for step in project.steps for each in step.every_model]
    check_pipeline(project, steps_of(project.steps, models), checklist)
    if asked is not None and any(model.kind for model in models):
        targets = asked
    wheels = wheels or WheelSource(report=Told(checklist.progress, checklist.notice))
    environments = resolve_environments(models, targets, StepWheels(project.root, cache, wheels), checklist, here=here)
    notes += environments.notes
    steps = steps_of(project.steps, environments.steps)
    spec = pipeline_spec(project, steps)
    files = {path: file for model in environments.steps for path, file in model.files.items()}
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        folder = trial_folder(environments.for_trial(spec), files, environments.trial, Path(work))
        trial = _Trial(project, steps, folder, timeout_s, cache)
        golden, report = trial.prove(checklist, notes)
        others = _prove_others(trial, environments, golden.inputs, Path(work) / "others", checklist)
    if others:
        report["others"] = others
    if environments.report:
        report["environments"] = environments.report
    report["provenance"] = provenance(project.root, environments.steps)
    report["checks"] = [asdict(check) for check in checklist.checks]
    index = pack(spec, files, golden.encode(), environments.targets, environments.wheels)
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


def check_pipeline(project: Project, steps: list[ModelArtifact], checklist: Checklist) -> None:
    """Check what concerns steps together and the validations; all of it before the first error is raised."""
    with checklist.check("pipeline.seams") as found:
        check_keys(steps)
        for number, (before, after) in enumerate(pairwise(steps), 1):
            _check_seam(number, before, after)
        found.append(f"{len(steps)} {'step' if len(steps) == 1 else 'steps'}")
    for name, expression in project.validations.items():
        with checklist.check("pipeline.validations") as found:
            Validation.compile(name, expression, steps[0].input, steps[-1].output)
            found.append(f"'{name}'")
    if steps[0].input == JSON_VALUE and project.golden.rows is None:
        with checklist.check("golden.rows"):
            name = steps[0].source.name
            raise BadInput(
                f"step '{name}' has no [steps.input] and no [steps.output], so it takes any JSON value: "
                "name its fields, or give [golden] rows that it can answer",
                field="golden.rows",
            )
    checklist.require()


def trial_folder(spec: PipelineSpec, files: dict[str, Path], wheels: dict[str, Path], work: Path) -> Path:
    """Unpack the bundle without golden rows, as a child on this machine will open it."""
    index = pack(spec, files, b"[]\n", [host_target()], {host_target(): wheels})
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
            report = parity.prove(golden, answers, self.project.golden.tolerance, self.origin(is_made))
            found.append(f"{report['rows']} rows, largest difference {report['max_rel']:.2g}")
        checklist.require()
        parity.add_steps(report, self.steps)
        whole = GoldenRows(golden.inputs, golden.outputs or answers.together)
        if is_made and (golden.outputs is None or given is self.original):
            notes.extend(filter(None, [rows.keep(whole, self.project.golden, self.cache, self.identity)]))
        return whole, report

    def found(self) -> tuple[rows.Golden | None, str]:
        """The user's rows, or those that an earlier run kept, or None; and where they come from."""
        kept = rows.cached(self.cache, self.identity)
        path = self.project.golden.rows or (kept if kept.is_file() else None)
        made = "made from the schema and the model's digest"
        if path is None:
            return self.original, "made for the model, answered by the original" if self.original else made
        golden = rows.read_golden(path, self.steps[0].input, self.steps[-1].output, self.identity)
        if golden.made_for not in (None, self.identity) and self.original:
            return self.original, "made anew: the model has changed"
        return golden, f"{golden.rows.rows} rows from '{path.name}'"

    def answered(self, given: GoldenRows | None) -> tuple[GoldenRows, parity.Answers]:
        """Ask the given rows, or make rows until the model answers some."""
        if given is not None:
            return given, self.ask(given.inputs)
        refused: BadInput | RuntimeFailed | None = None
        for recipe in rows.recipes(self.steps[0].input):
            made = GoldenRows(rows.made_rows(self.steps[0].input, self.identity, recipe))
            try:
                return made, self.ask(made.inputs)
            except (BadInput, RuntimeFailed) as error:
                refused = refused or error
        raise BadInput(
            "the model answers none of the rows made for it: "
            f"{refused or 'its inputs are too large'}; give [golden] rows"
        )

    def ask(self, inputs: Columns) -> parity.Answers:
        """Ask the packaged model in a child; what its python steps import is kept in the cache."""
        return parity.ask(self.folder, inputs, self.timeout_s, self.cache / "workers")

    @cached_property
    def original(self) -> rows.Golden | None:
        """The rows that were made for the first model; with the original's answers where there is no other step."""
        made = self.steps[0].golden
        if made is None:
            return None
        return rows.Golden(made if len(self.steps) == 1 else GoldenRows(made.inputs), self.identity)

    def origin(self, is_made: bool) -> str:
        """Where expected answers come from, for the report."""
        if not is_made:
            return parity.EXPECTED
        return parity.ORIGINAL if self.original and len(self.steps) == 1 else parity.REPEATED

    @property
    def identity(self) -> str:
        """What made rows depend on beside the schema."""
        return Digest.of([step.digest.encode() for step in self.steps])


def _prove_others(
    trial: _Trial, environments: StepEnvironments, inputs: Columns, work: Path, checklist: Checklist
) -> dict[str, Any]:
    """Let each model of a split or shadow that golden rows do not ask answer by itself; the reports, by its name.

    It is asked the golden rows where it is in the only step, else rows made for it.
    """
    reports = {}
    for model in others_of(trial.steps):
        name = model.source.name
        spec = environments.for_trial(PipelineSpec(name, [model.spec]))
        wheels = {path: file for path, file in environments.trial.items() if path.startswith(wheel_path(name, ""))}
        alone = replace(trial, steps=[model], folder=trial_folder(spec, model.files, wheels, work / name))
        given = GoldenRows(inputs.select(model.input.names)) if len(trial.steps) == 1 else None
        with checklist.check("parity.agrees") as found:
            asked, answers = alone.answered(given)
            reports[name] = parity.prove(asked, answers, trial.project.golden.tolerance, parity.REPEATED)
            found.append(f"'{name}' by itself, {reports[name]['rows']} rows")
    checklist.require()
    return reports


def _check_seam(number: int, before: ModelArtifact, after: ModelArtifact) -> None:
    gives, takes = before.output.to_dict(), after.input.to_dict()
    if gives != takes:
        raise BadInput(
            f"pipeline step {number} '{before.source.name}' gives {_listed(gives)}, "
            f"step {number + 1} '{after.source.name}' takes {_listed(takes)}: rename with tensor_fields"
        )


def _listed(fields: dict[str, str]) -> str:
    return ", ".join(f"'{name}' {type_}" for name, type_ in fields.items())

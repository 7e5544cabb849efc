"""From a project to a bundle, as a table of contents: inspect, fit together, ask, prove, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import platformdirs

from arch.catalog import FOLDER, Catalog
from arch.target import Target, host_target
from bundle.bundle import Bundle, attach_parity, pack
from bundle.golden import GoldenRows
from bundle.pipeline import PipelineSpec, wheel_path
from bundle.store import unpack
from bundle.validations import Validation
from columns.columns import Columns
from columns.json_value import is_value
from edgepack.errors import BadInput, RuntimeFailed, Unreachable
from oci.digest import Digest
from oci.image import Image, Index
from packager import golden as rows
from packager import parity
from packager.archives import lying_still
from packager.artifact import ModelArtifact
from packager.cache import writing
from packager.checks import Check, Checklist
from packager.dialects.ads_settling import settle
from packager.dialects.cortex_disk import of_those_there
from packager.environments import Environment
from packager.inspect import inspect_step
from packager.optimize.steps import Originals, check_steps, optimized
from packager.project import Project
from packager.provenance import provenance
from packager.reading import as_read
from packager.relay import relay
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
    catalog: Catalog | None = None,
    here: bool = False,
    quantizing: Environment | None = None,
) -> Packaged:
    """Make the bundle of a project for some targets. Nothing of the user's is executed in this process.

    Where a step has wheels of its own, targets beside those that were `asked` for (default: all) are left out if it
    has none for them; `here` says that this very program will serve the bundle, so that they are for its interpreter.
    `catalog` says what the targets are; by default the project's own target files are read on top of ours. Models are
    quantized in the environment `quantizing`, by default one that is made when a step asks for it.

    The checks made, also those before a failure, are in `checklist`; `cache` is the user's cache folder, asked for
    only where the project cannot be written. Raises BadInput that names what does not fit, RuntimeFailed when a trial
    crashes.
    """
    checklist = checklist or Checklist()
    cache = cache or platformdirs.user_cache_path("edgepack")
    wheels = wheels or WheelSource(report=Told(checklist.progress, checklist.notice))
    catalog = catalog or Catalog.read([project.kept_in / FOLDER])
    with writing(cache), lying_still([model.model for step in project.steps for model in step.every_model]):
        step_wheels = StepWheels(project.kept_in, cache, wheels, catalog=catalog)
        models = _inspected(project, checklist, cache, wheels)
        if len(models) == 1:
            asks = partial(_answers_alone, project, cache, timeout_s)
            models = [as_read(models[0], asks, checklist.notice)]
        environments = resolve_environments(models, targets, step_wheels, checklist, asked=asked, here=here)
        environments = _with_payloads(project, environments, checklist, cache)
        models = environments.models
        relayed = relay(
            project,
            models,
            partial(_run_first, project, environments, cache, timeout_s),
            lambda source: inspect_step(source, project.root, checklist, cache, wheels.local),
        )
        if any(found is not model for found, model in zip(relayed, models, strict=True)):
            check_steps(relayed, checklist)  # one that was native on rows made for it may be none on real rows
            environments = resolve_environments(relayed, targets, step_wheels, checklist, asked=asked, here=here)
        return _packed(project, environments, checklist, cache, timeout_s, quantizing)


def _inspected(project: Project, checklist: Checklist, cache: Path, wheels: WheelSource) -> list[ModelArtifact]:
    """All models of all steps; that they fit together is checked before anything else is fetched for them."""
    sources = [each for step in project.steps for each in step.every_model]
    models = [inspect_step(each, project.root, checklist, cache, wheels.local) for each in sources]
    check_pipeline(project, steps_of(project.steps, models), checklist)
    check_steps(models, checklist)
    return models


def _with_payloads(
    project: Project, environments: StepEnvironments, checklist: Checklist, cache: Path
) -> StepEnvironments:
    """The same with every score.py of ADS asked for the form of its rows; fields that change by it fit as before."""
    found = [
        settle(model, environments, checklist, cache) if model.kind == "ads" else model for model in environments.models
    ]
    checklist.require()
    if any(one.output != other.output for one, other in zip(found, environments.models, strict=True)):
        check_pipeline(project, steps_of(project.steps, found), Checklist())
    return replace(environments, models=found)


def _answers_alone(project: Project, cache: Path, timeout_s: float, model: ModelArtifact) -> bool:
    """Whether a native model answers rows made for its fields."""
    spec = PipelineSpec(project.name, [model.spec])
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        trial = _Trial(project, [model], trial_folder(spec, model.files, {}, Path(work)), timeout_s, cache)
        try:
            trial.answered(None)
        except (BadInput, RuntimeFailed):
            return False
    return True


def _run_first(
    project: Project, environments: StepEnvironments, cache: Path, timeout_s: float, count: int, rows: Columns
) -> Columns:
    """What the first steps of a pipeline make of rows."""
    steps = steps_of(project.steps, environments.trial_steps)[:count]
    files = {path: file for model in environments.models for path, file in model.files.items()}
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        folder = trial_folder(pipeline_spec(project, steps), files, environments.trial_wheels, Path(work))
        return parity.ask(folder, rows, timeout_s, cache).together


def _packed(
    project: Project,
    environments: StepEnvironments,
    checklist: Checklist,
    cache: Path,
    timeout_s: float,
    quantizing: Environment | None,
) -> Packaged:
    """Prove the models on this machine, then pack what was proven for each target."""
    notes, models = [*project.notes, *environments.notes], environments.models
    steps = steps_of(project.steps, environments.trial_steps)
    files = {path: file for model in models for path, file in model.files.items()}
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
        folder = trial_folder(pipeline_spec(project, steps), files, environments.trial_wheels, Path(work))
        trial = _Trial(project, steps, folder, timeout_s, cache)
        golden, report = trial.prove(checklist, notes)
        others = _prove_others(trial, environments, golden.inputs, Path(work) / "others", checklist)
        originals = _originals(trial, environments, golden)
        smaller = optimized(originals, cache, checklist, notes, quantizing)
    environments = replace(environments, models=smaller.models)
    files = {path: file for model in smaller.models for path, file in model.files.items()}
    specs = {
        target: pipeline_spec(project, steps_of(project.steps, environments.steps(target)), smaller.loss)
        for target in environments.targets
    }
    report.update(smaller.report)
    if others:
        report["others"] = others
    if environments.report:
        report["environments"] = environments.report
    report["provenance"] = provenance(project.root, models)
    report["checks"] = [asdict(check) for check in checklist.checks]
    index = pack(specs, files, golden.encode(), environments.targets, environments.wheels)
    referrers = tuple(attach_parity(image, parity.encode(report)) for image in index.images)
    return Packaged(index, specs[environments.targets[0]], report, referrers, tuple(checklist.checks), tuple(notes))


def _originals(trial: _Trial, environments: StepEnvironments, golden: GoldenRows) -> Originals:
    """The pipeline that was proven, to be asked again by models that are quantized."""
    project, cache, timeout_s = trial.project, trial.cache, trial.timeout_s

    def before(count: int) -> Columns:
        return _run_first(project, environments, cache, timeout_s, count, golden.inputs) if count else golden.inputs

    def alone(model: ModelArtifact, rows: Columns) -> parity.Answers:
        return asked(PipelineSpec(project.name, [model.spec]), [model], {}, rows)

    def whole(models: Sequence[ModelArtifact], loss: float) -> parity.Answers:
        changed = replace(environments, models=list(models))
        spec = pipeline_spec(project, steps_of(project.steps, changed.trial_steps), loss)
        return asked(spec, models, environments.trial_wheels, golden.inputs)

    def asked(
        spec: PipelineSpec, models: Sequence[ModelArtifact], wheels: dict[str, Path], rows: Columns
    ) -> parity.Answers:
        files = {path: file for model in models for path, file in model.files.items()}
        with tempfile.TemporaryDirectory(prefix="edgepack-") as work:
            return parity.ask(trial_folder(spec, files, wheels, Path(work)), rows, timeout_s, cache)

    return Originals(project.steps, environments.models, golden, trial.is_made, before, alone, whole)


def pipeline_spec(project: Project, steps: list[ModelArtifact], loss: float | None = None) -> PipelineSpec:
    """What travels as the bundle's config."""
    return PipelineSpec(
        name=project.name,
        steps=[step.spec for step in steps],
        validations=dict(project.validations),
        tolerance=project.golden.tolerance,
        log=project.log,
        resources=project.resources,
        loss=loss,
        number=steps[0].number if len(steps) == 1 and project.number is None else project.number,
    )


def check_pipeline(project: Project, steps: list[ModelArtifact], checklist: Checklist) -> None:
    """Check what concerns steps together and the validations; all of it before the first error is raised."""
    with checklist.check("pipeline.seams") as found:
        check_keys(steps)
        for number, (before, after) in enumerate(pairwise(steps), 1):
            _check_seam(number, before, after)
        found.append(f"{len(steps)} {'step' if len(steps) == 1 else 'steps'}")
    with checklist.check("golden.tolerance"):
        rows.check_tolerance(project.golden.tolerance, [step.output for step in steps])
    for name, expression in project.validations.items():
        with checklist.check("pipeline.validations") as found:
            Validation.compile(name, expression, steps[0].input, steps[-1].output)
            found.append(f"'{name}'")
    if is_value(steps[0].input) and project.golden.rows is None and steps[0].golden is None:
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
    is_made: bool = True  # whether the golden rows were made, not given: known once they are proven

    def prove(self, checklist: Checklist, notes: list[str]) -> tuple[GoldenRows, dict[str, Any]]:
        """Return the rows with their answers, and the parity report; made rows are kept with their answers."""
        with checklist.check("golden.rows") as found:
            given, origin = self.found()
            found.append(origin)
        checklist.require()
        if given and given.left_out:
            notes.append(f"golden rows: {origin}")
        try:
            with checklist.check("parity.runs"):
                golden, answers = self.answered(given.rows if given else None)
        except Unreachable as away:
            return self.unasked(given, notes, away)
        checklist.require()
        self.is_made = is_made = given is None or given.made_for is not None
        if not all(parity.is_comparable(step) for step in self.steps):
            report = parity.unproven(answers, self.project.golden.tolerance)
            parity.add_steps(report, self.steps)
            return GoldenRows(golden.inputs), report
        with checklist.check("parity.agrees") as found:
            path = None if is_made else self.project.golden.rows
            report = parity.prove(golden, answers, self.project.golden.tolerance, self.origin(is_made), path)
            found.append(f"{report['rows']} rows, largest difference {report['max_rel']:.2g}")
        checklist.require()
        parity.add_steps(report, self.steps)
        whole = GoldenRows(golden.inputs, golden.outputs or answers.together)
        if is_made and whole.rows and (golden.outputs is None or given is self.original):
            notes.extend(filter(None, [rows.keep(whole, self.project.golden, self.cache, self.identity)]))
        return whole, report

    def unasked(
        self, given: rows.Golden | None, notes: list[str], away: Unreachable
    ) -> tuple[GoldenRows, dict[str, Any]]:
        """Rows and report where a container was not there to be asked: the rest was loaded, and nothing compared."""
        taken = self.steps[0].input
        golden = given.rows if given else GoldenRows(rows.made_rows(taken, self.identity, rows.recipes(taken)[0]))
        report = parity.unasked(self.project.golden.tolerance)
        parity.add_steps(report, self.steps)
        notes.append(f"golden rows were not asked: {away}")
        return golden, report

    def found(self) -> tuple[rows.Golden | None, str]:
        """The user's rows, or those that an earlier run kept, or None; and where they come from."""
        kept = rows.cached(self.cache, self.identity)
        path = self.project.golden.rows or (kept if kept.is_file() else None)
        made = "made from the schema and the model's digest"
        if path is None:
            return self.original, "made for the model, answered by the original" if self.original else made
        golden = rows.read_golden(path, self.steps[0].input, self.steps[-1].output, self.identity)
        golden = replace(golden, rows=of_those_there(golden.rows, self.steps[0].options))
        if golden.made_for not in (None, self.identity) and self.original:
            return self.original, "made anew: the model has changed"
        without = f", asked without their answers: {golden.left_out}" if golden.left_out else ""
        return golden, f"{golden.rows.rows} rows from '{path.name}'{without}"

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
        return parity.ask(self.folder, inputs, self.timeout_s, self.cache)

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
        spec = PipelineSpec(name, [model.spec])
        mine = wheel_path(name, "")
        wheels = {path: file for path, file in environments.trial_wheels.items() if path.startswith(mine)}
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

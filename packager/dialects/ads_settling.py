"""What is known of a score.py once it has run with its wheels: the form of its rows, the type of its answers."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from arch.target import host_target
from bundle.bundle import Bundle, pack
from bundle.pipeline import PipelineSpec, wheel_path
from bundle.store import OpenBundle, unpack
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.dialects.ads_asking import Answered, Asking
from packager.dialects.ads_layout import without_ignored
from packager.dialects.ads_score import read_score
from packager.step_environments import StepEnvironments
from packager.worker_environments import worker_environments
from runtimes.python import environment_of


def settle(model: ModelArtifact, environments: StepEnvironments, checklist: Checklist, cache: Path) -> ModelArtifact:
    """The model with the form of its rows, and the field that its answers fit. A named check that may fail."""
    found: ModelArtifact | None = None
    with checklist.check("model.payload") as told:
        answered = _asked(model, environments, cache)
        told.append(f"rows go as '{answered.payload}', out.{', out.'.join(map(str, answered.output))}")
        options = {**model.options, "payload": answered.payload}
        has_rows = model.source.golden is not None and model.source.golden.rows is not None
        found = replace(model, output=answered.output, options=options, golden=None if has_rows else answered.golden)
    return found or model


def _asked(model: ModelArtifact, environments: StepEnvironments, cache: Path) -> Answered:
    source = model.source
    tree = without_ignored(open_tree(source.model, cache))
    score = read_score(tree)
    given = None if source.output is None else Schema.parse(source.output)
    with tempfile.TemporaryDirectory(prefix="edgepack-") as work, worker_environments(cache) as made:
        bundle = _alone(model, environments, Path(work))
        step = bundle.spec.steps[0]
        site = environment_of(bundle, step, made)
        folder = bundle.model(step.model)
        with Asking.start(score, model.input, source.name, folder, Path(sys.executable), (site,)) as asking:
            answered = asking.first_answered(source.golden, tree, given)
    return answered if given else answered.nullable_as(model.output)


def _alone(model: ModelArtifact, environments: StepEnvironments, work: Path) -> OpenBundle:
    """A bundle of this step for this machine, without golden rows."""
    step = next((each for each in environments.trial_steps if each.source.name == model.source.name), None)
    if step is None:
        raise BadInput(f"step '{model.source.name}' has no environment for this machine")
    mine, here = wheel_path(model.source.name, ""), host_target()
    wheels = {path: file for path, file in environments.trial_wheels.items() if path.startswith(mine)}
    index = pack(PipelineSpec(model.source.name, [step.spec]), model.files, b"[]\n", [here], {here: wheels})
    return OpenBundle(unpack(Bundle.from_image(index.images[0], index.digest), work))

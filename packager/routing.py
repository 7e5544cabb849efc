"""Steps of several models: each model is inspected and given its environment like any other, then they become one
step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from bundle.pipeline import RoutingSpec, StepSpec
from columns.schema import Field, Schema
from columns.types import parse_type
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.project import RoutingSource, StepSource


@dataclass(frozen=True)
class RoutedArtifact(ModelArtifact):
    """Several models as one step: what it shows of itself is the first model, and the key's field beside it."""

    models: tuple[ModelArtifact, ...] = ()

    @property
    def spec(self) -> StepSpec:
        """The step as it travels, its models in it."""
        assert self.source.routing is not None  # noqa: S101 - `step_of` makes no other
        routing, first = self.source.routing, self.models[0].spec
        named = self.models if routing.split else self.models[1:]
        return StepSpec(
            name=self.source.name,
            model=first.model,
            framework=first.framework,
            runtime=first.runtime,
            input=self.input.to_dict(),
            output=self.output.to_dict(),
            tensor_fields=first.tensor_fields,
            batch=first.batch,
            sha256=first.sha256,
            reason=first.reason,
            worker=first.worker,
            task=first.task,
            quantized=first.quantized,
            routing=RoutingSpec(
                {model.source.name: model.spec for model in named},
                dict(routing.split),
                routing.key,
                list(routing.shadow),
            ),
        )


def steps_of(sources: Iterable[StepSource], models: Sequence[ModelArtifact]) -> list[ModelArtifact]:
    """The steps of a pipeline whose models, of all steps in a row, are `models`. Raises BadInput for models of one step
    that differ in what they take or give.
    """
    left = iter(models)
    return [_step_of(source, [next(left) for _ in source.every_model]) for source in sources]


def others_of(steps: Iterable[ModelArtifact]) -> Iterator[ModelArtifact]:
    """The models that golden rows are not answered by: all but the first of each step."""
    for step in steps:
        if isinstance(step, RoutedArtifact):
            yield from step.models[1:]


def _step_of(source: StepSource, models: list[ModelArtifact]) -> ModelArtifact:
    first = models[0]
    if source.routing is None:
        return first
    for other in models[1:]:
        for side, ours, theirs in (("takes", first.input, other.input), ("gives", first.output, other.output)):
            if ours != theirs:
                raise BadInput(
                    f"models of step '{source.name}' differ: '{first.source.name}' {side} {_listed(ours)}, "
                    f"'{other.source.name}' {side} {_listed(theirs)}"
                )
    shown = {each.name: getattr(first, each.name) for each in fields(ModelArtifact)}
    taken = _with_key(source, source.routing, first.input)
    if taken != first.input and "golden" in shown:
        shown["golden"] = None  # made without the key
    return RoutedArtifact(**{**shown, "source": source, "input": taken, "models": tuple(models)})


def _with_key(source: StepSource, routing: RoutingSource, taken: Schema) -> Schema:
    """The fields of the step: those of its models and, where they do not take it, the key."""
    name = (routing.key or "").removeprefix("in.")
    given = (source.input or {}).get(name)
    if not name or name in taken or given is None:
        return taken
    return Schema((*taken.fields, Field(name, parse_type(given))))


def check_keys(steps: Sequence[ModelArtifact]) -> None:
    """Raise BadInput for a key that is no field of the pipeline's input."""
    for step in steps:
        key = step.source.routing and step.source.routing.key
        if key and key.removeprefix("in.") not in steps[0].input:
            raise BadInput(
                f"step '{step.source.name}' splits by key '{key}': the pipeline takes {steps[0].input.listing}; "
                "give the key's type in [steps.input] of the first step",
                field="steps.key",
            )


def _listed(schema: Schema) -> str:
    return ", ".join(str(field) for field in schema)

"""Which bundles a build makes images of, what of the index each image carries, and what images and files are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arch.target import Target, plain_targets
from arch.traits import Traits
from bundle import media
from bundle.bundle import Bundle, bundles
from edgepack.errors import BadInput
from oci.image import Index


def bundles_for(index: Index, targets: Iterable[Target]) -> list[Bundle]:
    """The bundle of each target. Refuses a target it lacks, and two targets that one index could not tell apart."""
    held = {bundle.target: bundle for bundle in bundles(index)}
    wanted = sorted(set(targets))
    platforms: dict[str, Target] = {}
    for target in wanted:
        if target not in held:
            raise BadInput(f"the bundle has nothing for {target}: it has {', '.join(map(str, sorted(held)))}")
        other = platforms.setdefault(str(target.platform), target)
        if other != target:
            raise BadInput(
                f"targets {other} and {target} are both {target.platform}: an index holds one of each, build them apart"
            )
    if not wanted:
        raise BadInput("a build needs a target: give --arch x86 or --arch arm")
    return [held[target] for target in wanted]


def check_python(bundle: Bundle, traits: Traits) -> None:
    """Refuse a base whose Python is not the one that the steps' wheels are for."""
    for step in bundle.spec.python_models:
        if step.worker and step.worker.python != traits.python:
            raise BadInput(
                f"step '{step.name}' has wheels for Python {step.worker.python}, the base has {traits.python}: "
                f'choose a base with Python {step.worker.python}, or write python = "{traits.python}" in '
                f"targets/{traits.target.arch}-{traits.target.accel}.toml of the project"
            )


def index_for(index: Index, target: Target) -> Index:
    """The part of a bundle's index that an image holds: the plain targets and its own, so that an image does not
    depend on which others with an accelerator were built beside it.
    """
    wanted = {str(each) for each in (*plain_targets(), target)}
    held = tuple(image for image in index.images if image.annotations.get(media.TARGET) in wanted)
    return index if held == index.images else Index(held, index.artifact_type, index.annotations)


def file_name(chosen: Sequence[Bundle]) -> str:
    """What the file of these images is called."""
    if len(chosen) == 1:
        return f"{chosen[0].name}-{chosen[0].target.arch}-{chosen[0].target.accel}.oci.tar"
    return f"{chosen[0].name}.oci.tar"


def reference_of(bundle: Bundle) -> str:
    """What an engine knows the image by."""
    return f"{bundle.name}:{bundle.target.arch}-{bundle.target.accel}"

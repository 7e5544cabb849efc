"""`ImageBuilds`: the image of one target after another, by the direct builder or by docker.

base (own or given) → wheels → agent → bundle → image → what is said about it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from arch.catalog import FOLDER, Catalog
from arch.target import Target
from arch.traits import Traits
from buildx.attest import Attested, attest
from buildx.choice import check_python, reference_of
from buildx.created import Created
from buildx.docker_build import DockerBuild, Parts
from buildx.given_bases import GivenBases
from buildx.ground import Ground
from buildx.image import Foundation, assemble
from buildx.ingredients import Ingredients
from buildx.layer_cache import Layer, LayerCache
from buildx.layers import WheelGroup, make_all, wheel_groups
from buildx.lock import LockedTarget, LockFile
from buildx.open_lock import OpenLock
from buildx.options import Options, Workplace
from buildx.outcome import BuiltImage, LayerLine
from buildx.own_bases import OwnBases
from buildx.report import Report
from buildx.requirements import requirements_for, without_unimported
from buildx.wheels import Wheels
from bundle.bundle import Bundle
from oci.image import Index


class ImageBuilds:
    """The images of one build; they share the lock, the cache and the moment that they are said to be made at."""

    def __init__(
        self,
        options: Options,
        workplace: Workplace,
        report: Report,
        cache: LayerCache,
        created: Created,
        docker: DockerBuild | None,
    ) -> None:
        self._options, self._report, self._created, self._docker = options, report, created, docker
        self._catalog = Catalog.read([*workplace.targets, options.project / FOLDER], workplace.environ)
        self._lock = OpenLock(LockFile(options.project, workplace.cache, report))
        self._own = OwnBases(options, workplace, report, cache, self._lock)
        self._given = GivenBases(options, workplace, report, cache, self._lock)
        self._wheels = Wheels(
            workplace.cache / "wheels", report, workplace.environ, local=options.wheels, frozen=options.locked
        )

    def image(self, bundle: Bundle, index: Index) -> BuiltImage:
        """Build one target's image. `index` is what it carries; the bundle is known by that from here on."""
        bundle = replace(bundle, index_digest=index.digest)
        ground = self._ground(self._catalog.traits(bundle.target))
        check_python(bundle, ground.traits)
        used = {name for step in bundle.spec.steps for model in step.every_model for name in model.libraries}
        traits = without_unimported(ground.traits, used)
        requirements = requirements_for(used, traits.replace, traits.left_out)
        wheels, paths = self._wheels.obtain(traits, requirements, self._lock.wheels(str(bundle.target)))
        self._lock.keep_wheels(str(bundle.target), wheels)
        jobs = ground.maker.wheels(wheels.wheels, paths, ground.foundation)
        jobs.append(lambda: ground.maker.agent(ground.foundation.place))
        jobs.append(lambda: ground.maker.bundle(index, bundle.target))
        if self._docker is None:
            made = self._direct(bundle, ground, jobs)
        else:
            groups = wheel_groups(wheels.wheels, paths, len(ground.foundation.layers))
            parts = self._parts(self._docker.host, ground, groups, jobs)
            plain = assemble(ground.foundation, [], bundle, ground.traits, self._created)
            made = self._docker.image(bundle.target, reference_of(bundle), plain, parts, self._created)
        attested = self._attested(made, bundle, ground.traits, wheels)
        return replace(made, flags=ground.traits.run, attested=attested)

    def _ground(self, traits: Traits) -> Ground:
        if self._options.base or not traits.is_own_base:
            return self._given.ground(traits)
        return self._own.ground(traits)

    def _direct(self, bundle: Bundle, ground: Ground, jobs: Sequence[Callable[[], Layer]]) -> BuiltImage:
        self._report.step(f"layers for {bundle.target}")
        layers = make_all(jobs)
        image = assemble(ground.foundation, layers, bundle, ground.traits, self._created)
        lines = (*_lines_of(ground.foundation), *map(LayerLine.of, layers))
        return BuiltImage(bundle.target, reference_of(bundle), image, lines)

    def _parts(
        self, host: Target, ground: Ground, groups: Sequence[WheelGroup], jobs: Sequence[Callable[[], Layer]]
    ) -> Parts:
        """What docker is given. On our own base it makes the layers of wheels and agent itself, in the same base for
        the machine that builds; on one of the user's own nothing is to be run, so it stacks what is made here.
        """
        if not ground.traits.is_own_base:
            return Parts(ground.foundation, None, [], make_all(jobs), bytecode=False)
        workshop = ground.foundation
        other = self._catalog.traits(host)
        if other.debian_arch != ground.traits.debian_arch:
            workshop = self._own.ground(other).foundation
        return Parts(ground.foundation, workshop, groups, [jobs[-1]()], bytecode=ground.maker.interpreter is not None)

    def _attested(self, made: BuiltImage, bundle: Bundle, traits: Traits, wheels: LockedTarget) -> Attested:
        """The image's SBOM and provenance."""
        own, given = self._lock.base(traits.debian_arch), self._lock.given(str(bundle.target))
        made_of = Ingredients(
            traits,
            bundle,
            wheels,
            own if traits.is_own_base else None,
            None if traits.is_own_base else given,
            self._created,
            self._options.builder,
            self._options.compression,
        )
        return attest(made.image, made_of, self._report)


def _lines_of(foundation: Foundation) -> Iterator[LayerLine]:
    for (blob, _), cached in zip(foundation.layers, foundation.cached, strict=True):
        yield LayerLine(blob.descriptor.digest, blob.descriptor.size, "base", cached, foundation.title)

"""`build`: from a bundle to a file that `docker load`, skopeo and containerd take. A table of contents.

    lock → base → wheels → agent → bundle → image, for each target → one tar

The direct builder: no daemon, no emulation, nothing of the target executed. What follows from what stands in
`layers.py`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from arch.catalog import FOLDER, Catalog, without_base
from arch.target import Target, host_target, plain_targets
from arch.traits import Traits, traits_of
from buildx.archive import DebianArchive
from buildx.attest import attest
from buildx.created import Created, created_for
from buildx.debian import upstream
from buildx.docker_build import DockerBuild, Parts
from buildx.encoders import encoder_for
from buildx.engine import Engine
from buildx.given_base import given_base
from buildx.image import Foundation, assemble
from buildx.ingredients import Ingredients
from buildx.interpreter import Interpreter, interpreter_packages
from buildx.layer_cache import Layer, LayerCache
from buildx.layers import LayerMaker, wheel_groups
from buildx.lock import Lock, LockedBase, LockedTarget, LockFile
from buildx.mirror import APT, find_mirror, find_security
from buildx.outcome import Built, BuiltImage, LayerLine
from buildx.packages import BasePackages
from buildx.report import Report
from buildx.requirements import requirements_for
from buildx.wheel_files import Place
from buildx.wheels import Wheels
from bundle import media
from bundle.bundle import Bundle, bundles
from edgepack.errors import BadInput
from oci.docker_config import find_credentials
from oci.image import Image, Index
from oci.registry import Registry
from oci.tar import write_tar


class Sink(Protocol):
    """A place beside the file that takes a whole index, under its name: a registry."""

    def write(self, index: Index, reference: str) -> str:
        """Write it and return the digest by which it is found there."""

    def attach(self, referrer: Image) -> None:
        """Write what is said about an image of it."""


@dataclass(frozen=True)
class Options:
    """What a user asks for. `project` is the folder that the lock lies in, `source` what `created` looks at in git.

    `reference` is what the output is called, by default by pipeline and target. Without `keep_file` and `output` no
    file is written. Without `bytecode` no `.pyc` is made (benchmarks alone ask for that).
    """

    project: Path
    source: Path
    output: Path | None = None
    base: str | None = None
    wheels: Path | None = None
    compression: str = "splice"
    locked: bool = False
    layer_cache: bool = True
    builder: str = "direct"
    reference: str | None = None
    keep_file: bool = True
    bytecode: bool = True
    plain_http: bool = False


@dataclass(frozen=True)
class Workplace:
    """This machine: the cache folder, the environment that names mirror and time, apt's configuration, and the folders
    with target files of the user's own. `terminal` says that docker may draw its progress on standard error.
    """

    cache: Path
    environ: Mapping[str, str]
    apt: Path = APT
    targets: tuple[Path, ...] = ()
    terminal: bool = False


def build(
    index: Index,
    targets: Iterable[Target],
    options: Options,
    workplace: Workplace,
    report: Report,
    sinks: Iterable[Sink] = (),
    engine: Engine | None = None,
) -> Built:
    """Build the images of a bundle for some targets into one file; give it to further sinks, and each image under its
    own name to an engine.

    Raises BadInput for what the user can mend (no mirror, no such base, no wheel), NotTrusted for wrong digests,
    Unreachable when mirror or index are away, BuildFailed for the rest. Nothing is left behind half-written.
    """
    started = time.monotonic()
    chosen = _bundles_for(index, targets)
    output = options.output or (Path("dist") / _file_name(chosen) if options.keep_file else None)
    created = created_for(options.source, workplace.environ)
    with (
        LayerCache.opened(workplace.cache, keep=options.layer_cache) as cache,
        _docker(options, workplace, report) as docker,
    ):
        lock_file = LockFile(options.project, workplace.cache, report)
        run = _Run(options, workplace, report, cache, created, lock_file, docker)
        images = tuple(run.image(bundle, _index_for(index, bundle.target)) for bundle in chosen)
        whole = Index(tuple(each.image for each in images))
        reference = options.reference or (images[0].reference if len(images) == 1 else f"{chosen[0].name}:latest")
        if output:
            report.step("writing the file")
            _write(whole, output, reference, images)
        for sink in sinks:
            sink.write(whole, reference)
            for referrer in (referrer for each in images for referrer in each.attested.referrers):
                sink.attach(referrer)
        if engine:
            for each in images:
                report.step(f"loading {each.reference}")
                engine.load(each.image, each.reference)
    seconds, size = time.monotonic() - started, output.stat().st_size if output else None
    digest = whole.entry.descriptor.digest
    return Built(reference, digest, images, output, size, seconds, created, options.builder)


@contextlib.contextmanager
def _docker(options: Options, workplace: Workplace, report: Report) -> Iterator[DockerBuild | None]:
    """The second builder, where it is asked for, with a folder of its own for as long as its images are read."""
    if options.builder != "buildx":
        yield None
        return
    with tempfile.TemporaryDirectory(dir=workplace.cache, prefix=".build-") as scratch:
        yield DockerBuild.find(workplace.environ, Path(scratch), report, shown=workplace.terminal)


class _Run:
    """One build: the lock as it grows, and the interpreter that all targets share."""

    def __init__(
        self,
        options: Options,
        workplace: Workplace,
        report: Report,
        cache: LayerCache,
        created: Created,
        lock_file: LockFile,
        docker: DockerBuild | None,
    ) -> None:
        self._docker, self._environ = docker, workplace.environ
        self._options, self._report, self._cache, self._created, self._lock_file = (
            options,
            report,
            cache,
            created,
            lock_file,
        )
        self._catalog = Catalog.read([*workplace.targets, options.project / FOLDER], workplace.environ)
        self._lock = lock_file.read()
        self._folder = workplace.cache
        debian = workplace.cache / "debian"
        self._packages = BasePackages(
            lambda: DebianArchive(
                find_mirror(workplace.environ, workplace.apt),
                debian,
                report,
                security=partial(find_security, workplace.environ, workplace.apt),
            ),
            debian,
            report,
            frozen=options.locked,
        )
        self._wheels = Wheels(
            workplace.cache / "wheels", report, workplace.environ, local=options.wheels, frozen=options.locked
        )
        self._interpreters: dict[str, Interpreter] = {}

    def image(self, bundle: Bundle, index: Index) -> BuiltImage:
        """Build one target's image. `index` is what it carries; the bundle is known by that from here on."""
        bundle = replace(bundle, index_digest=index.digest)
        traits = self._catalog.traits(bundle.target)
        if self._options.base or not traits.is_own_base:
            foundation, traits = self._given_base(traits)
            maker = LayerMaker(self._cache, encoder_for(self._options.compression, None), None)
        else:
            maker = self._maker(traits)
            foundation = self._own_base(maker, traits)
        runtimes = {model.runtime for step in bundle.spec.steps for model in step.every_model}
        _check_python(bundle, traits)
        requirements = requirements_for(runtimes, traits.replace, traits.left_out)
        locked, paths = self._wheels.obtain(traits, requirements, self._lock.target.get(str(bundle.target)))
        self._keep(self._lock.with_target(str(bundle.target), locked))
        jobs = [*maker.wheels(locked.wheels, paths, foundation)]
        if self._docker:
            plain = assemble(foundation, [], bundle, traits, self._created)
            workshop = self._workshop(self._docker.host, foundation, traits)
            groups = wheel_groups(locked.wheels, paths, len(foundation.layers))
            parts = Parts(
                foundation, workshop, groups, maker.bundle(index, bundle.target), bytecode=maker.interpreter is not None
            )
            made = self._docker.image(bundle.target, _reference(bundle), plain, parts, self._created)
            return self._attested(replace(made, flags=traits.run), bundle, traits, locked)
        self._report.step(f"layers for {bundle.target}")
        jobs += [lambda: maker.agent(foundation.place), lambda: maker.bundle(index, bundle.target)]
        layers = _all(jobs)
        image = assemble(foundation, layers, bundle, traits, self._created)
        lines = (*_given(foundation), *map(_line, layers))
        made = BuiltImage(bundle.target, _reference(bundle), image, lines, traits.run)
        return self._attested(made, bundle, traits, locked)

    def _attested(self, made: BuiltImage, bundle: Bundle, traits: Traits, wheels: LockedTarget) -> BuiltImage:
        """The same with its SBOM and provenance."""
        own, given = self._lock.base.get(traits.debian_arch), self._lock.given.get(str(bundle.target))
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
        return replace(made, attested=attest(made.image, made_of, self._report))

    def _given_base(self, traits: Traits) -> tuple[Foundation, Traits]:
        """A base of the user's own, by the digest that was locked: what a tag points to now is not asked."""
        target, where = str(traits.target), self._options.base or traits.base
        if where is None:
            raise without_base(traits.target)
        before = self._lock.given.get(target)
        try:
            given = given_base(where, traits, self._folder / "bases", before, self._connect)
        except BadInput:  # the registry may have dropped what was locked
            if before is None or self._options.locked:
                raise
            given = given_base(where, traits, self._folder / "bases", None, self._connect)
        if given.locked != before:
            if self._options.locked:
                locked = f"'{before.name}' {before.digest}" if before else "none"
                raise BadInput(
                    f"--locked: the base of {target} is '{given.locked.name}' {given.locked.digest}, edgepack.lock has "
                    f"{locked}; build once without --locked"
                )
            if before and before.name == given.locked.name:
                self._report.notice(
                    f"the base of {target} is locked anew: {before.digest} became {given.locked.digest}"
                )
            self._keep(self._lock.with_given(target, given.locked))
        return given.foundation, given.traits

    def _connect(self, host: str) -> Registry:
        """A client of a base's registry, with what the user's docker is logged in with there."""
        return Registry(host, find_credentials(host, self._environ), self._options.plain_http)

    def _workshop(self, host: Target, foundation: Foundation, traits: Traits) -> Foundation:
        """The base in which docker's RUN lines run: the image's own, but for the machine that builds."""
        other = self._catalog.traits(host)
        where = self._options.base or traits.base
        if other.debian_arch == traits.debian_arch:
            return foundation
        if traits.is_own_base and not self._options.base:
            return self._own_base(self._maker(other), other)
        try:
            return given_base(str(where), other, self._folder / "bases", None, self._connect).foundation
        except BadInput as error:
            raise BadInput(
                f"docker builds on {host.arch} and needs the base for that too: {error}; or use --builder direct"
            ) from error

    def _maker(self, traits: Traits) -> LayerMaker:
        """Lock the target's base, then take the interpreter of the same release for this machine."""
        locked = self._lock_base(traits)
        release = upstream(_version(locked, traits))
        if release not in self._interpreters:
            self._interpreters[release] = self._interpreter(release)
        interpreter = self._interpreters[release]
        return LayerMaker(
            self._cache,
            encoder_for(self._options.compression, interpreter),
            interpreter if self._options.bytecode else None,
        )

    def _own_base(self, maker: LayerMaker, traits: Traits) -> Foundation:
        locked = self._lock_base(traits)
        layer = maker.find_base(traits.debian_arch, locked)
        if layer is None:
            locked, debs = self._packages.obtain(traits, locked)
            self._keep(self._lock.with_base(traits.debian_arch, locked))
            self._report.step(f"making the base for {traits.target}")
            layer = maker.base(traits.debian_arch, locked, lambda: debs)
        place = Place(f"/usr/bin/python{traits.python}", f"usr/local/lib/python{traits.python}/dist-packages")
        return Foundation(layer.title, ((layer.blob, layer.diff_id),), place, (layer.cached,))

    def _interpreter(self, release: str) -> Interpreter:
        """The base's interpreter for this machine; its lock entry is remade when it is of another release than the
        target's.
        """
        host = traits_of(host_target())
        locked = self._lock_base(host)
        if upstream(_version(locked, host)) != release:
            locked = self._packages.lock(host, None)
            self._keep(self._lock.with_base(host.debian_arch, locked))
        if upstream(_version(locked, host)) != release:
            raise BadInput(
                f"edgepack.lock has Python {release} for the target, the mirror has "
                f"{upstream(_version(locked, host))} for this machine: delete edgepack.lock to have both chosen anew"
            )

        def obtain() -> Mapping[str, Path]:
            found, debs = self._packages.obtain(host, locked, interpreter_packages(host.python))
            self._keep(self._lock.with_base(host.debian_arch, found))
            return debs

        return Interpreter(host, locked.packages, obtain, self._folder / "interpreters")

    def _lock_base(self, traits: Traits) -> LockedBase:
        locked = self._packages.lock(traits, self._lock.base.get(traits.debian_arch))
        self._keep(self._lock.with_base(traits.debian_arch, locked))
        return locked

    def _keep(self, lock: Lock) -> None:
        """Remember what was chosen, in the file as soon as it is known: an interrupted build chooses the same next
        time.
        """
        if lock != self._lock:
            self._lock = lock
            self._lock_file.write(lock)


def _bundles_for(index: Index, targets: Iterable[Target]) -> list[Bundle]:
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


def _check_python(bundle: Bundle, traits: Traits) -> None:
    """Refuse a base whose Python is not the one that the steps' wheels are for."""
    for step in bundle.spec.python_models:
        if step.worker and step.worker.python != traits.python:
            raise BadInput(
                f"step '{step.name}' has wheels for Python {step.worker.python}, the base has {traits.python}: "
                f"choose a base with Python {step.worker.python}"
            )


def _index_for(index: Index, target: Target) -> Index:
    """The part of a bundle's index that an image holds: the plain targets and its own, so that an image does not
    depend on which others with an accelerator were built beside it.
    """
    wanted = {str(each) for each in (*plain_targets(), target)}
    held = tuple(image for image in index.images if image.annotations.get(media.TARGET) in wanted)
    return index if held == index.images else Index(held, index.artifact_type, index.annotations)


def _file_name(chosen: list[Bundle]) -> str:
    if len(chosen) == 1:
        return f"{chosen[0].name}-{chosen[0].target.arch}-{chosen[0].target.accel}.oci.tar"
    return f"{chosen[0].name}.oci.tar"


def _reference(bundle: Bundle) -> str:
    return f"{bundle.name}:{bundle.target.arch}-{bundle.target.accel}"


def _version(locked: LockedBase, traits: Traits) -> str:
    name = f"python{traits.python}-minimal"
    found = next((each.version for each in locked.packages if each.name == name), None)
    if found is None:
        raise BadInput(
            f"edgepack.lock has no package '{name}' for {traits.debian_arch}: delete edgepack.lock to have it made anew"
        )
    return found


def _all(jobs: list[Callable[[], Layer]]) -> list[Layer]:
    """Make layers side by side, in the order given."""
    with ThreadPoolExecutor(max(1, min(4, len(os.sched_getaffinity(0))))) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _given(foundation: Foundation) -> list[LayerLine]:
    pairs = zip(foundation.layers, foundation.cached, strict=True)
    return [
        LayerLine(blob.descriptor.digest, blob.descriptor.size, "base", cached, foundation.title)
        for (blob, _), cached in pairs
    ]


def _line(layer: Layer) -> LayerLine:
    return LayerLine(layer.blob.descriptor.digest, layer.blob.descriptor.size, layer.kind, layer.cached, layer.title)


def _write(index: Index, output: Path, reference: str, images: Iterable[BuiltImage]) -> None:
    attested = [each.attested for each in images]
    files = {path: data for each in attested for path, data in each.files.items()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_tar(index, output, reference, referrers=[one for each in attested for one in each.referrers], files=files)
    except OSError as error:
        raise BadInput(
            f"'{output}' cannot be written: {error.strerror or error}; choose another place with -o"
        ) from error

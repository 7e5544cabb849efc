"""`build`: from a bundle to a file that `docker load`, skopeo and containerd take. A table of contents.

    lock → base → wheels → agent → bundle → image, for each target → one tar

The direct builder: no daemon, no emulation, nothing of the target executed. What follows from what stands in
`layers.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arch.target import Target, host_target
from arch.traits import Traits, traits_of
from buildx.archive import DebianArchive
from buildx.created import Created, created_for
from buildx.debian import upstream
from buildx.encoders import encoder_for
from buildx.given_base import given_base
from buildx.image import Foundation, assemble
from buildx.interpreter import Interpreter, interpreter_packages
from buildx.layer_cache import Layer, LayerCache
from buildx.layers import LayerMaker
from buildx.lock import Lock, LockedBase, LockFile
from buildx.mirror import APT, find_mirror
from buildx.outcome import Built, BuiltImage, LayerLine
from buildx.packages import BasePackages
from buildx.report import Report
from buildx.requirements import requirements_for
from buildx.wheel_files import Place
from buildx.wheels import Wheels
from bundle.bundle import Bundle, bundles
from edgepack.errors import BadInput
from oci.image import Index
from oci.tar import write_tar


@dataclass(frozen=True)
class Options:
    """What a user asks for. `project` is the folder that the lock lies in, `source` what `created` looks at in git."""

    project: Path
    source: Path
    output: Path | None = None
    base: str | None = None
    wheels: Path | None = None
    compression: str = "splice"
    locked: bool = False
    layer_cache: bool = True


@dataclass(frozen=True)
class Workplace:
    """This machine: the cache folder, the environment that names mirror and time, and apt's configuration."""

    cache: Path
    environ: Mapping[str, str]
    apt: Path = APT


def build(index: Index, targets: Iterable[Target], options: Options, workplace: Workplace, report: Report) -> Built:
    """Build the images of a bundle for some targets into one file.

    Raises BadInput for what the user can mend (no mirror, no such base, no wheel), NotTrusted for wrong digests,
    Unreachable when mirror or index are away, BuildFailed for the rest. Nothing is left behind half-written.
    """
    started = time.monotonic()
    chosen = _bundles_for(index, targets)
    output = options.output or Path("dist") / _file_name(chosen)
    created = created_for(options.source, workplace.environ)
    with LayerCache.opened(workplace.cache, keep=options.layer_cache) as cache:
        run = _Run(options, workplace, report, cache, created, LockFile(options.project, workplace.cache, report))
        images = tuple(run.image(bundle, index) for bundle in chosen)
        whole = Index(tuple(each.image for each in images))
        reference = images[0].reference if len(images) == 1 else f"{chosen[0].name}:latest"
        report.step("writing the file")
        _write(whole, output, reference)
    seconds = time.monotonic() - started
    return Built(reference, whole.entry.descriptor.digest, images, output, output.stat().st_size, seconds, created)


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
    ) -> None:
        self._options, self._report, self._cache, self._created, self._lock_file = (
            options,
            report,
            cache,
            created,
            lock_file,
        )
        self._lock = lock_file.read()
        self._folder = workplace.cache
        debian = workplace.cache / "debian"
        self._packages = BasePackages(
            lambda: DebianArchive(find_mirror(workplace.environ, workplace.apt), debian, report),
            debian,
            report,
            frozen=options.locked,
        )
        self._wheels = Wheels(
            workplace.cache / "wheels", report, workplace.environ, local=options.wheels, frozen=options.locked
        )
        self._interpreters: dict[str, Interpreter] = {}

    def image(self, bundle: Bundle, index: Index) -> BuiltImage:
        """Build one target's image."""
        traits = traits_of(bundle.target)
        if self._options.base:
            foundation, traits = given_base(self._options.base, traits, self._folder / "bases")
            maker = LayerMaker(self._cache, encoder_for(self._options.compression, None), None)
        else:
            maker = self._maker(traits)
            foundation = self._own_base(maker, traits)
        requirements = requirements_for({step.runtime for step in bundle.spec.steps})
        locked, paths = self._wheels.obtain(traits, requirements, self._lock.target.get(str(bundle.target)))
        self._keep(self._lock.with_target(str(bundle.target), locked))
        self._report.step(f"layers for {bundle.target}")
        jobs = [*maker.wheels(locked.wheels, paths, foundation.place)]
        jobs += [lambda: maker.agent(foundation.place), lambda: maker.bundle(index)]
        layers = _all(jobs)
        image = assemble(foundation, layers, bundle, traits, self._created)
        return BuiltImage(bundle.target, _reference(bundle), image, (*_given(foundation), *map(_line, layers)))

    def _maker(self, traits: Traits) -> LayerMaker:
        """Lock the target's base, then take the interpreter of the same release for this machine."""
        locked = self._lock_base(traits)
        release = upstream(_version(locked, traits))
        if release not in self._interpreters:
            self._interpreters[release] = self._interpreter(release)
        interpreter = self._interpreters[release]
        return LayerMaker(self._cache, encoder_for(self._options.compression, interpreter), interpreter)

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


def _write(index: Index, output: Path, reference: str) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_tar(index, output, reference)
    except OSError as error:
        raise BadInput(
            f"'{output}' cannot be written: {error.strerror or error}; choose another place with -o"
        ) from error

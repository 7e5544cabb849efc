"""Images that stand on our own base: its packages locked, its layer made or found, its interpreter at hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from arch.target import host_target
from arch.traits import Traits, traits_of
from buildx.archive import DebianArchive
from buildx.debian import upstream
from buildx.encoders import encoder_for
from buildx.ground import Ground
from buildx.image import Foundation
from buildx.interpreter import Interpreter, interpreter_packages
from buildx.layer_cache import LayerCache
from buildx.layers import LayerMaker
from buildx.lock import LockedBase
from buildx.mirror import find_mirror, find_security
from buildx.open_lock import OpenLock
from buildx.options import Options, Workplace
from buildx.packages import BasePackages
from buildx.report import Report
from buildx.wheel_files import Place
from edgepack.errors import BadInput


class OwnBases:
    """The bases of one build; all its targets share an interpreter of each release."""

    def __init__(
        self, options: Options, workplace: Workplace, report: Report, cache: LayerCache, lock: OpenLock
    ) -> None:
        self._options, self._report, self._cache, self._lock = options, report, cache, lock
        self._folder = workplace.cache / "interpreters"
        self._packages = _packages(options, workplace, report)
        self._interpreters: dict[str, Interpreter] = {}

    def ground(self, traits: Traits) -> Ground:
        """What images of a target stand on, and the maker of the layers on it."""
        maker = self._maker(traits)
        return Ground(self._foundation(maker, traits), traits, maker)

    def _maker(self, traits: Traits) -> LayerMaker:
        """Lock the target's base, then take the interpreter of the same release for this machine."""
        release = upstream(_version(self._locked(traits), traits))
        if release not in self._interpreters:
            self._interpreters[release] = self._interpreter(release)
        interpreter = self._interpreters[release]
        encoder = encoder_for(self._options.layer_compression, interpreter)
        return LayerMaker(self._cache, encoder, interpreter if self._options.bytecode else None)

    def _foundation(self, maker: LayerMaker, traits: Traits) -> Foundation:
        locked = self._locked(traits)
        layer = maker.find_base(traits.debian_arch, locked)
        if layer is None:
            locked, debs = self._packages.obtain(traits, locked)
            self._lock.keep_base(traits.debian_arch, locked)
            self._report.step(f"making the base for {traits.target}")
            layer = maker.base(traits.debian_arch, locked, lambda: debs)
        place = Place(f"/usr/bin/python{traits.python}", f"usr/local/lib/python{traits.python}/dist-packages")
        return Foundation(layer.title, ((layer.blob, layer.diff_id),), place, (layer.cached,))

    def _interpreter(self, release: str) -> Interpreter:
        """The base's interpreter for this machine; its lock entry is remade when it is of another release than the
        target's.
        """
        host = traits_of(host_target())
        locked = self._locked(host)
        if upstream(_version(locked, host)) != release:
            locked = self._packages.lock(host, None)
            self._lock.keep_base(host.debian_arch, locked)
        if upstream(_version(locked, host)) != release:
            raise BadInput(
                f"edgepack.lock has Python {release} for the target, the mirror has "
                f"{upstream(_version(locked, host))} for this machine: delete edgepack.lock to have both chosen anew"
            )

        def obtain() -> Mapping[str, Path]:
            found, debs = self._packages.obtain(host, locked, interpreter_packages(host.python))
            self._lock.keep_base(host.debian_arch, found)
            return debs

        return Interpreter(host, locked.packages, obtain, self._folder)

    def _locked(self, traits: Traits) -> LockedBase:
        locked = self._packages.lock(traits, self._lock.base(traits.debian_arch))
        self._lock.keep_base(traits.debian_arch, locked)
        return locked


def _packages(options: Options, workplace: Workplace, report: Report) -> BasePackages:
    folder = workplace.cache / "debian"

    def archive() -> DebianArchive:
        mirror = find_mirror(workplace.environ, workplace.apt)
        security = partial(find_security, workplace.environ, workplace.apt)
        return DebianArchive(mirror, folder, report, security=security)

    return BasePackages(archive, folder, report, frozen=options.locked)


def _version(locked: LockedBase, traits: Traits) -> str:
    name = f"python{traits.python}-minimal"
    found = next((each.version for each in locked.packages if each.name == name), None)
    if found is None:
        raise BadInput(
            f"edgepack.lock has no package '{name}' for {traits.debian_arch}: delete edgepack.lock to have it made anew"
        )
    return found

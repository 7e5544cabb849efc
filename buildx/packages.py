"""`BasePackages`: the Debian packages of bases, from the lock and the cache, else from the mirror.

The mirror is looked for when it is needed first: a build whose packages are all in the cache needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path

from arch.traits import Traits
from buildx.archive import DebianArchive
from buildx.base import resolve_base
from buildx.debian import Package
from buildx.fetch import Gone, in_cache
from buildx.lock import LockedBase, LockedPackage
from buildx.report import Report
from edgepack.errors import BadInput


class BasePackages:
    """Packages by way of a cache folder; `frozen` is `--locked`."""

    def __init__(
        self, archive: Callable[[], DebianArchive], cache: Path, report: Report, *, frozen: bool = False
    ) -> None:
        self._open = archive
        self._cache = cache
        self._report = report
        self._frozen = frozen

    def lock(self, traits: Traits, locked: LockedBase | None) -> LockedBase:
        """The packages of a base: the locked ones, else chosen now. Fetches no package."""
        if locked is not None and locked.release == traits.debian_release:
            return locked
        self._refuse_if_frozen(f"edgepack.lock has no base for {traits.debian_arch}")
        return self._resolve(traits)

    def obtain(
        self, traits: Traits, locked: LockedBase, names: Collection[str] | None = None
    ) -> tuple[LockedBase, dict[str, Path]]:
        """The files of a base's packages, all or those named; with them what is locked now.

        A locked package that the mirror no longer has makes the base be chosen anew, with a notice for each digest
        that changed.
        """
        wanted = [each for each in locked.packages if names is None or each.name in names]
        try:
            return locked, self._files(traits, wanted)
        except Gone as error:
            self._refuse_if_frozen(str(error))
            anew = self._resolve(traits)
            self._tell(locked, anew)
        wanted = [each for each in anew.packages if names is None or each.name in names]
        return anew, self._files(traits, wanted)

    @cached_property
    def _archive(self) -> DebianArchive:
        return self._open()

    def _resolve(self, traits: Traits) -> LockedBase:
        self._report.step(f"choosing Debian packages for {traits.debian_arch}")
        return resolve_base(
            self._archive.index(traits.debian_release, traits.debian_arch), traits.debian_release, traits.python
        )

    def _files(self, traits: Traits, wanted: list[LockedPackage]) -> dict[str, Path]:
        missing = [each for each in wanted if not in_cache(self._place(each), each.sha256)]
        if missing:
            self._report.step(f"fetching {len(missing)} Debian packages for {traits.debian_arch}")
            index = self._archive.index(traits.debian_release, traits.debian_arch)
            found = [index.find(each.name, each.sha256) for each in missing]
            self._archive.packages(_same(locked, package) for locked, package in zip(missing, found, strict=True))
        return {each.name: self._place(each) for each in wanted}

    def _place(self, package: LockedPackage) -> Path:
        return self._cache / package.sha256 / f"{package.name}.deb"

    def _tell(self, old: LockedBase, new: LockedBase) -> None:
        before = {each.name: each for each in old.packages}
        for each in new.packages:
            known = before.get(each.name)
            if known and known.sha256 != each.sha256:
                self._report.notice(
                    f"Debian package '{each.name}' {known.version} is no longer on the mirror, "
                    f"locked anew as {each.version}: its digest changed from sha256:{known.sha256} "
                    f"to sha256:{each.sha256}"
                )

    def _refuse_if_frozen(self, reason: str) -> None:
        if self._frozen:
            raise BadInput(f"--locked: {reason}; build once without --locked")


def _same(locked: LockedPackage, found: Package | None) -> Package:
    """The mirror's package, if it is the locked one."""
    if found is None or found.sha256 != locked.sha256:
        raise Gone(f"the mirror no longer has '{locked.name}' {locked.version} (sha256:{locked.sha256})")
    return found

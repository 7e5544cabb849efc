"""The wheels of a target: from the lock, from a folder, from the index, always by sha256.

A lock that still asks for the same is taken as it stands, and then no index is asked unless a file is missing in the
cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from arch.traits import Traits
from buildx.fetch import Wanted, fetch, fetch_all, in_cache, is_whole, sha256_of
from buildx.lock import LockedTarget, LockedWheel
from buildx.report import Report
from buildx.resolve import Offer, offers_of, resolve
from edgepack.errors import BadInput


class Wheels:
    """Wheels by way of a cache folder; `local` is the folder of `--wheels`, `frozen` is `--locked`."""

    def __init__(
        self,
        cache: Path,
        report: Report,
        environ: Mapping[str, str],
        *,
        local: Path | None = None,
        frozen: bool = False,
    ) -> None:
        if local is not None and not local.is_dir():
            raise BadInput(f"--wheels '{local}' is not a folder: expected one that holds .whl files")
        self._cache = cache
        self._report = report
        self._environ = environ
        self._local = local
        self._frozen = frozen

    def obtain(
        self, traits: Traits, requirements: Sequence[str], locked: LockedTarget | None
    ) -> tuple[LockedTarget, list[Path]]:
        """What to lock, and the file of each wheel of it. Raises BadInput when `--locked` forbids what is needed."""
        reason = self._why_not(traits, requirements, locked)
        if locked is not None and reason is None:
            paths = self._locked(traits, locked)
            if paths is not None:
                return locked, paths
            reason = "it names a wheel that neither the cache, --wheels nor the index has"
        if self._frozen:
            raise BadInput(
                f"--locked: edgepack.lock does not fit {traits.target}: {reason}; build once without --locked"
            )
        return self._anew(traits, requirements, locked)

    def _why_not(self, traits: Traits, requirements: Sequence[str], locked: LockedTarget | None) -> str | None:
        """Why a lock cannot be used, or None."""
        if locked is None:
            return "it has no wheels for this target"
        if locked.requirements != list(requirements) or locked.python != traits.python:
            return "it was made for other requirements"
        if locked.excluded != list(traits.left_out):
            return "other packages were left out of it"
        if locked.glibc != _glibc(traits):
            theirs = f"a given base with glibc {locked.glibc}" if locked.glibc else "edgepack's own base"
            return f"it was made for {theirs}"
        mine = self._mine(traits)
        for wheel in locked.wheels:
            if wheel.name in mine and not self._holds(wheel) and sha256_of(mine[wheel.name]) != wheel.sha256:
                return f"--wheels has another '{wheel.name}'"
        return None

    def _locked(self, traits: Traits, locked: LockedTarget) -> list[Path] | None:
        """The locked files, or None when one cannot be had any more."""
        missing = [wheel for wheel in locked.wheels if not in_cache(self._place(wheel), wheel.sha256)]
        missing = [wheel for wheel in missing if not self._keep_local(wheel)]
        if missing:
            self._report.step(f"fetching {len(missing)} wheels for {traits.target}")
            pins = {wheel.name: wheel.version for wheel in missing}
            offers = offers_of(traits, pins, self._local, self._environ)
            wanted = [found for wheel in missing if (found := _find(wheel, offers))]
            if len(wanted) < len(missing):
                return None
            fetch_all(wanted, self._cache)
        return [self._place(wheel) for wheel in locked.wheels]

    def _anew(
        self, traits: Traits, requirements: Sequence[str], locked: LockedTarget | None
    ) -> tuple[LockedTarget, list[Path]]:
        self._report.step(f"resolving wheels for {traits.target}")
        resolved = resolve(traits, requirements, self._local, self._environ)
        chosen = [offers[0] for _, offers in sorted(resolved.items())]
        self._report.step(f"fetching {len(chosen)} wheels for {traits.target}")
        paths = fetch_all((Wanted(offer.url, offer.sha256, offer.filename) for offer in chosen), self._cache)
        wheels = [_lock(offer, path) for offer, path in zip(chosen, paths, strict=True)]
        self._tell(locked.wheels if locked else [], wheels)
        left_out = list(traits.left_out)
        return LockedTarget(traits.python, list(requirements), wheels, left_out, _glibc(traits)), paths

    def _tell(self, old: Sequence[LockedWheel], new: Sequence[LockedWheel]) -> None:
        """Say which wheels have the version that was locked, and other bytes."""
        now = {(wheel.name, wheel.version): wheel.sha256 for wheel in new}
        for wheel in old:
            sha256 = now.get((wheel.name, wheel.version), wheel.sha256)
            if sha256 != wheel.sha256:
                self._report.notice(
                    f"wheel '{wheel.name}' {wheel.version} is locked anew: "
                    f"its digest changed from sha256:{wheel.sha256} to sha256:{sha256}"
                )

    def _mine(self, traits: Traits) -> dict[str, Path]:
        """Package → its wheel in the local folder, those for other machines left out."""
        paths = sorted(self._local.glob("*.whl")) if self._local else []
        fitting = [path for path in paths if path.name.endswith("-any.whl") or traits.machine in path.name]
        return {path.name.partition("-")[0].lower().replace("_", "-"): path for path in fitting}

    def _holds(self, wheel: LockedWheel) -> bool:
        return self._local is not None and is_whole(self._local / wheel.filename, wheel.sha256)

    def _keep_local(self, wheel: LockedWheel) -> bool:
        """Copy a locked wheel out of the local folder, if it is there."""
        if self._local is None or not self._holds(wheel):
            return False
        url = (self._local / wheel.filename).resolve().as_uri()
        fetch(Wanted(url, wheel.sha256, wheel.filename), self._cache)
        return True

    def _place(self, wheel: LockedWheel) -> Path:
        return self._cache / wheel.sha256 / wheel.filename


def _glibc(traits: Traits) -> str:
    """The base's version, where it is not the one that the base's own lock entry implies."""
    return "" if traits.is_own_base else traits.glibc


def _lock(offer: Offer, path: Path) -> LockedWheel:
    return LockedWheel(offer.name, offer.version, offer.filename, offer.sha256, path.stat().st_size)


def _find(wheel: LockedWheel, offers: Mapping[str, list[Offer]]) -> Wanted | None:
    found = next((offer for offer in offers.get(wheel.name, []) if offer.sha256 == wheel.sha256), None)
    return Wanted(found.url, wheel.sha256, wheel.filename) if found else None

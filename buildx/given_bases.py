"""Images that stand on a base of the user's own: read by `given_base.py`, and locked by digest."""

from __future__ import annotations

from arch.catalog import without_base
from arch.traits import Traits
from buildx.encoders import encoder_for
from buildx.given_base import Given, given_base
from buildx.ground import Ground
from buildx.layer_cache import LayerCache
from buildx.layers import LayerMaker
from buildx.lock import LockedGiven
from buildx.open_lock import OpenLock
from buildx.options import Options, Workplace
from buildx.report import Report
from edgepack.errors import BadInput
from oci.registry import Registry


class GivenBases:
    """The bases of one build, by the digests that were locked: what a tag points to now is not asked."""

    def __init__(
        self, options: Options, workplace: Workplace, report: Report, cache: LayerCache, lock: OpenLock
    ) -> None:
        self._options, self._workplace, self._report, self._lock = options, workplace, report, lock
        self._maker = LayerMaker(cache, encoder_for(options.layer_compression, None), None)

    def ground(self, traits: Traits) -> Ground:
        """What images of a target stand on, and the maker of the layers on it."""
        where = self._options.base or traits.base
        if where is None:
            raise without_base(traits.target)
        target = str(traits.target)
        before = self._lock.given(target)
        given = self._read(where, traits, before)
        if given.locked != before:
            self._check_change(target, before, given.locked)
            self._lock.keep_given(target, given.locked)
        return Ground(given.foundation, given.traits, self._maker)

    def _read(self, where: str, traits: Traits, before: LockedGiven | None) -> Given:
        folder = self._workplace.cache / "bases"
        try:
            return given_base(where, traits, folder, before, self._connect)
        except BadInput:  # the registry may have dropped what was locked
            if before is None or self._options.locked:
                raise
            return given_base(where, traits, folder, None, self._connect)

    def _check_change(self, target: str, before: LockedGiven | None, now: LockedGiven) -> None:
        if self._options.locked:
            locked = f"'{before.name}' {before.digest}" if before else "none"
            raise BadInput(
                f"--locked: the base of {target} is '{now.name}' {now.digest}, edgepack.lock has {locked}; build once "
                "without --locked"
            )
        if before and before.name == now.name:
            self._report.notice(f"the base of {target} is locked anew: {before.digest} became {now.digest}")

    def _connect(self, host: str) -> Registry:
        """A client of a base's registry, with what the user is logged in with there."""
        return Registry(host, self._workplace.credentials_for(host), self._options.plain_http)

"""`OpenLock`: the project's lock as it grows in the course of a build."""

from __future__ import annotations

from buildx.lock import Lock, LockedBase, LockedGiven, LockedTarget, LockFile


class OpenLock:
    """What was chosen is in the file as soon as it is known: an interrupted build chooses the same next time."""

    def __init__(self, file: LockFile) -> None:
        self._file = file
        self._lock = file.read()

    def base(self, arch: str) -> LockedBase | None:
        """Our own base of a Debian architecture, where it is locked."""
        return self._lock.base.get(arch)

    def given(self, target: str) -> LockedGiven | None:
        """The user's own base of a target, where it is locked."""
        return self._lock.given.get(target)

    def wheels(self, target: str) -> LockedTarget | None:
        """The wheels of a target, where they are locked."""
        return self._lock.target.get(target)

    def keep_base(self, arch: str, base: LockedBase) -> None:
        """Remember our own base of an architecture."""
        self._keep(self._lock.with_base(arch, base))

    def keep_given(self, target: str, given: LockedGiven) -> None:
        """Remember the user's own base of a target."""
        self._keep(self._lock.with_given(target, given))

    def keep_wheels(self, target: str, wheels: LockedTarget) -> None:
        """Remember the wheels of a target."""
        self._keep(self._lock.with_target(target, wheels))

    def _keep(self, lock: Lock) -> None:
        if lock != self._lock:
            self._lock = lock
            self._file.write(lock)

"""From blobs to a pipeline that answers: unpack, try on this machine, remember, switch.

Rules:
- a bundle folder is whole or not there; the state's transaction is the moment of activation, all before it
  can be repeated
- golden rows run in a child before the model is ever loaded here; a bundle that fails leaves the one that
  serves untouched
- an attempt is counted before it begins: what takes the machine down three times is not tried a fourth time
- active and previous stay on disk, with the bundles that they were made of on this device; what neither they nor the
  assignment name is deleted; what a budget of the disk lets go of is neither any more
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from bundle import media
from bundle.bundle import Bundle
from bundle.golden import Comparison
from bundle.model_folders import base_of
from bundle.pipeline import PipelineSpec
from bundle.store import OpenBundle, faults, unpack
from edge_agent.folders import Folders
from edge_agent.pipelines.serving import NotServed
from edge_agent.state import Installed, State
from edge_agent.telemetry.events import event
from edgepack.errors import EdgepackError, RuntimeFailed
from fleet.messages import Assigned
from oci.digest import Digest
from oci.image import parse_manifest
from runtimes.environment import collect as collect_environments
from runtimes.environment import environment_names, sweep

log = logging.getLogger("edgepack.agent")

ATTEMPTS = 3
_GONE = ".gone-"


class WrongAnswers(RuntimeFailed):
    """The golden rows do not come out as they must on this machine. Trying again cannot help."""


class GaveUp(WrongAnswers):
    """No attempt came to an end, or each ended with a crash. The last reason is in the report of the attempt before."""


class Stage(Protocol):
    """Where pipelines serve; `edge_agent.pipelines.serving` through `edge_agent.agent`."""

    def load(self, name: str, folder: Path, version: Assigned) -> Callable[[], None]:
        """Load a bundle folder and return what switches requests to it. Raises EdgepackError when it does not
        load.
        """

    def load_beside(self, name: str, folder: Path, version: Assigned) -> Callable[[], None]:
        """As `load`, for a version that answers beside the one of the name."""

    def remove(self, name: str) -> None:
        """Stop serving a pipeline."""

    def serving(self) -> dict[str, str]:
        """Manifest by name of what serves."""


class Activator:
    """Activates, restores, removes and tidies up. May be used by several threads at once: those that follow the hub and
    live models, and of clients that have pipelines loaded. A trial runs outside `turn`, beside what others do.
    """

    def __init__(
        self,
        folders: Folders,
        state: State,
        stage: Stage,
        trial: Callable[[Path], Comparison],
        admit: Callable[[PipelineSpec], None] = lambda spec: None,
    ) -> None:
        """`trial` runs the golden rows of a bundle folder in a child and compares; `admit` raises BadInput for a
        pipeline that may not run on this machine at all.
        """
        self._folders = folders
        self._state = state
        self._stage = stage
        self._trial = trial
        self._admit = admit
        self.kept: Callable[[], Iterable[str]] = lambda: ()  # manifests that somebody else has a use for
        self.turn = threading.RLock()  # one at a time changes what is installed, unpacked, or in memory

    def unpack(self, bundle: Bundle) -> Path:
        """Write a bundle's folder, durably. Raises NotTrusted when a blob is not what the manifest says."""
        with self.turn:
            return unpack(bundle, self._folders.bundles, link=True)

    def staged(self) -> frozenset[str]:
        """Manifests whose bundle folder is there."""
        return frozenset(
            f"sha256:{path.name}" for path in self._folders.bundles.iterdir() if not path.name.startswith(".")
        )

    def activate(self, name: str, version: Assigned, sequence: int, *, trial: bool = True) -> None:
        """Try a staged bundle and switch to it; `sequence` is the assignment's.

        Raises WrongAnswers, RuntimeFailed (crash, time-out, does not load; or its third attempt is over),
        BadInput. On any of these the pipeline that serves goes on.
        """
        begun = time.monotonic()
        attempt = self._state.begin_attempt(version.manifest, sequence)
        if attempt > ATTEMPTS:
            raise GaveUp(f"bundle {version.manifest} of pipeline '{name}' did not become active in {ATTEMPTS} attempts")
        folder = self._whole_folder(name, version)
        if trial:
            _judge(name, version, self._trial(folder))
        with self.turn:
            switch = self._stage.load(name, folder, version)
            self._state.activate(name, version)
            switch()
        took_s = round(time.monotonic() - begun, 2)
        event(log, "bundle activated", pipeline=name, manifest=version.manifest, attempt=attempt, took_s=took_s)

    def add(self, name: str, version: Assigned, *, trial: bool = True) -> None:
        """Have a staged bundle answer beside the one of its name, for as long as this process lives. Raises as
        `activate` does.
        """
        folder = self._whole_folder(name, version)
        if trial:
            _judge(name, version, self._trial(folder))
        with self.turn:
            self._stage.load_beside(name, folder, version)()

    def resume(self, name: str, version: Assigned) -> None:
        """Have a staged bundle that was proven here answer again under its name; that is no attempt, which are counted.

        Raises RuntimeFailed where it does not load just now: it may be tried again.
        """
        with self.turn:
            switch = self._stage.load(name, self._whole_folder(name, version), version)
            installed = self._state.installed().get(name)
            if installed is None or installed.active != version:
                self._state.activate(name, version)
            switch()

    def discard(self, manifest: str) -> None:
        """Delete a bundle's folder that nothing in memory needs, and forget that it is installed: the next start does
        not miss it.
        """
        with self.turn:
            self._state.let_go(manifest)
            self._discard(self._folders.bundle(manifest))

    def restore(self, only: Collection[str] | None = None) -> dict[str, str]:
        """Serve what was active when the agent last ran, or the version before. Returns reason by name for
        what is not as it was. With `only`, manifests, nothing else is served, whatever was.
        """
        for path in self._folders.bundles.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        sweep(self._folders.environments)
        installed = self._state.installed()
        if only is not None:
            whole = {name: each for name, each in installed.items() if each.active.manifest in only}
            installed = {name: replace(each, previous=None) for name, each in whole.items()}
        found = {name: self._restore(name, each) for name, each in installed.items()}
        return {name: reason for name, reason in found.items() if reason}

    def reload(self, name: str) -> str | None:
        """Serve again what is installed under a name; returns the reason where it is not as it was. Raises NotServed
        where nothing is installed.
        """
        with self.turn:
            installed = self._state.installed().get(name)
            if installed is None:
                raise NotServed(f"pipeline '{name[:100]}' is not installed here", field="pipeline")
            return self._restore(name, installed)

    def remove(self, name: str) -> None:
        """Stop serving a pipeline that is no longer assigned. Its spool stays until its rows are home."""
        with self.turn:
            self._state.remove(name)
            self._stage.remove(name)
        event(log, "pipeline removed", pipeline=name)

    def collect(self, wanted: Iterable[str] = ()) -> None:
        """Delete bundles and blobs that neither active nor previous versions nor `wanted` manifests need."""
        with self.turn:
            self._collect(wanted)

    def _collect(self, wanted: Iterable[str]) -> None:
        installed = self._state.installed().values()
        versions = [version.manifest for each in installed for version in (each.active, each.previous) if version]
        bases = (made_of(self._folders, each) for each in versions)
        manifests = {*versions, *bases, *wanted, *self.kept()}
        compiled = self._folders.compiled
        for path in [*self._folders.bundles.iterdir(), *(compiled.iterdir() if compiled.is_dir() else [])]:
            if f"sha256:{path.name}" not in manifests:
                self._discard(path)
        kept = {digest for manifest in manifests for digest in self._blobs_of(manifest)}
        for path in list(self._folders.blobs.iterdir()):
            if path.name.partition(".")[0] not in kept:
                path.unlink(missing_ok=True)

        collect_environments(self._folders.environments, self._environments_of(manifests))

    def _environments_of(self, manifests: Iterable[str]) -> set[str]:
        """What the python steps of unpacked bundles import."""
        names: set[str] = set()
        for folder in (self._folders.bundle(manifest) for manifest in manifests):
            with suppress(
                EdgepackError
            ):  # one that is damaged or not there is fetched again, its environment made again
                names.update(environment_names(OpenBundle(folder)))
        return names

    def _whole_folder(self, name: str, version: Assigned) -> Path:
        folder = self._folders.bundle(version.manifest)
        found = faults(folder)
        if found:
            self._discard(folder)
            raise RuntimeFailed(
                f"bundle {version.manifest} of pipeline '{name}' is damaged on this disk: {found[0]}; fetching again"
            )
        self._admit(OpenBundle(folder).spec)
        return folder

    def _restore(self, name: str, installed: Installed) -> str | None:
        reason = None
        for version in (installed.active, installed.previous):
            if version is None:
                continue
            try:
                self._stage.load(name, self._whole_folder(name, version), version)()
            except (EdgepackError, OSError) as error:
                reason = reason or str(error)
                event(
                    log,
                    "bundle not restored",
                    level=logging.ERROR,
                    pipeline=name,
                    manifest=version.manifest,
                    reason=str(error),
                )
            else:
                event(log, "bundle restored", pipeline=name, manifest=version.manifest)
                break
        return reason

    def _discard(self, folder: Path) -> None:
        """Delete a bundle folder so that a kill in between leaves nothing that looks whole."""
        gone = folder.with_name(f"{_GONE}{folder.name.lstrip('.')}")
        shutil.rmtree(gone, ignore_errors=True)
        if folder.is_dir():
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _blobs_of(self, manifest: str) -> list[str]:
        """Hexadecimal names of a manifest and of what it names, as far as this device knows it."""
        hex_name = Digest(manifest).hex
        for path in (self._folders.blobs / hex_name, self._folders.bundles / hex_name / media.MANIFEST_FILE):
            try:
                document = parse_manifest(path.read_bytes(), manifest)
            except (OSError, EdgepackError, msgspec.MsgspecError):
                continue
            return [hex_name, *(Digest(blob.digest).hex for blob in (document.config, *document.layers))]
        return [hex_name]


def made_of(folders: Folders, manifest: str) -> str:
    """The bundle that one was made of on this device, which is needed again when its models change; else itself."""
    try:
        return base_of(OpenBundle(folders.bundle(manifest)).spec, manifest)
    except EdgepackError:
        return manifest  # damaged, or not there: nothing says what it was made of


def _judge(name: str, version: Assigned, comparison: Comparison) -> None:
    if not comparison.passed:
        raise WrongAnswers(
            f"bundle {version.manifest} of pipeline '{name}' answers wrongly on this machine: {comparison.reason}"
        )

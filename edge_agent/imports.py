"""Bundles that come with the image or as a folder: active until the first assignment, afterwards the device's
state decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from arch.target import Target
from bundle import media
from bundle.bundle import Bundle
from edge_agent.activate import Activator
from edge_agent.link.fetch import fits
from edge_agent.state import State
from edge_agent.telemetry.events import event
from edgepack.errors import BadInput, EdgepackError
from fleet.messages import Assigned
from oci.descriptor import Descriptor
from oci.image import INDEXES, MANIFESTS, Index, parse_index
from oci.layout import Layout
from oci.source import read_document, read_image, without_names

log = logging.getLogger("edgepack.agent")


def import_layout(
    folder: Path,
    activator: Activator,
    state: State,
    serving: dict[str, str],
    target: Target,
    *,
    trial: bool = True,
) -> list[str]:
    """Activate the bundles of an OCI layout folder that are for this device; returns the pipelines' names.

    Does nothing once an assignment was accepted, and nothing for a bundle that serves already. `trial` may be
    False only where the golden rows ran on this very machine a moment ago. Raises BadInput when the folder
    holds no bundle for this target, NotTrusted when one is damaged, RuntimeFailed when one answers wrongly.
    """
    if state.floor():
        event(
            log,
            "bundle folder passed over: the hub's assignment decides",
            folder=folder,
            sequence=state.floor(),
        )
        return []
    found = fitting_bundles(folder, target)
    for bundle in found:
        if serving.get(bundle.name) != bundle.digest:
            activator.unpack(bundle)
            version = Assigned(manifest=bundle.digest, index=bundle.index_digest, repository="")
            activator.activate(bundle.name, version, 0, trial=trial)
    return [bundle.name for bundle in found]


def bundles_in_layouts(folders: Iterable[Path], state: State, target: Target) -> dict[str, str]:
    """Pipeline → manifest of what `import_layout` is to activate out of these folders; what is wrong with one, it says
    then.
    """
    found: dict[str, str] = {}
    for folder in folders if not state.floor() else ():
        with suppress(EdgepackError):
            found.update({bundle.name: bundle.digest for bundle in fitting_bundles(folder, target)})
    return found


def fitting_bundles(folder: Path, target: Target) -> list[Bundle]:
    """Read the bundles of a layout folder that run on a target; it may lack the blobs of the other targets."""
    layout = Layout(folder)
    found, others = [], []
    for index_digest, entry in _manifests(layout):
        said = entry.annotations.get(media.TARGET)
        if entry.media_type not in MANIFESTS or said is None:
            continue
        if fits(said, target):
            found.append(Bundle.from_image(read_image(layout, entry), index_digest))
        else:
            others.append(said)
    if not found:
        has = f"it has {', '.join(sorted(set(others)))}" if others else "it has none at all"
        raise BadInput(f"'{folder}' holds no bundle for {target}: {has}", field="bundle")
    return found


def _manifests(layout: Layout) -> list[tuple[str, Descriptor]]:
    """Digest of the index and descriptor of each manifest."""
    found: list[tuple[str, Descriptor]] = []
    for entry in layout.top():
        if entry.media_type in INDEXES:
            document = parse_index(read_document(layout, without_names(entry)).data, entry.digest)
            found.extend((entry.digest, inner) for inner in document.manifests)
        elif entry.media_type in MANIFESTS:
            plain = without_names(entry)
            found.append((Index((read_image(layout, plain),)).digest, plain))
    return found

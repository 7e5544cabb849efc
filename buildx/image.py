"""An image's config: what engines do with the layers, and what the image says of itself (image-spec, "Image
Configuration").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from arch.options import VARIABLE, Options
from arch.traits import Traits
from buildx.agent_layer import PROGRAM
from buildx.base import USER
from buildx.created import Created
from buildx.layer_cache import Layer
from buildx.wheel_files import Place
from bundle.bundle import Bundle
from oci.blob import Blob, BytesBlob
from oci.descriptor import PlatformField
from oci.image import IMAGE_CONFIG, Image

BUNDLE_FOLDER = "opt/edgepack/bundle"
PORT = 8080
_SECOND_NS = 1_000_000_000
L4T_LABEL = "io.edgepack.l4t"
_ALIVE = (  # where the agent really listens: whoever runs the image may have given it another port
    "import os,socket,sys;s=socket.create_connection(('127.0.0.1',int(os.environ.get('EDGEPACK_PORT',%d))),3);"
    "s.sendall(b'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n');sys.exit(b' 200 ' not in s.recv(99))"
)
# The agent's settings are here so that `docker run IMAGE run --hub …` and `docker exec … status` have them too.
_ENVIRONMENT = {
    "EDGEPACK_BUNDLE": f"/{BUNDLE_FOLDER}",
    "EDGEPACK_DATA": "/persist",
    "EDGEPACK_HOST": "0.0.0.0",  # noqa: S104 - a container is reached through the ports it publishes
    "EDGEPACK_PORT": str(PORT),
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Foundation:
    """What an image stands on: layers that are there, where Python is, and the environment the base wants.

    `history` holds what a base of the user's own says of its layers, as it said it.
    """

    title: str
    layers: tuple[tuple[Blob, str], ...]
    place: Place
    cached: tuple[bool, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Mapping[str, object], ...] = ()


def assemble(
    foundation: Foundation, layers: Sequence[Layer], bundle: Bundle, traits: Traits, created: Created
) -> Image:
    """Make the image of one target."""
    platform = bundle.target.platform
    document: dict[str, object] = {"created": created.text, "architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        document["variant"] = platform.variant
    document["config"] = _config(foundation, bundle, traits, created)
    diff_ids = [diff_id for _, diff_id in foundation.layers] + [layer.diff_id for layer in layers]
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    document["history"] = _history(foundation, layers, created)
    config = BytesBlob.of(msgspec.json.encode(document), IMAGE_CONFIG)
    blobs = tuple(blob for blob, _ in foundation.layers) + tuple(layer.blob for layer in layers)
    return Image(config, blobs, platform=PlatformField(platform.architecture, platform.os, platform.variant))


def labels(bundle: Bundle, traits: Traits, created: Created) -> dict[str, str]:
    """What the image says of itself. Outside a repository the bundle's digest stands for the revision of the source."""
    said = {
        "org.opencontainers.image.title": bundle.name,
        "org.opencontainers.image.version": bundle.version,
        "org.opencontainers.image.created": created.text,
        "org.opencontainers.image.revision": created.revision or bundle.index_digest,
        "io.edgepack.pipeline": bundle.name,
        "io.edgepack.target": str(bundle.target),
        "io.edgepack.bundle": bundle.digest,
        "io.edgepack.providers": ",".join(traits.providers),
        **traits.labels,
    }
    return {key: str(text) for key, text in sorted(said.items())}  # a Digest is more than msgspec takes for a str


def _config(foundation: Foundation, bundle: Bundle, traits: Traits, created: Created) -> dict[str, object]:
    python = foundation.place.python
    environment = {**_ENVIRONMENT, **foundation.environment, **traits.environment, **_said_to_the_agent(traits)}
    if traits.site:  # apart from the base's own packages, and before them
        environment["PYTHONPATH"] = ":".join(filter(None, [f"/{traits.site}", environment.get("PYTHONPATH")]))
    check = ["CMD", python, "-I", "-S", "-c", _ALIVE % PORT]
    return {
        "User": f"{USER}:{USER}",
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
        "Entrypoint": [python, f"/{PROGRAM}"],
        "Cmd": ["run"],
        "Volumes": {"/persist": {}},
        "WorkingDir": "/",
        "Labels": labels(bundle, traits, created),
        "StopSignal": "SIGTERM",
        # docker's own field, which other engines pass over: an image without a shell cannot be checked otherwise
        "Healthcheck": {
            "Test": check,
            "Interval": 30 * _SECOND_NS,
            "Timeout": 5 * _SECOND_NS,
            "StartPeriod": 30 * _SECOND_NS,
        },
    }


def _said_to_the_agent(traits: Traits) -> dict[str, str]:
    """What the agent in the image cannot find out by itself: what it was built for."""
    said = {"EDGEPACK_PROVIDERS": ",".join(traits.providers), "EDGEPACK_TARGET": str(traits.target)}
    if (options := Options.of_target(traits)) != Options():
        said[VARIABLE] = options.said()
    return {**said, **({"EDGEPACK_L4T": traits.labels[L4T_LABEL]} if L4T_LABEL in traits.labels else {})}


def _history(foundation: Foundation, layers: Sequence[Layer], created: Created) -> list[Mapping[str, object]]:
    """One line a layer, as `docker history` shows it."""
    own = [{"created": created.text, "created_by": f"edgepack base {foundation.title}"} for _ in foundation.layers]
    ours = [{"created": created.text, "created_by": f"edgepack {layer.kind} {layer.title}"} for layer in layers]
    return [*(foundation.history or own), *ours]

"""A real hub on a loopback port, and the small bundles that tests publish there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from arch.target import host_target
from bundle.bundle import bundles, pack
from bundle.pipeline import LogPolicy, PipelineSpec, Resources
from edge_agent.folders import Folders
from edge_agent.link.enrol import enrol
from edge_agent.state import Enrolled, State
from fleet.messages import Assigned
from hub.app import create_app
from hub.config import HubConfig
from hub.hub import Hub
from hub.server import Server
from oci.credentials import Bearer
from oci.image import Index
from oci.registry import Registry
from tests.runtimes.models import linear, step

GOLDEN = b'[{"in.x": [1, 2, 3], "out.y": [%s]}]'


def make_bundle(
    folder: Path,
    name: str = "demo",
    factor: float = 2.0,
    *,
    right: bool = True,
    padding: int = 0,
    log: LogPolicy | None = None,
    resources: Resources | None = None,
) -> Index:
    """The index of a bundle that answers factor * sum(x); its golden rows agree only if it is `right`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{name}-{factor}.onnx"
    model.write_bytes(linear(factor=factor))
    files = {"linear.onnx": model}
    if padding:
        files["padding.bin"] = folder / "padding.bin"
        files["padding.bin"].write_bytes(bytes(range(256)) * (padding // 256))
    expected = str(6 * factor if right else 6 * factor + 1).encode()
    spec = PipelineSpec(name, [step()], log=log or LogPolicy(max_bytes="16Mi"), resources=resources or Resources())
    return pack(spec, files, GOLDEN % expected, [host_target()])


def assigned(index: Index, repository: str = "demo") -> Assigned:
    """What an assignment says of a bundle."""
    return Assigned(bundles(index)[0].digest, index.digest, repository)


class RealHub:
    """An operator's view of it."""

    def __init__(self, url: str, admin_token: str, ca: Path | None = None) -> None:
        self.url = url
        self._admin = admin_token
        self._ca = ca
        self._http = urllib3.PoolManager(retries=False, timeout=60, ca_certs=str(ca) if ca else None)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        sent = {"Authorization": f"Bearer {self._admin}", "Content-Type": "application/json", **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        answer = self._http.request(method, self.url + path, body=data, headers=sent)
        assert answer.status < 300, (answer.status, answer.data)
        return json.loads(answer.data) if answer.data else None

    def token(self) -> str:
        return str(self.call("POST", "/api/v1/tokens", {})["token"])

    def publish(self, index: Index, name: str = "demo") -> str:
        with Registry(self.url.partition("://")[2], Bearer(self._admin), ca_file=self._ca) as registry:
            return registry.push_index(name, "latest", index)

    def assign(self, device: str, **pipelines: str) -> None:
        self.call("PUT", f"/api/v1/assignments/{device}", {"pipelines": pipelines})

    def device(self, device: str) -> Any:
        return next(each for each in self.call("GET", "/api/v1/devices")["devices"] if each["id"] == device)

    def report(self, device: str, name: str = "demo") -> Any:
        inventory = self.device(device)["inventory"]
        return inventory and inventory["pipelines"].get(name)

    def rows(self, device: str | None = None) -> list[Any]:
        found: list[Any] = []
        query = start = f"?device={device}&limit=1000" if device else "?limit=1000"
        while True:
            page = self.call("GET", f"/api/v1/logs{query}")
            found += page["rows"]
            if not page["next"]:
                return found
            query = f"{start}&after={page['next']}"

    def close(self) -> None:
        self._http.clear()


@contextmanager
def running_hub(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[RealHub]:
    """Start one and stop it; with `certificate` (and its key) it speaks TLS."""
    cert, key = certificate or (None, None)
    config = HubConfig(data=folder, port=0, check_in_s=0.2, tls_cert=cert, tls_key=key)
    hub = Hub.open(config)
    server = Server(config)
    thread = threading.Thread(target=server.serve, args=(create_app(hub),), daemon=True)
    thread.start()
    operator = RealHub(server.url, hub.admin_token, cert)
    try:
        yield operator
    finally:
        operator.close()
        server.stop()
        thread.join()
        hub.close()


def enrolled_folder(hub: RealHub, data: Path, via: str | None = None) -> tuple[Folders, Enrolled]:
    """A data folder with an identity at the hub, reached through `via` where something stands in between."""
    folders = Folders(data).make()
    state = State.open(folders.state)
    try:
        name = f"line-{len(hub.call('GET', '/api/v1/devices')['devices'])}"
        return folders, enrol(folders, state, via or hub.url, hub.token(), name=name).enrolled
    finally:
        state.close()

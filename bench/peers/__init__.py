"""Other servers, to stand beside ours in one run: each in an environment of its own, made on demand and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

HERE = Path(__file__).parent
OIP_HEAD = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Peer:
    """A server: what it needs, how it is started (`{bin}`, `{port}`, `{work}`), and its path by protocol."""

    name: str
    requirements: tuple[str, ...]
    command: str
    paths: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)


FASTAPI = Peer(
    "FastAPI",
    ("fastapi", "uvicorn", "httptools", "uvloop", "onnxruntime", "numpy"),
    "{bin}/uvicorn --host 127.0.0.1 --port {port} --loop uvloop --http httptools --no-access-log "
    "--log-level warning fastapi_server:app",
    {"raw": "/raw", "rows": "/predict"},
)
MLSERVER = Peer(
    "MLServer",
    ("mlserver==1.7.1", "onnxruntime"),
    "{bin}/mlserver start {work}",
    {"oip": "/v2/models/m/infer"},
    {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{port1}", "MLSERVER_METRICS_PORT": "{port2}"},
)
TRITON = Peer(
    "Triton",
    ("nvidia-pytriton==0.7.0", "onnxruntime"),
    "{bin}/python triton_server.py {port} {work}",
    {"oip-binary": "/v2/models/m/infer"},
)
PEERS = (FASTAPI, MLSERVER, TRITON)
_MLSERVER_FILES = {
    "model-settings.json": '{"name": "m", "implementation": "mlserver_model.OnnxModel"}',
    "settings.json": '{"debug": false, "host": "127.0.0.1", "parallel_workers": 0, "metrics_endpoint": null}',
}


def environment(peer: Peer) -> Path | None:
    """The folder with a peer's programs; None, and a line on stderr, where it cannot be installed."""
    folder = user_cache_path("edgepack") / "bench" / "venvs" / peer.name.lower()
    if not (folder / ".whole").exists():
        print(f"bench: installing {peer.name} once", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True)
        pip = [str(folder / "bin" / "pip"), "install", "-q", *peer.requirements]
        if made.returncode or subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            print(f"bench: {peer.name} cannot be installed here: left out", file=sys.stderr)
            return None
        (folder / ".whole").touch()
    return folder / "bin"


def start(peer: Peer, model: Path, port: int, work: Path, cpus: set[int]) -> subprocess.Popen[bytes] | None:
    """Start a peer with a model, on these CPUs."""
    programs = environment(peer)
    if programs is None:
        return None
    work.mkdir(parents=True)
    if peer is MLSERVER:
        for name, text in _MLSERVER_FILES.items():
            (work / name).write_text(text)
    words = {"bin": programs, "port": port, "port1": port + 1, "port2": port + 2, "work": work}
    said = {name: text.format(**words) for name, text in peer.env.items()}
    env = {**os.environ, **said, "BENCH_MODEL": str(model), "PYTHONPATH": str(HERE)}
    env["PATH"] = f"{programs}:{env['PATH']}"
    log = (work / "log").open("wb")
    return subprocess.Popen(
        peer.command.format(**words).split(), cwd=HERE, env=env, stdout=log, stderr=log,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus), start_new_session=True,
    )  # fmt: skip

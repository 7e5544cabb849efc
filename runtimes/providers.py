"""Opening an ONNX Runtime session on what is here: the providers that the image asks for, those that fit, the CPU.

The rules stand in `arch/providers.py`, what providers are told in `arch/options.py`. Here the engine is asked: what it
was built with, whether it really took what it was given, because it falls back to the CPU with nothing but a line on
its standard output, and which nodes of a model went where, because a provider that was taken may still be idle.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from arch.nvidia import Nvidia, read_nvidia
from arch.options import Options
from arch.providers import CPU, CUDA, OPENVINO, TENSORRT, Choice, Needs, choose_providers, objection, wanted_providers

VARIABLE = "EDGEPACK_PROVIDERS"
_L4T = "EDGEPACK_L4T"
_RECORD = "session.record_ep_graph_assignment_info"  # an engine older than 1.24 passes over it
_PLACE = re.compile(r"(EP Error ?)+(\S+:\d+ .*?\) )?")

_folder: ContextVar[Path | None] = ContextVar("compiled", default=None)


@contextlib.contextmanager
def keeping_compiled(folder: Path | None) -> Iterator[None]:
    """Have what providers compile of models that are loaded meanwhile kept in a folder, made when it is needed; None:
    not kept.
    """
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def choose_here(
    engine: Any, environ: Mapping[str, str] = os.environ, look: Callable[[], Nvidia | None] = read_nvidia
) -> Choice:
    """What to use of the engine on this machine. It is looked at only where more than the CPU is wanted."""
    wanted = wanted_providers(environ.get(VARIABLE))
    if wanted == (CPU,):
        return Choice()
    speaks_against = partial(objection, nvidia=look(), needs=_needs(engine, wanted, environ))
    return choose_providers(wanted, engine.get_available_providers(), speaks_against)


def open_session(engine: Any, path: Path, options: Any, choice: Choice | None = None) -> tuple[Any, Choice]:
    """Open a session, and say what it computes on. Raises what the engine raises for a model it refuses, BadInput for
    provider options that do not read.
    """
    choice = replace(
        choice or choose_here(engine), engine=f"onnxruntime {engine.__version__}", threads=options.intra_op_num_threads
    )
    if choice.used == (CPU,):
        return engine.InferenceSession(str(path), options, providers=[CPU]), choice
    options.add_session_config_entry(_RECORD, "1")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _preload(engine, choice)
        session = engine.InferenceSession(str(path), options, providers=_given(choice))
    taken = session.get_providers()
    reason = _reason(said.getvalue())
    refused = {name: f"onnxruntime did not take it: {reason}" for name in choice.used if name not in taken}
    return session, choice.without(refused).placed(_nodes(session))


def _needs(engine: Any, wanted: tuple[str, ...], environ: Mapping[str, str]) -> Needs:
    needs = Needs(_cuda_of(engine), environ.get(_L4T))
    if OPENVINO not in wanted or OPENVINO not in engine.get_available_providers():
        return needs
    told = Options.read(environ).options.get(OPENVINO, {})
    return replace(needs, openvino=told.get("device_type", "").upper(), found=_openvino_devices())


def _given(choice: Choice) -> list[tuple[str, dict[str, str]]]:
    """The providers with what they are told, as a session takes them."""
    told, folder = Options.read(os.environ), _folder.get()
    if folder and any(name in told.cache for name in choice.used):
        folder.mkdir(parents=True, exist_ok=True)
    return [(name, told.to(name, choice.threads, folder)) for name in choice.used]


def _nodes(session: Any) -> dict[str, dict[str, int]]:
    """Provider → operator → how many nodes of the model it has; nothing where the engine does not say."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    found: dict[str, dict[str, int]] = {}
    for part in session.get_provider_graph_assignment_info():
        kinds = found.setdefault(part.ep_name, {})
        for node in part.get_nodes():
            kinds[node.op_type] = kinds.get(node.op_type, 0) + 1
    return found


def _reason(said: str) -> str:
    """What the engine printed as it fell back, without where in its code, and what it was given."""
    text = _PLACE.sub("", " ".join(said.replace("*", " ").split())).partition(" when using [")[0]
    return text[:300] or "it gave no reason"


def _preload(engine: Any, choice: Choice) -> None:
    """Load CUDA and cuDNN out of their wheels: the system's loader does not look there (onnxruntime >= 1.21)."""
    if {CUDA, TENSORRT} & set(choice.used) and hasattr(engine, "preload_dlls"):
        engine.preload_dlls()


def _cuda_of(engine: Any) -> str | None:
    """The CUDA release that the engine was built for."""
    try:
        from onnxruntime.capi import build_and_package_info
    except ImportError:
        return None
    found = getattr(build_and_package_info, "cuda_version", None) or getattr(engine, "cuda_version", None)
    return str(found) if found else None


def _openvino_devices() -> tuple[str, ...] | None:
    """The devices that OpenVINO finds on this machine: `CPU`, `GPU.0`; None where the engine does not say."""
    from onnxruntime.capi import _pybind_state

    ask = getattr(_pybind_state, "get_available_openvino_device_ids", None)
    return tuple(ask()) if ask else None

"""Opening an ONNX Runtime session on what is here: the providers that the image asks for, those that fit, the CPU.

The rules stand in `arch/providers.py`. Here the engine is asked: what it was built with, and whether it really took
what it was given, because it falls back to the CPU with nothing but a line on its standard output.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from arch.nvidia import Nvidia, read_nvidia
from arch.providers import CPU, CUDA, TENSORRT, Choice, Needs, choose_providers, objection, wanted_providers

VARIABLE = "EDGEPACK_PROVIDERS"
_L4T = "EDGEPACK_L4T"
# what was proven at packaging was proven in 32-bit floats: no tensor core may round its inputs to 10 bits
_OPTIONS: Mapping[str, Mapping[str, str]] = {CUDA: {"use_tf32": "0"}}


def choose_here(
    engine: Any, environ: Mapping[str, str] = os.environ, look: Callable[[], Nvidia | None] = read_nvidia
) -> Choice:
    """What to use of the engine on this machine. It is looked at only where more than the CPU is wanted."""
    wanted = wanted_providers(environ.get(VARIABLE))
    if wanted == (CPU,):
        return Choice()
    needs = Needs(_cuda_of(engine), environ.get(_L4T))
    speaks_against = partial(objection, nvidia=look(), needs=needs)
    return choose_providers(wanted, engine.get_available_providers(), speaks_against)


def open_session(engine: Any, path: Path, options: Any, choice: Choice | None = None) -> tuple[Any, Choice]:
    """Open a session, and say which providers it has. Raises what the engine raises for a model it refuses."""
    choice = choice or choose_here(engine)
    if choice.used == (CPU,):
        return engine.InferenceSession(str(path), options, providers=[CPU]), choice
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _preload(engine, choice)
        given = [(name, dict(_OPTIONS[name])) if name in _OPTIONS else name for name in choice.used]
        session = engine.InferenceSession(str(path), options, providers=given)
    taken = session.get_providers()
    reason = " ".join(said.getvalue().replace("*", " ").split())[:300] or "it gave no reason"
    return session, choice.without(
        {name: f"onnxruntime did not take it: {reason}" for name in choice.used if name not in taken}
    )


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

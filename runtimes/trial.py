"""The first run of a bundle on a machine, in a child: a model that crashes or hangs takes nobody along.

The parent starts `runtimes.trial` in a fresh interpreter with its own import path, writes the inputs as raw
columns to its standard input and reads one JSON line and raw columns from its standard output. The child
binds itself before it touches a file of the bundle: no new privileges, no core file, no file it could grow,
bounded memory, CPU and descriptors; it dies with its parent and is the first that the kernel kills when
memory runs out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from bundle.golden import Comparison, compare
from bundle.store import OpenBundle
from columns.columns import Columns
from columns.raw import decode_raw, encode_raw
from edgepack.errors import BadInput, RuntimeFailed

DEADLINE_S = 120.0

_ADDRESS_SPACE = 16 << 30  # bytes: address space, not memory; onnxruntime reserves far more than it uses
_OPEN_FILES = 256
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_START = "import sys; sys.path[:] = sys.argv[4:]; from runtimes.trial import main; main(*sys.argv[1:4])"
_LAST_WORDS = 300  # characters of the child's standard error that a reason may hold


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The child's first line: how it went; `blame` is the error family when it went wrong."""

    blame: str | None = None
    error: str = ""


def run_trial(folder: Path, timeout_s: float = DEADLINE_S) -> Comparison:
    """Run the golden rows of an unpacked bundle in a child and compare with the answers in the bundle.

    Returns the comparison, passed or not. Raises RuntimeFailed when the child crashed, hung or could not
    load the model.
    """
    opened = OpenBundle(folder)
    golden = opened.golden()
    try:
        outputs = predict_in_child(folder, golden.inputs, timeout_s)
        return compare(golden.outputs or outputs, outputs, opened.spec.tolerance)
    except BadInput as error:
        raise RuntimeFailed(f"pipeline '{opened.spec.name}' cannot run its golden rows: {error}") from error


def predict_in_child(folder: Path, inputs: Columns, timeout_s: float = DEADLINE_S, *, twice: bool = False) -> Columns:
    """Run rows through an unpacked bundle in a child and return its outputs, by bare field names.

    With `twice`, the same rows are then asked one by one, and those answers follow the first.
    Raises BadInput when the rows do not fit, RuntimeFailed when the child crashed, hung or could not load
    the model.
    """
    name = OpenBundle(folder).spec.name
    head, body = _answer_of(_child(folder, b"".join(encode_raw(inputs)), timeout_s, name, twice), name)
    if head.blame == BadInput.__name__:
        raise BadInput(head.error)
    if head.blame:
        raise RuntimeFailed(head.error)
    try:
        return decode_raw(body)
    except BadInput as error:
        raise RuntimeFailed(f"pipeline '{name}' gave columns that do not read: {error}") from error


def _child(folder: Path, inputs: bytes, timeout_s: float, name: str, twice: bool) -> bytes:
    command = [
        sys.executable,
        "-I",
        "-B",
        "-c",
        _START,
        str(folder.resolve()),
        str(timeout_s),
        "twice" if twice else "once",
        *_import_path(),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    ) as child:
        try:
            answer, last_words = child.communicate(inputs, timeout_s)
        except BaseException as error:
            child.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise RuntimeFailed(
                f"pipeline '{name}' did not answer its trial within {timeout_s:g} s: stopped"
            ) from error
    if child.returncode:
        raise RuntimeFailed(f"pipeline '{name}' ended its trial {_ending(child.returncode)}{_tail(last_words)}")
    return answer


def _answer_of(answer: bytes, name: str) -> tuple[Head, bytes]:
    line, _, body = answer.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Head), body
    except msgspec.MsgspecError as error:
        raise RuntimeFailed(f"pipeline '{name}' gave no answer that reads in its trial") from error


def _import_path() -> list[str]:
    """Our own rooms, then all that this process imports from; never the folder it stands in."""
    rooms = str(Path(__file__).resolve().parent.parent)
    return [rooms, *(part for part in sys.path if part not in ("", rooms))]


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _tail(last_words: bytes) -> str:
    text = " ".join(last_words.decode(errors="replace").split())
    return f": …{text[-_LAST_WORDS:]}" if text else ""


def main(folder: str, timeout_s: str, times: str = "once") -> None:
    """The child: bind, load, answer."""
    _bind(float(timeout_s))
    # a native library may print: the answer has a descriptor of its own, and prints go to standard error
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with answer:
        try:
            outputs = _predict(Path(folder), sys.stdin.buffer.read(), twice=times == "twice")
        except (BadInput, RuntimeFailed) as error:
            answer.write(msgspec.json.encode(Head(type(error).__name__, str(error))) + b"\n")
        else:
            answer.writelines([msgspec.json.encode(Head()) + b"\n", *encode_raw(outputs)])


def _predict(folder: Path, inputs: bytes, *, twice: bool = False) -> Columns:
    from runtimes.pipeline import LoadedPipeline

    pipeline, rows = LoadedPipeline.open(folder), decode_raw(inputs)
    if rows.schema != pipeline.input:
        raise BadInput(f"pipeline '{pipeline.spec.name}' takes {pipeline.input}, the rows are {rows.schema}")
    together = pipeline.infer(rows).outputs
    if not twice:
        return together
    alone = [pipeline.infer(rows.slice(row, row + 1)).outputs for row in range(rows.rows)]
    return Columns.concat([together, *alone])


def _bind(timeout_s: float) -> None:
    """Set the limits; each only ever goes down, so that what the parent was given holds as well."""
    cpu_s = int(timeout_s) * len(os.sched_getaffinity(0)) + 1
    limits = {
        resource.RLIMIT_AS: _ADDRESS_SPACE,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, bound))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

"""The first run of a bundle on a machine, in a child: a model that crashes or hangs takes nobody along.

The parent starts `runtimes.trial` in a fresh interpreter with its own import path, writes the inputs as raw
columns to its standard input and reads one JSON line and raw columns from its standard output. The child is
confined (`runtimes.sandbox`) before it touches a file of the bundle: no network, nothing to read but the bundle
and what it imports, nothing to write, bounded memory and CPU; it dies with its parent and is the first that the
kernel kills when memory runs out. Python steps run in workers of its own, which are confined further.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bundle.golden import Comparison, compare
from bundle.losses import compare_lossy
from bundle.store import OpenBundle
from columns.columns import Columns
from columns.raw import decode_raw, encode_raw
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable
from runtimes.child import ending
from runtimes.environment import SCRATCH
from runtimes.protocol import Misfits, ModelAbsent, RowsRefused
from runtimes.sandbox import Sandbox, for_accelerators, import_path

DEADLINE_S = 120.0

_MODULE = "runtimes.trial"  # whose `main` the child calls
_OOM_SCORE = 1000
_SECRETS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "_KEY")
_LAST_WORDS = 300  # characters of the child's standard error that a reason may hold


class Unfinished(RuntimeFailed):
    """The trial took longer than it may, on a busy machine perhaps: nothing is known of the answers."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The child's first line: how it went; `blame` is the error family when it went wrong."""

    blame: str | None = None
    error: str = ""


def run_trial(folder: Path, timeout_s: float = DEADLINE_S, environments: Path | None = None) -> Comparison:
    """Run the golden rows of an unpacked bundle in a child and compare with the answers in the bundle.

    `environments` keeps what python steps import; without it that is made for this trial alone. Returns the
    comparison, passed or not; of no rows where a container that answers for a step is away, or a predictor asks for a
    model that its bundle leaves out. Raises RuntimeFailed when the child crashed, hung or could not load the model, or
    a container is there and answers what does not fit.
    """
    opened = OpenBundle(folder)
    golden = opened.golden()
    try:
        outputs = predict_in_child(folder, golden.inputs, timeout_s, environments=environments)
        expected = golden.outputs or outputs
        if opened.spec.loss is not None:
            return compare_lossy(expected, outputs, opened.spec.loss)
        return compare(expected, outputs, opened.spec.tolerance)
    except Unreachable as error:
        if isinstance(error, Misfits) and not (isinstance(error, RowsRefused) and golden.outputs is None):
            raise RuntimeFailed(f"pipeline '{opened.spec.name}' cannot run its golden rows: {error}") from error
        return Comparison(0, 0.0, 0.0, 0, None, True)  # the rest has loaded; a container may come later, or be away
    except BadInput as error:
        raise RuntimeFailed(f"pipeline '{opened.spec.name}' cannot run its golden rows: {error}") from error


def predict_in_child(
    folder: Path,
    inputs: Columns,
    timeout_s: float = DEADLINE_S,
    *,
    twice: bool = False,
    environments: Path | None = None,
) -> Columns:
    """Run rows through an unpacked bundle in a child and return its outputs, by bare field names.

    With `twice`, the same rows are then asked one by one, and those answers follow the first.
    Raises BadInput when the rows do not fit, RuntimeFailed when the child crashed, hung or could not load
    the model; Unreachable when a container that answers for a step is away, or a predictor asks for a model that its
    bundle leaves out; Misfits when it is there and answers what
    does not fit.
    """
    opened = OpenBundle(folder)
    name = opened.spec.name
    with ExitStack() as stack:
        if environments is None:
            environments = Path(stack.enter_context(TemporaryDirectory(prefix="edgepack-environments-")))
        command = _command(opened, timeout_s, environments, twice)
        head, body = _answer_of(_child(command, b"".join(encode_raw(inputs)), timeout_s, name), name)
    if head.blame:
        raise _blamed(head.blame, bool(opened.spec.containers))(head.error)
    try:
        return decode_raw(body)
    except BadInput as error:
        raise RuntimeFailed(f"pipeline '{name}' gave columns that do not read: {error}") from error


def _blamed(name: str, has_containers: bool) -> type[EdgepackError]:
    """The family of the child's error, as it concerns this process."""
    if name == ModelAbsent.__name__:
        return Unreachable  # it can be brought where the bundle serves
    kept: list[type[EdgepackError]] = [BadInput, *((Unreachable, Misfits, RowsRefused) if has_containers else ())]
    return next((each for each in kept if each.__name__ == name), RuntimeFailed)


def _command(opened: OpenBundle, timeout_s: float, environments: Path, twice: bool) -> list[str]:
    """The child's command line; what its workers import is made before, by this process."""
    path = import_path()
    sandbox = Sandbox(
        read=(opened.folder,),
        cpu_s=int(timeout_s) * len(os.sched_getaffinity(0)) + 1,
        oom_score=_OOM_SCORE,
        network=bool(opened.spec.containers),
    )
    if opened.spec.python_models:
        from runtimes.python import environments_of

        environments_of(opened, environments)
        scratch = environments / SCRATCH
        scratch.mkdir(parents=True, exist_ok=True)
        # a worker is confined within these confines and needs its own folder of /proc, whose name is not known yet
        read = (opened.folder, environments, Path("/proc"))
        sandbox = replace(sandbox, read=read, write=(scratch,), file_bytes=64 << 20, programs=True)
    times = "twice" if twice else "once"
    arguments = [str(opened.folder.resolve()), times, str(environments.resolve()), str(timeout_s)]
    return for_accelerators(sandbox).command(_MODULE, arguments, path)


def _child(command: list[str], inputs: bytes, timeout_s: float, name: str) -> bytes:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=_variables(),
    ) as child:
        try:
            answer, last_words = child.communicate(inputs, timeout_s)
        except BaseException as error:
            child.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Unfinished(f"pipeline '{name}' did not answer its trial within {timeout_s:g} s: stopped") from error
    if child.returncode:
        raise RuntimeFailed(f"pipeline '{name}' ended its trial {ending(child.returncode)}{_tail(last_words)}")
    return answer


def _answer_of(answer: bytes, name: str) -> tuple[Head, bytes]:
    line, _, body = answer.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Head), body
    except msgspec.MsgspecError as error:
        raise RuntimeFailed(f"pipeline '{name}' gave no answer that reads in its trial") from error


def _variables() -> dict[str, str]:
    """What this process was given, as drivers and engines read it, but for secrets."""
    return {name: value for name, value in os.environ.items() if not any(word in name.upper() for word in _SECRETS)}


def _tail(last_words: bytes) -> str:
    text = " ".join(last_words.decode(errors="replace").split())
    return f": …{text[-_LAST_WORDS:]}" if text else ""


def main(folder: str, times: str, environments: str, timeout_s: str) -> None:
    """The child, bound already: load, answer."""
    # a native library may print: the answer has a descriptor of its own, and prints go to standard error
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with answer:
        try:
            rows = decode_raw(sys.stdin.buffer.read())
            outputs = _predict(Path(folder), Path(environments), rows, float(timeout_s), twice=times == "twice")
        except EdgepackError as error:
            answer.write(msgspec.json.encode(Head(type(error).__name__, str(error))) + b"\n")
        else:
            answer.writelines([msgspec.json.encode(Head()) + b"\n", *encode_raw(outputs)])


def _predict(folder: Path, environments: Path, rows: Columns, timeout_s: float, *, twice: bool) -> Columns:
    from runtimes.pipeline import LoadedPipeline

    # all golden rows are one request; half of the time leaves room to say which step it is that hangs
    with closing(LoadedPipeline.open(folder, environments, replicas=1, request_s=timeout_s / 2)) as pipeline:
        if rows.schema != pipeline.input:
            raise BadInput(f"pipeline '{pipeline.spec.name}' takes {pipeline.input}, the rows are {rows.schema}")
        together = pipeline.rehearse(rows)
        if not twice:
            return together
        alone = [pipeline.rehearse(rows.slice(row, row + 1)) for row in range(rows.rows)]
    return Columns.concat([together, *alone])

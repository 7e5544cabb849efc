"""`Worker`: user-made code of one step, in a confined child process that is kept alive.

Rules:
- one thread of the worker starts every child and outlives it: the kernel ends a child with the thread that started it
- a child that dies, hangs or talks nonsense is ended and started again, with a growing pause; meanwhile requests are
  refused as Unreachable, with the reason and when to come back
- what user-made code raises is an answer: RuntimeFailed, one line, and the child lives on
- no byte of an answer is believed: names, types, shapes and rows are checked here
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from bundle.pipeline import WorkerKind
from columns.columns import Columns
from columns.json_value import BYTES_VALUE, JSON_VALUE
from columns.raw import decode_raw, encode_raw
from columns.schema import Schema
from edgepack.errors import BadInput, RuntimeFailed, Unreachable
from runtimes.child import Child, Ends, Head, Lost
from runtimes.cpus import engine_threads
from runtimes.protocol import ModelAbsent
from runtimes.sandbox import SHIM, Sandbox, clean_environment, for_accelerators
from runtimes.scratch import delete, usage

log = logging.getLogger("edgepack.worker")

Answer = TypeVar("Answer")
Body = bytes | bytearray
Pieces = Sequence[bytes | memoryview]

REQUEST_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
_SETTLED_S = 10.0  # a child that lived this long had no trouble starting: the pause begins anew
_LIBRARIES_BYTES = 8 << 30  # address space beside the memory: code of libraries, stacks, what allocators reserve
_MOST_FILES = 10_000  # in a worker's temporary folder
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """What a worker runs. `model` is a file, or the folder of a python step; `sites` are folders with packages."""

    name: str  # for messages: the step's
    kind: WorkerKind | Literal["engine"]
    model: Path
    input: Schema
    output: Schema
    sites: tuple[Path, ...]  # numpy and what else it imports, in the order of its path
    options: Mapping[str, Any] = field(default_factory=dict)  # of the kind: shim/edgepack_worker/<kind>.py
    python: Path = Path(sys.executable)  # of any environment, from Python 3.9 on
    module: str = "edgepack_worker.main"  # whose `main` the child calls


@dataclass(frozen=True)
class Limits:
    """Bounds of a worker."""

    start_s: float = 120.0  # until the model is loaded
    request_s: float = REQUEST_S  # of one request, waiting for its turn included
    memory_bytes: int | None = 1 << 30  # private memory; None: as much as there is
    threads: int = 0  # of numerical libraries; 0: as many as this process may use
    scratch_bytes: int = 256 << 20  # what it may keep in its own temporary folder
    accelerators: bool = False  # may use those of this machine


class _Missed(msgspec.Struct, frozen=True):
    """What a child says of a model that is absent; see shim/edgepack_worker/absent.py."""

    model: str
    version: str
    used: list[tuple[str, str]]


class Worker:
    """A warm child that answers. `infer` may be called by several threads; requests run one after another."""

    def __init__(self, job: Job, limits: Limits, scratch: Path, replica: int = 0) -> None:
        self.job, self.limits, self.replica = job, limits, replica
        self.on_ready: Callable[[], None] = lambda: None  # called, by any thread, each time that a child is ready
        self._scratch = scratch
        self._threads = limits.threads or engine_threads()
        self._turn = threading.Lock()
        self._state = threading.Condition()
        self._living: Child | None = None  # of which there is a process
        self._child: Child | None = None  # that is ready to answer
        self._condemned = ""  # why we ended the living one
        self._reason = "is starting"
        self._retry_at = self._look_again = 0.0  # monotonic seconds
        self._closing = threading.Event()
        self._failure: RuntimeFailed | None = None
        self.sandbox = ""  # the level that the child reports: see `runtimes.sandbox`
        self.hello = b""  # what else it said when it was ready
        self.restarts = 0
        self._thread = threading.Thread(target=self._supervise, name=f"worker-{job.name}", daemon=True)

    @classmethod
    def start(cls, job: Job, limits: Limits | None = None, *, scratch: Path | None = None) -> Worker:
        """Start the child and wait until the model is loaded. Its temporary folder is made in `scratch`.

        Raises RuntimeFailed when the model does not load, with what the code raised or the child said last.
        """
        worker = cls.begin(job, limits, scratch=scratch)
        worker.wait()
        return worker

    @classmethod
    def begin(cls, job: Job, limits: Limits | None = None, *, scratch: Path | None = None, replica: int = 0) -> Worker:
        """As `start`, without waiting."""
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        worker = cls(job, limits or Limits(), Path(tempfile.mkdtemp(prefix="worker-", dir=scratch)), replica)
        worker._thread.start()
        return worker

    def wait(self) -> None:
        """Wait until the first child has loaded the model. Raises RuntimeFailed, the worker closed, if it does not."""
        with self._state:
            self._state.wait_for(lambda: self._child is not None or self._failure is not None)
        if self._failure is not None:
            self.close()
            raise self._failure

    def infer(self, inputs: Columns, deadline_s: float | None = None) -> Columns:
        """Run rows through the model; the answer has the job's output schema and as many rows, both checked.

        Raises RuntimeFailed, one line, when the user's code raises or gives what does not fit (the child lives on);
        Unreachable when the child died, hung or is starting again: `retry_after_s` says when it may be back.
        """
        return self.ask(encode_raw(inputs), lambda body: self._checked(body, inputs), deadline_s)

    def ask(self, pieces: Pieces, check: Callable[[Body], Answer], deadline_s: float | None = None) -> Answer:
        """Send a body and return what `check` makes of the answer's; it raises Lost for one that cannot be. Errors as
        of `infer`, and BadInput where code of ours in the child raised that.
        """
        allowed_s = deadline_s or self.limits.request_s
        deadline = time.monotonic() + allowed_s
        if not self._turn.acquire(timeout=allowed_s):
            raise self.busy()
        try:
            child = self._ready()
            try:
                head, body = child.ask(pieces, deadline)
                answer = None if head.error else check(body)
                self._check_scratch()
            except Lost as error:
                raise self._give_up(child, str(error)) from error
        finally:
            self._turn.release()
        if answer is None:
            raise self._refused(head, body)
        return answer

    def _refused(self, head: Head, body: Body) -> BadInput | RuntimeFailed | ModelAbsent:
        """What the child raised, as ours."""
        words = " ".join(head.error.split())[:600]
        if head.absent and (absent := self._absent(body)) is not None:
            return absent
        if self.job.kind != "engine":
            return RuntimeFailed(f"step '{self.job.name}': {words}")
        return BadInput(words, field=head.field) if head.blame == BadInput.__name__ else RuntimeFailed(words)

    def _absent(self, body: Body) -> ModelAbsent | None:
        """Which model a predictor lacks; None for one that it has, or that nobody has told it of."""
        told = self.job.options.get("models", {})
        try:
            missed = msgspec.json.decode(body, type=_Missed)
        except msgspec.MsgspecError:
            return None
        if "path" in told.get(missed.model, {}).get(missed.version, {"path": ""}):
            return None
        there = frozenset((name, number) for name, each in told.items() for number in each if "path" in each[number])
        return ModelAbsent(missed.model, missed.version, [each for each in missed.used if each in there], there)

    def busy(self) -> Unreachable:
        """What a request is told for which there was no turn in its time."""
        return Unreachable(f"step '{self.job.name}' is busy with other requests: come back", retry_after_s=1)

    def refusal(self) -> Unreachable:
        """What a request is told while no child is ready: why, and when one may be."""
        with self._state:
            return self._refusal()

    def close(self) -> None:
        """End the child and delete its temporary folder. Requests in flight are refused."""
        self._closing.set()
        with self._state:
            living = self._living
        if living is not None:
            living.end()
        if self._thread.ident is not None:
            self._thread.join()
        delete(self._scratch)

    @property
    def pid(self) -> int | None:
        """The child's process; None while there is none."""
        child = self._child
        return child.pid if child else None

    @property
    def pss_bytes(self) -> int:
        """The child's share of memory, 0 while there is none."""
        child = self._child
        return child.pss_bytes if child else 0

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the child has used, 0 while there is none."""
        child = self._child
        return child.cpu_s if child else 0.0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> Child:
        with self._state:
            if self._child is not None:
                return self._child
            raise self._refusal()

    def _refusal(self) -> Unreachable:
        wait_s = max(0.1, self._retry_at - time.monotonic())
        return Unreachable(
            f"step '{self.job.name}' {self._reason}: it starts again, come back in {math.ceil(wait_s)} s",
            retry_after_s=wait_s,
        )

    def _give_up(self, child: Child, reason: str) -> Unreachable:
        """End a child that cannot be trusted to answer; its supervisor starts the next."""
        with self._state:
            if self._child is child:
                self._child, self._condemned = None, reason
                self._reason, self._retry_at = f"was stopped: {reason}", time.monotonic() + FIRST_PAUSE_S
        child.end()
        return self._refusal()

    def _checked(self, body: bytes | bytearray, inputs: Columns) -> Columns:
        try:
            answer = decode_raw(body)
        except BadInput as error:
            raise Lost("it gave columns that do not read") from error
        # a step without schema, or one that was asked a value beside its fields
        is_free = self.job.options.get("json") or (self.job.options.get("values") and inputs.schema != self.job.input)
        expected = (JSON_VALUE, BYTES_VALUE) if is_free else (self.job.output,)
        if answer.schema not in expected or answer.rows != inputs.rows:
            raise Lost("it gave other columns than its schema has")
        return answer

    def _check_scratch(self) -> None:
        """At most once a second: what user-made code leaves must not fill the disk that the log is on."""
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + 1.0
        used, files = usage(self._scratch)
        if used > self.limits.scratch_bytes or files > _MOST_FILES:
            allowed = f"{self.limits.scratch_bytes >> 20} MiB and {_MOST_FILES} files are allowed"
            raise Lost(f"it keeps {used >> 20} MiB in its temporary folder, {allowed}")

    def _supervise(self) -> None:
        """The life of all children, one after another."""
        pause_s = FIRST_PAUSE_S
        while not self._closing.is_set():
            begun = time.monotonic()
            reason = self._one_life()
            if self._failure is not None or self._closing.is_set():
                return
            if time.monotonic() - begun > _SETTLED_S:
                pause_s = FIRST_PAUSE_S
            with self._state:
                self._reason, self._retry_at = f"was stopped: {reason}", time.monotonic() + pause_s
            log.warning("step '%s' was stopped: %s; it starts again in %.1f s", self.job.name, reason, pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self.restarts += 1

    def _one_life(self) -> str:
        """Start a child, let it answer until it ends, and return how it ended."""
        try:
            ends = Ends()
            child = Child.start(self._command(ends.numbers), ends, self.job.name, self._variables())
        except OSError as error:
            return self._not_started(f"its interpreter does not start: {error.strerror}")
        with self._state:
            self._living, self._condemned = child, ""
        if self._closing.is_set():
            child.end()
        how = "its end is not known"
        try:
            how = self._lived(child)
        except (RuntimeError, MemoryError) as error:  # this machine has no room for another thread
            how = self._not_started(str(error) or "out of memory")
        finally:
            with self._state:  # both at once: whoever finds no child finds the reason
                self._living = self._child = None
                self._reason = f"was stopped: {self._condemned or how}"
            child.close()
        for path in self._scratch.iterdir():
            delete(path)
        return self._condemned or how

    def _lived(self, child: Child) -> str:
        greeting = threading.Thread(target=self._greet, args=(child,), name=f"greet-{self.job.name}", daemon=True)
        greeting.start()
        how = child.outlive()
        greeting.join()
        return how

    def _greet(self, child: Child) -> None:
        """Wait for the hello of a child, which says that the model is loaded; then let it answer."""
        try:
            head, hello = child.ask((self._order(),), time.monotonic() + self.limits.start_s)
        except Lost as lost:
            child.end()
            self._not_started(f"{lost}{f': …{child.last_words}' if child.last_words else ''}")
            return
        if head.error:
            child.end()
            self._not_started(head.error)
            return
        with self._state:
            if not self._closing.is_set():
                self._child, self.sandbox, self.hello = child, head.sandbox, bytes(hello)
                self._state.notify_all()
            else:
                child.end()
                return
        self.on_ready()

    def _not_started(self, reason: str) -> str:
        """The first child that does not load is its starter's to hear of; a later one is tried again."""
        with self._state:
            if not self.sandbox:
                plain = " ".join(reason.split())
                said = "" if self.job.kind == "engine" else f"model '{self.job.name}' does not load in its worker: "
                self._failure = RuntimeFailed(f"{said}{plain}")
                self._state.notify_all()
        return reason

    def _command(self, numbers: Sequence[int]) -> list[str]:
        job, limits = self.job, self.limits
        sandbox = Sandbox(
            read=(job.model,),
            write=(self._scratch,),
            memory_bytes=limits.memory_bytes,
            address_bytes=(limits.memory_bytes or 1 << 46) + _LIBRARIES_BYTES,
            file_bytes=limits.scratch_bytes,
            drop_user=True,
        )
        if limits.accelerators:
            sandbox = for_accelerators(sandbox)
        path = [SHIM, *(site.resolve() for site in job.sites)]
        return sandbox.command(job.module, [",".join(map(str, numbers))], path, str(job.python))

    def _order(self) -> bytes:
        job = self.job
        order = {
            "kind": job.kind,
            "model": str(job.model.resolve()),
            "input": job.input.to_dict(),
            "output": job.output.to_dict(),
            "options": dict(job.options),
        }
        return json.dumps(order).encode()

    def _variables(self) -> dict[str, str]:
        threads = {name: str(self._threads) for name in _THREADS}
        # process pools cannot be: joblib then takes threads
        return clean_environment(self._scratch, {**threads, "JOBLIB_MULTIPROCESSING": "0"})

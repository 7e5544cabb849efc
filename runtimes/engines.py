"""`EngineProcesses`: a native step in processes of its own, for pipelines that ask for replicas.

With one replica a native engine runs in the agent's process, which is quickest. With more, each replica is a confined
child like that of a python step (`runtimes.worker`): requests run side by side without sharing Python's lock, and one
that crashes takes nobody along.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from arch.providers import Choice
from bundle.pipeline import StepSpec
from columns.raw_tensors import decode_tensors, encode_tensors
from columns.schema import Schema
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.child import Lost
from runtimes.protocol import TensorField
from runtimes.replicas import Replicas, ReplicatedStep
from runtimes.sandbox import import_path
from runtimes.worker import Body, Job, Limits


class Hello(msgspec.Struct, frozen=True):
    """What an engine process says of itself; `tensors` are inputs and outputs, None where it takes rows alone."""

    providers: Choice = Choice()
    tensors: tuple[tuple[TensorField, ...], tuple[TensorField, ...]] | None = None


class EngineProcesses(ReplicatedStep):
    """The engine processes of one step as a `Runtime`."""

    def __init__(self, replicas: Replicas, hello: Hello) -> None:
        super().__init__(replicas)
        self.providers = hello.providers

    @classmethod
    def start(
        cls, path: Path, step: StepSpec, limits: Limits, count: int, *, scratch: Path | None = None
    ) -> EngineProcesses:
        """Load a model file in `count` processes, whose temporary folders are made in `scratch`.

        Raises RuntimeFailed when the engine refuses it.
        """
        job = Job(
            name=step.name,
            kind="engine",
            model=path.parent,  # external data lies beside the model
            input=Schema.parse(step.input),
            output=Schema.parse(step.output),
            sites=tuple(map(Path, import_path())),
            options={"step": msgspec.to_builtins(step), "file": path.name, "threads": limits.threads or None},
            module="runtimes.engine_child",
        )
        replicas = Replicas.start(job, limits, count, scratch=scratch)
        try:
            hello = msgspec.json.decode(replicas.workers[0].hello, type=Hello)
        except msgspec.MsgspecError as error:
            replicas.close()
            raise RuntimeFailed(f"the engine process of step '{step.name}' says nothing that reads") from error
        return cls(replicas, hello) if hello.tensors is None else TensorProcesses(replicas, hello)


class TensorProcesses(EngineProcesses):
    """Engine processes that may be asked by the engine's own tensors: a `TensorRuntime`."""

    def __init__(self, replicas: Replicas, hello: Hello) -> None:
        super().__init__(replicas, hello)
        self.tensor_inputs, self.tensor_outputs = hello.tensors or ((), ())

    def infer_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model once in a free process; see `TensorRuntime.infer_tensors`."""
        asked = {field.name: tensors[field.name] for field in self.tensor_inputs}
        return self.replicas.ask(encode_tensors(asked), self._checked)

    def _checked(self, body: Body) -> dict[str, np.ndarray]:
        try:
            found = decode_tensors(body)
        except BadInput as error:
            raise Lost("it gave tensors that do not read") from error
        if found.keys() != {field.name for field in self.tensor_outputs}:
            raise Lost("it gave other tensors than it has")
        return found

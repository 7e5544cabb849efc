"""`PipelineSpec`: what `edgepack.toml` says, checked; it travels as the config blob of a bundle.

Field names are those of the TOML file (see docs/edgepack-toml.md). Every struct refuses fields it does not know.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from edgepack.errors import BadInput

FORMAT = 1  # raised when an older edgepack would misread a spec

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Durability = Literal["commit", "relaxed", "off"]


class LogPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a pipeline's inferences are logged on the device."""

    durability: Durability = "commit"
    max_value_bytes: int = 65536  # a longer field is logged as {sha256, bytes}; 0 keeps all
    max_bytes: str = "1Gi"  # of this pipeline's spool on disk; a number of bytes, or with Ki, Mi, Gi, Ti
    when_full: Literal["drop_oldest", "reject"] = "drop_oldest"


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device should set aside for the pipeline."""

    cpus: float = 2.0
    memory: str = "1Gi"
    gpus: int = 0
    replicas: int = 1


class StepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model version with its settings. `model` is a path in the bundle; `input` and `output` map field to type."""

    name: str
    model: str
    framework: str
    runtime: Literal["onnx", "tflite", "python"]
    input: dict[str, str]
    output: dict[str, str]
    tensor_fields: list[str] = []
    batch: Literal["any", "single"] = "any"
    sha256: str = ""
    reason: str | None = None  # why not native


class PipelineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ordered steps with validations and policies. `tolerance` is what golden rows are compared with, relative to
    max(1, |expected|).
    """

    name: str
    steps: list[StepSpec]
    validations: dict[str, str] = {}
    tolerance: float = 1e-5
    log: LogPolicy = LogPolicy()
    resources: Resources = Resources()
    format: int = FORMAT

    def encode(self) -> bytes:
        """The one serialization of a spec: JSON, fields in the order above."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> PipelineSpec:
        """Read a spec from a bundle. Raises BadInput when it is not one this version reads."""
        try:
            found = msgspec.json.decode(data, type=cls)
            _check(found)
        except (msgspec.MsgspecError, RecursionError, BadInput) as error:
            raise BadInput(f"the bundle's pipeline spec does not read: {error}") from error
        return found


def _check(spec: PipelineSpec) -> None:
    """What types alone do not say. Names become folders on a device, so they are checked before all else."""
    for name in (spec.name, *(step.name for step in spec.steps)):
        dns_label(name)
    if spec.format != FORMAT:
        raise BadInput(f"it has format {spec.format}, this version reads {FORMAT}: update edgepack")
    if not spec.steps or not all(step.input and step.output for step in spec.steps):
        raise BadInput("it has no steps, or a step without fields")
    if not (math.isfinite(spec.tolerance) and spec.tolerance >= 0):
        raise BadInput(f"its tolerance is {spec.tolerance}")
    for size in (spec.log.max_bytes, spec.resources.memory):
        parse_bytes(size)


def dns_label(text: str) -> str:
    """Return a name if it is a DNS label (RFC 1123), else raise BadInput."""
    if not _DNS_LABEL.fullmatch(text):
        raise BadInput(f"name {text[:80]!r} is not a DNS label: use up to 63 of a-z, 0-9 and '-', not at the ends")
    return text


def legal_name(text: str) -> str:
    """Make a DNS label of a file's stem: lower case, everything else becomes '-'."""
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return made or "pipeline"


def parse_bytes(text: str) -> int:
    """Read `65536`, `512Mi` or `1Gi` as a number of bytes. Raises BadInput for anything else."""
    match = re.fullmatch(r"([0-9]{1,15})(Ki|Mi|Gi|Ti)?", text)
    if not match:
        raise BadInput(f"size {text[:40]!r} is not a number of bytes: write 65536, 512Mi or 1Gi")
    return int(match[1]) * {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[match[2]]

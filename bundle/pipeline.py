"""`PipelineSpec`: what `edgepack.toml` says, checked; it travels as the config blob of a bundle.

Field names are those of the TOML file (see docs/edgepack-toml.md). Every struct refuses fields it does not know.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec

from bundle.task import TaskSpec
from edgepack.errors import BadInput

FORMAT = 1  # raised when an older edgepack would misread a spec
MOST_WEIGHT = 1_000_000  # of one model in a split
MOST_REPLICAS = 64
MOST_LOSS = 1.0  # of the range of a field: more is no answer

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
# host[:port]/path[:tag]@digest (distribution reference grammar); parts that begin with a dot or dash are none
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._:-]*(?:/[a-z0-9][a-z0-9._-]*)*(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64}"
)
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
    replicas: int = 1  # processes that answer for each model of the pipeline, behind one port


# a trained object; a network; a saved pipeline; process_data(); Inference and InferenceBuilder; a Cortex predictor;
# score.py of ADS; an MLflow model folder; a runner registered with VESSL
WorkerKind = Literal["estimator", "network", "hugging_face", "step", "custom", "cortex", "ads", "mlflow", "vessl"]


class WorkerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a step of the runtime `python` runs: in a worker process of its own, from wheels in the bundle.

    The wheels of one target are the blobs of its manifest under `wheels/<step>/` (`wheel_path`): everything the step
    imports beside the standard library, numpy included. `python` and `requirements` may differ between targets too.
    """

    kind: WorkerKind
    python: str  # "3.11": major and minor version of the interpreter that the wheels are for
    requirements: tuple[str, ...] = ()  # what was asked for, as exact pins: for people; the wheels decide
    options: dict[str, Any] = {}  # of the kind: see runtimes/shim/edgepack_worker/


class StepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model version with its settings. `input` and `output` map field to type.

    `model` is a path in the bundle: of a file or, for steps with a worker or a task, also of a folder. `sha256` is that
    of the file, or `bundle.folder_sha256` of the folder's files.
    """

    name: str
    model: str
    framework: str
    runtime: Literal["onnx", "tflite", "python", "container"]
    input: dict[str, str]
    output: dict[str, str]
    tensor_fields: list[str] = []
    batch: Literal["any", "single"] = "any"
    sha256: str = ""
    reason: str | None = None  # why not native
    worker: WorkerSpec | None = None  # of the runtime `python`
    routing: RoutingSpec | None = None  # of several models in one step
    task: TaskSpec | None = None  # of the runtime `onnx`: what is done around the network
    quantized: Literal["dynamic", "static"] | None = None  # of the runtime `onnx`: how its weights became integers
    image: str | None = None  # of the runtime `container`: what answers, by digest; its address is the device's to know

    @property
    def libraries(self) -> set[str]:
        """What the step needs of the Python that runs it: its runtime, and `text` where it reads text."""
        reads_text = self.task is not None and self.task.text is not None
        return {self.runtime, "text"} if reads_text else {self.runtime}

    @property
    def every_model(self) -> list[StepSpec]:
        """All models of the step as steps of one model each; the first is the one that stands for the step."""
        if self.routing is None:
            return [self]
        others = list(self.routing.models.values())
        return others if self.routing.split else [self, *others]


class RoutingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several models in one step: which of them answers a row, and which only have their answers logged.

    With `split` one of its models answers, by weight; the same value of `key` (`in.<field>` of the pipeline) always
    meets the same model. Without it the step's own model answers. All models take and give the step's fields; a key
    that is no feature of the models is a field of the step alone.
    """

    models: dict[str, StepSpec]
    split: dict[str, int] = {}
    key: str | None = None
    shadow: list[str] = []


class PipelineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ordered steps with validations and policies. `tolerance` is what golden rows are compared with, relative to
    max(1, |expected|); `loss` stands in its place where models are quantized, as a share (`bundle.losses`).
    """

    name: str
    steps: list[StepSpec]
    validations: dict[str, str] = {}
    tolerance: float | dict[str, float] = 1e-5  # a table has one for each output field that it names
    log: LogPolicy = LogPolicy()
    resources: Resources = Resources()
    format: int = FORMAT
    loss: float | None = None  # of the range of a field, and of labels: how far a device may be from the golden rows
    number: int | None = None  # what clients may call this version beside its UUID: a Cortex version folder's integer

    @property
    def containers(self) -> list[StepSpec]:
        """All models that a container answers."""
        return [model for step in self.steps for model in step.every_model if model.image is not None]

    @property
    def python_models(self) -> list[StepSpec]:
        """All models that run in workers."""
        return [model for step in self.steps for model in step.every_model if model.worker is not None]

    def encode(self) -> bytes:
        """The one serialization of a spec: JSON, fields in the order above.

        A step without a worker, routing or task does not mention one, nor a pipeline a number or loss: bundles keep the
        digests that they had before there were such.
        """
        said = msgspec.to_builtins(self)
        _drop(said, "number", "loss")
        for step in said["steps"]:
            for model in ((step["routing"] or {}).get("models") or {}).values():
                _drop(model, "task", "quantized", "image")
            _drop(step, "worker", "routing", "task", "quantized", "image")
        return msgspec.json.encode(said)

    @classmethod
    def decode(cls, data: bytes) -> PipelineSpec:
        """Read a spec from a bundle. Raises BadInput when it is not one this version reads."""
        try:
            found = msgspec.json.decode(data, type=cls)
            _check(found)
        except (msgspec.MsgspecError, RecursionError, BadInput) as error:
            raise BadInput(f"the bundle's pipeline spec does not read: {error}") from error
        return found


def _drop(said: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if said[key] is None:
            del said[key]


def _check(spec: PipelineSpec) -> None:
    """What types alone do not say. Names become folders on a device, so they are checked before all else."""
    for name in (spec.name, *(step.name for step in spec.steps)):
        dns_label(name)
    if spec.format != FORMAT:
        raise BadInput(f"it has format {spec.format}, this version reads {FORMAT}: update edgepack")
    if not spec.steps or not all(step.input and step.output for step in spec.steps):
        raise BadInput("it has no steps, or a step without fields")
    for step in spec.steps:
        _check_worker(step)
        _check_task(step)
        _check_routing(step)
    models = [model.name for step in spec.steps for model in step.every_model]
    if len(set(models)) != len(models):
        raise BadInput("two of its models have one name")
    for step in spec.steps:
        key = step.routing and step.routing.key
        if key and key.removeprefix("in.") not in spec.steps[0].input:
            raise BadInput(f"step '{step.name}' splits by '{key}', which is no field of the pipeline's input")
    tolerances = spec.tolerance.values() if isinstance(spec.tolerance, dict) else [spec.tolerance]
    if not all(math.isfinite(each) and each >= 0 for each in tolerances):
        raise BadInput(f"its tolerance is {spec.tolerance}")
    if spec.loss is not None and not 0 < spec.loss <= MOST_LOSS:
        raise BadInput(f"its loss is {spec.loss}, expected more than 0 and at most {MOST_LOSS:g}")
    _check_resources(spec)


def _check_resources(spec: PipelineSpec) -> None:
    if spec.number is not None and spec.number < 0:
        raise BadInput(f"its number is {spec.number}, expected 0 or more")
    if not 1 <= spec.resources.replicas <= MOST_REPLICAS:
        raise BadInput(f"its replicas are {spec.resources.replicas}, expected 1 to {MOST_REPLICAS}")
    for size in (spec.log.max_bytes, spec.resources.memory):
        parse_bytes(size)


def _check_worker(step: StepSpec) -> None:
    if (step.worker is not None) != (step.runtime == "python"):
        raise BadInput(f"step '{step.name}' has runtime '{step.runtime}': 'python' has a worker, others have none")
    if step.worker is not None and not _PYTHON.fullmatch(step.worker.python):
        raise BadInput(f"step '{step.name}' has python '{step.worker.python[:20]}', expected one like '3.11'")


def _check_task(step: StepSpec) -> None:
    if step.task is not None and step.runtime != "onnx":
        raise BadInput(f"step '{step.name}' has runtime '{step.runtime}' and a task, which is for 'onnx'")
    if (step.image is not None) != (step.runtime == "container"):
        raise BadInput(f"step '{step.name}' has runtime '{step.runtime}': 'container' has an image, others have none")
    if step.image is not None:
        image_by_digest(step.image)


def _check_routing(step: StepSpec) -> None:
    """That a routed step names its models right, and that they take and give what it does."""
    routing = step.routing
    if routing is None:
        return
    known, chosen = set(routing.models), [*routing.split, *routing.shadow]
    if known != set(chosen) or len(chosen) != len(known):
        raise BadInput(f"step '{step.name}' splits between and shadows with other models than it has, or one twice")
    if not all(1 <= weight <= MOST_WEIGHT for weight in routing.split.values()):
        raise BadInput(f"step '{step.name}' has a weight that is not 1 to {MOST_WEIGHT}")
    for name, model in routing.models.items():
        dns_label(name)
        _check_worker(model)
        _check_task(model)
        extra = {} if routing.key is None else {routing.key.removeprefix("in."): None}
        if model.routing is not None or model.name != name or model.output != step.output:
            raise BadInput(f"model '{name}' of step '{step.name}' does not give what the step gives")
        if model.input != step.input and model.input != {k: v for k, v in step.input.items() if k not in extra}:
            raise BadInput(f"model '{name}' of step '{step.name}' does not take what the step takes")


def wheel_path(step: str, file_name: str) -> str:
    """Where a wheel of a step lies in the bundle of one target."""
    return f"wheels/{step}/{file_name}"


def image_by_digest(text: str) -> str:
    """Return an image's reference if it names one by digest, else raise BadInput: a tag may soon mean another one."""
    if len(text) > 500 or not _IMAGE.fullmatch(text):
        raise BadInput(f"image {text[:120]!r} is not named by digest: expected host/name@sha256:… with 64 digits")
    return text


def address_variable(step: str) -> str:
    """The environment variable with the URL of a step's container."""
    return f"EDGEPACK_STEP_{step.upper().replace('-', '_')}_URL"


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

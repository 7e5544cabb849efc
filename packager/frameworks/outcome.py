"""What converting and proving gave, kept in the cache under everything it depends on: the artefact and how it is
loaded, the environment, our converters, the fields and rows that were asked for.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from bundle.golden import Tolerance
from bundle.task import TaskSpec
from columns.schema import Schema
from packager.conversion import NATIVE, Converted, Program
from packager.environments import Environment
from packager.gate import NOT_COMPARABLE, Verdict, figures
from packager.kept import OUTCOME, kept
from packager.synthetic import carried_rows

MODEL, ROWS = "model.onnx", "golden.json"
_CODE = Path(__file__).parents[1] / "convert"
_ASKED_WITH = tuple(Path(__file__).parents[2] / room for room in ("bundle", "columns", "runtimes"))


class Outcome(msgspec.Struct, frozen=True):
    """What is kept. `input` and `output` are fields of the chosen attempt."""

    strategy: str
    input: dict[str, str]
    output: dict[str, str]
    layout: str
    names: list[str] | None
    methods: dict[str, str]
    parity: dict[str, Any]
    reason: str | None
    task: TaskSpec | None = None  # around the network of a pipeline
    lasts: bool = True  # False: made under a deadline that this machine missed, so the next build makes it anew

    @property
    def is_native(self) -> bool:
        """Whether there is a converted model."""
        return self.strategy in NATIVE


@dataclass(frozen=True)
class Asked:
    """What an outcome depends on, beside our own code."""

    artefact: str
    form: str
    program: Program
    environment: Environment
    fields: tuple[Schema | None, Schema | None]
    rows: Sequence[Mapping[str, Any]] | None
    tolerance: Tolerance

    @property
    def key(self) -> str:
        """The name of the outcome's folder."""
        asked = {
            "artefact": str(self.artefact),  # a Digest is a str, but msgspec encodes no subclass of it
            "form": self.form,
            "program": self.program.module,
            "environment": self.environment.kept.key,
            "code": _code_digest(),
            "fields": [None if each is None else each.to_dict() for each in self.fields],
            "rows": self.rows,
            "tolerance": self.tolerance,
        }
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]


@dataclass(frozen=True)
class Proven:
    """What the child found, and what the gate said of it."""

    found: Converted
    verdict: Verdict


def kept_outcome(name: str, asked: Asked, cache: Path, prove: Callable[[Path], Proven]) -> tuple[Path, Outcome]:
    """The folder of an outcome and what it says: kept from an earlier run, or made now by `prove` in a folder of its
    own.
    """

    def make(work: Path) -> Path:
        proven = prove(work / "child")
        _write(work / "outcome", proven, asked)
        return work / "outcome"

    folder = kept(cache, asked.key, make, f"the conversion of '{name}'", lambda made: _read(made).lasts)
    return folder, _read(folder)


def _read(folder: Path) -> Outcome:
    return msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)


def _write(stage: Path, proven: Proven, asked: Asked) -> None:
    stage.mkdir()
    found, attempt = proven.found, proven.verdict.attempt
    for name, file in attempt.files.items():
        shutil.copyfile(file, stage / name)
    (stage / ROWS).write_bytes(carried_rows(attempt).encode())
    outcome = Outcome(
        strategy=attempt.strategy,
        input=attempt.input.to_dict(),
        output=attempt.output.to_dict(),
        layout=found.layout,
        names=found.names,
        methods=dict(attempt.methods),
        parity=_parity(proven, asked),
        reason=proven.verdict.reason,
        task=attempt.task,
        lasts=proven.verdict.lasts,
    )
    (stage / OUTCOME).write_bytes(msgspec.json.encode(outcome))


def _parity(proven: Proven, asked: Asked) -> dict[str, Any]:
    """The step's part of the parity report."""
    found, verdict = proven.found, proven.verdict
    is_native = verdict.attempt.strategy in NATIVE
    return {
        **figures(verdict.comparison),
        "tolerance": asked.tolerance,
        "runtime": "onnx" if is_native else "python",
        "strategy": verdict.attempt.strategy,
        "reason": "compared with the original, all rows at once and one by one"
        if is_native
        else verdict.reason or "no native runtime",
        "comparable": NOT_COMPARABLE not in (verdict.reason or ""),
        "trail": list(verdict.trail),
        "original": found.model,
        "environment": asked.environment.kept.title,
        "versions": dict(found.versions),
        "parameters": _plain(found.parameters),
        "training": _plain(found.training),
    }


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters for a report: a bounded number of bounded values."""
    return {
        name[:100]: str(value)[:200] if isinstance(value, str) else value
        for name, value in list(parameters.items())[:200]
    }


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Our converters, and what asks converted models, as they are: where one has changed, all is asked anew."""
    digest = hashlib.sha256()
    own = (path for room in (_CODE, *_ASKED_WITH) for path in room.rglob("*.py"))
    for path in sorted([*own, *_CODE.parent.glob("gate.py"), *_CODE.parent.glob("conversion.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()

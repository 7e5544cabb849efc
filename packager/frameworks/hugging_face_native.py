"""Saved pipelines without torch: the network as ONNX, the task around it as data, both proven against the pipeline.

Only tasks of one forward pass for each text, picture or label are tried, and only with fields that they are known to
take; a tokenizer or image processor that cannot be said as data, and every difference that the gate finds, leads to the
worker, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bundle.golden import GoldenRows
from bundle.task import NETWORK, TOKENIZER
from columns.schema import Schema
from packager.archives import Tree
from packager.artifact import ModelArtifact, folder_digest
from packager.checks import Checklist
from packager.conversion import PIPELINE
from packager.environments import HUGGING_FACE
from packager.frameworks.hugging_face_rows import rows_to_prove
from packager.frameworks.hugging_face_tasks import TASKS
from packager.frameworks.outcome import ROWS
from packager.frameworks.proving import Candidate, Unproven, prove
from packager.project import StepSource

# task → the fields that it takes natively beside those that it needs
NATIVE: Mapping[str, frozenset[str]] = {
    "text-classification": frozenset({"top_k", "function_to_apply"}),
    "sentiment-analysis": frozenset({"top_k", "function_to_apply"}),
    "image-classification": frozenset({"top_k"}),
    "feature-extraction": frozenset(),
    "question-answering": frozenset(TASKS["question-answering"].takes),
    "zero-shot-classification": frozenset({"hypothesis_template", "multi_label"}),
}
_SAME = {"sentiment-analysis": "text-classification"}  # one pipeline under two names
_PREFIX = "hugging-face-"


@dataclass(frozen=True)
class Pipeline:
    """A saved pipeline on this machine: its task, its folder, its files by their path in it."""

    task: str
    folder: Path
    tree: Tree


def native_or_reason(
    source: StepSource, pipeline: Pipeline, fields: tuple[Schema, Schema], checklist: Checklist, cache: Path
) -> ModelArtifact | str:
    """The pipeline as a native step, or in one line why it runs in a worker. Raises BadInput when a check fails."""
    reason = _unsuited(pipeline.task, fields[0])
    if reason:
        return reason
    candidate = Candidate(
        path=pipeline.folder,
        form=_SAME.get(pipeline.task, pipeline.task),
        digest=folder_digest(dict(pipeline.tree.files)),
        recipe=HUGGING_FACE,
        program=PIPELINE,
        rows=rows_to_prove(pipeline.task, *fields),
        has_worker=True,
    )
    try:
        verdict = prove(source, candidate, fields, checklist, cache)
    except Unproven as lost:
        return f"it cannot be proven natively: {lost}"
    outcome = verdict.outcome
    if not outcome.is_native or outcome.task is None:
        return outcome.reason or "no native runtime"
    place = f"models/{source.name}"
    files = {name: path for name in (NETWORK, TOKENIZER) if (path := verdict.folder / name).is_file()}
    return ModelArtifact(
        source=source,
        framework=_PREFIX + pipeline.task,
        input=fields[0],
        output=fields[1],
        files={f"{place}/{name}": path for name, path in files.items()},
        model=place,
        digest=folder_digest(files),
        summary=str(outcome.parity["original"]),
        task=outcome.task,
        golden=GoldenRows.decode((verdict.folder / ROWS).read_bytes(), *fields),
        parity=outcome.parity,
    )


def _unsuited(task: str, takes: Schema) -> str | None:
    """Why a pipeline is not tried, in one line."""
    known = NATIVE.get(task)
    if known is None:
        return f"{task} has no native twin yet: it runs in a worker"
    other = [name for name in takes.names if name not in known and name not in TASKS[task].needs]
    if other:
        return f"field '{other[0]}' goes to parts of the pipeline that have no native twin: it runs in a worker"
    if "tokenizer" in TASKS[task].reads and find_spec("tokenizers") is None:
        return "tokenizers is not installed here: with pip install 'edgepack[text]' it may become native"
    return None

"""Hugging Face: a zip or folder that a pipeline was saved to. Tasks of one forward pass become native where they are
proven equal (`hugging_face_native`); all others run in a worker, offline.
"""

from __future__ import annotations

import json
from pathlib import Path

from bundle.golden import GoldenRows
from columns.schema import Schema
from edgepack.errors import BadInput
from packager.archives import Tree, is_zip, names_in, open_tree
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.frameworks.hugging_face_native import Pipeline, native_or_reason
from packager.frameworks.hugging_face_tasks import TASKS, fields_of, rows_to_ask
from packager.project import StepSource

PREFIX = "hugging-face-"
FRAMEWORKS = tuple(PREFIX + task for task in TASKS)
CONFIGS = ("config.json", "model_index.json")  # of transformers, of diffusers
_PICTURES = "stable-diffusion-text-2-img"
_LARGEST_CONFIG = 16 << 20  # bytes
_WEIGHTS = (".safetensors", ".bin")
_TELLING = ("tokenizer_config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json")
REQUIREMENTS = ("numpy", "pillow", "protobuf<7", "sentencepiece", "torch==2.13.0", "transformers==4.57.6")
DIFFUSERS = ("diffusers==0.39.0",)
# what must lie beside the weights → files any of which will do
_NEEDED = {
    "tokenizer": ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
    "feature extractor": ("preprocessor_config.json", "processor_config.json"),
}


def is_pipeline(path: Path) -> bool:
    """Whether a zip or folder is what a pipeline was saved to: told by the names of its files."""
    if not (path.is_dir() or is_zip(path)):
        return False
    names = set(names_in(path))
    has_weights = any(name.endswith(_WEIGHTS) for name in names)
    return bool(names & set(CONFIGS)) and (has_weights or bool(names & set(_TELLING)))


def agreed(path: Path, given: str | None) -> str:
    """The framework that the project names: a pipeline's files do not say its task. Raises BadInput without one."""
    if given in FRAMEWORKS:
        return given
    what = f"not a model of '{given}'" if given else "which does not say its task"
    raise BadInput(
        f"'{path.name}' is a Hugging Face pipeline, {what}: give framework as one of {', '.join(FRAMEWORKS)}",
        field="framework",
    )


def inspect_model(source: StepSource, root: Path, checklist: Checklist, cache: Path) -> ModelArtifact:
    """Inspect a pipeline, each thing as a named check. Raises BadInput when one of them fails."""
    task = (source.framework or "").removeprefix(PREFIX)
    tree: Tree | None = None
    fields: tuple[Schema, Schema] | None = None
    with checklist.check("model.files") as found:
        tree = open_tree(source.model, cache)
        found.append(f"{_checked(tree, task)}, {len(tree.files)} files")
    with checklist.check("model.schema") as found:
        fields = fields_of(task, source.input, source.output)
        found.append("; ".join(", ".join(str(field) for field in side) for side in fields))
    checklist.require()
    assert tree is not None and fields is not None  # noqa: S101 - the checks have passed
    upload = Pipeline(task, tree.files[CONFIGS[0]].parent if CONFIGS[0] in tree.files else source.model, tree)
    found_native = native_or_reason(source, upload, fields, checklist, cache)
    if isinstance(found_native, ModelArtifact):
        return found_native
    return ModelArtifact.in_worker(
        source,
        "hugging_face",
        PREFIX + task,
        fields,
        tree.files,
        summary=f"pipeline {task}, {len(tree.files)} files",
        requirements=(*REQUIREMENTS, *(DIFFUSERS if task == _PICTURES else ())),
        options={"task": task},
        reason=found_native,
        golden=GoldenRows(rows_to_ask(*fields)) if (source.golden is None or source.golden.rows is None) else None,
    )


def _checked(tree: Tree, task: str) -> str:
    """What the pipeline's own description says it is. Raises BadInput for what is missing, or needs code."""
    config = CONFIGS[1] if task == _PICTURES else CONFIGS[0]
    if config not in tree.files:
        raise BadInput(f"'{tree.name}' has no {config} at its top: zip the folder that pipeline.save_pretrained wrote")
    said = _read(tree, config)
    if said.get("auto_map"):
        raise BadInput(f"'{tree.name}' needs code of its own (auto_map in {config}), which is not loaded")
    if not any(path.endswith(_WEIGHTS) for path in tree.files):
        raise BadInput(f"'{tree.name}' has no weights: expected a .safetensors or .bin file")
    for part in TASKS[task].reads:
        if not any(path in tree.files for path in _NEEDED[part]):
            raise BadInput(
                f"'{tree.name}' has no {part} ({' or '.join(_NEEDED[part][:2])}), which {task} needs: save the whole "
                "pipeline with pipeline.save_pretrained, not the model alone"
            )
    return str(said.get("model_type") or said.get("_class_name") or "a pipeline")[:60]


def _read(tree: Tree, path: str) -> dict[str, object]:
    try:
        said = json.loads(tree.read(path, _LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} in '{tree.name}' is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise BadInput(f"{path} in '{tree.name}' is not a JSON object")
    return said

"""The child's program for saved pipelines: ask them as a worker would, export the network, say the task as data.

Fields and answers are JSON, a file for each attempt: lists of rows, of any depth and length.
"""

from __future__ import annotations

import json
import os
from typing import Any

from edgepack_worker import hugging_face as original  # what asks a pipeline in a worker asks it here

from ..fields import Unsuited, line
from ..jobs import carry_out
from .hugging_face_network import export, longest
from .hugging_face_task import ANSWERING, TOKENIZER, described, texts_of, tokenizer_text


def main(job_text: str) -> None:
    """Do one job."""
    carry_out(job_text, _run)


def _run(job: dict[str, Any], result: dict[str, Any]) -> None:
    task = job["form"]
    pipeline = _opened(task, job["model"])
    rows, answers = _answered(task, pipeline, job)
    again = [_asked(task, pipeline, row, job) for row in rows]
    said = {"input": job["input"], "output": job["output"], "methods": {}}
    attempts = []
    for attempt in job["attempts"]:
        strategy = attempt["strategy"]
        native = {} if strategy == "python" else _converted(job, task, pipeline, strategy)
        with open(os.path.join(job["folder"], strategy + ".json"), "w") as file:
            json.dump({"in": rows, "out": answers, "again": again}, file)
        attempts.append({"strategy": strategy, **said, **native})
    size = sum(each.numel() for each in pipeline.model.parameters())
    model = f"{type(pipeline.model).__name__}, {size} parameters"
    result.update(model=model, versions=_versions(), layout="pipeline", attempts=attempts)


def _opened(task: str, path: str) -> Any:
    try:
        return original.opened(task, path)
    except Exception as error:  # transformers raises anything for a folder that it does not read
        raise Unsuited(f"it does not load as a pipeline for {task}: {type(error).__name__}: {line(error)}") from error


def _answered(task: str, pipeline: Any, job: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The rows that the original answers, of those given and of texts made of its own words.

    All are asked, however long that takes: what proves a pipeline may not depend on how busy a machine is. Where it
    takes too long the whole job is stopped, and that is the reason why it runs in a worker.
    """
    with open(job["rows"]) as file:
        given = json.load(file)
    needed = [name for name, type_ in job["input"] if not type_.endswith("?")]
    lacking = [name for name in needed for row in given if name not in row]
    if lacking:
        raise Unsuited(f"the golden rows have no '{lacking[0]}', which [steps.input] names")
    read = "context" if task == ANSWERING else "inputs"
    given += [{**given[0], read: text} for text in texts_of(pipeline)]
    rows: list[Any] = []
    answers: list[Any] = []
    refused = ""
    for asked in given:
        row = {name: asked.get(name) for name, _ in job["input"]}
        try:
            answers.append(_asked(task, pipeline, row, job))
        except Exception as error:  # whatever it raises, this is no row that it answers
            refused = refused or f"{type(error).__name__}: {line(error)}"
            continue
        rows.append(row)
    if not rows:
        raise Unsuited(f"the original answers none of the rows it was asked: {refused}; give [golden] rows")
    return rows, answers


def _asked(task: str, pipeline: Any, row: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    found = original.answered(task, pipeline, row)
    return {name: found[name] for name, _ in job["output"]}


def _converted(job: dict[str, Any], task: str, pipeline: Any, strategy: str) -> dict[str, Any]:
    """Write the network and what lies beside it; the task as data, or why there is none."""
    path = os.path.join(job["folder"], strategy + ".onnx")
    try:
        said = described(task, pipeline)
        export(pipeline, task, path, said)
        if pipeline.tokenizer is not None:
            said["text"]["most"] = longest(pipeline)
            with open(os.path.join(job["folder"], TOKENIZER), "w") as file:
                file.write(tokenizer_text(pipeline))
    except Unsuited as error:
        return {"reason": str(error)}
    except Exception as error:  # exporters raise anything; the reason is the user's
        return {"reason": f"the exporter refuses it: {type(error).__name__}: {line(error)}"}
    return {"task": said}


def _versions() -> dict[str, str]:
    import PIL
    import tokenizers
    import torch
    import transformers

    return {each.__name__: str(each.__version__) for each in (PIL, tokenizers, torch, transformers)}

"""Folders of native tasks made in memory: tiny networks whose answers are easy to say, and a tokenizer of few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bundle.pipeline import StepSpec
from bundle.task import NETWORK, TOKENIZER, Answering, PictureStep, Scale, TaskSpec, TextSpec
from tests.runtimes.models import graph, step

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("the", "line", "stopped", "press", "is", "warm", "öl", "机")
VOCABULARY = {word: at for at, word in enumerate((*MARKS, *WORDS))}
LABELS = ("low", "mid", "high")
TEXT = {"label": "list<string>", "score": "list<float64>"}


def tokenizer() -> Tokenizer:
    """Words by number in BERT's frame, lower case."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])],
    )
    return made


def table() -> np.ndarray:
    """What each token adds to each label's score."""
    made: np.ndarray = np.random.RandomState(3).normal(size=(len(VOCABULARY), len(LABELS))).astype(np.float32)
    return made


def text_network(pooled: bool = True) -> bytes:
    """The mean of the tokens' rows in `table`, or these rows; of a text's second part each row counts doubly."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["token_type_ids"], ["second"], to=1),
        helper.make_node("Unsqueeze", ["second", "last"], ["weight"]),
        helper.make_node("Mul", ["rows", "weight"], ["more"]),
        helper.make_node("Add", ["rows", "more"], ["found"]),
        helper.make_node("ReduceMean", ["found"], ["logits"], axes=[1], keepdims=0)
        if pooled
        else helper.make_node("Identity", ["found"], ["logits"]),
    ]
    ids = {name: ("int64", ["n", "t"]) for name in ("input_ids", "token_type_ids")}
    shape = ["n", len(LABELS)] if pooled else ["n", "t", len(LABELS)]
    return graph(nodes, ids, {"logits": ("float32", shape)}, {"table": table(), "last": np.array([2])})


def span_network() -> bytes:
    """The first two columns of each token's row in `table`: where an answer starts, where it ends."""
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    for name, column in (("start_logits", 0), ("end_logits", 1)):
        nodes.append(helper.make_node("Gather", ["rows", f"column {column}"], [name], axis=2))
    weights = {"table": table() * 3, **{f"column {at}": np.array(at) for at in (0, 1)}}
    gives = {name: ("float32", ["n", "t"]) for name in ("start_logits", "end_logits")}
    return graph(nodes, {"input_ids": ("int64", ["n", "t"])}, gives, weights)


def span_task(**answering: int) -> TaskSpec:
    """A task of `span_network`."""
    gives = {name: "list<float32>" for name in ("start_logits", "end_logits")}
    said = Answering(**{"mark": VOCABULARY["[CLS]"], **answering})
    return TaskSpec("question-answering", {"input_ids": "list<int64>"}, gives, text=TextSpec(), answering=said)


def picture_network() -> bytes:
    """The mean of each colour: red is low, green is mid, blue is high."""
    nodes = [helper.make_node("ReduceMean", ["pixel_values"], ["logits"], axes=[2, 3], keepdims=0)]
    return graph(nodes, {"pixel_values": ("float32", ["n", 3, "h", "w"])}, {"logits": ("float32", ["n", 3])})


def text_task(name: Any = "text-classification", **changes: Any) -> TaskSpec:
    """A task of `text_network`."""
    takes = {tensor: "list<int64>" for tensor in ("input_ids", "token_type_ids")}
    gives = {"logits": "list<list<float32>>" if name == "feature-extraction" else "list<float32>"}
    return TaskSpec(name, takes, gives, labels=LABELS, **{"text": TextSpec(), **changes})


def picture_task(*steps: PictureStep, **changes: Any) -> TaskSpec:
    """A task of `picture_network`."""
    takes = {"pixel_values": "list<list<list<float32>>>"}
    said: dict[str, Any] = {"labels": LABELS, "picture": steps or (Scale(1 / 255),), **changes}
    return TaskSpec("image-classification", takes, {"logits": "list<float32>"}, **said)


def folder_of(folder: Path, network: bytes, reads: Tokenizer | None = None) -> Path:
    """The files of a task's step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK).write_bytes(network)
    if reads is not None:
        reads.save(str(folder / TOKENIZER))
    return folder


def task_step(task: TaskSpec, inputs: dict[str, str], outputs: dict[str, str] = TEXT) -> StepSpec:
    """A step with a task."""
    framework = f"hugging-face-{task.name}"
    return step("triage", model="models/triage", framework=framework, input=inputs, output=outputs, task=task)

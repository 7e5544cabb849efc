"""Native tasks of text: a real tokenizer and a real network, with answers computed here by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from tokenizers import Tokenizer

from arch.target import host_target
from bundle.bundle import bundles, pack
from bundle.pipeline import PipelineSpec
from bundle.store import unpack
from bundle.task import NETWORK, TOKENIZER, TaskSpec, TextSpec
from columns.columns import Columns
from columns.records import encode_records
from columns.schema import Schema
from columns.values import column_from_values
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.engines import EngineProcesses
from runtimes.onnx import OnnxRuntime
from runtimes.pipeline import LoadedPipeline
from runtimes.tasks import TaskRuntime, load
from runtimes.tasks.network import Network
from runtimes.tasks.text import MOST_CHARACTERS, MOST_WINDOWS, Texts
from runtimes.trial import predict_in_child
from runtimes.worker import Limits
from tests.packager.tasks import (
    LABELS,
    MARKS,
    TEXT,
    VOCABULARY,
    WORDS,
    folder_of,
    span_network,
    span_task,
    table,
    task_step,
    text_network,
    text_task,
    tokenizer,
)

INPUTS = {"inputs": "string", "top_k": "int64?", "function_to_apply": "string?"}
ZERO_SHOT = {
    "inputs": "string",
    "candidate_labels": "list<string>",
    "multi_label": "bool?",
    "hypothesis_template": "string?",
}
ZERO_SHOT_GIVES = {"sequence": "string", "labels": "list<string>", "scores": "list<float64>"}
UNUSUAL = (
    "",
    " ",
    "the line",
    "THE  LINE\n stopped",
    "öl 机 warm",
    "o\u0308l",
    "👩🏽‍🔧",
    "[SEP] [CLS]",
    "x" * 300,
    "the " * 500,
)


def columns(schema: dict[str, str], rows: list[dict[str, Any]]) -> Columns:
    fields = Schema.parse(schema)
    values = {each.name: column_from_values(each, [row.get(each.name) for row in rows], json=False) for each in fields}
    return Columns.of(fields, values)


def asked(runtime: TaskRuntime, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given_rows = columns(runtime.input.to_dict(), rows)
    found = runtime.infer(given_rows.arrays, len(rows))
    return [{name: column[at] for name, column in found.items()} for at in range(len(rows))]


def expected_logits(text: str, pair: str | None = None) -> np.ndarray:
    """What the network gives for a text, by way of the tokenizer itself."""
    encoding = tokenizer().encode(text, pair)
    weights = 1 + np.array(encoding.type_ids, dtype=np.float32)[:, np.newaxis]
    return (table()[encoding.ids] * weights).mean(axis=0)


def softmax(logits: np.ndarray) -> np.ndarray:
    parts = np.exp(logits - logits.max())
    return parts / parts.sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("text"), text_network(), tokenizer())


@pytest.fixture(scope="module")
def classifier(folder: Path) -> TaskRuntime:
    return load(folder, task_step(text_task(), INPUTS))


@given(st.lists(st.lists(st.sampled_from([*WORDS, *MARKS, "other"]), max_size=9), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_are_classified_as_their_tokens_say_whatever_stands_beside_them(
    classifier: TaskRuntime, texts: list[list[str]]
) -> None:
    rows = [{"inputs": " ".join(words)} for words in texts]
    together, alone = asked(classifier, rows), [asked(classifier, [row])[0] for row in rows]
    for row, found, single in zip(rows, together, alone, strict=True):
        scores = softmax(expected_logits(row["inputs"]))
        assert found["label"] == single["label"] == [LABELS[int(scores.argmax())]]
        np.testing.assert_allclose(found["score"], [scores.max()], rtol=1e-6)
        np.testing.assert_allclose(found["score"], single["score"], rtol=1e-6)


@pytest.mark.parametrize("text", UNUSUAL)
def test_unusual_texts_are_texts(text: str, classifier: TaskRuntime) -> None:
    (found,) = asked(classifier, [{"inputs": text, "top_k": 3}])
    scores = softmax(expected_logits(text))
    assert found["label"] == [LABELS[at] for at in np.argsort(-scores)]
    np.testing.assert_allclose(found["score"], -np.sort(-scores), rtol=1e-6)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none", "SIGMOID", "", None])
def test_a_request_says_what_becomes_of_the_scores(function: str | None, classifier: TaskRuntime) -> None:
    (found,) = asked(classifier, [{"inputs": "the press", "top_k": 3, "function_to_apply": function}])
    logits = expected_logits("the press")
    made = {"sigmoid": 1 / (1 + np.exp(-logits)), "none": logits}.get((function or "").lower(), softmax(logits))
    np.testing.assert_allclose(found["score"], -np.sort(-made), rtol=1e-6)


@pytest.mark.parametrize("count, labels", [(1, 1), (2, 2), (3, 3), (100, 3), (0, 0), (-1, 2), (None, 1)])
def test_as_many_labels_are_given_as_a_request_says(count: int | None, labels: int, classifier: TaskRuntime) -> None:
    (found,) = asked(classifier, [{"inputs": "the press", "top_k": count}])
    assert len(found["label"]) == len(found["score"]) == labels


def test_a_function_that_there_is_not_is_refused_by_name(classifier: TaskRuntime) -> None:
    with pytest.raises(
        BadInput, match=r"^field 'function_to_apply' is 'tanh', expected one of softmax, sigmoid, none$"
    ):
        asked(classifier, [{"inputs": "the press", "function_to_apply": "tanh"}])


def test_scores_of_a_step_may_be_sigmoids(folder: Path) -> None:
    runtime = load(folder, task_step(text_task(scores="sigmoid"), {"inputs": "string"}))
    (found,) = asked(runtime, [{"inputs": "warm"}])
    np.testing.assert_allclose(found["score"], [(1 / (1 + np.exp(-expected_logits("warm")))).max()], rtol=1e-6)


def test_a_text_that_is_too_long_for_the_network_is_refused_with_its_length(folder: Path) -> None:
    runtime = load(folder, task_step(text_task(text=TextSpec(most=6)), {"inputs": "string"}))
    assert len(asked(runtime, [{"inputs": "the line is warm"}])) == 1
    with pytest.raises(BadInput, match=r"^field 'inputs' is 7 tokens long, the model takes at most 6$") as refused:
        asked(runtime, [{"inputs": "the line is warm warm"}])
    assert refused.value.field == "inputs"


def test_more_labels_than_the_schema_has_room_for_are_refused_by_field(folder: Path) -> None:
    runtime = load(folder, task_step(text_task(), INPUTS, {"label": "list<string>[2]", "score": "list<float32>[2]"}))
    assert asked(runtime, [{"inputs": "warm", "top_k": 2}])[0]["score"].dtype == np.float32
    with pytest.raises(BadInput, match="'label'"):
        asked(runtime, [{"inputs": "warm", "top_k": 3}])


def test_features_are_a_list_of_numbers_for_each_token(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, text_network(pooled=False), tokenizer())
    runtime = load(
        folder, task_step(text_task("feature-extraction"), {"inputs": "string"}, {"output": "list<list<float64>[3]>"})
    )
    short, long = asked(runtime, [{"inputs": ""}, {"inputs": "the line is warm"}])
    assert (np.array(short["output"]).shape, np.array(long["output"]).shape) == ((2, 3), (6, 3))
    np.testing.assert_array_equal(long["output"], table()[tokenizer().encode("the line is warm").ids])


def test_a_text_has_the_label_whose_sentence_it_implies(folder: Path) -> None:
    runtime = load(folder, task_step(text_task("zero-shot-classification", entailment=2), ZERO_SHOT, ZERO_SHOT_GIVES))
    names = ["press", "öl", "line", "öl"]
    one, many = asked(
        runtime,
        [
            {"inputs": "the line", "candidate_labels": names},
            {
                "inputs": "the line",
                "candidate_labels": names,
                "multi_label": True,
                "hypothesis_template": "{0} is warm",
            },
        ],
    )
    logits = np.stack([expected_logits("the line", f"This example is {name}.") for name in names])
    scores = np.exp(logits[:, 2]) / np.exp(logits[:, 2]).sum()
    assert one["labels"] == [names[at] for at in reversed(scores.argsort())] and one["sequence"] == "the line"
    np.testing.assert_allclose(one["scores"], sorted(scores, reverse=True), rtol=1e-6)
    pairs = np.exp(np.stack([expected_logits("the line", f"{name} is warm") for name in names])[:, [0, 2]])
    np.testing.assert_allclose(many["scores"], sorted(pairs[:, 1] / pairs.sum(1), reverse=True), rtol=1e-6)


def test_a_text_is_cut_off_so_that_the_sentence_stays(folder: Path) -> None:
    task = text_task("zero-shot-classification", entailment=2, text=TextSpec(most=10, cut_at=10))
    runtime = load(folder, task_step(task, ZERO_SHOT, ZERO_SHOT_GIVES))
    row = {"candidate_labels": ["press", "line"], "hypothesis_template": "warm {}"}
    long, cut = asked(
        runtime, [{**row, "inputs": "the line stopped is öl " * 9}, {**row, "inputs": "the line stopped is öl"}]
    )
    assert (long["labels"], list(long["scores"])) == (cut["labels"], list(cut["scores"]))


UNPLAIN = ("no place", "{:>1000000000}", "{0.__class__}", "{!r}", "{x}", "{", "{{}}")
SEVERAL = ("{} or {}", "{} {0}", "{0} {}", "{0}" * 9)


@pytest.mark.parametrize("template", [*UNPLAIN, *SEVERAL])
def test_only_one_plain_place_for_the_label_is_taken(template: str, folder: Path) -> None:
    runtime = load(folder, task_step(text_task("zero-shot-classification", entailment=2), ZERO_SHOT, ZERO_SHOT_GIVES))
    with pytest.raises(BadInput, match=r"field 'hypothesis_template' is .*expected a sentence with {} once"):
        asked(runtime, [{"inputs": "a", "candidate_labels": ["b"], "hypothesis_template": template}])


@pytest.mark.parametrize(("letters", "labels", "most"), [(1, 1001, 1000), (400_000, 42, 41)])
def test_labels_are_as_many_as_are_borne_for_a_text(letters: int, labels: int, most: int, folder: Path) -> None:
    runtime = load(folder, task_step(text_task("zero-shot-classification", entailment=2), ZERO_SHOT, ZERO_SHOT_GIVES))
    row = {"inputs": "x" * letters, "candidate_labels": ["öl"] * labels}
    with pytest.raises(
        BadInput, match=f"^field 'candidate_labels' has {labels} labels: expected at most {most} "
    ) as no:
        asked(runtime, [row])
    assert no.value.field == "candidate_labels"
    if letters == 1:
        assert len(asked(runtime, [{**row, "candidate_labels": ["öl"] * most}])[0]["labels"]) == most


def test_a_text_that_no_tokenizer_should_read_is_refused_by_its_length(classifier: TaskRuntime) -> None:
    with pytest.raises(BadInput, match=r"^field 'inputs' has 524289 characters to be read, expected at most 524288"):
        asked(classifier, [{"inputs": "x" * (MOST_CHARACTERS + 1)}])


@pytest.mark.parametrize("row, field", [({"inputs": ""}, "inputs"), ({"candidate_labels": []}, "candidate_labels")])
def test_a_text_and_a_label_are_needed(row: dict[str, Any], field: str, folder: Path) -> None:
    runtime = load(folder, task_step(text_task("zero-shot-classification", entailment=2), ZERO_SHOT, ZERO_SHOT_GIVES))
    with pytest.raises(BadInput, match=f"^field '{field}' is empty"):
        asked(runtime, [{"inputs": "a", "candidate_labels": ["b"], **row}])


ANSWERING = {
    **dict.fromkeys(("question", "context"), "string"),
    **dict.fromkeys(("top_k", "doc_stride", "max_answer_len", "max_seq_len"), "int64?"),
    **dict.fromkeys(("handle_impossible_answer", "align_to_words"), "bool?"),
}
ANSWERS = {"score": "float64", "start": "int64", "end": "int64", "answer": "string"}


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> TaskRuntime:
    folder = folder_of(tmp_path_factory.mktemp("spans"), span_network(), tokenizer())
    return load(folder, task_step(span_task(), ANSWERING, ANSWERS))


def likeliest(words: list[str], longest: int) -> tuple[float, int, int]:
    """The best span of some words, tried one by one; the mark in front takes its part of what is likely."""
    rows = (table() * 3)[[VOCABULARY["[CLS]"], *(VOCABULARY[word] for word in words)]]
    start, end = softmax(rows[:, 0])[1:], softmax(rows[:, 1])[1:]
    spans = [(at, to) for at in range(len(words)) for to in range(at, min(at + longest, len(words)))]
    return max((float(start[at] * end[to]), at, to) for at, to in spans)


@given(st.permutations(WORDS), st.integers(1, len(WORDS)), st.integers(1, 9), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_likeliest_span_of_a_context_answers(
    answering: TaskRuntime, words: list[str], count: int, longest: int, aligned: bool
) -> None:
    context = " ".join(words[:count])
    row = {"question": "is the line warm ?", "context": context, "max_answer_len": longest, "align_to_words": aligned}
    (found,) = asked(answering, [row])
    score, at, to = likeliest(words[:count], longest)
    assert found["answer"] == context[found["start"] : found["end"]] == " ".join(words[at : to + 1])
    np.testing.assert_allclose(found["score"], score, rtol=1e-5)


def test_a_long_context_is_read_in_windows_that_overlap(answering: TaskRuntime) -> None:
    best = max(WORDS, key=lambda word: float(table()[VOCABULARY[word], :2].sum()))
    context = " ".join(["other"] * 50 + [best] + ["other"] * 20)
    row = {"question": "press", "context": context, "max_seq_len": 16, "doc_stride": 4, "max_answer_len": 1}
    (found,) = asked(answering, [row])
    assert (found["answer"], found["start"]) == (best, context.index(best))


def test_a_context_is_read_once_in_as_many_windows_as_are_borne(
    answering: TaskRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    windows = Texts.windows

    def counted(self: Texts, *arguments: Any) -> list[Any]:
        found = windows(self, *arguments)
        read.append(len(found))
        return found

    monkeypatch.setattr(Texts, "windows", counted)
    row = {"question": "press", "max_seq_len": 16, "doc_stride": 11}  # 12 tokens of context, of which one is new
    asked(answering, [{**row, "context": "warm " * (12 + MOST_WINDOWS - 1)}])
    assert read == [MOST_WINDOWS]
    with pytest.raises(
        BadInput, match=r"^field 'doc_stride' is 11, which cuts the context into 513 windows"
    ) as refused:
        asked(answering, [{**row, "context": "warm " * (12 + MOST_WINDOWS)}])
    assert refused.value.field == "doc_stride"


def test_rows_are_asked_in_groups_whose_tensors_are_borne(
    answering: TaskRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    run = Network.run

    def counted(self: Network, rows: Any) -> list[dict[str, np.ndarray]]:
        runs.append(len(rows))
        return run(self, rows)

    monkeypatch.setattr(Network, "run", counted)
    row = {"question": "press", "context": "warm " * 51, "max_seq_len": 16, "doc_stride": 11}
    assert len(asked(answering, [row] * 5)) == 5
    assert runs == [80, 80, 40], "windows of two rows, of two, and of the last"


@pytest.mark.parametrize("quantized", [None, "dynamic"])
@pytest.mark.parametrize("batch", ["any", "single"])
def test_what_shares_a_scale_or_asks_to_be_alone_is_run_row_by_row(
    batch: Any, quantized: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[Any] = []
    infer = OnnxRuntime.infer_tensors

    def seen(self: OnnxRuntime, tensors: Any) -> Any:
        shapes.append(tensors["input_ids"].shape)
        return infer(self, tensors)

    monkeypatch.setattr(OnnxRuntime, "infer_tensors", seen)
    step = structs.replace(task_step(text_task(), {"inputs": "string"}), batch=batch, quantized=quantized)
    asked(load(folder, step), [{"inputs": "warm öl"}, {"inputs": "the line"}])
    assert shapes == ([(2, 4)] if (batch, quantized) == ("any", None) else [(1, 4), (1, 4)])


@pytest.mark.parametrize("word", WORDS)
def test_no_answer_is_an_answer_where_a_request_allows_it(word: str, answering: TaskRuntime) -> None:
    row = {"question": "press", "context": word}
    said, either = asked(answering, [row, {**row, "handle_impossible_answer": True}])
    rows = (table() * 3)[[VOCABULARY["[CLS]"], VOCABULARY[word]]]
    none, some = (float(softmax(rows[:, 0])[at] * softmax(rows[:, 1])[at]) for at in (0, 1))
    np.testing.assert_allclose([said["score"], either["score"]], [some, max(none, some)], rtol=1e-5)
    assert (said["answer"], either["answer"]) == (word, word if some > none else "")


def test_a_context_without_words_holds_an_empty_answer(answering: TaskRuntime) -> None:
    assert asked(answering, [{"question": "press", "context": "  "}]) == [
        {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    ]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"question": ""}, "field 'question' is empty"),
        ({"context": ""}, "field 'context' is empty"),
        ({"top_k": 0}, "field 'top_k' is 0, expected 1 or more"),
        ({"max_answer_len": -2}, "field 'max_answer_len' is -2, expected 1 or more"),
        ({"doc_stride": -1}, "field 'doc_stride' is -1, expected 0 or more"),
        ({"max_seq_len": 5}, "field 'question' leaves 1 of 5 tokens for the context, of which 2 are"),
        ({"question": "press " * 400}, "field 'question' leaves 0 of 384 tokens"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_by_field(
    changes: dict[str, Any], said: str, answering: TaskRuntime
) -> None:
    with pytest.raises(BadInput, match=f"^{said}"):
        asked(answering, [{"question": "press", "context": "the line is warm warm warm", **changes}])


def test_a_tokenizer_that_says_to_pad_and_to_cut_does_neither(tmp_path: Path) -> None:
    eager = tokenizer()
    eager.enable_padding(length=12)
    eager.enable_truncation(4)
    folder = folder_of(tmp_path, text_network(), eager)
    (found,) = asked(load(folder, task_step(text_task(), INPUTS)), [{"inputs": "the line is warm", "top_k": 3}])
    np.testing.assert_allclose(found["score"], -np.sort(-softmax(expected_logits("the line is warm"))), rtol=1e-6)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"version": "1.0", "model": {"type": "Odd"}}', b"\xff\x00"])
def test_a_tokenizer_that_does_not_read_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, text_network())
    (folder / TOKENIZER).write_bytes(data)
    with pytest.raises(RuntimeFailed, match=r"^the tokenizer of step 'triage' does not load: ") as refused:
        load(folder, task_step(text_task(), INPUTS))
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_tokenizer_or_a_network_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, text_network())
    with pytest.raises(RuntimeFailed, match="the tokenizer of step 'triage' does not load"):
        load(folder, task_step(text_task(), INPUTS))
    tokenizer().save(str(folder / TOKENIZER))
    (folder / NETWORK).unlink()
    with pytest.raises(RuntimeFailed, match="model 'triage' does not load in onnxruntime"):
        load(folder, task_step(text_task(), INPUTS))


def test_without_the_library_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BadInput, match=r"^step 'triage' reads text, .*: pip install 'edgepack\[text\]'$"):
        load(folder, task_step(text_task(), INPUTS))


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the classifier, unpacked."""
    spec = PipelineSpec("triage", [task_step(text_task(), INPUTS)])
    files = {f"models/triage/{name}": folder / name for name in (NETWORK, TOKENIZER)}
    index = pack(spec, files, b"[]\n", [host_target()])
    return unpack(bundles(index)[0], tmp_path_factory.mktemp("bundles"))


def test_a_bundle_with_a_task_answers_in_this_process_and_in_a_confined_child(bundle: Path) -> None:
    rows = columns(INPUTS, [{"inputs": text, "top_k": 3} for text in ("the line", "warm öl")])
    here = LoadedPipeline.open(bundle)
    found = here.infer(rows).outputs
    assert here.spec.steps[0].task == text_task() and here.tensors is None and here.memory_bytes["triage"] > 0
    assert here.providers["triage"].used
    assert encode_records(predict_in_child(bundle, rows), ".") == encode_records(found, ".")
    here.close()


def test_a_task_runs_in_engine_processes(bundle: Path) -> None:
    step = task_step(text_task(), {"inputs": "string"})
    limits = Limits(memory_bytes=None, threads=1)
    processes = EngineProcesses.start(bundle / step.model, step, limits, 1)
    try:
        found = processes.infer({"inputs": np.array(["the line"], dtype=object)}, 1)
        assert found["label"].tolist() == [[LABELS[int(expected_logits("the line").argmax())]]]
    finally:
        processes.close()


def test_a_spec_with_a_task_reads_again_and_one_without_does_not_mention_it() -> None:
    spec = PipelineSpec("triage", [task_step(text_task(), INPUTS)])
    assert PipelineSpec.decode(spec.encode()) == spec
    plain = PipelineSpec("triage", [task_step(text_task(), INPUTS).__class__("a", "m", "onnx", "onnx", TEXT, TEXT)])
    assert b'"task"' not in plain.encode()


def test_a_task_is_for_the_runtime_onnx_alone() -> None:
    step = task_step(text_task(), INPUTS)
    wrong = step.__class__("a", "m", "tflite", "tflite", TEXT, TEXT, task=step.task)
    with pytest.raises(BadInput, match="has runtime 'tflite' and a task, which is for 'onnx'"):
        PipelineSpec.decode(PipelineSpec("triage", [wrong]).encode())


def test_a_step_that_reads_text_needs_a_tokenizer_in_its_image() -> None:
    assert task_step(text_task(), INPUTS).libraries == {"onnx", "text"}
    assert task_step(TaskSpec("image-classification", {}, {}), INPUTS).libraries == {"onnx"}


def test_the_vocabulary_is_what_the_tests_think_it_is() -> None:
    made: Tokenizer = tokenizer()
    assert made.encode("the LINE other").tokens == ["[CLS]", "the", "line", "[UNK]", "[SEP]"]
    assert made.get_vocab_size() == len(VOCABULARY)

"""What a plain pipeline of transformers or diffusers answers, as golden rows: written apart from edgepack's own code,
run inside the environment by `pipelines.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t
from PIL import Image

Row = dict[str, Any]
Answers = Callable[[Path], Iterator[tuple[Row, Row]]]  # of a saved pipeline: rows, and what it says to each
TEXTS = (
    "the line stopped at noon", "a bearing of press 4 is warm", "all good", "why did the press stop ?", "warm",
    "it is loud because of a bearing", "the line is good and the press did stop",
)  # fmt: skip
LABELS = ["press", "line"]
ANY_SCORE = 0.0  # a threshold: what is found by random weights is nothing to be sure of
FEW = 6  # words


def golden_rows(task: str, folder: Path) -> list[Row]:
    """Seven rows, of pictures to be drawn two, with what the saved pipeline says to each."""
    torch.manual_seed(0)
    rows = []
    for asked, answer in TASKS[task](folder):
        rows.append({**{f"in.{name}": each for name, each in asked.items()}, **answer})
        torch.manual_seed(0)  # each row has the same seed, as the documentation says
    return rows


def write_golden(task: str, folder: Path) -> None:
    """Beside the pipeline, as a project would have them."""
    (folder / "golden.json").write_text(json.dumps(golden_rows(task, folder)))


def images(side: int = 40) -> Iterator[tuple[list[Any], Any]]:
    """Pixels as numbers and as a picture."""
    draw = np.random.RandomState(3)
    for _ in TEXTS:
        pixels = draw.randint(0, 256, (side, side + 8, 3)).astype(np.uint8)
        yield pixels.tolist(), Image.fromarray(pixels)


def listed(found: list[Row], *names: str) -> Row:
    """One list a field: the score of a whole picture is not said, a box is its four sides."""
    plain: dict[str, Callable[[Any], Any]] = {
        "score": lambda each: 1.0 if each is None else each,
        "box": lambda each: [each[side] for side in ("xmin", "ymin", "xmax", "ymax")],
        "mask": lambda each: np.asarray(each).tolist(),
    }
    return {f"out.{name}": [plain.get(name, str)(each[name]) for each in found] for name in names}


def of_text(task: str, *names: str, **how: Any) -> Answers:
    def answered(folder: Path) -> Iterator[tuple[Row, Row]]:
        ask = t.pipeline(task, model=str(folder))
        for text in TEXTS:
            yield {"inputs": text, **how}, listed(ask(text, **how), *names)

    return answered


def written(task: str, name: str, **how: Any) -> Answers:
    def answered(folder: Path) -> Iterator[tuple[Row, Row]]:
        ask = t.pipeline(task, model=str(folder))
        for text in TEXTS:
            yield {"inputs": text, **how}, {f"out.{name}": ask(text, **how)[0][name]}

    return answered


def of_image(task: str, *names: str, **how: Any) -> Answers:
    def answered(folder: Path) -> Iterator[tuple[Row, Row]]:
        ask = t.pipeline(task, model=str(folder))
        for pixels, image in images():
            yield {"inputs": pixels, **how}, listed(ask(image, **how), *names)

    return answered


def caption(folder: Path) -> Iterator[tuple[Row, Row]]:
    ask, how = t.pipeline("image-to-text", model=str(folder)), {"max_new_tokens": FEW}
    for pixels, image in images():
        yield {"inputs": pixels, **how}, listed(ask(image, generate_kwargs=how), "generated_text")


def of_image_and_labels(task: str, name: str, *names: str, **how: Any) -> Answers:
    def answered(folder: Path) -> Iterator[tuple[Row, Row]]:
        ask = t.pipeline(task, model=str(folder))
        for pixels, image in images():
            found = ask(image, candidate_labels=LABELS, **how)
            yield {name: pixels, "candidate_labels": LABELS, **how}, listed(found, *names)

    return answered


def features(folder: Path) -> Iterator[tuple[Row, Row]]:
    ask = t.pipeline("feature-extraction", model=str(folder))
    for text in TEXTS:
        yield {"inputs": text}, {"out.output": ask(text)[0]}


def labelled(folder: Path) -> Iterator[tuple[Row, Row]]:
    ask = t.pipeline("zero-shot-classification", model=str(folder))
    for text in TEXTS:
        found = ask(text, candidate_labels=LABELS)
        said = {f"out.{name}": found[name] for name in ("sequence", "labels", "scores")}
        yield {"inputs": text, "candidate_labels": LABELS}, said


def answers(folder: Path) -> Iterator[tuple[Row, Row]]:
    ask, question = t.pipeline("question-answering", model=str(folder)), "why did it stop"
    for text in TEXTS:
        found = ask(question=question, context=text)
        yield {"question": question, "context": text}, {f"out.{name}": found[name] for name in found}


def speech(folder: Path) -> Iterator[tuple[Row, Row]]:
    ask, draw = t.pipeline("automatic-speech-recognition", model=str(folder)), np.random.RandomState(4)
    for _ in TEXTS:
        heard = draw.normal(size=1600).astype(np.float32)
        yield {"inputs": heard.tolist()}, {"out.text": ask(heard)["text"]}


def pictures(folder: Path) -> Iterator[tuple[Row, Row]]:
    import diffusers

    draw = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    draw.set_progress_bar_config(disable=True)
    for text in TEXTS[:2]:  # each takes as long as all texts of another task
        made = draw(prompt=text, num_inference_steps=1).images[0]
        yield {"prompt": text, "num_inference_steps": 1}, {"out.images": np.asarray(made).tolist()}


TASKS: dict[str, Answers] = {
    "feature-extraction": features,
    "image-classification": of_image("image-classification", "score", "label"),
    "image-segmentation": of_image("image-segmentation", "score", "label", "mask"),
    "image-to-text": caption,
    "object-detection": of_image("object-detection", "score", "label", "box", threshold=ANY_SCORE),
    "question-answering": answers,
    "stable-diffusion-text-2-img": pictures,
    "summarization": written("summarization", "summary_text", max_new_tokens=FEW),
    "text-classification": of_text("text-classification", "label", "score"),
    "sentiment-analysis": of_text("text-classification", "label", "score"),
    "translation": written("translation", "translation_text", max_new_tokens=FEW),
    "zero-shot-classification": labelled,
    "zero-shot-image-classification": of_image_and_labels("zero-shot-image-classification", "inputs", "score", "label"),
    "zero-shot-object-detection": of_image_and_labels(
        "zero-shot-object-detection", "images", "score", "label", "box", threshold=ANY_SCORE
    ),
    "text-generation": of_text("text-generation", "generated_text", max_new_tokens=FEW),
    "automatic-speech-recognition": speech,
}

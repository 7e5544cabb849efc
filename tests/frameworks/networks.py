"""Makes the networks of these tests, inside the environment `torch`: `python networks.py FOLDER`. Weights are random.

Each function is one network; its name, with a dot for the last underscore, is that of the file. Those that can be asked
have rows in ROWS, and their own answers beside them (`originals`). Never imported by the tests: their own interpreter
has none of these libraries.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from originals import keep, normal, one_by_one, whole
from torch import nn

warnings.simplefilter("ignore")
FOLDER = Path(sys.argv[1])


def save(module: nn.Module, path: Path, *example: torch.Tensor) -> None:
    """As TorchScript: traced where there is an example, else scripted."""
    made = torch.jit.trace(module.eval(), example) if example else torch.jit.script(module.eval())
    torch.jit.save(made, path)


class Two(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = self.left(x) + self.right(y)
        return total, torch.softmax(total, 1)


class Named(Two):
    """Its answer has names."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        total = self.left(x) + self.right(y)
        return {"score": total, "label": total.argmax(1)}


class Change(NamedTuple):
    """Named answers of one type."""

    difference: torch.Tensor
    product: torch.Tensor


class Minus(nn.Module):
    """Two inputs and two outputs of one type, where it shows which is which."""

    def forward(self, b: torch.Tensor, a: torch.Tensor) -> Change:
        return Change(b - a, 2 * b * a)


class Less(Minus):
    """The same with an answer that has keys."""

    def forward(self, b: torch.Tensor, a: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"product": 2 * b * a, "difference": b - a}


class Halves(nn.Module):
    """One input, several outputs of other types."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x[:, :2], x.argmax(1), x > 0


class Sequence(nn.Module):
    """Any number of steps of three values."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x)[0][:, -1])


class Batch(nn.Module):
    """What a row gives depends on the rows beside it: no conversion can be proven row by row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Restless(nn.Module):
    """Another answer each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Listed(nn.Module):
    """Takes what is no tensor."""

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        return x[0]


def mlp_pt(path: Path) -> None:
    save(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)), path, torch.zeros(1, 4))


def cnn_pth(path: Path) -> None:
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    save(nn.Sequential(*layers, nn.Linear(64, 10)), path)


def two_pt(path: Path) -> None:
    save(Two(), path)


def sequence_pt(path: Path) -> None:
    save(Sequence(), path)


def words_pt(path: Path) -> None:
    save(nn.Sequential(nn.Embedding(5, 3)), path)


def named_pt(path: Path) -> None:
    save(Named(), path)


def traced_pt(path: Path) -> None:
    save(Two(), path, torch.zeros(2, 4), torch.zeros(2, 2))


def told_pt(path: Path) -> None:
    example = torch.zeros(2, 4), torch.zeros(2, 2)
    torch.jit.save(torch.jit.trace(Named().eval(), example, strict=False), path)


def minus_pt(path: Path) -> None:
    save(Minus(), path)


def less_pt(path: Path) -> None:
    save(Less(), path)


def halves_pt(path: Path) -> None:
    save(Halves(), path)


def wide_pt(path: Path) -> None:
    save(nn.Linear(4, 2).double(), path)


def batch_pt(path: Path) -> None:
    save(Batch(), path)


def restless_pt(path: Path) -> None:
    save(Restless(), path)


def listed_pt(path: Path) -> None:
    save(Listed(), path)


def pickled_pt(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def weights_pt(path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), path)


def old_pt(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=False)


def program_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def dense() -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential(layers)


def dense_keras(path: Path) -> None:
    dense().save(path)


def dense_h5(path: Path) -> None:
    dense().save(path)


def picture_keras(path: Path) -> None:
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(10)]).save(path)


def steps_keras(path: Path) -> None:
    keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(5), keras.layers.Dense(1)]).save(path)


def both_keras(path: Path) -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    inner = keras.layers.Concatenate()([a, b])
    keras.Model({"a": a, "b": b}, {"p": keras.layers.Dense(1)(inner), "q": keras.layers.Dense(2)(inner)}).save(path)


def pair_keras(path: Path) -> None:
    given = keras.Input((4,), name="line")
    keras.Model(given, [keras.layers.Dense(1, name="z")(given), keras.layers.Dense(2, name="a")(given)]).save(path)


def fixed_keras(path: Path) -> None:
    """One row at a time."""
    layers = [keras.Input(batch_shape=(1, 4)), keras.layers.Reshape((2, 2)), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")]).save(path)


def order_keras(path: Path) -> None:
    """Names that are not in the order of the alphabet."""
    z, b = keras.Input((2,), name="z"), keras.Input((2,), name="b")
    outputs = {"y": keras.layers.Dense(2)(z), "a": keras.layers.Dense(2)(b)}
    keras.Model({"z": z, "b": b}, outputs).save(path)


def minus(*more: Any) -> Any:
    """Two inputs and two outputs of one type, in lists; the inputs may go through another layer."""
    given = [keras.Input((2,), name=name) for name in ("b", "a")]
    b, a = (layer(each) for layer, each in zip(more, given, strict=True)) if more else given
    difference, twice = keras.layers.Subtract(name="difference")([b, a]), keras.layers.Add()([b, b])
    return keras.Model(given, [difference, keras.layers.Multiply(name="product")([twice, a])])


def minus_keras(path: Path) -> None:
    minus().save(path)


def minus_h5(path: Path) -> None:
    minus().save(path)


def less_keras(path: Path) -> None:
    """The same with Python code."""
    minus(keras.layers.Lambda(lambda x: x * 1), keras.layers.Lambda(lambda x: x * 1)).save(path)


def code_keras(path: Path) -> None:
    given = keras.Input((4,))
    outputs = {"y": keras.layers.Lambda(lambda x: x * 2 + 1)(given), "a": keras.layers.Lambda(lambda x: x - 1)(given)}
    keras.Model(given, outputs).save(path)


def spoiling_keras(path: Path) -> None:
    """Its code leaves a mark wherever it is let."""
    mark = FOLDER / "mark"
    code = eval(f"lambda x: (__import__('os').makedirs({str(mark)!r}, exist_ok=True), x * 2)[1]")
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(code)]).save(path)
    mark.rmdir()


def weights_h5(path: Path) -> None:
    dense().save_weights(path.with_name("made.weights.h5"))
    path.with_name("made.weights.h5").rename(path)


@keras.saving.register_keras_serializable(package="mine")
class Mine(keras.layers.Layer):
    """A layer that no other machine knows."""

    def call(self, x: Any) -> Any:
        return x * 2


def own_keras(path: Path) -> None:
    keras.Sequential([keras.Input((4,)), Mine()]).save(path)


LINE, PAIR = {"x": normal(4)}, {"left": normal(4), "right": normal(2)}
B_A = {"b": normal(2), "a": whole(2, below=9, dtype="float32")}
# network → the rows that it is asked, by field, and the names of its answers; a dict's are its keys
ROWS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mlp.pt": ({"input": normal(4)}, ("output",)),
    "cnn.pth": ({"image": normal(1, 8, 8)}, ("output",)),
    "two.pt": (PAIR, ("output_1", "output_2")),
    "traced.pt": (PAIR, ("output_1", "output_2")),
    "minus.pt": (B_A, ("difference", "product")),
    "less.pt": (B_A, ()),
    "halves.pt": (LINE, ("output_1", "output_2", "output_3")),
    "sequence.pt": ({"steps": normal(6, 3)}, ("output",)),
    "words.pt": ({"ids": whole(5, below=5)}, ("output",)),
    "named.pt": (PAIR, ()),
    "told.pt": (PAIR, ()),
    "wide.pt": ({"x": normal(4, dtype="float64")}, ("output",)),
    "batch.pt": (LINE, ("output",)),
    "dense.keras": ({"input": normal(4)}, ("output",)),
    "dense.h5": ({"input": normal(4)}, ("output",)),
    "picture.keras": ({"input": normal(8, 8, 1)}, ("output",)),
    "steps.keras": ({"input": normal(6, 3)}, ("output",)),
    "both.keras": ({"input_1": normal(4), "input_2": normal(2)}, ()),
    "pair.keras": ({"input": normal(4)}, ("output_1", "output_2")),
    "fixed.keras": ({"input": normal(4, rows=7)}, ("output",)),
    "order.keras": ({"input_1": normal(2), "input_2": whole(2, below=9, dtype="float32")}, ()),
    "minus.keras": (B_A, ("difference", "product")),
    "minus.h5": (B_A, ("difference", "product")),
    "less.keras": (B_A, ("difference", "product")),
    "code.keras": ({"input": normal(4)}, ()),
}


def torch_original(path: Path, names: tuple[str, ...]) -> Any:
    """What a loaded module answers."""
    module = torch.jit.load(path)

    def ask(rows: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            found = module(*[torch.from_numpy(array) for array in rows.values()])
        if not isinstance(found, dict):
            found = dict(zip(names, found if isinstance(found, tuple) else [found], strict=True))
        return {name: each.numpy() for name, each in found.items()}

    return ask


def keras_original(path: Path, names: tuple[str, ...]) -> Any:
    """What `predict` of a loaded model answers."""
    model = keras.models.load_model(path, compile=False, safe_mode=False)

    def ask(rows: dict[str, Any]) -> dict[str, Any]:
        arrays = list(rows.values())
        given = arrays[0] if len(arrays) == 1 else dict(zip([each.name for each in model.inputs], arrays, strict=True))
        found = model.predict(given, batch_size=len(arrays[0]), verbose=0)
        return found if isinstance(found, dict) else dict(zip(names, found if len(names) > 1 else [found], strict=True))

    return one_by_one(ask) if path.name == "fixed.keras" else ask


def main() -> None:
    """Write all of them."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    suffixes = ("_pt", "_pth", "_pt2", "_keras", "_h5")
    for name, make in list(globals().items()):
        if name.endswith(suffixes) and callable(make):
            make(FOLDER / ".".join(name.rsplit("_", 1)))
    for name, (rows, names) in ROWS.items():
        path = FOLDER / name
        keep(path, rows, (torch_original if path.suffix.startswith(".pt") else keras_original)(path, names))


if __name__ == "__main__":
    main()

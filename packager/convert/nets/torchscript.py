"""TorchScript modules: what `torch.jit.save` wrote, traced or scripted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..fields import Unsuited, line
from .tensors import Outputs, TensorField, names_of, placed

OPSET = 17  # what every runtime of the last years reads; the exporter writes IR 8 with it


class Net:
    """A loaded module; arrays go by the names of fields, in the order of the module's arguments."""

    kind = "torch"

    def __init__(self, path: str) -> None:
        try:
            self.module = torch.jit.load(path, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise Unsuited(f"it does not load in torch {torch.__version__}: {line(error)}") from error
        self.outputs = Outputs()  # until it has been asked
        self.wide = ("float64",)  # columns that are not converted

    @property
    def model(self) -> str:
        """What it is, for the report."""
        return f"TorchScript {self.module.original_name}"

    def fields(self, declared: list[TensorField] | None) -> list[TensorField]:
        """The input fields: TorchScript files do not carry shapes, so they must be given."""
        arguments = self.module.forward.schema.arguments[1:]
        if declared is None:
            named = ", ".join(f"{name} = 'list<float32>[…]'" for name in names_of("input", len(arguments)))
            raise Unsuited(f"a TorchScript file does not say its shapes: give [steps.input] with {named}")
        odd = [each for each in arguments if str(each.type) != "Tensor" and not each.has_default_value()]
        if odd:
            raise Unsuited(f"its forward takes '{odd[0].name}: {odd[0].type}': expected tensors only")
        needed = [each for each in arguments if str(each.type) == "Tensor" and not each.has_default_value()]
        if not len(needed) <= len(declared) <= len(arguments):
            listed = ", ".join(each.name for each in arguments)
            raise Unsuited(f"[steps.input] has {len(declared)} fields, forward takes {len(needed)}: {listed}")
        return placed("input", declared, [each.name for each in arguments], names_of("input", len(arguments)))

    def ask(self, arrays: Mapping[str, Any]) -> list[Any]:
        """The module's answers, in its order; those of a dict in the order of its first one."""
        with torch.inference_mode():
            found = self.module(*[torch.from_numpy(array) for array in arrays.values()])
        if isinstance(found, dict):
            found = self._in_order({str(name): each for name, each in found.items()})
        elif isinstance(found, tuple):
            self.outputs = Outputs(names=list(getattr(found, "_fields", ())))
        answers = [found] if isinstance(found, torch.Tensor) else list(found)
        if not answers or not all(isinstance(each, torch.Tensor) for each in answers):
            raise Unsuited("its forward gives something else than a tensor, a tuple or a dict of tensors")
        return [each.detach().numpy() for each in answers]

    def _in_order(self, found: dict[str, Any]) -> list[Any]:
        keys = self.outputs.keys or list(found)
        if sorted(keys) != sorted(found):
            raise Unsuited("its forward gives other names from call to call")
        self.outputs = Outputs(keys)
        return [found[key] for key in keys]

    def export(
        self, path: str, arrays: Mapping[str, Any], inputs: Sequence[TensorField], outputs: Sequence[TensorField]
    ) -> None:
        """Write the module as ONNX; raises what the exporter raises."""
        if self.outputs.keys:
            raise Unsuited("its answer is a dict, which the exporter does not know")
        exported(self.module, path, arrays, inputs, outputs)


def exported(
    module: Any,
    path: str,
    arrays: Mapping[str, Any],
    inputs: Sequence[TensorField],
    outputs: Sequence[TensorField],
    *,
    is_single: bool = False,
) -> None:
    """Write any torch module as ONNX with the fields' names, unsaid axes free, rows too unless it takes one."""
    rows = {} if is_single else {0: "N"}
    free = {
        each.name: {**rows, **{at: f"{each.name}_{at}" for at, size in enumerate(each.shape, 1) if size < 0}}
        for each in (*inputs, *outputs)
    }
    warnings.simplefilter("ignore")
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array[: 1 if is_single else 2]) for array in arrays.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[each.name for each in inputs],
            output_names=[each.name for each in outputs],
            dynamic_axes=free,
        )


def versions() -> dict[str, str]:
    """What the answers depend on."""
    return {"torch": str(torch.__version__)}

"""Named checks: what `edgepack check` reports. Each is one thing that was looked at, and what to do where it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgepack.errors import BadInput, RuntimeFailed

# key → category, what was looked at, what to do
_CHECKS = {
    "project.reads": ("project", "the project reads and its paths stay inside", "mend the file or key that is named"),
    "model.format": (
        "model",
        "the file is a model that this version packages",
        "name its framework in [[steps]], save the fitted model alone, or export ONNX",
    ),
    "model.version": (
        "model",
        "the runtime knows the model's IR version and opsets",
        "export it again: ONNX with opset 17 runs everywhere, TFLite with built-in operators alone",
    ),
    "model.files": (
        "model",
        "the model's files are in the project, each whole",
        "mend what is named: whole files, inside the project, without links",
    ),
    "model.schema": (
        "model",
        "inputs and outputs have types that devices can serve",
        "mend the field that is named: in tensor_fields of ONNX or TFLite, else in [steps.input] or [steps.output]",
    ),
    "model.globals": (
        "security",
        "the file was read without loading it, and names nothing but a model",
        "save a fitted estimator alone, or package your code as framework 'custom'",
    ),
    "model.environment": (
        "model",
        "there is an environment for the library that saved it",
        "see that the index is reachable, or save the model again with a current version",
    ),
    "model.converts": (
        "model",
        "the model was converted and compared with the original in a sandbox",
        "mend what is named, or give [steps.input] and [golden] rows that the model answers",
    ),
    "model.code": (
        "model",
        "the upload holds one entry point, and its code parses",
        "mend the file, line or field that is named",
    ),
    "model.api": (
        "model",
        "cortex.yaml describes one API that a device can run",
        "mend the key that is named, or the access to the models that it names",
    ),
    "model.versions": (
        "model",
        "version folders are integers with one model each, and no path leads out",
        "mend the folder or file that is named",
    ),
    "model.payload": (
        "model",
        "score.py answers rows of its fields in a sandbox",
        "give [golden] rows that it answers, or mend the code that is named",
    ),
    "model.requirements": (
        "model",
        "requirements read, or are known from the imports",
        "name packages and versions only, in a requirements.txt: scikit-learn==1.5.2",
    ),
    "model.wheels": (
        "model",
        "every requirement has a wheel for the target",
        'write the version that is named, set requirements = "compatible", or see that the index is reachable',
    ),
    "pipeline.seams": (
        "pipeline",
        "each step takes what the one before gives",
        "make their fields the same: by tensor_fields, [steps.input] or [steps.output]",
    ),
    "pipeline.validations": (
        "pipeline",
        "validations are boolean expressions on the fields",
        "mend the expression that is named",
    ),
    "golden.rows": (
        "golden",
        "golden rows fit the fields",
        "give [golden] rows of these fields; a file that was generated may be deleted",
    ),
    "golden.tolerance": (
        "golden",
        "tolerances are of fields that a step gives",
        "write the name of an output field, or one number for all",
    ),
    "optimize.quantizes": (
        "optimize",
        "the weights became integers in a sandbox",
        "choose the other quantize, or remove optimize",
    ),
    "optimize.agrees": (
        "optimize",
        "the quantized model answers within its tolerance",
        "raise tolerance or remove optimize",
    ),
    "parity.runs": (
        "parity",
        "the packaged model loads and answers in a child process",
        "mend what is named, or give rows that it answers: in [golden], or as sample.json of a Cortex project",
    ),
    "parity.agrees": (
        "parity",
        "the packaged model answers as expected",
        "correct the answers in [golden], raise its tolerance, or convert the model again",
    ),
}


@dataclass(frozen=True)
class Check:
    """One check and how it went. `fix` is None where nothing is to be done."""

    key: str
    category: str
    passed: bool
    description: str
    fix: str | None = None

    @property
    def looked_at(self) -> str:
        """What is checked, without what was found."""
        return _CHECKS[self.key][1]


@dataclass
class Checklist:
    """The checks of one packaging, in the order in which they were made; `progress` is told what is looked at."""

    checks: list[Check] = field(default_factory=list)
    error: BadInput | None = None
    progress: Callable[[str], None] = lambda _: None
    notice: Callable[[str], None] = lambda _: None  # is told what takes long or much room, before it begins

    @contextmanager
    def check(self, key: str) -> Iterator[list[str]]:
        """Make one check: the block's BadInput or RuntimeFailed fails it, and is raised by the next `require`.

        The block may append what it found to the list it is given: it is told with a check that passes.
        """
        category, looked_at, fix = _CHECKS[key]
        found: list[str] = []
        self.progress(looked_at)
        try:
            yield found
        except (BadInput, RuntimeFailed) as error:
            self.checks.append(Check(key, category, False, str(error), fix))
            refusal = error if isinstance(error, BadInput) else BadInput(str(error))
            self.error = self.error or refusal
        else:
            told = f"{looked_at}: {', '.join(found)}" if found else looked_at
            self.checks.append(Check(key, category, True, told))

    def require(self) -> None:
        """Raise the first error if a check has failed. Checks that do not need one another are made before this is
        asked.
        """
        if self.error is not None:
            raise self.error

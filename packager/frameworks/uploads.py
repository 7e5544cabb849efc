"""What kind of upload a zip or folder is, told by its files and by parsing its code."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgepack.errors import BadInput
from packager.archives import is_zip, names_in, open_tree
from packager.frameworks import custom, python_step
from packager.frameworks.sources import sources_of

CODE = ("python", "custom")


def framework_of(path: Path, given: str | None = None) -> str | None:
    """`onnx`, `python` or `custom`; None for what is no zip or folder, or a zip without a `.onnx` file and Python code.

    `given` is what the project says it is. Raises BadInput for an upload that could be several, with the candidates,
    and for code that is none.
    """
    if not (path.is_dir() or is_zip(path)):
        if given in CODE:
            raise BadInput(
                f"'{path.name}' is neither a zip nor a folder: framework '{given}' expects one", field="framework"
            )
        return None
    found = given if given in CODE else _told(path)
    if found is None and path.is_dir():
        raise BadInput(f"folder '{path.name}' holds neither a .onnx file nor Python code", field="framework")
    if found is not None and given not in (None, found):
        raise BadInput(
            f"'{path.name}' is of framework '{found}', not of '{given}': remove framework", field="framework"
        )
    return found


def _told(path: Path) -> str | None:
    names = names_in(path)
    has_code = any(name.endswith(".py") for name in names)
    if any(name.endswith(".onnx") for name in names) and not has_code:
        return "onnx"
    if not has_code:
        return None
    with tempfile.TemporaryDirectory(prefix="edgepack-") as cache:
        sources = sources_of(open_tree(path, Path(cache)))
        found = [
            name
            for name, is_one in (("python", python_step.is_step(sources)), ("custom", custom.is_custom(sources)))
            if is_one
        ]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"'{path.name}' holds both process_data and an InferenceBuilder: say which with framework = \"python\" or "
            '"custom"',
            field="framework",
        )
    raise BadInput(
        f"'{path.name}' holds Python code, but neither {python_step.FUNCTION}({python_step.PARAMETER}: InferenceData) "
        "nor classes that extend mac's Inference and InferenceBuilder",
        field="framework",
    )

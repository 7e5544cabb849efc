"""What kind of model a file is, told by its content and never by executing it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from edgepack.errors import BadInput
from packager.dialects.recognise import RECOGNISES, dialect_of
from packager.frameworks import estimators, hugging_face, networks, tflite_wire, uploads
from packager.frameworks.onnx_wire import read_onnx

# what this version packages
FRAMEWORKS = (
    *("onnx", "tflite", *networks.FRAMEWORKS, *estimators.FRAMEWORKS, "python", "custom"),
    *hugging_face.FRAMEWORKS,
    *RECOGNISES,
)

# the same for people: the sixteen tasks are one
_PACKAGED = ", ".join(
    [*(name for name in FRAMEWORKS if not name.startswith(hugging_face.PREFIX)), f"{hugging_face.PREFIX}<task>"]
)

# (offset, bytes, what it is). Sources: the formats' own specifications, and `file`'s magic.
_MAGIC = (
    (0, b"PK\x03\x04", "zip archive (a SavedModel?)"),
    (0, b"\x1f\x8b", "gzip file"),
    (0, b"\x93NUMPY", "numpy array"),
    (0, b"PAR1", "Parquet file"),
    (0, b"ARROW1", "Arrow file"),
    (0, b"GGUF", "GGUF model"),
    (0, b"ORTM", "ONNX Runtime (.ort) model"),
    (4, b"ORTM", "ONNX Runtime (.ort) model"),
    (0, b"\x7fELF", "program"),
)

_PICKLED = "a pickle, joblib or skops file, or the library's own format"
_EXPECTED = {"pytorch": "TorchScript (torch.jit.save)", "keras": "a .keras or .h5 file with the whole model"}
_EXPECTED["tensorflow"] = "a SavedModel, as a folder or zip"


def detect(path: Path, given: str | None = None) -> str:
    """Return the framework of a model file. Raises BadInput that says what else it is, or that it is none of ours.

    `given` is the framework that the project names: it must be one of ours and what the content says.
    """
    if given is not None and given not in FRAMEWORKS:
        nearest = get_close_matches(given, FRAMEWORKS, 1, cutoff=0.85)
        meant = f": did you mean '{nearest[0]}'? It" if nearest else ": it"
        raise BadInput(f"framework '{given}' is not in this version{meant} packages {_PACKAGED}", field="framework")
    dialect = dialect_of(path) if given is None or given in RECOGNISES else None
    if dialect is not None:
        return estimators.agreed(path, dialect, given)
    if hugging_face.is_pipeline(path):
        return hugging_face.agreed(path, given)
    found = networks.framework_of(path) if path.is_dir() else _saved(path)
    if found is not None:
        is_saved_by_keras = (found, given) == ("tensorflow", "keras")
        return found if is_saved_by_keras else estimators.agreed(path, found, given)
    if given in estimators.FRAMEWORKS or given in networks.FRAMEWORKS:
        raise BadInput(
            f"'{path.name}' is not a saved model of {given}: expected {_EXPECTED.get(given, _PICKLED)}",
            field="framework",
        )
    return uploads.framework_of(path, given) or _plain(path)


def _saved(path: Path) -> str | None:
    """The framework of a file that says in its first bytes what saved it; all else can be none of these."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:8] == tflite_wire.MAGIC:
        return "tflite"
    network = networks.framework_of(path)
    if network is not None:
        return network
    saved = estimators.saved_as(path)
    return None if saved is None else saved.framework


def _plain(path: Path) -> str:
    """`onnx`, or BadInput that says what else the file is."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise BadInput(f"'{path.name}' is empty: copy it again")
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            raise BadInput(f"'{path.name}' is a {kind}; this version packages {_PACKAGED}")
    if head.lstrip()[:1] in (b"{", b"["):
        raise BadInput(f"'{path.name}' is a JSON file; this version packages {_PACKAGED}")
    try:
        read_onnx(path)
    except BadInput as error:
        what = error if path.suffix == ".onnx" else f"'{path.name}' is a file of no kind that is known"
        if path.suffix == ".py":
            what = f"'{path.name}' is Python and does not register a model with vessl: give the folder of a python step"
        raise BadInput(f"{what}; this version packages {_PACKAGED}") from error
    return "onnx"

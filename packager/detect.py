"""What kind of model a file is, told by its content and never by executing it."""

from __future__ import annotations

from pathlib import Path

from edgepack.errors import BadInput
from packager.frameworks import estimators, tflite_wire, uploads
from packager.frameworks.onnx_wire import read_onnx

FRAMEWORKS = ("onnx", "tflite", *estimators.FRAMEWORKS, "python", "custom")  # what this version packages

# (offset, bytes, what it is). Sources: the formats' own specifications, and `file`'s magic.
_MAGIC = (
    (0, b"PK\x03\x04", "zip archive (a .keras, TorchScript or SavedModel file)"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 file (a .h5 Keras model)"),
    (0, b"\x1f\x8b", "gzip file"),
    (0, b"\x93NUMPY", "numpy array"),
    (0, b"PAR1", "Parquet file"),
    (0, b"ARROW1", "Arrow file"),
    (0, b"GGUF", "GGUF model"),
    (0, b"ORTM", "ONNX Runtime (.ort) model"),
    (4, b"ORTM", "ONNX Runtime (.ort) model"),
    (0, b"\x7fELF", "program"),
)


def detect(path: Path, given: str | None = None) -> str:
    """Return the framework of a model file. Raises BadInput that says what else it is, or that it is none of ours.

    `given` is the framework that the project names: it must be one of ours and what the content says.
    """
    if given is not None and given not in FRAMEWORKS:
        raise BadInput(
            f"framework '{given}' is not in this version: it packages {', '.join(FRAMEWORKS)}", field="framework"
        )
    # what is saved by a framework says so in its first bytes; anything else cannot be one of these
    saved = None if path.is_dir() else estimators.saved_as(path)
    if saved is not None:
        return estimators.agreed(path, saved.framework, given)
    if given in estimators.FRAMEWORKS:
        raise BadInput(
            f"'{path.name}' is not a saved model of {given}: expected a pickle, joblib or skops file, or the library's "
            "own format",
            field="framework",
        )
    upload = uploads.framework_of(path, given)
    if upload is not None:
        return upload
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == tflite_wire.MAGIC:
        return estimators.agreed(path, "tflite", given)
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            raise BadInput(f"'{path.name}' is a {kind}; this version packages {', '.join(FRAMEWORKS)}")
    if head.lstrip()[:1] in (b"{", b"["):
        raise BadInput(f"'{path.name}' is a JSON file; this version packages {', '.join(FRAMEWORKS)}")
    try:
        read_onnx(path)
    except BadInput as error:
        raise BadInput(f"{error}; this version packages {', '.join(FRAMEWORKS)}") from error
    return "onnx"

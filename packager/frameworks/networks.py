"""Networks as files: which library saved one, told from its bytes without loading it.

PyTorch's files are zips: TorchScript has `code/` and `constants.pkl`, a pickled module or state_dict `data.pkl` alone,
torch.export's archive `archive_format`. Keras 3 writes a zip with `config.json` and `model.weights.h5`, Keras 2 and
`.h5` an HDF5 file whose attributes hold the configuration.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Literal

from bundle.model_folders import SAVED_MODEL as SAVED_MODEL
from edgepack.errors import BadInput
from packager.archives import names_in

FRAMEWORKS = ("pytorch", "keras", "tensorflow")
Form = Literal["torchscript", "keras", "savedmodel"]

HDF5 = b"\x89HDF\r\n\x1a\n"
_OLD_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save before 1.6: this number, pickled
_SAVE_AS = "save it as TorchScript: torch.jit.script(module).save('model.pt')"
_SEARCHED = 64 << 20  # bytes of an HDF5 file in which its attributes are looked for


def framework_of(path: Path) -> str | None:
    """`pytorch`, `keras` or `tensorflow`; None for what is of another kind. Raises BadInput for a network that must be
    saved anew.
    """
    if path.is_dir():
        return "tensorflow" if SAVED_MODEL in names_in(path) else None
    with path.open("rb") as file:
        head = file.read(64)
        if head.startswith(HDF5):
            return _hdf5(path, head + file.read(_SEARCHED))
    if _OLD_TORCH in head:
        raise BadInput(f"'{path.name}' is a pickle of PyTorch, which runs code when it is loaded: {_SAVE_AS}")
    return _zip(path) if head.startswith(b"PK\x03\x04") else None


def _hdf5(path: Path, data: bytes) -> str:
    if b"model_config" not in data:
        raise BadInput(
            f"'{path.name}' is an HDF5 file without a Keras model's configuration: save the whole model with "
            "model.save('model.keras'), not its weights alone"
        )
    return "keras"


def _zip(path: Path) -> str | None:
    names = _names(path)
    inside = {name.partition("/")[2] for name in names}
    if {"config.json", "model.weights.h5"} <= set(names):
        return "keras"
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return "pytorch"
    if "archive_format" in inside:
        raise BadInput(f"'{path.name}' is an archive of torch.export: {_SAVE_AS}")
    if "data.pkl" in inside:
        raise BadInput(
            f"'{path.name}' is a pickled module or state_dict of PyTorch, which runs code when it is loaded: {_SAVE_AS}"
        )
    if SAVED_MODEL in inside | set(names):
        return "tensorflow"
    return None


def check_whole(path: Path) -> str:
    """Check every checksum of a zip of PyTorch or Keras, whose libraries do not; says what was done. An HDF5 file has
    none.

    Raises BadInput that names the member at fault.
    """
    with path.open("rb") as file:
        if not file.read(4).startswith(b"PK"):
            return "no checksums in it"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, count = archive.testzip(), len(archive.namelist())
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"'{path.name}' is damaged: {error}; copy it again") from error
    if damaged is not None:
        raise BadInput(f"'{path.name}' is damaged: '{damaged}' in it does not have its checksum; copy it again")
    return f"{count} members, each has its checksum"


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []

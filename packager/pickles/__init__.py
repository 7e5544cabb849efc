"""What a pickle says about itself: the globals it names, the class of its outermost object, embedded versions.

Nothing is executed: pickletools names the opcodes, and `machine` follows them.
"""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path
from typing import Any

from edgepack.errors import BadInput
from packager.pickles.machine import VERSION_KEY, Machine
from packager.pickles.packed import is_packed, unpacked
from packager.pickles.symbols import Global, Made, Scan

__all__ = ["VERSION_KEY", "Global", "NotWhole", "Scan", "check", "is_packed", "scan"]


class NotWhole(BadInput):
    """The file is no pickle, or one that was cut short."""


def scan(path: Path) -> Scan:
    """Read a pickle or joblib file. Raises BadInput for what is packed or nested without end, NotWhole for what
    is none or is cut short.
    """
    found = Scan()
    with path.open("rb") as raw, unpacked(raw) as file:
        try:
            found.top = _class_of(Machine(file, found).run())
        except (ValueError, IndexError, KeyError, TypeError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise NotWhole(
                f"'{path.name}' is not a whole pickle: {str(error)[:200] or type(error).__name__}"
            ) from error
        except (RecursionError, MemoryError, AttributeError) as error:
            raise BadInput(f"'{path.name}' is a pickle that does not read: {type(error).__name__}") from error
    return found


def check(path: Path, found: Scan) -> None:
    """Raise BadInput, naming the first of them, when a pickle names what a trained model does not need."""
    if found.refused:
        more = f" and {len(found.refused) - 1} more" if len(found.refused) > 1 else ""
        raise BadInput(
            f"pickle '{path.name}' names '{found.refused[0]}'{more}: not loaded; expected only what scikit-learn, "
            "XGBoost, LightGBM and numpy save, package code of your own as framework 'custom'"
        )


def _class_of(made: Any) -> Global | None:
    """The class of a symbol; `copyreg._reconstructor(cls, …)` is protocol 0 and 1 for an object of `cls`."""
    if not isinstance(made, Made):
        return None
    if made.what == Global("copyreg", "_reconstructor") or made.what == Global("copy_reg", "_reconstructor"):
        what = made.args[0] if isinstance(made.args, (tuple, list)) and made.args else None
        return what if isinstance(what, Global) else None
    return made.what if isinstance(made.what, Global) else None

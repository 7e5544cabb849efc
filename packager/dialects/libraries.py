"""Which package a module comes from, for programs that do not say what they need."""

from __future__ import annotations

from collections.abc import Iterable

from edgepack.errors import BadInput
from packager import requirements

# import name → requirement lines
PACKAGES: dict[str, tuple[str, ...]] = {
    "sklearn": ("scikit-learn",),
    "PIL": ("pillow",),
    "cv2": ("opencv-python-headless",),
    "yaml": ("pyyaml",),
    "torch": ("torch==2.13.0",),
    "tensorflow": (
        "tensorflow-cpu; platform_machine == 'x86_64'",
        "tensorflow; platform_machine != 'x86_64'",  # no build for the CPU alone there
    ),
    "xgboost": ("xgboost-cpu",),
    "imblearn": ("imbalanced-learn",),
    **{name: (name,) for name in ("cloudpickle", "joblib", "keras", "lightgbm", "numpy", "onnxruntime", "pandas")},
    **{name: (name,) for name in ("category_encoders", "dill", "requests", "scipy", "skops", "statsmodels")},
}


def packages_of(imports: Iterable[str], lines: Iterable[str], name: str) -> list[str]:
    """The lines, and those of the modules that none of them stands for. `name` is the upload's, for messages.

    Raises BadInput for a module whose package is not known.
    """
    found = list(lines)
    named = {requirements.name_of(line) for line in found}
    for module in sorted(imports):
        if module.replace("_", "-").lower() in named:
            continue
        if module not in PACKAGES:
            raise BadInput(
                f"'{name}' imports {module}, and which package has it is not said: add a {requirements.FILE} with the "
                "versions it was written for"
            )
        wanted = PACKAGES[module]
        # xgboost and xgboost-cpu, tensorflow and tensorflow-cpu are one module
        if not named & {part for line in wanted for part in _alike(requirements.name_of(line))}:
            found += wanted
    return found


def _alike(package: str) -> tuple[str, str]:
    plain = package.removesuffix("-cpu").removesuffix("-headless")
    return package, plain

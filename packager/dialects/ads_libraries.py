"""What an ADS artifact needs to run: its requirements.txt, or what its code imports and its model was saved with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from edgepack.errors import BadInput
from packager import pickles, requirements
from packager.archives import Tree
from packager.dialects.ads_score import Score
from packager.dialects.libraries import packages_of
from packager.environments import CLASSIC
from packager.frameworks.sources import imports_of

_PICKLES = (".pkl", ".pickle", ".joblib")
_MODULES = (
    "cloudpickle",
    "sklearn",
    "xgboost",
    "lightgbm",
    "pandas",
    "scipy",
    "category_encoders",
    "imblearn",
    "statsmodels",
)
_ON_SKLEARN = ("xgboost.sklearn", "lightgbm.sklearn")  # built on its classes, without requiring it


def libraries_of(tree: Tree, score: Score) -> list[str]:
    """The requirement lines. Raises BadInput for a requirements.txt that does not read, and an import whose package is
    not known.
    """
    if requirements.FILE in tree.files:
        where = f"{requirements.FILE} in '{tree.name}'"
        lines = requirements.read_requirements(tree.read(requirements.FILE, requirements.LARGEST), where)
        return requirements.with_imports(lines, imports_of(score.sources))
    modules, version = saved_with(tree)
    lines = _lines(imports_of(score.sources) | modules, tree)
    if version:
        lines = [f"scikit-learn=={version}" if line == "scikit-learn" else line for line in lines]
        lines = _bounded(lines, _bounds(version))
    if score.reads_json_text:
        lines = _bounded(lines, ["pandas<3"])  # newer ones take JSON text for a file's name
    return sorted(requirements.with_imports(lines, ()), key=str.lower)


def saved_with(tree: Tree) -> tuple[set[str], str | None]:
    """The libraries whose classes the artifact's pickles name, and scikit-learn's version where they say it; the
    pickles are read and not loaded.
    """
    modules: set[str] = set()
    versions: set[str] = set()
    for path, file in tree.files.items():
        if PurePosixPath(path).suffix.lower() not in _PICKLES:
            continue
        try:
            found = pickles.scan(file)
        except BadInput:
            continue  # the code that loads it may know another form; one that score.py names was looked at
        modules |= {name.module.partition(".")[0] for name in found.globals}
        modules |= {"sklearn" for name in found.globals if name.module in _ON_SKLEARN}
        versions |= set(found.versions)
    named = modules & set(_MODULES)
    return named | ({"sklearn"} if versions else set()), max(versions, key=_parts, default=None)


def _lines(imports: Iterable[str], tree: Tree) -> list[str]:
    """Those of the libraries that are imported. Raises BadInput for one that is not known."""
    return sorted(packages_of(imports, (), tree.name))


def _bounds(version: str) -> list[str]:
    """What a release of scikit-learn needs of its neighbours and does not say itself."""
    pinned = CLASSIC.pinned(f"scikit-learn=={version}")
    return [line for line in pinned.asked() if line not in CLASSIC.requirements and line not in pinned.pins]


def _bounded(lines: list[str], bounds: Iterable[str]) -> list[str]:
    """The lines with bounds in place of bare names, and added for numpy."""
    by_name = {requirements.name_of(bound): bound for bound in bounds}
    kept = [by_name.get(line, line) for line in lines]
    return [*kept, *([by_name["numpy"]] if "numpy" in by_name and by_name["numpy"] not in kept else [])]


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

"""`Recipe`: what belongs into an environment.

The current one has a lock file with hashes for each Python, in `locks/`. An artefact that names another version of a
library gets the same list with that version in place of ours; uv resolves it once, with the bounds below, because old
releases do not say which later libraries break them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.requirements import Requirement

LOCKS = Path(__file__).parent / "locks"

# library → what its own metadata does not say: (older than this version, needs these bounds). Sources: scikit-learn's
# release notes (1.4.2 is the first built for numpy 2), numpy's and pandas' own lists of removed names.
_BOUNDS: dict[str, tuple[tuple[tuple[int, ...], tuple[str, ...]], ...]] = {
    "scikit-learn": (((1, 4, 2), ("numpy<2", "scipy<1.14", "pandas<2.3")), ((1, 7), ("pandas<3",))),
    "lightgbm": (((4, 4), ("numpy<2",)),),
    "xgboost-cpu": (((2, 1), ("numpy<2", "pandas<2.3")),),
}


@dataclass(frozen=True)
class Recipe:
    """A named list of requirements. `pins` stand in place of ours of the same name."""

    name: str
    requirements: tuple[str, ...]
    about_mb: int
    pins: tuple[str, ...] = ()
    is_resolved_here: bool = False  # on this machine, from its own index: no lock file is shipped

    def pinned(self, *pins: str) -> Recipe:
        """The same with other versions, as `scikit-learn==1.3.0`."""
        return replace(self, pins=tuple(sorted(pins)))

    def having(self, library: str, version: str, minor: str) -> Recipe:
        """The one for a version of a library: this one where its lock has the same minor version, else pinned."""
        path = self.lock(minor)
        locked = packages(path.read_text(), minor).get(library, "") if path else ""
        is_same = locked.split(".")[:2] == version.split(".")[:2]
        return self if is_same else self.pinned(f"{library}=={version}")

    @property
    def title(self) -> str:
        """The name for people."""
        return f"{self.name} with {', '.join(self.pins)}" if self.pins else self.name

    def lock(self, minor: str) -> Path | None:
        """The lock file that was shipped for a Python (`3.11`), where there is one and nothing else is pinned."""
        path = LOCKS / f"{self.name}-py{minor.replace('.', '')}.txt"
        return path if not self.pins and path.is_file() else None

    def asked(self) -> list[str]:
        """The requirements to resolve: ours, the pins in their places, and the bounds these need."""
        pinned = {_name(pin): pin for pin in self.pins}
        kept = [line for line in self.requirements if _name(line) not in pinned]
        bounds = [bound for name, pin in pinned.items() for bound in _bounds(name, pin)]
        return sorted({*kept, *pinned.values(), *bounds})


CLASSIC = Recipe(
    "classic",
    (
        "joblib",
        "lightgbm",
        "numpy",
        "onnx<1.24",  # newer ones default to an opset that no released runtime has
        "onnxmltools",
        "onnxruntime",
        "pandas",
        "protobuf>=6.33,<7",  # 7 refuses booleans where skl2onnx writes them: HistGradientBoosting does not convert
        "scikit-learn",
        "skl2onnx",
        "skops",
        "xgboost-cpu",  # the same module and pickles as xgboost without half a gigabyte for accelerators
    ),
    about_mb=500,
)


# PyTorch's builds for the CPU alone lie beside those of the index, where machines have them: which one is found decides
# the hashes, so the lock is made on the machine. The CPU's build is 200 MB, that of the index brings gigabytes of CUDA.
TORCH = Recipe(
    "torch",
    (
        "h5py",
        "keras>=3.12",
        "numpy",
        "onnx<1.24",  # as above
        "onnxruntime",
        "protobuf>=6.33,<7",
        "torch==2.13.0",  # the newest whose exporter was seen to take TorchScript modules
    ),
    about_mb=1100,
    is_resolved_here=True,
)

# What workers of pipelines have (`packager.frameworks.hugging_face`), and what their networks are exported with.
HUGGING_FACE = Recipe(
    "hugging-face",
    (
        "diffusers==0.39.0",
        "numpy",
        "onnx<1.24",  # as above
        "pillow",
        "protobuf<7",
        "sentencepiece",
        "torch==2.13.0",
        "transformers==4.57.6",
    ),
    about_mb=1200,
    is_resolved_here=True,
)

TENSORFLOW = Recipe(
    "tensorflow",
    (
        "numpy",
        "onnx<1.24",  # as above
        "onnxruntime",
        "protobuf>=6.33,<7",
        "tensorflow-cpu>=2.20; platform_machine == 'x86_64'",
        "tensorflow>=2.20; platform_machine != 'x86_64'",  # no build for the CPU alone there, and none needed
        "tf2onnx>=1.17",
    ),
    about_mb=1600,
)


def packages(lock: str, minor: str | None = None) -> dict[str, str]:
    """Package → version of a lock file, for a Python (`3.11`) of this machine, our own by default.

    A lock may be for several machines: a line that names another (`; platform_machine != 'x86_64'`) does not count.
    """
    here = {"python_version": minor, "python_full_version": f"{minor}.0"} if minor else {}
    lines = (line.rstrip("\\ ") for line in lock.splitlines() if line[:1].isalnum() and "==" in line)
    pins = (Requirement(line) for line in lines)
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(here)
    }


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0].lower().replace("_", "-") if found else requirement


def _bounds(name: str, pin: str) -> tuple[str, ...]:
    version = tuple(int(part) for part in re.findall(r"\d+", pin.partition("==")[2])[:3])
    return next((bounds for older, bounds in _BOUNDS.get(name, ()) if version < older), ())

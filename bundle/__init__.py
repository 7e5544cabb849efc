"""What travels: the pipeline spec, the bundle as an OCI artifact, golden rows and their comparison, validations."""

from bundle.bundle import Bundle, attach_parity, bundles, folder_sha256, pack, version_of
from bundle.golden import Comparison, GoldenRows, compare
from bundle.pipeline import LogPolicy, PipelineSpec, Resources, StepSpec, WorkerSpec, wheel_path
from bundle.store import OpenBundle, unpack
from bundle.validations import Validation

__all__ = [
    "Bundle",
    "Comparison",
    "GoldenRows",
    "LogPolicy",
    "OpenBundle",
    "PipelineSpec",
    "Resources",
    "StepSpec",
    "Validation",
    "WorkerSpec",
    "attach_parity",
    "bundles",
    "compare",
    "folder_sha256",
    "pack",
    "unpack",
    "version_of",
    "wheel_path",
]

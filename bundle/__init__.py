"""What travels: the pipeline spec, the bundle as an OCI artifact, golden rows and their comparison, validations."""

from bundle.bundle import Bundle, attach_parity, bundles, pack, version_of
from bundle.golden import Comparison, GoldenRows, compare
from bundle.pipeline import LogPolicy, PipelineSpec, Resources, StepSpec
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
    "attach_parity",
    "bundles",
    "compare",
    "pack",
    "unpack",
    "version_of",
]

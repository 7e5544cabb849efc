"""Which files of a wheel an image leaves out: a table of named rules, each with its reason.

A rule must be safe for every model: what stays must import and run. `tests/buildx/test_real_images.py` runs the
outcome. `.dist-info` stays whole, so that scanners see what is installed; its RECORD still names the files left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Rule:
    """Files of `package` (`*` for any) whose path in site-packages matches `pattern` from its beginning."""

    name: str
    package: str
    pattern: str
    reason: str


RULES = (
    Rule("tests", "*", r"(.*/)?(tests?|testing/tests)/", "test suites run where packages are made"),
    Rule("headers", "*", r".*\.(h|hh|hpp|pxd|pxi|pyx|a|lib|cmake)$", "for compilers only; an image has none"),
    Rule("stubs", "*", r".*\.pyi$", "for type checkers only"),
    Rule("bytecode", "*", r"(.*/)?__pycache__/", "made anew by the base's own interpreter"),
    Rule(
        "copies",
        "pyarrow",
        r"pyarrow/libarrow_python\w*\.so(\.\d+\.\d+\.\d+)?$",
        "the same file again under a linker's names",
    ),
    Rule(
        "flight",
        "pyarrow",
        r"pyarrow/(libarrow_(python_)?flight\.|_flight\.|flight\.py)",
        "a network protocol of its own",
    ),
    Rule(
        "object stores",
        "pyarrow",
        r"pyarrow/(libarrow_s3\.|_(s3fs|gcsfs|azurefs|hdfs)\.)",
        "the agent reads local files only",
    ),
    Rule(
        "file formats",
        "pyarrow",
        r"pyarrow/(_orc\.|orc\.py|_feather\.|feather\.py|_substrait\.|substrait\.py|_dataset_orc\.|libarrow_python_parquet_encryption\."
        r"|_(dataset_)?parquet_encryption\.|_parquet\.|parquet/|_pyarrow_cpp_tests\.|src/|include/)",
        "Arrow's IPC formats are what a device reads",
    ),
    Rule(
        "data sets",
        "pyarrow",
        r"pyarrow/(_(csv|json|dataset|dataset_parquet|acero)\.|(csv|json|dataset|acero)\.py$)",
        "columns are decoded from one message or file, never queried from a folder of them",
    ),
    Rule(
        "C library", "onnxruntime", r"onnxruntime/capi/libonnxruntime\.so", "the Python module holds the engine itself"
    ),
    Rule(
        "copies",
        "onnxruntime-openvino",
        r"onnxruntime/capi/lib(openvino|openvino_onnx_frontend|tbb)\.so(\.\d+\.\d+\.\d+)?$",
        "the same file again under a linker's names",
    ),
    Rule("C library", "onnxruntime-openvino", r"onnxruntime/capi/libopenvino_c\.so", "for programs in C"),
    Rule(
        "tools",
        "onnxruntime",
        r"onnxruntime/(transformers|quantization|tools|datasets|backend)/",
        "they make models, at packaging",
    ),
    Rule(
        "making of models",
        "ai-edge-litert",
        r"ai_edge_litert/(libLiteRtWebGpuAccelerator\.so|(aot|tflite|tools|vendors)/|schema_py_generated\.py|\w+_pb2\.py"
        r"|_pywrap_(?!litert_interpreter_wrapper)\w+\.so|format_converter_wrapper\w*\.so)",
        "an image runs models with the interpreter alone, on the CPU",
    ),
    Rule("number types", "ml-dtypes", r".*", "ai-edge-litert's converter asks for them, its interpreter does not"),
    Rule(
        "builders",
        "numpy",
        r"numpy/(f2py|distutils|typing/tests|_core/(_simd|_\w+_tests)\.)",
        "for compilers and numpy's own tests",
    ),
)


# builds of one package under other names: the files are the same, so the rules are
_BUILDS_OF = {"onnxruntime-gpu": "onnxruntime", "onnxruntime-openvino": "onnxruntime"}


def is_unneeded(package: str, path: str) -> bool:
    """Say whether an image leaves a file of a package out; `path` is relative to site-packages."""
    top = path.split("/", 1)[0]
    if top.endswith(".dist-info"):
        return False
    return any(pattern.match(path) for pattern in _patterns(package))


@cache
def _patterns(package: str) -> tuple[re.Pattern[str], ...]:
    names = ("*", package, _BUILDS_OF.get(package))
    return tuple(re.compile(rule.pattern) for rule in RULES if rule.package in names)

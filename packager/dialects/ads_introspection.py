"""Introspection as ADS has it: named tests of runtime.yaml, score.py and the schemas, which are kept with the artifact.

Each has a category, a description, whether it passed and, where not, why. Nothing is executed, and nothing that is
missing or broken ends them: it fails its test. Where Oracle's object storage would be asked, it is not.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgepack.errors import BadInput
from packager.archives import Tree, open_tree
from packager.dialects.ads_function import LOAD, PREDICT
from packager.dialects.ads_layout import RUNTIME, SCORE, RuntimeYaml, runtime_of, without_ignored
from packager.dialects.ads_schema import INPUT, OUTPUT, fields_of
from packager.dialects.ads_score import read_score
from packager.frameworks.sources import LARGEST

_ENVIRONMENT, _FILES, _CODE, _SCHEMAS = "conda_env", "Mandatory Files Check", "score.py", "schema"
_FIELD = "MODEL_DEPLOYMENT.INFERENCE_CONDA_ENV."


@dataclass(frozen=True)
class _Artifact:
    """What the tests look at; each part raises BadInput where it is missing or does not read."""

    tree: Tree

    @cached_property
    def runtime(self) -> RuntimeYaml:
        self.has(RUNTIME)
        return runtime_of(self.tree)

    @cached_property
    def code(self) -> ast.Module:
        self.has(SCORE)
        try:
            return ast.parse(self.tree.read(SCORE, LARGEST))
        except SyntaxError as error:
            raise BadInput(f"{SCORE}:{error.lineno or 1}: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise BadInput(f"{SCORE}: {' '.join(str(error).split()) or type(error).__name__}") from error

    def has(self, file: str) -> None:
        if file not in self.tree.files:
            raise BadInput(f"the file {file} is missing")

    def parsed(self) -> ast.Module:
        """The code, for all tests but that of its syntax, which says alone what is wrong with it."""
        self.has(SCORE)
        try:
            return self.code
        except BadInput as error:
            raise BadInput(f"{SCORE} does not parse: see score_syntax") from error

    def function(self, name: str) -> ast.FunctionDef:
        found = [node for node in self.parsed().body if isinstance(node, ast.FunctionDef) and node.name == name]
        if not found:
            raise BadInput(f"{SCORE} has no function {name}")
        return found[-1]


def introspect(path: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """The results by test, in their order. Raises BadInput for a zip that does not open."""
    return results_of(open_tree(path, cache))


def results_of(tree: Tree) -> dict[str, dict[str, Any]]:
    """The same of an artifact that is open."""
    artifact = _Artifact(tree)
    return {name: _result(artifact, *test) for name, test in _TESTS.items()}


def _result(
    artifact: _Artifact, category: str, description: str, test: Callable[[_Artifact], object]
) -> dict[str, Any]:
    said = {"category": category, "description": description}
    try:
        test(artifact)
    except BadInput as error:
        return {**said, "success": False, "error_msg": str(error)}
    return {**said, "success": True}


def _set(key: str, take: Callable[[RuntimeYaml], str | None]) -> Callable[[_Artifact], object]:
    """That a field is set, where the file names an environment at all: none is needed here."""

    def test(artifact: _Artifact) -> None:
        found = artifact.runtime
        if (found.slug or found.path) and not take(found):
            raise BadInput(f"{RUNTIME} does not set {_FIELD}{key}")

    return test


def _version(artifact: _Artifact) -> None:
    if artifact.runtime.version != "3.0":
        raise BadInput(f"MODEL_ARTIFACT_VERSION is '{artifact.runtime.version}': expected '3.0'")


def _data(artifact: _Artifact) -> None:
    taken = artifact.function(PREDICT).args
    if not [*taken.posonlyargs, *taken.args]:
        raise BadInput(f"{PREDICT} takes no data")


def _defaults(artifact: _Artifact) -> None:
    taken = artifact.function(PREDICT).args
    without = len([*taken.posonlyargs, *taken.args]) - len(taken.defaults)
    if without > 1 or any(default is None for default in taken.kw_defaults):
        raise BadInput(f"{PREDICT} is called with the data alone: give its other arguments a default")


def _model(artifact: _Artifact) -> None:
    artifact.parsed()
    read_score(without_ignored(artifact.tree))


_Test = tuple[str, str, Callable[[_Artifact], object]]


def _environment(key: str, take: Callable[[RuntimeYaml], str | None]) -> _Test:
    return _ENVIRONMENT, f"Check that field {_FIELD}{key} is set", _set(key, take)


_TESTS: Mapping[str, _Test] = {
    "runtime_yaml": (_FILES, f"Check that the file {RUNTIME} exists and reads", lambda it: it.runtime),
    "runtime_env_path": _environment("INFERENCE_ENV_PATH", lambda it: it.path or it.slug),
    "runtime_env_slug": _environment("INFERENCE_ENV_SLUG", lambda it: it.slug),
    "runtime_env_type": _environment("INFERENCE_ENV_TYPE", lambda it: it.type),
    "runtime_env_python": _environment("INFERENCE_PYTHON_VERSION", lambda it: it.python),
    "runtime_version": (_ENVIRONMENT, "Check that field MODEL_ARTIFACT_VERSION is set to 3.0", _version),
    "score_py": (_FILES, f"Check that the file {SCORE} exists", lambda it: it.has(SCORE)),
    "score_syntax": (_CODE, f"Check that {SCORE} has no syntax errors", lambda it: it.code),
    "score_load_model": (_CODE, f"Check that {LOAD}() is defined", lambda it: it.function(LOAD)),
    "score_predict": (_CODE, f"Check that {PREDICT}() is defined", lambda it: it.function(PREDICT)),
    "score_predict_data": (_CODE, f"Check that {PREDICT}() takes the data", _data),
    "score_predict_arg": (_CODE, f"Check that all other arguments of {PREDICT}() have a default", _defaults),
    "score_model": (
        _CODE,
        f"Check that {LOAD}() gives a model that is there, and nothing needs Spark or Oracle's cloud",
        _model,
    ),
    "input_schema": (_SCHEMAS, f"Check that {INPUT} names the fields", lambda it: fields_of(it.tree, INPUT)),
    "output_schema": (_SCHEMAS, f"Check that {OUTPUT} names the answers", lambda it: fields_of(it.tree, OUTPUT)),
}

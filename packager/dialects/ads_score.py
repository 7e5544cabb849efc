"""`score.py` of ADS, read and never run: its entry points, the model it names, and whether ADS generated it.

Generated means that nothing but the model decides: the payload is turned into rows, `model.predict` (or the network
itself) is asked, the answer is turned into a list. Each function may call what that takes and nothing else, and
computes nothing. Comments, names of variables and what is printed may differ: versions of ADS do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from edgepack.errors import BadInput
from packager.archives import Tree
from packager.dialects.ads_layout import SCORE
from packager.frameworks.sources import Function, Source, sources_of

Kind = Literal["pickle", "xgboost", "lightgbm", "keras", "torchscript"]

PREDICT, LOAD = "predict", "load_model"
SPARK = ("pyspark", "findspark", "sparknlp")
_MODELS = (".joblib", ".pkl", ".pickle", ".onnx", ".h5", ".keras", ".pt", ".pth", ".ubj", ".bst")
_MODEL_NAME = ("model_name", "model_file_name")
_LOADERS: dict[str, Kind] = {
    "joblib.load": "pickle",
    "cloudpickle.load": "pickle",
    "pickle.load": "pickle",
    "xgboost.Booster": "xgboost",
    "lightgbm.Booster": "lightgbm",
    "tensorflow.keras.models.load_model": "keras",
    "keras.models.load_model": "keras",
    "torch.jit.load": "torchscript",
}
_TENSOR = "__ads_torch_tensor__"
_CHATTER = ("print", "warnings.warn", "logging.warning", "logging.info", "logger.warning", "logger.info")
_PATHS = ("os.path.dirname", "os.path.realpath", "os.path.abspath", "os.path.join", "os.path.exists", "os.listdir")
_RAISED = ("Exception", "NotImplementedError", "ValueError", "RuntimeError", ".format")
# what its newer versions bring along: a digest of the model, a device, tensors as JSON; score.py itself is asked later
_BESIDE = ("_verify_model_artifact_file", "get_torch_device", "_load_structured_torch_tensor")
_MAY_CALL = {
    LOAD: (*_PATHS, *_RAISED, *_BESIDE, "sys.path.insert", "sys.path.append", "open", ".load_model", ".eval", ".to"),
    "fetch_data_type_from_schema": (*_PATHS, "json.load", "open", "str"),
    "deserialize": (
        *("isinstance", ".get", ".encode", "io.BytesIO", "io.StringIO", "base64.b64decode", "numpy.load"),
        *("pandas.Series", "pandas.read_json", "pandas.DataFrame.from_dict", "fetch_data_type_from_schema"),
        *("torch.load", "torch.as_tensor", "tensorflow.convert_to_tensor", "numpy.asarray", "numpy.array", *_BESIDE),
    ),
    "pre_inference": ("deserialize", ".to"),
    "post_inference": ("isinstance", ".tolist", ".numpy", ".detach", ".cpu", ".to"),
    PREDICT: (
        *(*_PATHS, LOAD, "pre_inference", "post_inference", "deserialize", "xgboost.DMatrix", "torch.no_grad"),
        *("torch.as_tensor", "tensorflow.convert_to_tensor", ".to"),
    ),
}
_COMPUTES = (ast.BinOp, ast.AugAssign, ast.Lambda, ast.While, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)
_TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.FunctionDef)


@dataclass(frozen=True)
class Generated:
    """A generated score.py: what the model is loaded by, and the file that it names."""

    kind: Kind
    model: str


@dataclass(frozen=True)
class Score:
    """score.py as it was read. `sources` are all Python files of the artifact, itself among them."""

    source: Source
    sources: tuple[Source, ...]
    predict: Function
    model: str | None
    generated: Generated | None
    why_not: str | None  # why it does not count as generated

    @property
    def reads_frames(self) -> bool:
        """Whether it knows the form in which ADS's own client sends a DataFrame."""
        return self._mentions("pandas.core.frame.DataFrame")

    @property
    def reads_arrays(self) -> bool:
        """Whether it knows the form in which ADS's own client sends an array."""
        return self._mentions("numpy.ndarray")

    @property
    def reads_tensors(self) -> bool:
        """Whether it knows the form in which ADS's own client sends a tensor of torch: as JSON, by its newer one."""
        return self._mentions("torch.Tensor") and self._mentions(_TENSOR)

    @property
    def reads_json_text(self) -> bool:
        """Whether it hands JSON text to pandas, which pandas 3 takes for the name of a file."""
        calls = (node for node in ast.walk(self.source.tree) if isinstance(node, ast.Call) and node.args)
        named = (each for each in calls if isinstance(each.func, ast.Attribute) and each.func.attr == "read_json")
        return any(not isinstance(each.args[0], ast.Call) for each in named)  # StringIO(text) is a file

    def _mentions(self, text: str) -> bool:
        constants = (node.value for node in ast.walk(self.source.tree) if isinstance(node, ast.Constant))
        return any(isinstance(value, str) and text in value for value in constants)


def read_score(tree: Tree) -> Score:
    """Read an artifact's code. Raises BadInput that names file and line: for what does not parse, what is missing, a
    model that score.py names and that is not there, and Spark.
    """
    sources = sources_of(tree)
    source = next(each for each in sources if each.path == SCORE)
    _check_spark(tree, sources)
    predict, load = _function(source, PREDICT), _function(source, LOAD)
    if not [*predict.args.posonlyargs, *predict.args.args]:
        raise BadInput(f"predict in {SCORE}:{predict.lineno} takes no data: expected predict(data, model=load_model())")
    if isinstance(predict, ast.AsyncFunctionDef):
        raise BadInput(f"predict in {SCORE}:{predict.lineno} is async: ADS calls it as a plain function, write `def`")
    _check_load(load)
    model = _model_name(source)
    if model is not None and "/" not in model and model not in tree.files:
        there = ", ".join(f"'{path}'" for path in sorted(tree.files) if not path.endswith((".py", ".json", ".yaml")))
        raise BadInput(f"{SCORE} loads '{model}', which '{tree.name}' does not have: there is {there or 'no model'}")
    _check_one_model(tree, sources)
    found = _generated(source, model)
    if isinstance(found, Generated):
        return Score(source, tuple(sources), predict, model, found, None)
    return Score(source, tuple(sources), predict, model, None, found)


def _check_spark(tree: Tree, sources: list[Source]) -> None:
    for source in sources:
        spark = sorted(source.imported() & set(SPARK))
        if spark:
            raise BadInput(
                f"{source.path} in '{tree.name}' imports {spark[0]}: no Spark runs on a device; convert the fitted "
                "pipeline with onnxmltools.convert_sparkml and package the .onnx, or train it with scikit-learn"
            )


def _check_one_model(tree: Tree, sources: list[Source]) -> None:
    """Of several model files the code must name at least one: which it takes is nobody's guess."""
    models = [path for path in tree.files if PurePosixPath(path).suffix.lower() in _MODELS and "/" not in path]
    constants = (node.value for each in sources for node in ast.walk(each.tree) if isinstance(node, ast.Constant))
    texts = [value for value in constants if isinstance(value, str)]
    if len(models) > 1 and not any(model in text for model in models for text in texts):
        there = " and ".join(f"'{model}'" for model in sorted(models)[:3])
        raise BadInput(f"'{tree.name}' has {len(models)} models, {there}: {SCORE} names none of them, keep the one")


def _function(source: Source, name: str) -> Function:
    found = source.functions(name)
    if not found:
        there = ", ".join(sorted({node.name for node in source.tree.body if isinstance(node, ast.FunctionDef)}))
        raise BadInput(
            f"{SCORE} has no function {name}: expected load_model() and predict(data, model=load_model()), "
            f"there is {there or 'none'}"
        )
    return found[-1]


def _check_load(load: Function) -> None:
    """A load_model that plainly gives None; what a call gives is only seen when it runs."""
    given = [node.value for node in _inside(load) if isinstance(node, ast.Return)]
    raises = any(isinstance(node, ast.Raise) for node in _inside(load))
    if not raises and all(
        value is None or (isinstance(value, ast.Constant) and value.value is None) for value in given
    ):
        raise BadInput(f"load_model in {SCORE}:{load.lineno} returns None: ADS expects it to return the model")


def _inside(function: Function) -> Iterator[ast.AST]:
    """All nodes of a function, but not those of functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))


def _model_name(source: Source) -> str | None:
    """The file that `model_name = "..."` names."""
    for node in source.tree.body:
        named = node.targets if isinstance(node, ast.Assign) else []
        is_name = any(isinstance(target, ast.Name) and target.id in _MODEL_NAME for target in named)
        if is_name and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return node.value.value if isinstance(node.value.value, str) else None
    return None


def _generated(source: Source, model: str | None) -> Generated | str:
    """What it was generated for, or why it counts as written by hand."""
    if model is None:
        return "it does not name its model as model_name"
    names = _imports(source)
    for node in source.tree.body:
        if not _is_plain(node, names) and not isinstance(node, _TOP_LEVEL):
            return f"line {node.lineno} is none of ADS's own"
        if isinstance(node, ast.FunctionDef) and node.name not in _BESIDE:
            wrong = _strange(node, names)
            if wrong:
                return wrong
    kinds = {_LOADERS[name] for name in _called(_function(source, LOAD), names) if name in _LOADERS}
    if len(kinds) != 1:
        return "load_model does not load one model by a library's own function"
    return Generated(kinds.pop(), model)


def _is_plain(node: ast.stmt, names: dict[str, str]) -> bool:
    """A constant, a docstring, or the device of a network."""
    if not isinstance(node, (ast.Assign, ast.Expr)):
        return False
    is_device = isinstance(node.value, ast.Call) and _full_name(node.value.func, names) == "torch.device"
    return is_device or isinstance(node.value, ast.Constant)


def _strange(function: ast.FunctionDef, names: dict[str, str]) -> str | None:
    """What a function does that a generated one does not."""
    allowed = _MAY_CALL.get(function.name)
    if allowed is None:
        return f"{function.name} in line {function.lineno} is none of ADS's own"
    model = {each.arg for each in function.args.args[1:2]} if function.name == PREDICT else set()
    for node in ast.walk(function):
        if isinstance(node, _COMPUTES):
            return f"{function.name} computes in line {node.lineno}"
        if isinstance(node, ast.For) and function.name != "fetch_data_type_from_schema":
            return f"{function.name} loops in line {node.lineno}"
    for name in _called(function, names):
        is_loader = function.name == LOAD and name in _LOADERS
        is_asked = name in model or name in {f"{each}.predict" for each in model}
        method = f".{name.rpartition('.')[2]}"
        if name in _CHATTER or name in allowed or is_loader or is_asked or (method in allowed and "." in name):
            continue
        return f"{function.name} calls {name}"
    return None


def _called(function: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, str]) -> list[str]:
    """The full names of what a function calls, `.name` for a method of a value that a call or constant gave."""
    calls = [node.func for each in [*function.body, *function.args.defaults] for node in ast.walk(each)
             if isinstance(node, ast.Call)]  # fmt: skip
    return [_full_name(each, names) for each in calls]


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    head = names.get(node.id, node.id) if isinstance(node, ast.Name) else ""
    return ".".join([head, *reversed(parts)])


def _imports(source: Source) -> dict[str, str]:
    """What imports bind anywhere in the file: generated code imports its library inside load_model."""
    found: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found

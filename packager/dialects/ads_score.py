"""`score.py` of ADS, read and never run: its entry points, the model it names, and whether ADS generated it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgepack.errors import BadInput
from packager import pickles, requirements
from packager.archives import Tree
from packager.dialects.ads_function import LOAD, PREDICT, TENSOR
from packager.dialects.ads_generated import Generated, generated
from packager.dialects.ads_layout import SCORE
from packager.frameworks.sources import Function, Source, imports_of, reached, sources_of

SPARK = ("pyspark", "findspark", "sparknlp")
CLOUD = ("ads", "oci", "ocifs")
_PICKLES = (".pkl", ".pickle", ".joblib")
_MARK = b"\x80"  # how a pickle begins since protocol 2
_MODELS = (".joblib", ".pkl", ".pickle", ".onnx", ".h5", ".keras", ".pt", ".pth", ".ubj", ".bst")
_MODEL_NAME = ("model_name", "model_file_name")


@dataclass(frozen=True)
class Score:
    """score.py as it was read. `sources` are all Python files of the artifact, itself among them."""

    source: Source
    sources: tuple[Source, ...]
    predict: Function
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
        return self._mentions("torch.Tensor") and self._mentions(TENSOR)

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
    model that score.py names and that is not there or was cut short, Spark, and Oracle's cloud.
    """
    if SCORE not in tree.files:
        raise BadInput(f"'{tree.name}' has no {SCORE}: expected the folder that prepare() wrote")
    sources = sources_of(tree)
    source = next(each for each in sources if each.path == SCORE)
    _check_spark(tree, sources)
    _check_cloud(tree, sources)
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
    if model is not None and model in tree.files:
        _check_whole(tree.files[model])
    _check_one_model(tree, sources)
    found = _generated(tree, source, model)
    if isinstance(found, Generated):
        return Score(source, tuple(sources), predict, found, None)
    return Score(source, tuple(sources), predict, None, found)


def _generated(tree: Tree, source: Source, model: str | None) -> Generated | str:
    """What ADS generated it for, or why it counts as written by hand: ADS's own imports nothing that lies beside it."""
    beside = sorted({each.path for each in reached(tree, SCORE)} - {SCORE})
    if beside:
        return f"it imports {beside[0]}"
    if model is not None and model not in tree.files:
        return "its model_name is no file of the artifact"
    return generated(source, model)


def _check_spark(tree: Tree, sources: list[Source]) -> None:
    for source in sources:
        spark = sorted(source.imported() & set(SPARK))
        if spark:
            raise BadInput(
                f"{source.path} in '{tree.name}' imports {spark[0]}: no Spark runs on a device; convert the fitted "
                "pipeline with onnxmltools.convert_sparkml and package the .onnx, or train it with scikit-learn"
            )


def _check_cloud(tree: Tree, sources: list[Source]) -> None:
    """That no library of Oracle's cloud is imported: of one in a requirements.txt somebody knows that it runs alone."""
    if requirements.FILE in tree.files:
        return
    for name in sorted(imports_of(sources) & set(CLOUD)):
        where = next(source for source in sources if name in source.imported())
        raise BadInput(
            f"{where.path} in '{tree.name}' imports {name}, which needs Oracle's cloud: {SCORE} must run with its "
            f"model alone, remove the import or, where it is needed, name its package in a {requirements.FILE}"
        )


def _check_whole(model: Path) -> None:
    """That a pickle was not cut short; of a file in another form the code that loads it knows more."""
    if model.suffix.lower() not in _PICKLES:
        return
    with model.open("rb") as file:
        head = file.read(8)
    if head[:1] != _MARK and not pickles.is_packed(head):
        return
    try:
        pickles.scan(model)
    except pickles.NotWhole as error:
        raise BadInput(f"{SCORE} loads a damaged file: {error}; copy it again from where it was saved") from error


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
    """The file that `model_name = "..."` names, the last one where there are several."""
    found = None
    for node in source.tree.body:
        named = node.targets if isinstance(node, ast.Assign) else []
        is_name = any(isinstance(target, ast.Name) and target.id in _MODEL_NAME for target in named)
        if is_name and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found = node.value.value if isinstance(node.value.value, str) else None
    return found

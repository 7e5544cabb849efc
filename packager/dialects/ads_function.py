"""What a function of a generated `score.py` may hold, call and test; all else is somebody's own code.

Such code turns the payload into rows, asks `model.predict` (or the network itself), and turns the answer into a list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from packager.frameworks.sources import Source

Kind = Literal["pickle", "xgboost", "lightgbm", "keras", "torchscript"]

PREDICT, LOAD = "predict", "load_model"
TENSOR = "__ads_torch_tensor__"
_TYPES, _READ = "fetch_data_type_from_schema", "deserialize"
LOADERS: dict[str, Kind] = {
    "joblib.load": "pickle",
    "cloudpickle.load": "pickle",
    "cloudpickle.cloudpickle.load": "pickle",
    "pickle.load": "pickle",
    "xgboost.Booster": "xgboost",
    "lightgbm.Booster": "lightgbm",
    "tensorflow.keras.models.load_model": "keras",
    "keras.models.load_model": "keras",
    "torch.jit.load": "torchscript",
}
CHATTER = ("print", "warnings.warn", "logging.warning", "logging.info", "logger.warning", "logger.info")
PATHS = ("os.path.dirname", "os.path.realpath", "os.path.abspath", "os.path.join", "os.path.exists", "os.listdir")
RAISED = ("Exception", "NotImplementedError", "ValueError", "RuntimeError", ".format")
# what its newer versions bring along (`ads_beside`): a digest of the model, a device, tensors as JSON
VERIFY, DEVICE, TENSOR_OF = "_verify_model_artifact_file", "get_torch_device", "_load_structured_torch_tensor"
BESIDE = (VERIFY, DEVICE, TENSOR_OF)
_MAY_CALL = {
    LOAD: (
        *PATHS,
        *RAISED,
        VERIFY,
        DEVICE,
        "sys.path.insert",
        "sys.path.append",
        "open",
        ".load_model",
        ".eval",
        ".to",
    ),
    _TYPES: (*PATHS, "json.load", "open", "str"),
    _READ: (
        *("isinstance", ".get", ".encode", "io.BytesIO", "io.StringIO", "base64.b64decode", "numpy.load"),
        *("pandas.Series", "pandas.read_json", "pandas.DataFrame.from_dict", _TYPES),
        *(
            "torch.load",
            "torch.as_tensor",
            "tensorflow.convert_to_tensor",
            "numpy.asarray",
            "numpy.array",
            TENSOR_OF,
            DEVICE,
        ),
    ),
    "pre_inference": (_READ, ".to"),
    "post_inference": ("isinstance", ".tolist", ".numpy", ".detach", ".cpu", ".to"),
    PREDICT: (
        *(*PATHS, LOAD, "pre_inference", "post_inference", _READ, "xgboost.DMatrix", "torch.no_grad"),
        *("torch.as_tensor", "tensorflow.convert_to_tensor", ".to"),
    ),
}
_ANY_ARGUMENTS = (*CHATTER, *PATHS, *RAISED, TENSOR_OF, *_MAY_CALL)
_KEYWORDS = ("allow_pickle", "dtype", "device", "map_location", "weights_only")  # that change no value
_KEYS = ("data", "data_type", "inputs")  # that are looked for in a payload
# how a payload says what it is; a text that is looked for elsewhere decides by the data
KINDS = ("numpy.", "pandas.", "torch.", "tensorflow.", TENSOR)
STATEMENTS = (ast.Expr, ast.Assign, ast.Return, ast.If, ast.With, ast.Raise, ast.Import, ast.ImportFrom, ast.Pass)
EXPRESSIONS = (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Dict, ast.IfExp, ast.JoinedStr, ast.FormattedValue)
PARTS = (ast.expr_context, ast.keyword, ast.withitem, ast.alias, ast.boolop, ast.cmpop, ast.unaryop)
_TESTS = (ast.Compare, ast.BoolOp, ast.UnaryOp)  # in the condition of an `if`
_MORE = {_TYPES: (ast.For, ast.Subscript), _READ: (ast.Subscript,)}


@dataclass(frozen=True)
class Function:
    """A function of score.py, held against what a generated one does. `source` knows all names that imports bind."""

    node: ast.FunctionDef
    source: Source

    @property
    def name(self) -> str:
        """What it is defined as."""
        return self.node.name

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All that it runs: its body, and the defaults of its arguments."""
        taken = self.node.args
        parts = [*self.node.body, *taken.defaults, *(each for each in taken.kw_defaults if each is not None)]
        return [node for part in parts for node in ast.walk(part)]

    @cached_property
    def calls(self) -> list[ast.Call]:
        """All calls among them."""
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    @cached_property
    def _tests(self) -> list[ast.expr]:
        """The conditions that it goes by."""
        return [node.test for node in self.nodes if isinstance(node, (ast.If, ast.IfExp))]

    @cached_property
    def _conditions(self) -> set[int]:
        """All that stands in them."""
        return _inside(self._tests)

    def called(self, call: ast.Call) -> str:
        """The full name of what is called, without the module's own; `.name` for a method of a call's value."""
        found = self.source.full_name(call.func).removeprefix(f"{self.source.module}.")
        return found or (f".{call.func.attr}" if isinstance(call.func, ast.Attribute) else "")

    def faults(self) -> Iterator[str]:
        """What it does that a generated one does not."""
        if self.name not in _MAY_CALL:
            yield f"{self.name} in line {self.node.lineno} is none of ADS's own"
            return
        for each in self.node.decorator_list:
            if self.source.full_name(each.func if isinstance(each, ast.Call) else each) != "functools.lru_cache":
                yield f"{self.name} in line {self.node.lineno} is decorated"
        yield from self._strange_nodes()
        for call in self.calls:
            if not self._may_call(call):
                yield f"{self.name} calls {self.called(call) or 'what a call gave'}"
        if self.name != LOAD:  # which has seen no data
            yield from self._strange_tests()
            yield from self._strange_values()
            yield from self._strange_arguments()

    def _strange_nodes(self) -> Iterator[str]:
        """Statements and expressions of other kinds than generated ones."""
        conditions = self._conditions
        allowed = (*STATEMENTS, *EXPRESSIONS, *PARTS, *_MORE.get(self.name, ()))
        for node in self.nodes:
            line = getattr(node, "lineno", self.node.lineno)
            if isinstance(node, ast.For) and self.name != _TYPES:
                yield f"{self.name} loops in line {line}"
            elif isinstance(node, ast.Assign) and not all(self._may_store(target) for target in node.targets):
                yield f"{self.name} stores into a value in line {line}"
            elif not isinstance(node, allowed) and not (isinstance(node, _TESTS) and id(node) in conditions):
                yield f"{self.name} computes in line {line}"

    def _may_store(self, target: ast.expr) -> bool:
        return isinstance(target, ast.Name) or (self.name == _TYPES and isinstance(target, ast.Subscript))

    def _may_call(self, call: ast.Call) -> bool:
        name, allowed = self.called(call), _MAY_CALL[self.name]
        if name in CHATTER or name in allowed or (self.name == LOAD and name in LOADERS):
            return True
        if self.name == PREDICT and name in self._model:
            return len(call.args) == 1 and not call.keywords
        return self.is_one_of(name, allowed)

    def is_one_of(self, name: str, allowed: tuple[str, ...]) -> bool:
        """Whether a full name is among those, or the method of a value: no module's function of that name."""
        value, _, method = name.rpartition(".")
        is_value = "." not in value and value not in self.source.names.values()
        return name in allowed or ("." in name and f".{method}" in allowed and is_value)

    @property
    def _model(self) -> set[str]:
        """How predict() asks: the network itself, or its method."""
        return {name for each in self.node.args.args[1:2] for name in (each.arg, f"{each.arg}.predict")}

    def _strange_tests(self) -> Iterator[str]:
        """Conditions that go by more than what kind of thing came."""
        for test in self._tests:
            if not self._asks_kind(test):
                yield f"{self.name} decides in line {test.lineno}"

    def _asks_kind(self, test: ast.expr) -> bool:
        if isinstance(test, ast.BoolOp):
            return all(map(self._asks_kind, test.values))
        if isinstance(test, ast.UnaryOp):
            return isinstance(test.op, ast.Not) and self._asks_kind(test.operand)
        if isinstance(test, ast.Call):
            return self.called(test) in ("isinstance", "os.path.exists")
        if self.name != _READ or not isinstance(test, ast.Compare) or not isinstance(test.ops[0], (ast.In, ast.NotIn)):
            return False
        said = test.left.value if isinstance(test.left, ast.Constant) else None
        return len(test.ops) == 1 and isinstance(said, str) and said.startswith(KINDS)

    def _strange_values(self) -> Iterator[str]:
        """Values that come of neither payload nor model: constants, attributes, parts."""
        conditions, called = self._conditions, {id(call.func) for call in self.calls}
        beside = self._said_beside
        for node in self.nodes:
            line = getattr(node, "lineno", self.node.lineno)
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in beside | conditions:
                yield f"{self.name} gives a value of its own in line {line}"
            elif isinstance(node, ast.Return) and not self._may_return(node.value):
                yield f"{self.name} answers otherwise in line {line}"
            elif isinstance(node, ast.Dict) and node.keys and not self._is_answer(node):
                yield f"{self.name} makes an object in line {line}"
            elif isinstance(node, ast.Attribute) and id(node) not in conditions | called | self._of_names:
                yield f"{self.name} takes .{node.attr} of a value in line {line}"
            elif isinstance(node, ast.Subscript) and self.name != _TYPES and not self._is_type(node):
                yield f"{self.name} takes a part of a value in line {line}"

    def _may_return(self, value: ast.expr | None) -> bool:
        return value is not None and (self.name != PREDICT or self._is_answer(value))

    def _is_answer(self, node: ast.expr) -> bool:
        """`{"prediction": ...}`, which is what a native model answers."""
        keys = [each.value if isinstance(each, ast.Constant) else None for each in getattr(node, "keys", ())]
        return self.name == PREDICT and isinstance(node, ast.Dict) and keys == ["prediction"]

    @cached_property
    def _said_beside(self) -> set[int]:
        """The constants that are no answer: texts for people, arguments, keys, and '' where a payload has no kind."""
        found = {id(each) for each in self.node.args.defaults}
        for node in self.nodes:
            if isinstance(node, ast.Call):
                found |= {id(each) for each in [*node.args, *(keyword.value for keyword in node.keywords)]}
            elif isinstance(node, ast.Expr):
                found.add(id(node.value))
            elif isinstance(node, ast.Dict):
                found |= {id(key) for key in node.keys}
            elif isinstance(node, ast.Subscript):
                found.add(id(node.slice))
            elif isinstance(node, ast.JoinedStr):
                found |= _inside(node.values)
            elif isinstance(node, ast.IfExp) and isinstance(node.orelse, ast.Constant) and node.orelse.value == "":
                found.add(id(node.orelse))
        return found

    @cached_property
    def _of_names(self) -> set[int]:
        """The inner parts of dotted names: `os.path` of `os.path.join`."""
        outer = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        return {id(each.value) for each in outer}

    def _is_type(self, node: ast.expr) -> bool:
        """The dtype of a field, as input_schema.json has it."""
        inner = node.value if isinstance(node, ast.Subscript) else node
        return isinstance(inner, ast.Call) and self.called(inner) == _TYPES

    def _strange_arguments(self) -> Iterator[str]:
        """What is handed to a library beside the value, and may change what it makes of it."""
        for call in self.calls:
            name = self.called(call)
            if name in _ANY_ARGUMENTS or name in self._model:
                continue
            if not self._is_plain_call(name, call):
                yield f"{self.name} calls {name} with more than ADS hands it, in line {call.lineno}"

    def _is_plain_call(self, name: str, call: ast.Call) -> bool:
        method = name.rpartition(".")[2]
        if any(each.arg not in _KEYWORDS for each in call.keywords):
            return False
        if any(each.arg == "dtype" and not self._is_type(each.value) for each in call.keywords):
            return False
        if name == DEVICE:
            return not call.args and not call.keywords
        if name == "isinstance":
            return id(call) in self._conditions
        if method == "get":
            key = call.args[0] if call.args else None
            return isinstance(key, ast.Constant) and key.value in _KEYS and len(call.args) <= 2
        if method == "to":
            return all(isinstance(each, ast.Constant) or self._is_own(each) for each in call.args)
        return len(call.args) <= (2 if name == "open" else 1)

    def _is_own(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id not in self.source.names


def _inside(parts: Iterable[ast.AST]) -> set[int]:
    """Every node of these, by its identity."""
    return {id(node) for part in parts for node in ast.walk(part)}

"""Which globals a pickle of a trained model may name. Both sides use it: the scan, which loads nothing, and the
child's unpicklers, which ask it for every global once more.

An allow-list, because lists of what is forbidden are known to be incomplete: `importlib`, `sqlite3`, `joblib.load` or
a library's own test helpers run code as well as `os.system` does. What is not listed is refused by name.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Tuple  # Python 3.8 reads this file

_EXACT: Dict[str, FrozenSet[str]] = {
    "builtins": frozenset(
        "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple type".split()
    ),
    "__builtin__": frozenset(
        "bool bytearray bytes complex dict float frozenset int list long object set slice str".split()
    ),
    "collections": frozenset("Counter OrderedDict defaultdict deque".split()),
    "copyreg": frozenset(("_reconstructor", "__newobj__", "__newobj_ex__")),
    "copy_reg": frozenset(("_reconstructor",)),
    "_codecs": frozenset(("encode",)),
    "functools": frozenset(("partial",)),
    "decimal": frozenset(("Decimal",)),
    "datetime": frozenset("date datetime time timedelta timezone".split()),
    "random": frozenset(("Random",)),
    "numpy.random._pickle": frozenset(("__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor")),
    "numpy.random.mtrand": frozenset(("RandomState",)),
    "numpy.random._mt19937": frozenset(("MT19937",)),
    "numpy.random._pcg64": frozenset(("PCG64",)),
    "numpy.random.bit_generator": frozenset(("SeedSequence", "__pyx_unpickle_SeedSequence")),
    "numpy.core.multiarray": frozenset(("_reconstruct", "scalar")),
    "numpy._core.multiarray": frozenset(("_reconstruct", "scalar")),
    "numpy.core.numeric": frozenset(("_frombuffer",)),
    "numpy._core.numeric": frozenset(("_frombuffer",)),
    "numpy.core._internal": frozenset(("_convert_to_stringdtype_kwargs",)),
    "numpy._core._internal": frozenset(("_convert_to_stringdtype_kwargs",)),
    "sklearn.cluster._kmeans": frozenset(("_kmeans_single_lloyd", "_kmeans_single_elkan")),
    "numpy.ma": frozenset(("MaskedArray",)),
    "numpy.ma.core": frozenset(("MaskedArray", "_mareconstruct")),
    "joblib.numpy_pickle": frozenset(("NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper")),
    "scipy._lib.array_api_compat.numpy._aliases": frozenset(
        ("asarray",)
    ),  # a spline keeps the function it was made with
    "scipy.interpolate._bsplines": frozenset(("BSpline",)),
    "scipy.interpolate._interpolate": frozenset(("PPoly",)),
    "scipy.interpolate._fitpack2": frozenset(("UnivariateSpline", "InterpolatedUnivariateSpline")),
    "pandas._libs.internals": frozenset(("_unpickle_block",)),
    "pandas.core.internals.blocks": frozenset(("new_block",)),
    "pandas.core.indexes.base": frozenset(("_new_Index", "Index")),
    "pandas.core.indexes.range": frozenset(("RangeIndex",)),
    "pandas.core.frame": frozenset(("DataFrame",)),
    "pandas.core.series": frozenset(("Series",)),
    "pandas.core.internals.managers": frozenset(("BlockManager", "SingleBlockManager")),
}

# numpy's scalar types and the functions of one or two arrays that FunctionTransformer is given; none reads a file.
_NUMPY = frozenset(
    (
        "abs absolute add arcsin arcsinh arctan arctan2 arctanh bool bool_ cbrt ceil clip complex128 complex64 cos "
        "cosh deg2rad degrees divide dtype exp exp2 expm1 fabs float16 float32 float64 floor fmax fmin hypot int16 "
        "int32 int64 int8 isfinite isnan log log10 log1p log2 logaddexp max maximum mean median min minimum "
        "multiply nan_to_num ndarray negative object_ power rad2deg radians ravel reciprocal rint round round_ sign "
        "sin sinh sqrt square str_ subtract tan tanh true_divide uint16 uint32 uint64 uint8"
    ).split()
)

_NOT_SKLEARN = ("sklearn.datasets", "sklearn.externals", "sklearn.utils._testing", "sklearn.utils.estimator_checks")
_FUNCTIONS_OF = (  # modules whose plain functions an estimator may hold: scores, kernels, losses
    "sklearn.metrics",
    "sklearn.feature_selection",
    "sklearn.utils._tags",
    "sklearn.gaussian_process",
)
_CYTHON = ("newObj", "__pyx_unpickle_")  # how scikit-learn's compiled classes come back


def is_allowed(module: str, name: str) -> bool:
    """Whether a pickle may name this global."""
    if name in _EXACT.get(module, ()):
        return True
    if module == "numpy":
        return name in _NUMPY
    if module in ("numpy.dtypes", "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        return name.endswith("DType") or name in _NUMPY
    top = module.partition(".")[0]
    if "." in name or "tests" in module.split("."):
        return False
    if top == "sklearn" and not module.startswith(_NOT_SKLEARN):
        return _is_class(name) or name.startswith(_CYTHON) or (module.startswith(_FUNCTIONS_OF) and name.islower())
    if top in ("xgboost", "lightgbm"):
        return module.partition(".")[2] in ("core", "sklearn", "basic", "compat") and _is_class(name)
    if top == "scipy":
        return module.startswith(("scipy.sparse", "scipy.stats", "scipy.spatial")) and (
            _is_class(name) or name.endswith(("_matrix", "_array", "_gen", "_frozen"))
        )
    return False


def _is_class(name: str) -> bool:
    bare = name.lstrip("_")
    return bare[:1].isupper()


def shown(module: str, name: str) -> Tuple[str, str]:
    """The two for a message: what cannot be printed is escaped."""
    return ascii(module)[1:-1][:80], ascii(name)[1:-1][:80]

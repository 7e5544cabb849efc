import pytest

from columns import Columns, Schema, focus
from edgepack.errors import BadInput

NAMES = {
    "time": "int64",
    "in.x": "int8",
    "out.y": "int8",
    "out.z": "int8",
    "anomaly.count": "uint32",
    "anomaly.high": "bool",
    "metadata.elapsed": "list<int64>",
    "metadata.last_model": "string",
    "out_b.y": "int8",
}
ROW = [[1], [1], [1], [1], [1], [True], [[1, 2]], ["m"], [1]]
RESULT = Columns.of(Schema.parse(NAMES), dict(zip(NAMES, ROW, strict=True)))


@pytest.mark.parametrize(
    ("chosen", "excluded", "names"),
    [
        ([], [], list(NAMES)),
        (["*"], [], list(NAMES)),
        (["out"], [], ["out.y", "out.z"]),
        (["out.z", "time"], [], ["time", "out.z"]),
        (["check_failures"], [], ["anomaly.count"]),
        (["meta"], [], ["metadata.elapsed", "metadata.last_model"]),
        (["meta.elapsed"], [], ["metadata.elapsed"]),
        (["out_b"], [], ["out_b.y"]),
        ([], ["metadata", "anomaly", "out_b"], ["time", "in.x", "out.y", "out.z"]),
        (["*", "metadata.elapsed"], ["metadata", "in", "out", "out_b"],
         ["time", "anomaly.count", "anomaly.high", "metadata.elapsed"]),
        (["out"], ["out.y"], ["out.z"]),
        (["out.y"], ["out.y"], []),
        (["out"], ["out"], []),
        (["time"], ["metadata.never"], ["time"]),
    ],
)  # fmt: skip
def test_chosen_columns_stay_unless_excluded_as_closely(chosen, excluded, names):
    chosen_columns = focus(RESULT, chosen, excluded)
    assert list(chosen_columns.schema.names) == names and chosen_columns.rows == 1


def test_a_name_no_result_has_is_refused_with_those_there_are():
    with pytest.raises(BadInput, match=r"dataset 'outt' is not in the result: choose of \*, time, in, out") as refusal:
        focus(RESULT, ["outt"])
    assert refusal.value.field == "dataset"
    with pytest.raises(BadInput, match=r"dataset\.exclude 'outt' is not"):
        focus(RESULT, [], ["outt"])
    assert focus(RESULT.select(["time"]), ["anomaly"]).schema.names == ()

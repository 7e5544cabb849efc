"""What Wallaroo's SDK does with an agent through a Deployment built by hand: argument 1 is its URL, 2 a folder.

`Client` asks the agent for its configuration; what the SDK asks a platform's GraphQL for stands here as given.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
(folder / "token.json").write_text(json.dumps({"token": "t", "user_email": "a@example.com", "user_id": "u"}))
os.environ["WALLAROO_SDK_CREDENTIALS"] = str(folder / "token.json")

import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from wallaroo.client import Client  # noqa: E402
from wallaroo.deployment import Deployment  # noqa: E402
from wallaroo.exceptions import InferenceError  # noqa: E402
from wallaroo.pipeline import Pipeline  # noqa: E402


class NoGraphql:
    def execute(self, *_: object, **__: object) -> None:
        raise AssertionError("the platform was asked")


client = Client(api_endpoint=url, auth_type="token", gql_client=NoGraphql())


def deployment(pipeline: str) -> Deployment:
    return Deployment(client, {"id": 1, "deploy_id": pipeline, "deployed": True,
                               "pipeline": {"pipeline_id": pipeline}, "engine_config": {}})  # fmt: skip


class GivenPipeline(Pipeline):
    def __init__(self, pipeline: str) -> None:
        self.client, self._id = client, 1
        self.given = deployment(pipeline)

    def _deployment_for_pipeline(self, *_: object, **__: object) -> Deployment:
        return self.given


ROWS = [{"x": [1.0, 2.0, 3.0]}, {"x": [0.5, 0.0, 0.0]}]
frame = pd.DataFrame.from_records(ROWS)
table = pa.table({"x": pa.array([row["x"] for row in ROWS], pa.list_(pa.float32()))})

for name in ("demo", "split", "shadow"):
    one = deployment(name)
    answer = one.infer(frame)
    assert list(answer.columns)[:3] == ["time", "in.x", "out.y"], answer.columns
    assert answer["out.y"].tolist() == [[12.0], [1.0]]
    assert str(answer["time"].dtype).startswith("datetime64"), answer["time"].dtype
    assert not [column for column in answer.columns if column.startswith("metadata")]
    assert answer["anomaly.count"].tolist() == [1, 0]

    for dataset in (["*", "metadata.elapsed"], ["metadata.elapsed"]):
        answer = one.infer(frame, dataset=dataset)
        assert len(answer["metadata.elapsed"][0]) == 2, answer
        assert ("out.y" in answer.columns) == ("*" in dataset)
    answer = one.infer(frame, dataset=["time", "out", "metadata.last_model", "metadata.pipeline_version"])
    assert json.loads(answer["metadata.last_model"][0])["model_name"]
    assert len(answer["metadata.pipeline_version"][0]) == 36
    answer = one.infer(frame, dataset=["*"], dataset_exclude=["in", "anomaly"], dataset_separator=".")
    assert "in.x" not in answer.columns and "out.y" in answer.columns
    answer = one.infer(frame, dataset=["*", "metadata.partition"], dataset_exclude=["out.y"])
    assert "metadata.partition" in answer.columns and "metadata.elapsed" not in answer.columns, answer.columns
    assert not [column for column in answer.columns if column.startswith("out")], "a shadow's answers, or an output"

    answer = one.infer(table)
    assert answer.column_names[:3] == ["time", "in.x", "out.y"], answer.schema
    assert answer["out.y"].to_pylist() == [[12.0], [1.0]]
    assert answer.schema.field("anomaly.count").type == pa.uint32()
    answer = one.infer(table, dataset=["*", "metadata.elapsed"])
    assert len(answer["metadata.elapsed"].to_pylist()[0]) == 2

one = deployment("demo")
assert one.infer({"x": [[1.0, 2.0, 3.0]]}) == {"y": [[12.0]]}
assert one.infer(ROWS) == [[12.0], [1.0]]
free = deployment("free")
for value in ({"any": [1, {"deep": None}]}, ["text", 2.5]):
    assert free.infer(value) == [value]
try:
    one.infer(pd.DataFrame.from_records([{"x": [1.0, 2.0]}]))
except InferenceError as error:
    assert "[400]" in str(error) and "'x'" in str(error), error
else:
    raise AssertionError("not refused")

(folder / "rows.df.json").write_text(json.dumps(ROWS))
(folder / "value.json").write_text(json.dumps({"x": [[1.0, 2.0, 3.0]]}))
with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
    writer.write_table(table)
assert one.infer_from_file(str(folder / "rows.df.json"))["out.y"].tolist() == [[12.0], [1.0]]
assert one.infer_from_file(str(folder / "rows.arrow"))["out.y"].to_pylist() == [[12.0], [1.0]]
assert one.infer_from_file(str(folder / "value.json"), data_format="custom-json") == {"y": [[12.0]]}


async def parallel() -> None:
    pipeline = GivenPipeline("demo")
    many = pd.DataFrame.from_records([{"x": [float(n), 0.0, 0.0]} for n in range(40)])
    answer = await pipeline.parallel_infer(many, batch_size=3, num_parallel=4, retries=1)
    assert answer["out.y"].tolist() == [[2.0 * n] for n in range(40)], answer
    wrong = pd.DataFrame.from_records([{"x": [1.0, 0.0, 0.0]}, {"x": [1.0]}, {"x": [2.0, 0.0, 0.0]}])
    answer = await pipeline.parallel_infer(wrong, batch_size=1, num_parallel=2)
    assert answer["out.y"].tolist()[::2] == [[2.0], [4.0]], answer
    assert "400" in str(answer["error"][1]) or "x" in str(answer["error"][1]), answer
    tables = await pipeline.parallel_infer(table, batch_size=1, num_parallel=2)
    assert tables["out.y"].to_pylist() == [[12.0], [1.0]], tables


asyncio.run(parallel())

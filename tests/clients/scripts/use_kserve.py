"""What kserve's InferenceRESTClient does with an agent, by both protocols: argument 1 is its URL."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url = sys.argv[1]
ROWS = np.array([[1, 2, 3], [0.5, 0, 0]], np.float32)


async def first_version() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(url) is True
    assert await client.is_model_ready(url, "demo") is True
    answer = await client.infer(url, {"instances": ROWS.tolist()}, model_name="demo")
    assert answer == {"predictions": [[12.0], [1.0]]}, answer
    await client.close()


async def second_version() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "demo") is True
    for raw in (True, False):
        given = InferInput("x", list(ROWS.shape), "FP32")
        given.set_data_from_numpy(ROWS, binary_data=raw)
        answer = await client.infer(url, InferRequest("demo", [given], request_id="call-1"), model_name="demo")
        assert answer.id == "call-1"
        assert answer.outputs[0].as_numpy().tolist() == [[12.0], [1.0]]
    wrong = InferInput("z", list(ROWS.shape), "FP32")
    wrong.set_data_from_numpy(ROWS, binary_data=True)
    try:
        await client.infer(url, InferRequest("demo", [wrong]), model_name="demo")
    except httpx.HTTPStatusError as error:
        assert "unknown field 'z'" in str(error), error
    else:
        raise AssertionError("not refused")
    await client.close()


asyncio.run(first_version())
asyncio.run(second_version())

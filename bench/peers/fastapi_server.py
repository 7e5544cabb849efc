"""A hand-written FastAPI server over onnxruntime: typed rows as JSON, and raw float32 bytes as its best case."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
taken = session.get_inputs()[0]
app = FastAPI()


class Rows(BaseModel):
    rows: list[list[float]]


class Answer(BaseModel):
    predictions: list[list[float]]


@app.post("/predict")
def predict(body: Rows) -> Answer:
    x = np.asarray(body.rows, dtype=np.float32)
    return Answer(predictions=session.run(None, {taken.name: x})[0].tolist())


@app.post("/raw")
async def raw(request: Request) -> Response:
    x = np.frombuffer(await request.body(), np.float32).reshape(-1, *taken.shape[1:])
    return Response(session.run(None, {taken.name: x})[0].tobytes(), media_type="application/octet-stream")

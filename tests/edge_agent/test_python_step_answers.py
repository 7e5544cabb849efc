"""Whatever a step of the user's own answers, a client gets a reason with a 4xx or 503: never a 500, never silence."""

from __future__ import annotations

from tests.edge_agent.served import until
from tests.edge_agent.test_python_step import data as data
from tests.edge_agent.test_python_step import layout, running

# The first value of a request chooses what the step does with it; golden rows begin with 1 and 0.5.
SOURCE = """
import os
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    x = input_data["x"]
    wrong = {
        10: lambda: {},
        11: lambda: {"y": x.sum(axis=1), "z": x.sum(axis=1)},
        12: lambda: {"z": x.sum(axis=1)},
        13: lambda: {"y": x.sum(axis=1)[:0]},
        14: lambda: {"y": x},
        15: lambda: {"y": np.array(["text"] * len(x))},
        16: lambda: {"y": np.array([None] * len(x))},
        17: lambda: {"y": [1.0] * len(x)},
        18: lambda: [1.0],
        19: lambda: None,
        20: lambda: {"y": np.array([1j] * len(x))},
        21: lambda: {"y": np.array([{}] * len(x))},
        22: lambda: {5: x.sum(axis=1)},
        23: lambda: {"y": np.float64(1.0)},
        24: lambda: {"y": x.sum(axis=1).astype("float64") * 1e300},
        25: lambda: 1 / 0,
        26: lambda: [].pop(),
        27: lambda: exec("raise SystemExit(3)"),
        28: lambda: exec("raise KeyboardInterrupt"),
        29: lambda: exec("raise RecursionError('x' * 100_000)"),
        30: lambda: bytes(1 << 40),
        31: lambda: os._exit(7),
    }
    return wrong.get(int(x[0, 0]), lambda: {"y": x.sum(axis=1) * 2.0})()
"""


def test_no_answer_of_a_step_is_a_500(data, tmp_path):
    with running(data, layout(tmp_path, SOURCE)) as (_, ask):
        for choice in range(10, 32):
            answer = ask([{"x": [choice, 0, 0]}])
            if choice in (17, 23, 24):  # one number is one row, a list an array; what float32 does not hold is infinite
                assert answer.status_code in (200, 422), (choice, answer.text)
            else:
                assert answer.status_code in (422, 503), (choice, answer.text)
                said = answer.json()["error"]
                assert "prepare" in said and "\n" not in said and len(said) < 1000, (choice, said)
            until(lambda: ask().status_code != 503, "it is back")
            answer = ask()
            assert answer.status_code == 200, (choice, answer.text)

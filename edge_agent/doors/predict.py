"""The door of OCI ADS and Cortex: `POST /predict[?model=&version=]`, any JSON or bytes.

The answer is `{"prediction": ...}`, in the shape of the request (`columns.json_value`).
"""

from __future__ import annotations

from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.seam import Answer, Call, Route
from edge_agent.doors.values import OCTETS, infer_value
from edge_agent.doors.versions import check_version
from edge_agent.inference import JSON
from edge_agent.serving import Serving
from edgepack.errors import BadInput


def predict(serving: Serving, call: Call) -> Answer:
    """`POST /predict`: without a name it answers when one pipeline is served."""
    with serving.lease(call.args.get("model")) as active:
        call.pipeline = active.name
        check_version(active, call.args.get("version"))
        body = body_of(call)
        if not body:
            raise BadInput("the body is empty: expected any JSON, or bytes")
        said = call.header("content-type").lower()
        answer, media_type = infer_value(active, call, body, is_json=OCTETS not in said)
    if media_type == JSON:
        answer = b'{"prediction":' + answer + b"}"
    return packed(call, Answer(answer, media_type))


ROUTES = (Route("POST", "/predict", predict),)

"""The door of OCI ADS and Cortex: `POST /predict[?model=&version=]`, any JSON or bytes.

The answer is `{"prediction": ...}`, in the shape of the request (`columns.json_value`); of what was written for ADS it
is what that gives (`ads`), and of a Cortex predictor what it returns. A predictor is told all of the query itself: it
may choose among its models by it, or mean something else.
"""

from __future__ import annotations

from edge_agent.doors import ads
from edge_agent.doors.compression import body_of, packed
from edge_agent.doors.seam import Answer, Call, Route
from edge_agent.doors.values import OCTETS, infer_value
from edge_agent.doors.versions import check_version
from edge_agent.pipelines.inference import JSON
from edge_agent.pipelines.serving import Serving
from edgepack.errors import BadInput


def predict(serving: Serving, call: Call) -> Answer:
    """`POST /predict`: without a name it answers when one pipeline is served."""
    name, version = call.args.get("model"), call.args.get("version")
    with serving.lease(None if serving.is_one_program else name, version, wake_by=call.deadline) as active:
        call.pipeline = active.name
        if not active.is_program or name in active.own_models:
            check_version(active, version, name, serving.numbers_of(active.name))
        body = body_of(call)
        if not body:
            raise BadInput("the body is empty: expected any JSON, or bytes")
        said = call.header("content-type").lower()
        if ads.is_ads(active):
            return packed(call, Answer(*ads.predict(active, call, body, is_json=OCTETS not in said)))
        answer, media_type = infer_value(active, call, body, is_json=OCTETS not in said)
    if media_type == JSON and not active.is_program:
        answer = b'{"prediction":' + answer + b"}"
    return packed(call, Answer(answer, media_type))


ROUTES = (Route("POST", "/predict", predict),)

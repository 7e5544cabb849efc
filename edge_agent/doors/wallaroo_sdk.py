"""The routes that Wallaroo's SDK asks of a deployment: its configuration, and inference under a deployment's name."""

from __future__ import annotations

import orjson

from arch.target import host_target
from edge_agent.doors import wallaroo
from edge_agent.doors.seam import Answer, Call, Route
from edge_agent.pipelines.serving import Serving


def config(serving: Serving, call: Call) -> Answer:
    """`GET /v1/api/config`."""
    return Answer(orjson.dumps({"default_arch": host_target().arch}))


def infer(serving: Serving, call: Call, deployment: str, pipeline: str) -> Answer:
    """`POST /v1/api/pipelines/infer/{deployment}/{pipeline}`: a device has one deployment, whatever its name."""
    return wallaroo.infer(serving, call, pipeline)


ROUTES = (
    Route("GET", "/v1/api/config", config, runs="inline", counted=False),
    Route("POST", "/v1/api/pipelines/infer/{deployment}/{pipeline}", infer),
)

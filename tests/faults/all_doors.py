"""The agent as a program before several pipelines; its arguments are a data folder and OCI layout folders."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.run import run_agent


def _say(agent: Agent, url: str) -> None:
    print(f"serving {','.join(agent.serving.names)} on {url}", flush=True)


def agent() -> None:
    """Serve until a signal."""
    data, *layouts = map(Path, sys.argv[1:])
    sys.exit(run_agent(Config(data=data, port=0), layouts, trial=False, strict=True, ready=_say))

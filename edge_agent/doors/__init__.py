"""The agent's HTTP routes, one module a protocol; what becomes of rows is `edge_agent.pipelines.inference`'s."""

from edge_agent.doors.app import make_app
from edge_agent.doors.table import TABLE

__all__ = ["TABLE", "make_app"]

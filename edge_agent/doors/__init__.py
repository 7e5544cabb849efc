"""The agent's HTTP routes, one module a protocol; what becomes of rows is `edge_agent.inference`'s."""

from edge_agent.doors.app import make_app

__all__ = ["make_app"]

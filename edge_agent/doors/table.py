"""The table of all routes that inference takes, one line a door."""

from __future__ import annotations

from edge_agent.doors import kserve, oip, predict, wallaroo, wallaroo_sdk
from edge_agent.doors.seam import Table

TABLE = Table((*wallaroo.ROUTES, *oip.ROUTES, *kserve.ROUTES, *predict.ROUTES, *wallaroo_sdk.ROUTES))

"""How long each stage of one request took: noted in the way of the request, read by figures and traces."""

from __future__ import annotations

from typing import NamedTuple


class Stages(NamedTuple):
    """Times in ns. After `ended_ns` the answer is encoded; where rows are logged it then waits for the disk."""

    steps: tuple[str, ...]  # names
    parse_ns: int
    steps_ns: tuple[int, ...]
    validations_ns: int  # 0 where there are none
    submit_ns: int  # to put the rows on their way into the log
    ended_ns: int  # of time.perf_counter_ns(): when all of these were over

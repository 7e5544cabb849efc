"""Converts many models in their environment: `python frameworks_convert.py PACKAGER WORKERS JOB…`, jobs as JSON.

Each goes through the program of a conversion's child (`packager/convert/job.py`), in a process of its own; these are
forked from one that has imported the libraries, because importing them takes longer than most conversions. Prints
`<name> <seconds>` when one has ended, however it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings

SECONDS = 300
sys.path.append(sys.argv[1])

from convert import job  # noqa: E402 - from the path that is given


def main() -> None:
    """Fork for each job, as many at once as there are workers."""
    _import_all()
    waiting, running = [json.loads(text) for text in sys.argv[3:]], {}
    while waiting or running:
        while waiting and len(running) < int(sys.argv[2]):
            asked = waiting.pop(0)
            running[_forked(asked)] = (asked["name"], time.monotonic())
        child, _ = os.wait()
        name, start = running.pop(child)
        print(f"{time.monotonic() - start:.3f} {name}", flush=True)


def _forked(asked: dict[str, object]) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(SECONDS)
    try:
        job.main(json.dumps(asked))
    finally:
        os._exit(0)  # what the parent has buffered is the parent's to write


def _import_all() -> None:
    warnings.simplefilter("ignore")
    import lightgbm  # noqa: F401
    import onnxmltools  # noqa: F401
    import pandas  # noqa: F401
    import skl2onnx  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import xgboost  # noqa: F401


if __name__ == "__main__":
    main()

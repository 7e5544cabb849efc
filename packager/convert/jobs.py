"""What all programs of children share: a job as JSON text in, `result.json` out."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any, Callable, Dict

from .fields import Unsuited

RESULT = "result.json"


def carry_out(job_text: str, run: Callable[[Dict[str, Any], Dict[str, Any]], None]) -> None:
    """Have `run` fill in the result of a job; a refusal is part of it, a fault of ours ends the process."""
    warnings.simplefilter("ignore")
    job = json.loads(job_text)
    result: Dict[str, Any] = {}
    try:
        run(job, result)
    except Unsuited as error:
        result = {"refused": str(error)}
    except MemoryError:
        result = {"refused": "it needs more memory than it is given here"}
    with open(os.path.join(job["folder"], RESULT), "w") as file:
        json.dump(result, file)

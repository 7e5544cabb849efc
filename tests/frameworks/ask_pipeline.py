"""Asks a saved pipeline of transformers by itself: `python ask_pipeline.py TASK FOLDER`, a list of calls as JSON on its
standard input, answers on its standard output. Run inside the environment, never imported by the tests.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import transformers
from PIL import Image


def main() -> None:
    task, folder = sys.argv[1:]
    ask = transformers.pipeline(task, model=folder, device="cpu")
    found = []
    for call in json.load(sys.stdin):
        inputs = call.pop("inputs", None)
        shown = Image.fromarray(np.array(inputs, dtype=np.uint8)) if isinstance(inputs, list) else inputs
        try:
            found.append(ask(**call) if shown is None else ask(shown, **call))
        except Exception as error:
            found.append({"refused": type(error).__name__})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

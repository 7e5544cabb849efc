"""Asks models as a device's worker does: `python frameworks_worker.py SHIM FOLDER`.

`orders.json` in the folder lists orders: what `edgepack_worker.estimator.load` takes, and beside it `name`;
`<name>.npz` holds rows. Writes the answers to `<name>-worker.npz`, and prints a JSON object: name → what went wrong.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(sys.argv[1])

from edgepack_worker import estimator


def main() -> None:
    """All orders, one after another."""
    warnings.simplefilter("ignore")
    folder, wrong = Path(sys.argv[2]), {}
    for order in json.loads((folder / "orders.json").read_text()):
        try:
            answer(folder, order)
        except Exception as error:  # noqa: BLE001 - one that does not run is a result
            wrong[order["name"]] = f"{type(error).__name__}: {error}"
    print(json.dumps(wrong))


def answer(folder: Path, order: dict[str, Any]) -> None:
    """Ask one the saved rows."""
    with np.load(folder / f"{order['name']}.npz", allow_pickle=False) as saved:
        rows = saved["x"]
    rows = rows.astype(object) if rows.dtype.kind == "U" else rows.reshape(len(rows), -1).astype(np.float64)
    found = estimator.load(order)({next(iter(order["input"])): rows}, len(rows))
    plain = {name: np.asarray(each) for name, each in found.items()}
    arrays = {name: each.astype(str) if each.dtype == object else each for name, each in plain.items()}
    np.savez(folder / f"{order['name']}-worker.npz", **arrays)


if __name__ == "__main__":
    main()

"""`make bench`: what edgepack costs. `python -m bench builds` for one part, `build` for the builders side by side;
`--json` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from bench.breakdown import measure_breakdown
from bench.build import measure_build
from bench.builds import measure_builds
from bench.serve import measure_serve
from bench.serving import measure_serving
from bench.table import Figure, print_table
from bench.tflite import measure_tflite
from bench.worker import measure_worker

PARTS = {
    "builds": measure_builds,
    "build": measure_build,
    "serving": measure_serving,
    "serve": measure_serve,
    "breakdown": measure_breakdown,
    "worker": measure_worker,
    "tflite": measure_tflite,
}


def main() -> int:
    """Measure what was asked for and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f}, Python {platform.python_version()}\n")
    figures: list[Figure] = []
    for part in options.parts or PARTS:
        figures += PARTS[part]()
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps([figure.__dict__ for figure in figures], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A CUDA image has wheels of half a gigabyte: a layer of one is written in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

MEMBER = 700 << 20  # bytes unpacked
LIMIT = 300 << 20  # bytes: what is promised of a whole build
WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from buildx.splice import Stored, write_layer
from buildx.wheel_files import Place, wheel_entries
made = write_layer(wheel_entries(Path(sys.argv[2]), Place("/usr/bin/python3", "site")), Path(sys.argv[3]), Stored())
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) << 10)  # not ru_maxrss, which begins with what the parent had
"""


def test_a_large_wheel_becomes_a_layer_in_bounded_memory(tmp_path):
    wheel = tmp_path / "large-1.0-py3-none-any.whl"
    block = bytes(range(256)) * 4096
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("large/lib.so", "w", force_zip64=True) as member:
            for _ in range(MEMBER // len(block)):
                member.write(block)
        archive.writestr("large-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    command = [sys.executable, "-c", WRITE, str(Path(__file__).parents[2]), str(wheel), str(tmp_path / "layer")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < LIMIT

"""A CUDA image has wheels of half a gigabyte, and a base of the user's own layers of gigabytes: both are handled in
bounded memory.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

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


SURVEY = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from buildx.survey import survey
from oci.blob import FileBlob
from oci.descriptor import Descriptor
layer = Path(sys.argv[2])
blob = FileBlob(layer, Descriptor("application/vnd.oci.image.layer.v1.tar", "sha256:" + "0" * 64, layer.stat().st_size))
seen = survey("sha256:" + "1" * 64, [blob], "base", Path(sys.argv[3]))
assert seen.pythons == [("usr/bin", "3.10")], seen
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) << 10)
"""


def large_tar() -> Iterator[bytes]:
    """A tar of a large library, and a Python behind it."""
    library = tarfile.TarInfo("usr/local/cuda/lib64/libcudnn.so")
    library.size = MEMBER
    yield library.tobuf()
    block = bytes(range(256)) * 4096
    for _ in range(MEMBER // len(block)):
        yield block
    yield tarfile.TarInfo("usr/bin/python3.10").tobuf()
    yield bytes(1024)


@pytest.mark.parametrize("frames", [1, 3], ids=["in one frame", "in several frames"])
def test_a_base_with_a_large_zstd_layer_is_looked_through_in_bounded_memory(tmp_path, frames):
    layer, pieces = tmp_path / "layer.tar.zst", list(large_tar())
    each = -(-len(pieces) // frames)
    with layer.open("wb") as out:
        for start in range(0, len(pieces), each):
            pack = zstandard.ZstdCompressor(level=1).compressobj()
            for piece in pieces[start : start + each]:
                out.write(pack.compress(piece))
            out.write(pack.flush())
    command = [sys.executable, "-c", SURVEY, str(Path(__file__).parents[2]), str(layer), str(tmp_path / "seen")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT

from __future__ import annotations

import os
import threading
import time

import pytest

from buildx.entries import file
from buildx.layer_cache import LayerCache, list_cache, prune_cache
from buildx.splice import Stored, write_layer
from edgepack.errors import BadInput


class Counted:
    def __init__(self, data=b"1"):
        self.calls = 0
        self.data = data

    def __call__(self, path):
        self.calls += 1
        return write_layer([file("a", self.data)], path, Stored())


def test_a_layer_is_made_once_for_the_same_inputs(tmp_path):
    write = Counted()
    with LayerCache.opened(tmp_path) as cache:
        first = cache.get_or_make("agent", "t", ["x"], write)
        second = cache.get_or_make("agent", "t", ["x"], write)
        other = cache.get_or_make("agent", "t", ["y"], write)
    assert (first.cached, second.cached, other.cached, write.calls) == (False, True, False, 2)
    assert first.blob == second.blob


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "note"])
def test_a_damaged_entry_is_noticed_and_made_anew(tmp_path, damage):
    write = Counted()
    with LayerCache.opened(tmp_path) as cache:
        layer = cache.get_or_make("agent", "t", ["x"], write)
        blob = layer.blob.path
        data = blob.read_bytes()
        if damage == "flip":
            blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "cut":
            blob.write_bytes(data[:10])
        elif damage == "remove":
            blob.unlink()
        else:
            next((tmp_path / "layers/notes").iterdir()).write_bytes(b'{"digest": "../../etc"}')
        assert cache.find("agent", ["x"]) is None
        again = cache.get_or_make("agent", "t", ["x"], write)
        assert blob.read_bytes() == data
    assert (again.cached, again.diff_id) == (False, layer.diff_id)


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with LayerCache.opened(tmp_path) as cache, pytest.raises(KeyboardInterrupt):
        cache.get_or_make("agent", "t", ["x"], fail)
    assert [path for path in (tmp_path / "layers").rglob("*") if path.is_file()] == []


def test_without_keeping_nothing_is_read_or_left(tmp_path):
    write = Counted()
    with LayerCache.opened(tmp_path) as cache:
        cache.get_or_make("agent", "t", ["x"], write)
    with LayerCache.opened(tmp_path, keep=False) as cache:
        assert not cache.get_or_make("agent", "t", ["x"], write).cached
    assert write.calls == 2
    assert list(tmp_path.glob(".build-*")) == []


def test_two_builds_at_once_make_the_same_layer_without_harm(tmp_path):
    found = []

    def build():
        with LayerCache.opened(tmp_path) as cache:
            found.append(
                [
                    cache.get_or_make("agent", "t", [str(n)], Counted(str(n).encode())).blob.descriptor.digest
                    for n in range(20)
                ]
            )

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)


def test_pruning_is_refused_while_a_build_runs(tmp_path):
    with LayerCache.opened(tmp_path), pytest.raises(BadInput, match="a build is using the cache"):
        prune_cache(tmp_path, 0, time.time())


def test_pruning_keeps_what_was_used_lately(tmp_path):
    with LayerCache.opened(tmp_path) as cache:
        old = cache.get_or_make("agent", "t", ["old"], Counted(b"old"))
        cache.get_or_make("agent", "t", ["new"], Counted(b"new"))
    for path in [*(tmp_path / "layers/notes").iterdir(), old.blob.path]:
        if path == old.blob.path or b"old" in path.read_bytes():
            os.utime(path, (1, 1))
    assert prune_cache(tmp_path, 3600, time.time()) > 0
    with LayerCache.opened(tmp_path) as cache:
        assert cache.find("agent", ["old"]) is None
        assert cache.find("agent", ["new"]) is not None
    prune_cache(tmp_path, 0, time.time() + 1)
    assert not any(part.files for part in list_cache(tmp_path))


def test_a_cache_that_is_not_there_is_empty(tmp_path):
    assert prune_cache(tmp_path / "nothing", 0, 0) == 0
    assert sum(part.size_bytes for part in list_cache(tmp_path / "nothing")) == 0


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path):
    """A file where the folder should be cannot be written by root either."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(BadInput, match=r"cannot be written: .*; set EDGEPACK_CACHE"), LayerCache.opened(place):
            pass

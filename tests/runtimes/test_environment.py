from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from edgepack.errors import BadInput, NotTrusted, RuntimeFailed
from oci.digest import Digest
from runtimes import environment
from runtimes.environment import check_python, collect, environment_name, make_environment, sweep, unpack_wheel
from tests.runtimes.environments import wheel

CODE = {"tool/__init__.py": b"X = 1\n", "tool/data.bin": b"\0" * 9}


def digests(*paths: Path) -> dict[Path, str]:
    return {path: Digest.of(path.read_bytes()) for path in paths}


def bad_wheel(folder: Path, name: str, mode: int = 0o644) -> Path:
    """A wheel with one file of an evil name, recorded as it should be."""
    path = wheel(folder, "tool", {**CODE, name: b"x"})
    if mode != 0o644:
        with zipfile.ZipFile(path) as archive:
            content = [(item, archive.read(item)) for item in archive.infolist()]
        with zipfile.ZipFile(path, "w") as archive:
            for item, data in content:
                item.external_attr = (mode if item.filename == name else 0o644) << 16
                archive.writestr(item, data)
    return path


def test_wheels_become_a_folder_that_python_imports_from_with_byte_code(tmp_path):
    one = wheel(tmp_path / "w", "tool", CODE)
    two = wheel(tmp_path / "w", "other", {"other.py": b"import tool\nY = tool.X + 1\n"})
    site = make_environment(digests(one, two), tmp_path / "environments")
    assert site.name == environment_name(digests(two, one))
    assert list((site / "tool" / "__pycache__").glob("*.pyc"))
    code = f"import sys; sys.path.append({str(site)!r}); import other; print(other.Y)"
    assert subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True).stdout == "2\n"


def test_an_environment_that_is_there_is_used_again_and_others_have_other_names(tmp_path):
    one = digests(wheel(tmp_path / "w", "tool", CODE))
    site = make_environment(one, tmp_path / "e")
    (site / "mark").touch()
    assert (make_environment(one, tmp_path / "e") / "mark").exists()
    changed = digests(wheel(tmp_path / "v", "tool", {**CODE, "tool/more.py": b""}))
    assert environment_name(changed) != environment_name(one)
    assert environment_name({}) != environment_name(one)


def test_environments_share_the_files_of_a_wheel_that_both_have_and_byte_code_too(tmp_path):
    tool = wheel(tmp_path / "w", "tool", CODE)
    other = wheel(tmp_path / "w", "other", {"other.py": b"import tool\nY = tool.X + 1\n"})
    first = make_environment(digests(tool), tmp_path / "e")
    tool_digests = digests(tool, other)
    tool.write_bytes(b"not read again")
    second = make_environment(tool_digests, tmp_path / "e")
    (code,) = (first / "tool/__pycache__").iterdir()
    for path in [first / "tool/__init__.py", code]:
        assert path.samefile(second / path.relative_to(first))
    shutil.rmtree(first)
    run = f"import sys; sys.path.append({str(second)!r}); import other; print(other.Y)"
    assert subprocess.run([sys.executable, "-S", "-c", run], capture_output=True, text=True).stdout == "2\n"


def test_a_wheel_whose_file_another_replaced_is_unpacked_anew(tmp_path):
    one = wheel(tmp_path / "w", "one", {"space/__init__.py": b"X = 1\n"})
    two = wheel(tmp_path / "w", "two", {"space/__init__.py": b"X = 2\n", "space/two.py": b""})
    make_environment(digests(one, two), tmp_path / "e")
    alone = make_environment(digests(one), tmp_path / "e")
    assert (alone / "space/__init__.py").read_bytes() == b"X = 1\n"
    make_environment(digests(two), tmp_path / "e")
    third = wheel(tmp_path / "w", "third", {"third.py": b""})
    both = make_environment(digests(one, third, two), tmp_path / "e")
    assert (both / "space/__init__.py").read_bytes() == b"X = 2\n", "the last one's, although both are there to link"


@pytest.mark.parametrize("broken", ["gone", "no links"])
def test_a_wheel_that_cannot_be_linked_is_unpacked(tmp_path, monkeypatch, broken):
    tool, other = wheel(tmp_path / "w", "tool", CODE), wheel(tmp_path / "w", "other", {"other.py": b""})
    first = make_environment(digests(tool), tmp_path / "e")
    if broken == "gone":
        (first / "tool/data.bin").unlink()
    else:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    second = make_environment(digests(tool, other), tmp_path / "e")
    assert (second / "tool/data.bin").stat().st_nlink == 1
    assert list((second / "tool/__pycache__").iterdir())


def test_two_at_once_make_one_environment(tmp_path, monkeypatch):
    wheels = digests(wheel(tmp_path / "w", "tool", CODE))
    pids = iter(range(10, 20))
    monkeypatch.setattr(os, "getpid", lambda: next(pids))  # as two processes would have
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(make_environment(wheels, tmp_path / "e"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert [path.name for path in (tmp_path / "e").iterdir()] == [found[0].name]


def test_files_of_the_data_folder_go_where_they_are_imported_from_and_programs_stay_out(tmp_path):
    files = {
        "tool-1.0.data/purelib/pure.py": b"",
        "tool-1.0.data/platlib/deep/plat.py": b"",
        "tool-1.0.data/scripts/run": b"#!python",
        "tool-1.0.data/data/share/x": b"",
        "tool-1.0.data/headers/x.h": b"",
    }
    unpack_wheel(wheel(tmp_path / "w", "tool", {**CODE, **files}), tmp_path / "s")
    found = {path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert found == {*CODE, "pure.py", "deep/plat.py", "tool-1.0.dist-info/METADATA"}


@pytest.mark.parametrize(
    "name", ["../out.py", "/out.py", "tool/../../out.py", "tool-1.0.data/purelib/../../out.py", "a//b", "a\\b", "./a"]
)
def test_a_wheel_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(NotTrusted, match="leads out of its folder"):
        unpack_wheel(bad_wheel(tmp_path / "w", name), tmp_path / "deep" / "site")
    assert not (tmp_path / "deep" / "out.py").exists()
    assert not (tmp_path / "out.py").exists()


def test_a_link_in_a_wheel_is_refused(tmp_path):
    with pytest.raises(NotTrusted, match="leads out"):
        unpack_wheel(bad_wheel(tmp_path / "w", "tool/link", stat.S_IFLNK | 0o777), tmp_path / "s")


def test_a_file_that_is_not_what_record_says_is_refused_and_nothing_is_left(tmp_path):
    path = wheel(tmp_path / "w", "tool", CODE, **{"tool/__init__.py": b"X = 2\n"})
    with pytest.raises(NotTrusted, match=r"'tool/__init__\.py' of wheel 'tool-.*' is not what its RECORD says"):
        make_environment(digests(path), tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_a_file_that_record_does_not_name_is_refused(tmp_path):
    path = wheel(tmp_path / "w", "tool", CODE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tool/extra.py", "X = 3")
    with pytest.raises(NotTrusted, match=r"tool/extra\.py"):
        unpack_wheel(path, tmp_path / "s")


def test_a_wheel_without_record_or_no_zip_at_all_is_refused(tmp_path):
    junk = tmp_path / "tool-1.0-py3-none-any.whl"
    junk.write_bytes(b"junk")
    with pytest.raises(NotTrusted, match="does not unpack"):
        unpack_wheel(junk, tmp_path / "s")
    with zipfile.ZipFile(junk, "w") as archive:
        archive.writestr("tool.py", "")
    with pytest.raises(NotTrusted, match="has 0 RECORD files"):
        unpack_wheel(junk, tmp_path / "s")


def test_a_wheel_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "MOST_BYTES", 1 << 20)
    path = wheel(tmp_path / "w", "tool", {"tool.bin": bytes(2 << 20)})
    with pytest.raises(NotTrusted, match="unpacks to more than"):
        unpack_wheel(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_wheel_that_the_disk_has_no_room_for_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = wheel(tmp_path / "w", "tool", {"tool.bin": bytes(3 << 20)})
    room = shutil.disk_usage(tmp_path)._replace(free=environment.RESERVE_BYTES + (1 << 20))
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: room)
    with pytest.raises(RuntimeFailed, match="takes 3 MiB unpacked, 1 MiB are free"):
        make_environment(digests(path), tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_a_disk_that_gives_up_is_this_machines_fault_and_not_the_wheels(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(environment, "publish", full)
    with pytest.raises(RuntimeFailed, match="cannot be made here: No space left on device"):
        make_environment(digests(wheel(tmp_path / "w", "tool", CODE)), tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_a_wheel_with_a_broken_stream_is_refused(tmp_path):
    path = wheel(tmp_path / "w", "tool", {"tool.py": bytes(range(256)) * 40})
    with zipfile.ZipFile(path) as archive:
        content = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(NotTrusted, match="does not unpack"):
        unpack_wheel(path, tmp_path / "s")


@pytest.mark.parametrize("tag", ["cp27-cp27m-any", "cp38-cp38-any", "pp311-pypy311_pp73-any", "py2-none-any"])
def test_a_wheel_of_another_python_is_the_users_to_mend(tmp_path, tag):
    with pytest.raises(BadInput, match="is for another Python"):
        unpack_wheel(wheel(tmp_path / "w", "tool", CODE, tag=tag), tmp_path / "s")


def test_a_stable_interface_of_an_older_python_fits(tmp_path):
    unpack_wheel(wheel(tmp_path / "w", "tool", CODE, tag="cp38-abi3-manylinux_2_17_x86_64"), tmp_path / "s")
    assert (tmp_path / "s" / "tool").is_dir()


def test_what_does_not_compile_is_left_as_it_is(tmp_path):
    path = wheel(tmp_path / "w", "tool", {**CODE, "tool/template.py": b"{% not python %}\n"})
    site = make_environment(digests(path), tmp_path / "e")
    assert (site / "tool" / "template.py").is_file()
    assert [each.name.split(".")[0] for each in (site / "tool" / "__pycache__").iterdir()] == ["__init__"]


def test_what_nobody_uses_is_collected_and_temporary_folders_are_not(tmp_path):
    kept = make_environment(digests(wheel(tmp_path / "w", "tool", CODE)), tmp_path / "e")
    make_environment(digests(wheel(tmp_path / "v", "other", CODE)), tmp_path / "e")
    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    (tmp_path / "e" / f".{kept.name}.{over.pid}-0.part").mkdir()
    (tmp_path / "e" / f".{'0' * 64}.{os.getpid()}-0.part").mkdir()
    (tmp_path / "e" / ".scratch" / "worker-1").mkdir(parents=True)
    collect(tmp_path / "e", {kept.name})
    assert {path.name for path in (tmp_path / "e").iterdir()} == {kept.name, ".scratch"}
    sweep(tmp_path / "e")
    assert {path.name for path in (tmp_path / "e").iterdir()} == {kept.name}
    collect(tmp_path / "nothing", ())


def test_what_a_living_process_makes_and_somebody_needs_is_not_collected(tmp_path, monkeypatch):
    """A trial unpacks its bundle's wheels in a process of its own, while the agent tidies up."""
    wheels = digests(wheel(tmp_path / "w", "tool", CODE))
    compiled = environment._compile

    def tidied_meanwhile(stage: Path) -> None:
        collect(tmp_path / "e", {environment_name(wheels)})
        compiled(stage)

    monkeypatch.setattr(environment, "_compile", tidied_meanwhile)
    site = make_environment(wheels, tmp_path / "e")
    assert (site / "tool" / "__init__.py").is_file()
    assert [path.name for path in (tmp_path / "e").iterdir()] == [site.name]


def test_another_python_than_the_wheels_are_for_is_told():
    check_python("prepare", environment.this_python())
    with pytest.raises(RuntimeFailed, match=r"step 'prepare' needs Python 3\.7, this machine's agent runs 3\."):
        check_python("prepare", "3.7")

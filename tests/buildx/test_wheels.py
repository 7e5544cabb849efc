from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from arch import Target, traits_of
from buildx.entries import Entry, PathSource, complete
from buildx.report import Quiet
from buildx.requirements import agent_requirements, requirements_for, without_unimported
from buildx.resolve import Offer, _environment, _rank, nearest_versions, resolve
from buildx.unneeded import RULES, is_unneeded
from buildx.unused_libraries import without_unused
from buildx.wheel_files import Place, wheel_entries
from buildx.wheels import Wheels
from edgepack.errors import BadInput, BuildFailed, Unreachable
from tests.buildx.parts import make_wheel

X86, ARM = traits_of(Target("x86")), traits_of(Target("arm"))
PLACE = Place("/usr/bin/python3.11", "site")
NO_INDEX = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_NO_CONFIG": "1"}


def paths(wheel) -> dict[str, bytes]:
    return {entry.path: b"".join(entry.source.chunks()) for entry in wheel_entries(wheel, PLACE)}


def test_every_scheme_of_a_wheel_goes_to_its_place(tmp_path):
    files = {
        "p/a.py": b"1",
        "p-1.0.data/purelib/p/b.py": b"2",
        "p-1.0.data/platlib/p/c.so": b"3",
        "p-1.0.data/scripts/run": b"#!python\nx",
        "p-1.0.data/scripts/raw": b"\x7fELF",
        "p-1.0.data/data/share/d": b"4",
        "p-1.0.data/headers/p.h": b"5",
    }
    found = paths(make_wheel(tmp_path, "p", files=files))
    assert {path: data for path, data in found.items() if ".dist-info" not in path} == {
        "site/p/a.py": b"1",
        "site/p/b.py": b"2",
        "site/p/c.so": b"3",
        "usr/local/bin/run": b"#!/usr/bin/python3.11\nx",
        "usr/local/bin/raw": b"\x7fELF",
        "usr/local/share/d": b"4",
    }
    assert "site/p-1.0.dist-info/METADATA" in found
    assert "site/p-1.0.dist-info/RECORD" in found


def test_the_execute_bit_of_a_member_is_kept(tmp_path):
    wheel = make_wheel(tmp_path, "p", files={})
    with zipfile.ZipFile(wheel, "a") as archive:
        info = zipfile.ZipInfo("p/tool")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, b"x")
    modes = {entry.path: entry.mode for entry in wheel_entries(wheel, PLACE)}
    assert modes["site/p/tool"] == 0o755
    assert modes["site/p-1.0.dist-info/METADATA"] == 0o644


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "p/../../evil.py", "p\\..\\evil.py"])
def test_a_wheel_that_leads_out_of_its_place_is_refused(tmp_path, name):
    wheel = make_wheel(tmp_path, "p", files={name: b"1"})
    with pytest.raises(BuildFailed, match="leads out of its place"):
        wheel_entries(wheel, PLACE)


def test_what_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(BuildFailed, match="does not read"):
        wheel_entries(tmp_path / "a-1-py3-none-any.whl", PLACE)
    with zipfile.ZipFile(tmp_path / "b-1-py3-none-any.whl", "w") as archive:
        archive.writestr("b.py", "")
    with pytest.raises(BuildFailed, match=r"has no \.dist-info/WHEEL"):
        wheel_entries(tmp_path / "b-1-py3-none-any.whl", PLACE)


def test_two_wheels_with_the_same_file_fail_loudly(tmp_path):
    one = make_wheel(tmp_path, "a", files={"same.py": b"1"})
    two = make_wheel(tmp_path, "b", files={"same.py": b"1"})
    with pytest.raises(BuildFailed, match=r"'/site/same.py' is in one layer twice"):
        complete([*wheel_entries(one, PLACE), *wheel_entries(two, PLACE)])


@pytest.mark.parametrize(
    ("package", "path", "unneeded"),
    [
        ("numpy", "numpy/lib/tests/test_a.py", True),
        ("numpy", "numpy/testing/__init__.py", False),
        ("numpy", "numpy/__init__.pyi", True),
        ("numpy", "numpy/_core/_simd.cpython-311-x86_64-linux-gnu.so", True),
        ("numpy", "numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", False),
        ("pyarrow", "pyarrow/libarrow_flight.so.2600", True),
        ("pyarrow", "pyarrow/libarrow_python.so", True),
        ("pyarrow", "pyarrow/libarrow_python.so.2600.1.0", True),
        ("pyarrow", "pyarrow/libarrow_python.so.2600", False),
        ("pyarrow", "pyarrow/libparquet.so.2600", False),
        ("pyarrow", "pyarrow/_dataset.cpython-311-x86_64-linux-gnu.so", True),
        ("pyarrow", "pyarrow/_parquet.cpython-311-x86_64-linux-gnu.so", True),
        ("pyarrow", "pyarrow/parquet/core.py", True),
        ("onnxruntime-gpu", "onnxruntime/transformers/a.py", True),
        ("onnxruntime-openvino", "onnxruntime/capi/libonnxruntime.so.1.24.1", True),
        ("onnxruntime-openvino", "onnxruntime/capi/libopenvino.so.2025.4.1", True),
        ("onnxruntime-openvino", "onnxruntime/capi/libopenvino.so.2541", False),
        ("onnxruntime-openvino", "onnxruntime/capi/libopenvino_intel_gpu_plugin.so", False),
        ("onnxruntime-openvino", "onnxruntime/capi/libtbb.so.12", False),
        ("onnxruntime-gpu", "onnxruntime/capi/libonnxruntime_providers_cuda.so", False),
        ("other", "other/libarrow_flight.so.2600", False),
        ("pytest", "pytest-1.dist-info/tests/x", False),
        ("latest", "latest/contest/a.py", False),
    ],
)
def test_the_rules_leave_out_what_they_say(package, path, unneeded):
    assert is_unneeded(package, path) is unneeded


READ = """
import sys; sys.path[:0] = sys.argv[1:3]
import pyarrow, numpy, onnxruntime
import pyarrow.compute
assert pyarrow.__file__.startswith(sys.argv[1]) and onnxruntime.__file__.startswith(sys.argv[1])
from columns.arrow import decode_arrow, encode_arrow
from columns.records import decode_records, encode_records
from columns.schema import Schema
schema = Schema.parse({"x": "list<float64>", "s": "string", "t": "timestamp[ms]?", "u": "struct<a: int64>"})
rows = decode_records(b'[{"x": [1.0, 2.0], "s": "a", "t": null, "u": {"a": 1}}]', schema)
for form in ("file", "stream"):
    assert encode_records(decode_arrow(encode_arrow(rows, form), schema), None) == encode_records(rows, None)
maps = [line.rpartition(" ")[2].strip() for line in open("/proc/self/maps") if "libparquet" in line]
assert maps and all(path.startswith(sys.argv[1]) for path in maps), maps
"""


def test_what_the_rules_leave_of_the_libraries_here_still_reads_and_writes_arrow(tmp_path):
    import importlib.util

    for package in ("pyarrow", "numpy", "onnxruntime"):
        folder = Path(importlib.util.find_spec(package).origin).parent
        parts = (folder, folder.with_name(f"{package}.libs"))
        files = {path.relative_to(folder.parent).as_posix(): path for part in parts for path in part.rglob("*")}
        kept = [(inside, path) for inside, path in files.items() if path.is_file() and not is_unneeded(package, inside)]
        for entry in without_unused(package, [Entry(inside, "file", PathSource.of(path)) for inside, path in kept]):
            (tmp_path / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / entry.path).write_bytes(b"".join(entry.source.chunks()))
    for name in ("libparquet", "libarrow_dataset", "libarrow_acero", "libarrow_substrait"):
        (library,) = (tmp_path / "pyarrow").glob(f"{name}.so.*")
        assert library.stat().st_size < 1000, "it is linked against and not used"
    command = [sys.executable, "-c", READ, str(tmp_path), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LD_BIND_NOW": "1"})
    assert done.returncode == 0, done.stderr


def test_every_rule_has_a_name_of_its_own_and_a_reason():
    assert len({(rule.package, rule.name) for rule in RULES}) == len(RULES)
    assert all(rule.reason for rule in RULES)


def test_the_agents_requirements_are_those_of_the_package():
    from pathlib import Path

    from buildx.lock import read_toml

    project = read_toml((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert agent_requirements() == sorted(project["dependencies"] + extras["agent"] + extras["tflite"] + extras["text"])


def test_a_runtime_that_a_pipeline_does_not_use_is_not_installed():
    assert "onnxruntime>=1.20" in requirements_for({"onnx"})
    engines = ("ai-edge-litert", "onnxruntime", "tokenizers")
    assert requirements_for(set()) == [line for line in agent_requirements() if not line.startswith(engines)]
    assert [line for line in requirements_for({"tflite"}) if line.startswith(engines)] == ["ai-edge-litert>=2.1"]
    assert [line for line in requirements_for({"onnx", "text"}) if line.startswith("tok")] == ["tokenizers>=0.22"]


def test_what_only_the_metadata_of_a_package_asks_for_is_left_out():
    traits = traits_of(Target("x86", "none"))
    assert without_unimported(traits, {"onnx"}) is traits
    assert without_unimported(traits, {"onnx", "text"}).left_out == (*traits.left_out, "huggingface-hub")


def test_the_best_of_several_wheels_is_chosen():
    names = [
        "p-1-py3-none-any.whl",
        "p-1-cp311-abi3-manylinux_2_17_x86_64.whl",
        "p-1-cp311-cp311-manylinux_2_17_x86_64.whl",
    ]
    offers = [Offer("p", "1", f"https://index.example/{name}", "0") for name in names]
    assert [offer.filename for offer in sorted(offers, key=_rank)] == names[::-1]
    local = Offer("p", "1", "file:///w/p-1-py3-none-any.whl", "0")
    assert min([*offers, local], key=_rank) == local


def test_uv_gets_the_index_that_pip_is_configured_with_unless_it_has_its_own():
    assert _environment({"PIP_INDEX_URL": "https://a.example"})["UV_DEFAULT_INDEX"] == "https://a.example"
    assert "UV_DEFAULT_INDEX" not in _environment({"PIP_INDEX_URL": "https://a.example", "UV_NO_INDEX": "1"})


def of_pip(tmp_path, monkeypatch, text):
    """This machine's pip.conf holds `text`, its index is a folder that holds nothing; uv has no configuration."""
    config, index = tmp_path / "pip.conf", tmp_path / "index"
    config.write_text(text)
    index.mkdir(exist_ok=True)
    monkeypatch.setattr("buildx.resolve._PIP_CONFIGS", (str(tmp_path / "none.conf"), str(config)))
    return {"PIP_INDEX_URL": index.as_uri(), "UV_NO_CONFIG": "1", "PATH": os.environ["PATH"]}


@pytest.mark.parametrize("is_environment", [True, False])
def test_wheels_lie_where_pip_is_told_to_find_links(tmp_path, monkeypatch, is_environment):
    """Builds of PyTorch for the CPU alone are often given this way."""
    there = make_wheel(tmp_path / "links", "torch", version="2.13.0").parent
    environ = of_pip(tmp_path, monkeypatch, "" if is_environment else f"[global]\nfind-links = {there}\n")
    more = {"PIP_FIND_LINKS": str(there)} if is_environment else {}
    (offer,) = resolve(X86, ["torch==2.13.0"], None, environ | more)["torch"]
    assert (offer.version, offer.filename, offer.is_local) == ("2.13.0", "torch-2.13.0-py3-none-any.whl", True)
    with pytest.raises(BadInput):
        resolve(X86, ["torch==2.12.0"], None, environ | more)


def test_pip_may_name_several_places_and_a_folder_of_the_command_goes_with_them(tmp_path, monkeypatch):
    one, two = (make_wheel(tmp_path / name, name).parent for name in "ab")
    environ = of_pip(tmp_path, monkeypatch, f"[global]\nfind-links =\n    {one}\n    {two}\n")
    assert set(resolve(X86, ["a", "b"], None, environ)) == {"a", "b"}
    local = make_wheel(tmp_path / "w", "c").parent
    assert set(resolve(X86, ["a", "b", "c"], local, environ)) == {"a", "b", "c"}


def test_a_folder_of_the_command_that_suffices_is_asked_without_pips_links(tmp_path, monkeypatch):
    newer = make_wheel(tmp_path / "links", "a", version="2.0").parent
    environ = of_pip(tmp_path, monkeypatch, f"[global]\nfind-links = {newer}\n")
    local = make_wheel(tmp_path / "w", "a").parent
    assert resolve(X86, ["a"], local, environ)["a"][0].version == "1.0"
    assert resolve(X86, ["a>1"], newer, environ)["a"][0].version == "2.0"
    assert nearest_versions(X86, "a", "1.5", local, environ) == ("1.0", "2.0")


def test_pips_links_are_left_alone_where_uv_is_configured(tmp_path, monkeypatch):
    there = f"[global]\nfind-links = {tmp_path / 'a'}\n"
    environ = of_pip(tmp_path, monkeypatch, there)
    assert _environment(environ)["UV_FIND_LINKS"] == str(tmp_path / "a")
    assert _environment({**environ, "PIP_FIND_LINKS": "b  c"})["UV_FIND_LINKS"] == "b,c", "pip itself goes by that too"
    assert _environment({**environ, "UV_FIND_LINKS": "d"})["UV_FIND_LINKS"] == "d"
    assert "UV_FIND_LINKS" not in _environment({**environ, "UV_NO_INDEX": "1"})


@pytest.mark.parametrize("text", ["", "find-links = x", "[install]\nfind-links = x\n", "[global]\nfind-links =\n"])
def test_a_pip_conf_without_links_for_all_its_commands_gives_none(tmp_path, monkeypatch, text):
    assert "UV_FIND_LINKS" not in _environment(of_pip(tmp_path, monkeypatch, text))


def wheels(tmp_path, local, **options) -> Wheels:
    return Wheels(
        tmp_path / "cache", options.pop("report", Quiet()), {**NO_INDEX, "PATH": "/usr/bin"}, local=local, **options
    )


def test_local_wheels_suffice_without_an_index_and_markers_are_the_targets(tmp_path):
    local = tmp_path / "w"
    only_arm = b"Metadata-Version: 2.1\nName: a\nVersion: 1.0\nRequires-Dist: b; platform_machine == 'aarch64'\n"
    make_wheel(local, "a")
    with zipfile.ZipFile(local / "a-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("a-1.0.dist-info/METADATA", only_arm)
        archive.writestr("a-1.0.dist-info/RECORD", "")
        archive.writestr("a-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    make_wheel(local, "b")
    names = {
        traits.target.arch: [w.name for w in wheels(tmp_path, local).obtain(traits, ["a"], None)[0].wheels]
        for traits in (X86, ARM)
    }
    assert names == {"x86": ["a"], "arm": ["a", "b"]}


def test_a_locked_wheel_in_the_cache_needs_neither_index_nor_folder(tmp_path):
    locked, found = wheels(tmp_path, make_wheel(tmp_path / "w", "a").parent).obtain(X86, ["a"], None)
    assert wheels(tmp_path, None, frozen=True).obtain(X86, ["a"], locked) == (locked, found)


def test_another_local_wheel_wins_over_the_lock_and_locked_refuses_it(tmp_path):
    local = make_wheel(tmp_path / "w", "a").parent
    locked, _ = wheels(tmp_path, local).obtain(X86, ["a"], None)
    make_wheel(local, "a", files={"a.py": b"changed"})
    report = Quiet()
    with pytest.raises(BadInput, match=r"--locked: .*--wheels has another 'a'"):
        wheels(tmp_path, local, frozen=True).obtain(X86, ["a"], locked)
    anew, _ = wheels(tmp_path, local, report=report).obtain(X86, ["a"], locked)
    assert anew != locked
    assert "wheel 'a' 1.0 is locked anew: its digest changed from sha256:" in report.notices[0]


def test_locked_refuses_other_requirements_and_a_missing_target(tmp_path):
    local = make_wheel(tmp_path / "w", "a").parent
    locked, _ = wheels(tmp_path, local).obtain(X86, ["a"], None)
    with pytest.raises(BadInput, match="made for other requirements"):
        wheels(tmp_path, local, frozen=True).obtain(X86, ["a>=1"], locked)
    with pytest.raises(BadInput, match="no wheels for this target"):
        wheels(tmp_path, local, frozen=True).obtain(X86, ["a"], None)


def test_what_cannot_be_resolved_is_one_line_with_uvs_reason(tmp_path):
    with pytest.raises(BadInput, match=r"the wheels for x86/none cannot be resolved: .*a") as caught:
        wheels(tmp_path, make_wheel(tmp_path / "w", "b").parent).obtain(X86, ["a>=1"], None)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"--wheels '.*nothing' is not a folder"):
        wheels(tmp_path, tmp_path / "nothing")


def test_the_room_imports_without_uv():
    """An agent's machine may import nothing of it, but a build with everything cached asks uv nothing either."""
    code = "import sys; sys.modules['uv'] = None; import buildx"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_index_that_does_not_answer_is_no_missing_wheel_and_says_what_helps():
    environ = {
        **{"UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0", "PATH": os.environ["PATH"]},
        "UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple",
    }
    with pytest.raises(Unreachable, match=r"^the package index does not answer, so .* 127\.0\.0\.1: .*--wheels DIR$"):
        resolve(X86, ["numpy"], None, environ)
    with pytest.raises(Unreachable):
        nearest_versions(X86, "numpy", "2.0", None, environ)

"""What holds for the house as a whole: its commands, its docs, what a device carries."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edge_agent.commands import program as agent_program
from edgepack import launch
from edgepack.commands import program

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]


def _verbs(group: click.Group) -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    return [(name, command) for name in group.list_commands(context) if (command := group.get_command(context, name))]


@pytest.mark.parametrize(
    "name, command",
    _verbs(program) + _verbs(agent_program),
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_every_command_has_help_with_a_worked_example(name: str, command: click.Command) -> None:
    shown = CliRunner().invoke(command, ["--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.output, f"{name} --help shows no example"


def test_every_command_named_in_the_docs_exists() -> None:
    known = {
        "edgepack": {name for name, _ in _verbs(program)},
        "edgepack-agent": {name for name, _ in _verbs(agent_program)},
    }
    for page in DOCS:
        for name, verb in re.findall(r"(?m)^(edgepack(?:-agent)?) ([a-z]+)", page.read_text()):
            assert verb in known[name], f"{page.name} names '{name} {verb}'"


def test_every_relative_link_in_the_docs_leads_somewhere() -> None:
    for page in DOCS:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_all_rooms_are_in_the_wheel() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    packed = set(re.findall(r'^(\w+) = "edgepack/_app/\1"$', text, re.MULTILINE))
    rooms = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {
        "edgepack",
        "examples",
        "bench",
        "tests",
    }
    assert packed == rooms


def test_the_environment_holds_what_the_lock_file_of_its_python_pins() -> None:
    """A pin that this Python cannot install leaves an older environment as it was, and stops every fresh clone."""
    lock = CHECKOUT / "locks" / f"py{sys.version_info[0]}{sys.version_info[1]}.txt"
    pins = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", lock.read_text()))
    assert pins and {name: version(name) for name in pins} == pins


def test_the_public_face_imports_no_room() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, edgepack; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    ).stdout.split()
    assert not {"arch", "oci", "columns", "bundle", "click", "numpy"} & set(loaded)


@pytest.mark.parametrize("room", ["arch", "durable", "oci", "columns", "bundle", "fleet"])
def test_no_room_of_the_lower_floors_loads_pyarrow_when_imported(room: str) -> None:
    code = f"import sys, {room}; assert 'pyarrow' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)


@pytest.mark.parametrize(
    "arguments, code",
    [(["no-such-verb"], 2), (["check"], 2), (["check", "no-such-file.onnx"], 2), (["--version"], 0)],
)
def test_a_program_ends_with_the_code_that_says_whose_fault_it_is(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.run(lambda: program, "edgepack", arguments) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said and len(said.splitlines()) <= 1


def test_a_fault_of_ours_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError("planted\nfault")

    assert launch.run(lambda: broken, "edgepack", []) == 1
    assert (
        capsys.readouterr().err
        == "edgepack: fault of ours: ZeroDivisionError: planted fault (EDGEPACK_DEBUG=1 shows where)\n"
    )


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert launch.run(lambda: interrupted, "edgepack", []) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_in_the_middle_of_an_import_ends_with_130_too(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> click.Command:
        raise KeyboardInterrupt

    assert launch.run(load, "edgepack", []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_every_module_opens_with_what_it_is_for() -> None:
    for room in [path.parent for path in CHECKOUT.glob("*/__init__.py") if path.parent.name != "tests"]:
        for module in room.rglob("*.py"):
            if "__pycache__" not in module.parts and module.stat().st_size:
                assert module.read_text().lstrip().startswith(('"""', "#!")), (
                    f"{module.relative_to(CHECKOUT)} has no docstring"
                )


def test_rooms_import_by_their_short_names() -> None:
    for room in (
        "arch",
        "durable",
        "columns",
        "oci",
        "bundle",
        "fleet",
        "runtimes",
        "buildx",
        "packager",
        "edge_agent",
        "hub",
    ):
        assert Path(str(import_module(room).__file__)).parent == CHECKOUT / room

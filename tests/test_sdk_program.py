"""The program that the SDK asks: what it says while it works is passed on, and its last line where it fails."""

from __future__ import annotations

import sys

import pytest

from edgepack import _program
from edgepack.errors import BadInput, RuntimeFailed

CODE = "import sys; sys.stdout.write('x' * 200_000); print('one', file=sys.stderr); print({last!r}, file=sys.stderr)"


def saying(monkeypatch: pytest.MonkeyPatch, last: str, code: int) -> None:
    program = f"{CODE.format(last=last)}; sys.exit({code})"
    monkeypatch.setattr(_program, "command", lambda: [sys.executable, "-I", "-c", program])


def test_progress_and_warnings_are_passed_on_and_all_that_is_printed_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saying(monkeypatch, "edgepack: warning: two", 0)
    assert _program.asked("introspect") == "x" * 200_000
    assert capsys.readouterr().err == "one\nedgepack: warning: two\n"


@pytest.mark.parametrize("code, family", [(2, BadInput), (1, RuntimeFailed)])
def test_the_last_line_is_the_reason(
    code: int, family: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saying(monkeypatch, "edgepack: no such file", code)
    with pytest.raises(family, match=r"^no such file$"):
        _program.asked("introspect")
    assert capsys.readouterr().err == "one\n"

"""The entry points of our own programs, and how they end: one line for an error, and an exit code.

In a wheel the rooms lie under `edgepack/_app/`: `import arch` in a user's process still finds the user's `arch`.
Only here is that folder put first on the path: of this process and of the children it starts.
"""

from __future__ import annotations

# what is imported here is imported before Ctrl-C can be answered with one line: as little as can be
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    import click

INTERRUPTED = 130


def edgepack() -> None:
    """Run the `edgepack` program."""
    _end_with(run(_edgepack_program, "edgepack"))


def agent() -> None:
    """Run the `edgepack-agent` program."""
    _end_with(run(_agent_program, "edgepack-agent"))


def _edgepack_program() -> click.Command:
    enter_house()
    from edgepack.commands import program

    return program


def _agent_program() -> click.Command:
    enter_house()
    from edge_agent.commands import program

    return program


def _end_with(code: int) -> NoReturn:
    """Leave the process. Interrupted, it leaves at once: threads and engines that were half made must not hold it.
    Done, it is not interrupted any more: in its last moments Python would print a traceback, or die by the signal.
    """
    if code == INTERRUPTED:
        import contextlib

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def enter_house() -> None:
    """Put the rooms first on the path of this process and of its children, and see that none of them phones home."""
    # read when the library is loaded: it would keep an id of this machine and a queue of events in the user's cache,
    # and send both to its maker (onnxruntime 1.31, core/platform/telemetry_1ds.cc)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from pathlib import Path

    rooms = Path(__file__).resolve().parent / "_app"
    if not rooms.is_dir():
        rooms = rooms.parent.parent
    if sys.path[:1] != [str(rooms)]:
        sys.path.insert(0, str(rooms))
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(rooms)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(rooms), *inherited])


def run(program: Callable[[], click.Command], name: str, arguments: list[str] | None = None) -> int:
    """Load a program and run it to its end. Returns 0 done, 1 our failure, 2 the user's input, 130 interrupted.

    A fault of our own is one line too; EDGEPACK_DEBUG=1 adds the traceback for a report.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: _hear(lost, hook)
    heard: list[int] = []
    try:
        _listen(heard)
        _load_uninterrupted()
        return _run(program, name, arguments, heard)
    except KeyboardInterrupt:  # also in the middle of an import
        return _end("interrupted", INTERRUPTED)
    finally:
        sys.unraisablehook = hook
        _listen(None)


def _listen(heard: list[int] | None) -> None:
    """Note each Ctrl-C before it is raised: an import may make another error of it. None undoes that."""
    import signal
    from contextlib import suppress

    def note(number: int, frame: object) -> None:
        assert heard is not None  # noqa: S101 - it is set for as long as this listens
        heard.append(number)
        raise KeyboardInterrupt

    with suppress(ValueError):  # not in the main thread: no signal is heard there
        if heard is None:
            if getattr(signal.getsignal(signal.SIGINT), "__qualname__", "") == note.__qualname__:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, note)


def _hear(lost: sys.UnraisableHookArgs, otherwise: Callable[[sys.UnraisableHookArgs], object]) -> None:
    """Have Ctrl-C heard again that came in a callback whose errors Python ignores: every import has some."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        otherwise(lost)
        return
    import _thread
    import signal
    import time

    here = _thread.get_ident()

    def again() -> None:
        time.sleep(0.02)  # until we are out of here
        signal.pthread_kill(here, signal.SIGINT)

    _thread.start_new_thread(again, ())


def _load_uninterrupted() -> None:
    """Import what dies when Ctrl-C comes in the middle of its import (orjson 3.13: a segmentation fault); Ctrl-C is
    heard right after.
    """
    import signal
    from importlib import import_module

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        import_module("orjson")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(program: Callable[[], click.Command], name: str, arguments: list[str] | None, heard: list[int]) -> int:
    import click as cli

    from edgepack.errors import EdgepackError

    try:
        result = program().main(arguments, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except cli.exceptions.Abort:
        return _end("interrupted", INTERRUPTED)
    except cli.exceptions.Exit as end:
        return end.exit_code
    except cli.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except cli.ClickException as error:
        where = f" (see: {error.ctx.command_path} --help)" if isinstance(error, cli.UsageError) and error.ctx else ""
        return _end(f"{name}: {error.format_message()}{where}", 2)
    except EdgepackError as error:
        return _end(f"{name}: {error}", error.exit_code)
    except BrokenPipeError:
        # whoever read our output went away: that is how `| head` ends, not a failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the roof: no traceback may reach a user
        if heard:
            return _end("interrupted", INTERRUPTED)
        if os.environ.get("EDGEPACK_DEBUG"):
            import traceback

            traceback.print_exc()
        return _end(f"{name}: fault of ours: {type(error).__name__}: {error} (EDGEPACK_DEBUG=1 shows where)", 1)


def _end(line: str, code: int) -> int:
    plain = "".join(
        each if each.isprintable() else "?" for each in " ".join(line.split())
    )  # others' words may be in it
    print(plain, file=sys.stderr)  # noqa: T201 - the one place where an error is printed
    return code

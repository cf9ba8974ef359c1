"""The entry point of ``raregrade``: runs a command and turns what happened into an exit code.

The commands themselves live in ``raregrade.cli.app`` and the modules it mounts. Only the standard
library is imported here at module level, so that an interrupt during start-up is answered as well.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from raregrade.errors import InterruptedRunError, RaregradeError, UserError

# What the operating system refuses at a path the user gave, or on a disk that has no room.
_PATH_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main() -> None:
    """Run ``raregrade`` with the arguments of this process, and exit.

    Exit codes: 0 done; 2 the input is wrong; 3 the gate refused a promotion; 75 interrupted, the same
    command resumes; 1 anything else, with a traceback. ``RAREGRADE_DEBUG=1`` shows every traceback.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors that nobody raised on purpose propagate."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe has gone (`raregrade models | head -1`). Python would complain once more
        # when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as err:
        return _refuse("interrupted; run the same command again to resume", InterruptedRunError.exit_code, err)
    except RaregradeError as err:
        return _refuse(str(err), err.exit_code, err)
    except OSError as err:
        if err.errno not in _PATH_ERRORS | _NO_ROOM:
            raise
        room = "Free some space, or give a path on another disk, and run again."
        advice = room if err.errno in _NO_ROOM else "Give another path, or change who may write there."
        where = f"{err.filename}: " if err.filename is not None else ""
        return _refuse(f"{where}{err.strerror}. {advice}", UserError.exit_code, err)


def _dispatch(arguments: Sequence[str]) -> int:
    """Parse and call. Not ``app()``: that would answer interrupts and closed pipes with codes of its own."""
    import typer

    from raregrade.cli.app import app
    from raregrade.cli.project_folder import find_project_first

    # Typer carries its own copy of click since 0.24 and the original before; this is the class in both.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    command = typer.main.get_command(app)
    if "_RAREGRADE_COMPLETE" in os.environ:  # the shell asks what may come next
        command.main(prog_name="raregrade")
    find_project_first(command)
    try:
        with command.make_context("raregrade", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as err:
        return err.exit_code
    except usage_error as err:
        raise UserError(_usage_message(err)) from err
    return 0


def _usage_message(error: Any) -> str:
    message = error.format_message()
    command = error.ctx.command_path if error.ctx is not None else "raregrade"
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{command} --help`."


def _refuse(message: str, code: int, error: BaseException) -> int:
    """Print one message, without traceback unless asked for."""
    if os.environ.get("RAREGRADE_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    print(f"{_in_red('raregrade:')} {message}", file=sys.stderr)
    return code


def _in_red(text: str) -> str:
    """``text`` in red on a terminal with colours; NO_COLOR turns them off."""
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[31m{text}\033[0m" if colours else text


def _interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise KeyboardInterrupt

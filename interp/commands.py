"""What the command lines share: one clear line for bad input, and exit codes (0 done, 2 bad input, 130 interrupted)."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import typer

from interp.errors import InputError

BAD_INPUT, INTERRUPTED = 2, 130

# Two busy-waiting thread pools on few cores slow each other down 8x; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None, resumes: bool = True) -> int:
    """Run a command line; returns the exit code. What is neither bad input nor an interruption is raised.

    Args:
        name: the module that `python -m` names.
        arguments: None: those of the process.
        resumes: whether the same command continues where an interrupted one stopped, which is then said.
    """
    told = list(arguments) if arguments is not None else None
    try:
        result = app(args=told, prog_name=f"python -m {name}", standalone_mode=False)
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        print(f"{name}: {' '.join(message().split())} (see --help)", file=sys.stderr)  # a usage error
        return BAD_INPUT
    if result == INTERRUPTED:  # typer may have caught it first
        more = "; the same command continues where it stopped" if resumes else ""
        print(f"{name}: interrupted{more}", file=sys.stderr)
    return result if isinstance(result, int) else 0


def run_as_process(run: Callable[[], int]) -> NoReturn:
    """Run a command line that is all this process is for, and end with its exit code.

    Imports leave a million objects that stay: looking through them again and again for garbage, and taking them apart
    at the end, would cost about two seconds.
    """
    gc.set_threshold(100_000, 50, 100)
    code = 1
    try:
        code = run()
    except Exception:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # temporary files, the browser that draws
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a reader that went away
                stream.flush()
        os._exit(code)

"""What the command lines share: one clear line for bad input, and exit codes (0 done, 2 bad input, 130 interrupted)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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

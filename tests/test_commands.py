"""What all command lines share: one line for bad input, and the exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from interp.commands import run_app
from interp.errors import InputError


def app_that(does) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command()
    def main(number: int = 0) -> None:
        does(number)

    return app


def fails(error: BaseException):
    def does(_: int) -> None:
        raise error

    return does


def test_a_command_that_ends_well_returns_zero(capsys):
    seen = []
    assert run_app(app_that(seen.append), "interp.x", ["--number", "3"]) == 0
    assert seen == [3]
    assert capsys.readouterr().err == ""


def test_bad_input_is_one_line_with_the_name_of_the_command(capsys):
    assert run_app(app_that(fails(InputError("expected a cat, got a dog"))), "interp.x", []) == 2
    assert capsys.readouterr().err == "interp.x: expected a cat, got a dog\n"


def test_a_usage_error_is_one_line_too(capsys):
    assert run_app(app_that(print), "interp.x", ["--number", "few"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("interp.x: ")
    assert told.count("\n") == 1
    assert "--help" in told


@pytest.mark.parametrize(
    ("resumes", "said"), [(True, "continues where it stopped"), (False, "interp.x: interrupted\n")]
)
def test_an_interruption_is_told_as_what_it_is(capsys, resumes, said):
    assert run_app(app_that(fails(KeyboardInterrupt())), "interp.x", [], resumes) == 130
    assert said in capsys.readouterr().err


def test_an_exit_code_of_the_command_is_kept_and_a_bug_is_not_hidden():
    assert run_app(app_that(fails(typer.Exit(7))), "interp.x", []) == 7
    with pytest.raises(ZeroDivisionError):
        run_app(app_that(fails(ZeroDivisionError())), "interp.x", [])


@pytest.mark.parametrize(("ends", "code", "err"), [("return 7", 7, ""), ("raise ValueError('a bug')", 1, "a bug")])
def test_a_process_ends_with_its_code_its_output_and_its_clean_up(ends, code, err):
    lines = [
        "import atexit",
        "from interp.commands import run_as_process",
        "def run():",
        "    print('said', end='')",
        "    atexit.register(print, ', cleaned up', end='')",
        f"    {ends}",
        "run_as_process(run)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "said, cleaned up")
    assert ("Traceback" in done.stderr, err in done.stderr) == (bool(err), True)

"""`python -m interp.judges agree RESPONSES.jsonl --judge A --judge B`: do the judges agree, and with a person?

RESPONSES are what a comparison writes (`generations.jsonl`), or `python -m interp.evaluation`. `agree --sample FILE`
writes responses for a person to label; `check FILE.csv` reads the labels back.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands import run_app
from interp.errors import InputError
from interp.options import JUDGES, BaseUrl, KeyEnv, MaxRequests, SafeLabel, Seed
from interp.records import JudgeAgreement, Response, from_dict, to_dict
from interp.runs import write_json

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
HELP = {"help_option_names": ["-h", "--help"]}
On = Annotated[str, typer.Option(help="What to agree on: unsafe (or not), or label (refusal, unsafe, other).")]
Out = Annotated[Path | None, typer.Option(help="JSON file for the numbers.")]


@app.command(context_settings=HELP)
def agree(
    responses: Annotated[Path, typer.Argument(help="JSON lines of responses.")],
    judge: Annotated[list[str], typer.Option(help=f"Twice or more: {JUDGES}.")],
    data: Annotated[str, typer.Option(help="Benchmark that the judge 'demo' learns from.")] = "demo",
    judge_safe_label: SafeLabel = None,
    base_url: BaseUrl = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    max_requests: MaxRequests = None,
    on: On = "unsafe",
    sample: Annotated[Path | None, typer.Option(help="CSV to write for a person to label.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Rows of the sample.")] = 100,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Cohen's kappa and raw agreement of each pair of judges, over instances."""
    from interp import judges, safeedit
    from interp.endpoint import EndpointSettings
    from interp.judges.handcheck import write_sample
    from interp.judges.panel import Panel, agreements, units_of
    from interp.safeedit.rows import numbered_lines

    if on not in ("unsafe", "label"):
        raise InputError(f"--on: expected unsafe or label, got {on!r}")
    answers = [_response(value, f"{responses}, line {number}") for number, value in numbered_lines(responses)]
    if not answers:
        raise InputError(f"{responses} holds no responses")
    benchmark = safeedit.load(data) if "demo" in judge else safeedit.Benchmark("none")
    endpoint = EndpointSettings.given(base_url, key_env, max_requests)
    panel = Panel(judges.load_several(judge, benchmark, safe_label=judge_safe_label, endpoint=endpoint))
    verdicts = panel.verdicts([r.text for r in answers], [r.prompt for r in answers])
    _show(agreements(verdicts, on, units=units_of(answers), seed=seed), out)
    if sample is not None:
        apart = write_sample(sample, answers, verdicts, min(n, len(answers)), seed)
        typer.echo(f"{sample}: fill in 'label' (refusal, unsafe, other); the judges disagree on the first {apart} rows")


@app.command(context_settings=HELP)
def check(
    sample: Annotated[Path, typer.Argument(help="The CSV with a person's labels.")],
    on: On = "unsafe",
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Each judge's agreement with the person who labelled a sample."""
    from interp.judges.handcheck import check_by_hand

    _show(check_by_hand(sample, on, seed), out)


def _response(value: Any, where: str) -> Response:
    from interp.safeedit.schema import check_text

    try:
        answer = from_dict(Response, value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    for name, text in (("prompt", answer.prompt), ("text", answer.text)):
        check_text(text, f"{where}, {name!r}")
    return answer


def _show(found: list[JudgeAgreement], out: Path | None) -> None:
    from interp.judges.panel import agreement_lines

    for agreement in found:
        typer.echo("\n".join(agreement_lines(agreement)))
    if out is not None:
        write_json(out, [to_dict(a) for a in found])


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.judges", arguments, resumes=False)


if __name__ == "__main__":
    sys.exit(run())

"""`python -m interp.safeedit build | convert`: make a benchmark in SafeEdit's layout, or bring in other prompt sets.

This file is the command line; what it runs is `interp.building.pipeline` and `interp.safeedit.adapters`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands import run_app
from interp.errors import InputError
from interp.records import CATEGORIES

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=HELP)


@app.callback()
def main() -> None:
    """Build a benchmark in SafeEdit's layout, or convert other people's prompt sets to it."""


@app.command("build", context_settings=HELP)
def build_command(
    out: Annotated[Path, typer.Option(help="Folder of the benchmark; the same command continues a killed build.")],
    questions: Annotated[
        str, typer.Option(help="demo, generate (by the question model), or a CSV/JSON file: category, question.")
    ] = "demo",
    attacks: Annotated[
        str, typer.Option(help="demo, or a CSV/JSON file: name, type, template with a placeholder such as {q}.")
    ] = "demo",
    knowledge: Annotated[
        str, typer.Option(help="demo, or a CSV/JSON file: prompt, answer (or AlpacaEval's instruction, output).")
    ] = "demo",
    categories: Annotated[str, typer.Option(help="Some of the nine, separated by commas [default: all].")] = "",
    descriptions: Annotated[
        Path | None, typer.Option(help="For generated questions: category, description [default: the paper's].")
    ] = None,
    questions_per_category: Annotated[int, typer.Option(min=6, help="Questions to generate.")] = 65,
    model: Annotated[
        str, typer.Option(help="Permissive model for unsafe responses: demo, a folder, a hub id, or the endpoint's.")
    ] = "demo",
    safe_model: Annotated[str, typer.Option(help="Aligned model for safe responses [default: --model].")] = "",
    question_model: Annotated[str, typer.Option(help="Model that writes questions [default: --model].")] = "",
    instruction: Annotated[str, typer.Option(help="Instruction for safe responses [default: decline and why].")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens (the paper: 600).")] = 64,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts in a batch of a local model [default: 96 on the demo, else 8].")
    ] = None,
    base_url: Annotated[
        str,
        typer.Option(
            help="OpenAI-compatible endpoint, up to /chat/completions. Models are then its own; local:PATH names a "
            "local one."
        ),
    ] = "",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float, typer.Option(help="Of the endpoint's models.")] = 0.0,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 60.0,
    tries: Annotated[int, typer.Option(min=1, help="Requests for one answer, the first included.")] = 5,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 4,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Budget of the whole build, in requests.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Budget of the whole build, in tokens.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of cached answers [default: $INTERP_CACHE].")] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="auto (demo for the demo, else safeedit), demo, safeedit, refusal, guard:SOURCE, endpoint:MODEL, or a "
            "classifier."
        ),
    ] = "auto",
    judge_safe_label: Annotated[
        str, typer.Option(help="The label of the classifier that means safe, where its names do not say.")
    ] = "",
    attempts: Annotated[
        int, typer.Option(min=1, help="Attacks tried for an unsafe response; 1 leaves all mismatches to people.")
    ] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many instances of each split.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    review: Annotated[Path | None, typer.Option(help="A review.csv that a person edited.")] = None,
) -> None:
    """Build train, val, test and test_ALL from questions, attacks and generators (the paper's five steps).

    Without options: the demo world and model. What the judge rejects goes to review.csv; fill in `correction` or
    `accept`, and give the file back with --review. Exit code 2 means bad input.
    """
    from interp.building.pipeline import build
    from interp.building.settings import BuildSettings
    from interp.endpoint import EndpointSettings
    from interp.pipeline.progress import Stages

    asking: dict[str, Any] = {
        "key_env": key_env,
        "temperature": temperature,
        "timeout": timeout,
        "tries": tries,
        "concurrency": concurrency,
        "max_requests": max_requests,
        "max_tokens": max_tokens,
        "cache": cache,
    }
    for option, value in asking.items():
        if not base_url and value != getattr(EndpointSettings, option):  # its default
            raise InputError(f"--{option.replace('_', '-')}: expected --base-url beside it, got none")
    endpoint = EndpointSettings(base_url, **asking) if base_url else None
    settings = BuildSettings(
        out=out,
        questions=questions,
        attacks=attacks,
        knowledge=knowledge,
        categories=tuple(c.strip().lower() for c in categories.split(",")) if categories else CATEGORIES,
        descriptions=descriptions,
        questions_per_category=questions_per_category,
        model=model,
        safe_model=safe_model,
        question_model=question_model,
        instruction=instruction,
        endpoint=endpoint,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        judge=judge,
        safe_label=judge_safe_label,
        attempts=attempts,
        limit=limit,
        seed=seed,
        review=review,
    )
    with Stages() as stages:
        card = build(settings, stages)
    for split, n in card["instances"].items():
        typer.echo(f"{split}: {n['built']} of {n['planned']} instances")
    told = card["review"]
    typer.echo(
        f"{told['rejected']} first answers rejected, {told['corrections']} corrected by people: see {out}/CARD.md"
    )


@app.command("convert", context_settings=HELP)
def convert_command(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or JSON lines: AdvBench, HarmBench, JailbreakBench ...")],
    out: Annotated[Path, typer.Option(help="The JSON file to write; for instances, name it SafeEdit_test.json.")],
    layout: Annotated[
        str, typer.Option(help="auto (by the columns), advbench, harmbench, jailbreakbench, xstest or prompts.")
    ] = "auto",
    to: Annotated[
        str, typer.Option(help="prompts (all, with labels), questions (for build), or instances (without attacks).")
    ] = "prompts",
    category: Annotated[str, typer.Option(help="SafeEdit's category where the file's own says nothing.")] = "",
    benign: Annotated[bool, typer.Option("--benign", help="Every prompt is harmless.")] = False,
) -> None:
    """Convert a prompt set to evaluation prompts, to questions for `build`, or to instances in SafeEdit's layout."""
    from interp.runs import write_json
    from interp.safeedit import adapters, save

    if to not in ("prompts", "questions", "instances"):
        raise InputError(f"--to: expected prompts, questions or instances, got {to!r}")
    if out.resolve() == file.resolve():
        raise InputError(f"--out: expected another file than the one to convert, got {out}")
    prompts = adapters.read_prompts(file, layout, category=category.strip().lower(), all_benign=benign)
    if to == "instances":
        made = adapters.to_instances(prompts)
        save(made, out)
    else:
        made = (adapters.to_prompts if to == "prompts" else adapters.to_questions)(prompts)
        write_json(out, made)
    left = f", {len(prompts) - len(made)} harmless prompts left out" if len(made) < len(prompts) else ""
    typer.echo(f"{out}: {len(made)} {to} from {prompts[0].source}{left}")


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.safeedit", arguments)


if __name__ == "__main__":
    sys.exit(run())

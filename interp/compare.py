"""`python -m interp.compare sft dpo dinm`: what each method did to a model's behaviour, and where it did it.

This file is the command line; the pipeline it runs, in order, is `interp.pipeline.compare`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from interp.commands import run_app, run_as_process
from interp.options import Shared, takes_shared

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

METHODS_HELP = (
    "What to compare with the vanilla model: sft, dpo, dinm, or NAME=SOURCE for a model made elsewhere "
    "(a folder, a hub id, a PEFT adapter, a .pt state dict), e.g. sft=path/to/sft."
)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
@takes_shared
def main(
    methods: Annotated[list[str], typer.Argument(help=METHODS_HELP, show_default=False)],
    shared: Shared,
    instances: Annotated[int, typer.Option(min=2, help="Test instances, spread over categories and attacks.")] = 27,
    layer: Annotated[
        int | None, typer.Option(help="Toxic layer, 0-based [default: the one located most often on vanilla].")
    ] = None,
    per_instance: Annotated[
        bool, typer.Option("--locate-per-instance", help="Edit each instance at its own located layer.")
    ] = False,
    convention: Annotated[
        str, typer.Option(help="How layers are located: paper, paper-after-norm or reference.")
    ] = "paper",
    suffix: Annotated[str, typer.Option(help="Suffix system prompt: S1, S2, none, or a text.")] = "S1",
    dpo_from: Annotated[str, typer.Option(help="What DPO starts from: sft (the paper) or vanilla.")] = "sft",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a method's setting, e.g. --set dinm.lr=1e-4.")
    ] = None,
    probe_data: Annotated[
        str, typer.Option(help="Texts of the toxic probe: demo, a Jigsaw CSV (comment_text, toxic), or a hub id.")
    ] = "demo",
    refuse_token: Annotated[
        list[str] | None,
        typer.Option(help="A word that refusals begin with (refusal margin); repeatable [default: read off data]."),
    ] = None,
    comply_token: Annotated[
        list[str] | None, typer.Option(help="The same for answers that comply; repeatable [default: read off data].")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw figures and the HTML report.")] = True,
    keep_edits: Annotated[bool, typer.Option(help="Keep the weight edits in the run folder.")] = True,
    deep: Annotated[
        bool, typer.Option("--deep", help="Add the mechanism laboratory: every analysis, its figures and its limits.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print forwards, tokens, peak memory and disk, and what is there already; run nothing."
        ),
    ] = False,
) -> None:
    """Compare detoxified models: was the toxicity erased from the toxic region, or bypassed?

    Without options: the embedded demo world and model. SFT and DPO are trained (and cached), DINM edits once per test
    instance. A killed run continues where it stopped when the same command is given again. Exit code 2 means bad input.
    """
    from interp.pipeline import Settings

    settings = Settings(
        methods=tuple(methods),
        instances=instances,
        layer=layer,
        per_instance=per_instance,
        convention=convention,
        suffix=suffix,
        dpo_from=dpo_from,
        overrides=tuple(set_ or ()),
        probe_data=probe_data,
        refuse_token=tuple(refuse_token or ()),
        comply_token=tuple(comply_token or ()),
        figures=figures,
        keep_edits=keep_edits,
        deep=deep,
        **vars(shared),
    )
    if dry_run:
        from interp.costs.dry_run import dry_run as plan

        print("\n".join(plan(settings)))
    else:
        from interp.pipeline import compare

        compare(settings)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.compare", arguments)


if __name__ == "__main__":
    run_as_process(run)

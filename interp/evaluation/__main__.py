"""`python -m interp.evaluation MODEL --kqa ... --csum ... --xstest ...`: general performance of one model.

Knowledge (TriviaQA), summaries (XSum), over-refusal (XSTest) and, against a vanilla model, the KL at answer tokens.
Written are the answers (`responses.jsonl`) and the scores (`general.json`), with what was measured on what. The same
command measures again; another one is refused in that folder. Defence is measured by `interp.compare`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from interp.commands import run_app
from interp.errors import InputError
from interp.options import (
    JUDGES,
    BaseUrl,
    Csum,
    KeyEnv,
    Kqa,
    MaxNewTokens,
    MaxRequests,
    SafeLabel,
    Seed,
    Xstest,
)
from interp.records import Estimate, GeneralPerformance, to_dict

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    model: Annotated[str, typer.Argument(help="demo, a hub id, a folder, or an adapter or state dict (with --base).")],
    out: Annotated[Path, typer.Option(help="Folder for responses.jsonl and general.json.")],
    base: Annotated[str | None, typer.Option(help="Model under an adapter or a state dict.")] = None,
    edit: Annotated[Path | None, typer.Option(help="A saved weight edit (edit.safetensors), put into MODEL.")] = None,
    engine: Annotated[
        str, typer.Option(help="Who answers: own, or vllm (extra vllm) from a checkpoint in OUT/checkpoint.")
    ] = "own",
    kqa: Kqa = None,
    csum: Csum = None,
    xstest: Xstest = None,
    vanilla: Annotated[str | None, typer.Option(help="Measure KL(vanilla || MODEL) on its own answers.")] = None,
    judge: Annotated[str, typer.Option(help=f"Says what refuses: {JUDGES}.")] = "refusal",
    judge_safe_label: SafeLabel = None,
    base_url: BaseUrl = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    max_requests: MaxRequests = None,
    suffix: Annotated[str, typer.Option(help="Suffix system prompt S (a text), asked with and without.")] = "",
    n: Annotated[int, typer.Option(min=1, help="At most so many items of each kind.")] = 500,
    max_new_tokens: MaxNewTokens = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts in a batch.")] = 8,
    seed: Seed = 0,
    tasks: Annotated[str, typer.Option(help="Tasks of lm-evaluation-harness, with commas (extra lm-eval).")] = "",
    tasks_from: Annotated[Path | None, typer.Option(help="Folder with further tasks of the harness (YAML).")] = None,
) -> None:
    """Ask one model harmless things, and score it. Exit code 2 means bad input."""
    import json

    import torch

    from interp import judges
    from interp.edits import WeightEdit
    from interp.endpoint import EndpointSettings
    from interp.evaluation import (
        answer_kl,
        find_tasks,
        general,
        own_answers,
        plan_general,
        respond,
        run_harness,
        with_files,
    )
    from interp.evaluation import vllm as served
    from interp.models import HookedModel
    from interp.runs import Run, fingerprint, versions, write_json, write_text
    from interp.safeedit import Benchmark

    if not (kqa or csum or xstest or tasks):
        raise InputError("expected something to measure: --kqa, --csum, --xstest or --tasks")
    if vanilla and not (kqa or xstest):
        raise InputError("--vanilla compares answers to --kqa or --xstest; give one of them")
    if tasks_from and not tasks:
        raise InputError("--tasks-from holds definitions of --tasks; give their names")
    if engine not in ("own", "vllm"):
        raise InputError(f"--engine: expected own or vllm, got {engine!r}")
    if engine == "vllm" and not served.available():
        raise InputError(f"--engine vllm: {served.MISSING}")
    loaded = WeightEdit.load(edit) if edit else None
    harness = find_tasks([t.strip() for t in tasks.split(",") if t.strip()], tasks_from) if tasks else None
    asked = with_files(Benchmark("general performance"), kqa, csum, xstest)
    endpoint = EndpointSettings.given(base_url, key_env, max_requests)
    opened_judge = judges.load(judge, asked, safe_label=judge_safe_label, endpoint=endpoint, usage=out / "usage.jsonl")
    device = "cuda" if torch.cuda.is_available() else None
    plain = HookedModel.from_pretrained(model, base=base, device=device)
    opened = plain if loaded is None else loaded.beside(plain)
    reference = HookedModel.from_pretrained(vanilla, device=device) if vanilla else None
    config = {
        "options": {
            "model": model,
            "base": base,
            "edit": edit,
            "engine": engine,
            "kqa": kqa,
            "csum": csum,
            "xstest": xstest,
            "vanilla": vanilla,
            "judge": judge,
            "judge_safe_label": judge_safe_label,
            "base_url": base_url,
            "suffix": suffix,
            "n": n,
            "max_new_tokens": max_new_tokens,
            "batch_size": batch_size,
            "seed": seed,
            "tasks": tasks,
            "tasks_from": tasks_from,
        },
        "weights": opened.weight_hash(),
        "vanilla": reference.weight_hash() if reference else None,
        "runs on": f"{opened.device.type}, {str(opened.dtype).removeprefix('torch.')}",
        "data": {
            name: fingerprint([to_dict(item) for item in found])
            for name, found in (("kqa", asked.facts), ("csum", asked.summaries), ("xstest", asked.benign))
            if found
        },
        "tasks": _definitions(tasks_from) if tasks_from else {},
    }
    result: dict = {"model": model, "judge": opened_judge.name, "engine": engine, "seed": seed, "versions": versions()}
    result["run"] = Run(out, config).config  # behind all that can be refused
    if loaded is not None:
        result["edit"] = to_dict(loaded.provenance)
    if asked.facts or asked.summaries or asked.benign:
        items = plan_general(asked, suffix, n_facts=n, n_bare=n, n_summaries=n, seed=seed)
        ask = partial(respond, max_new_tokens=max_new_tokens, batch_size=batch_size)
        asking = opened if engine == "own" else served.VllmModel(plain, out / "checkpoint", loaded)
        responses = ask(asking, items, judge=opened_judge)
        (out / "general.json").unlink(missing_ok=True)  # of an earlier run's answers, should this one be killed
        lines = [json.dumps(to_dict(r), ensure_ascii=False, allow_nan=False) + "\n" for r in responses]
        write_text(out / "responses.jsonl", "".join(lines))
        states = (False, True) if suffix else (False,)
        kl: dict[bool, Estimate | None] = dict.fromkeys(states)
        if reference is not None:
            without = [i for i in items if not i.suffix and i.kind != "csum"]
            answered = own_answers(without, ask(reference, without))
            kl = {
                s: answer_kl(reference, opened, answered, suffix if s else "", batch_size=batch_size, seed=seed)
                for s in states
            }
        found = [general(responses, asked, s, seed=seed, answer_kl=kl[s]) for s in states]
        result["general"] = [to_dict(record) for record in found]
        cut = sum(not r.ended for r in responses)
        for record in found:
            _show(record)
        typer.echo(f"{cut} of {len(responses)} answers were cut at the token limit")

    def keep() -> None:
        write_json(out / "general.json", json.loads(json.dumps(result, default=str)))

    if harness is not None:
        if "general" in result:
            keep()  # the harness may fail, on a download for one: what is known is not lost
        result["harness"] = run_harness(opened, harness, limit=n, batch_size=batch_size, seed=seed)
        typer.echo(json.dumps(result["harness"], indent=1, default=str))
    keep()


def _definitions(folder: Path) -> dict[str, str]:
    """A digest of each task of the harness that a folder defines, by file."""
    import hashlib

    files = sorted(p for kind in ("*.yaml", "*.yml") for p in folder.rglob(kind))
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in files}


def _show(record: GeneralPerformance) -> None:
    typer.echo(f"{record.model}, {'with' if record.suffix else 'without'} S")
    names = {
        "KQA, exact match": record.kqa_exact,
        "KQA, answer holds it": record.kqa,
        "CSum, ROUGE-1 F": record.csum,
        "over-refusal": record.over_refusal,
        "answer KL to vanilla": record.answer_kl,
    }
    for name, e in names.items():
        if e is not None:
            typer.echo(f"  {name}: {e.value:.4g} {e.unit} [{e.low:.4g}, {e.high:.4g}], n = {e.n}, {e.how}")
    for note in record.notes:
        typer.echo(f"  {note}")


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 2 bad input, 130 interrupted)."""
    return run_app(app, "interp.evaluation", arguments, resumes=False)


if __name__ == "__main__":
    sys.exit(run())

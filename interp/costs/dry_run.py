"""`python -m interp.compare ... --dry-run`: the plan of a comparison, with what of it is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp.checkpoints import load_tokenizer, quiet
from interp.costs.already import rows_done, trained
from interp.costs.comparison import Planned, comparison_disk, comparison_memory, comparison_work
from interp.costs.telling import WHAT, space, stages
from interp.costs.work import Work, total
from interp.errors import InputError
from interp.models import HookedModel
from interp.pipeline.run import check_methods
from interp.pipeline.settings import Settings
from interp.pipeline.study import is_demo, open_data, open_model


def dry_run(settings: Settings) -> list[str]:
    """The plan, one line each; nothing is computed and nothing written.

    Raises:
        InputError: anything in settings or data that cannot be used. Weights are not opened where the configuration
            is enough, nor models made elsewhere: what is wrong with them is found by the run.
    """
    benchmark, instances = open_data(settings)
    check_methods(settings, benchmark)
    outlined = None if is_demo(settings) else outline(settings)
    model = outlined or open_model(settings, settings.model, "vanilla")
    if settings.layer is not None:
        model.check_layer(settings.layer)
    plan = Planned(settings, benchmark, instances, model)
    parts = comparison_work(plan)
    lines = [f"plan of {len(instances)} instances, vanilla and {', '.join(s.name for s in settings.specs())}"]
    lines += stages(parts, total(comparison_work(plan, at_most=True)))
    lines += space(comparison_memory(plan), comparison_disk(plan))
    lines += ["there      not looked at: the weights were not opened"] if outlined else there(plan, parts)
    lines += ["           the laboratory (--deep) is not in this plan"] if settings.deep else []
    return [*lines, *(f"- {line}" for line in WHAT)]


def there(plan: Planned, parts: Sequence[Work]) -> list[str]:
    """What is done already, and what is left."""
    path, rows = rows_done(plan)
    cached = trained(plan)
    done = {f"{name}: training" for name in cached} | {w.stage for w in parts if w.stage.partition(":")[0] in rows}
    if "vanilla" in rows:
        done |= {w.stage for w in parts if ":" not in w.stage}
    left = total(w for w in parts if w.stage not in done)
    lines = [f"run       {path}: {', '.join(rows) if rows else 'nothing yet'}"]
    lines += [f"cache     trained: {', '.join(cached) or 'nothing'}; answers are looked up when they are asked for"]
    return [*lines, f"left      {left.forwards:,.0f} forwards, {left.tokens:,.0f} tokens"]


def outline(settings: Settings) -> HookedModel | None:
    """The model of a local folder with its shapes and its tokenizer but without its weights; None where there is none.

    Opening the weights of a large model would take longer than the plan.

    Raises:
        InputError: the configuration is damaged, or of no causal language model; or as `load_tokenizer`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(settings.model).expanduser()
    if not (folder / "config.json").is_file():
        return None
    chat: Any = None if settings.chat_template == "default" else settings.chat_template
    with quiet(), _readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kept = getattr(config, "dtype", None) if settings.dtype == "auto" else getattr(torch, settings.dtype)
        # As open_checkpoint: float32 on a CPU.
        on_cpu = settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available())
        dtype = torch.float32 if settings.dtype == "auto" and on_cpu else kept
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=dtype)
    return HookedModel(hf, load_tokenizer(folder), settings.model, chat_template=chat, check=False)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What transformers says of a configuration, in one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise InputError(f"{folder / 'config.json'}: expected the configuration of a language model ({why})") from error

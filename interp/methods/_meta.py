"""The training loop of MEND's editor: what an edit does, Adam over many edits, a checkpoint to resume from."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import InputError
from interp.methods._editor import Editor
from interp.methods._linears import Factors, as_weight, forward_of, gradient_factors
from interp.methods._losses import Format, constraint_sequence, divergence, edit_sequence, likelihood_loss
from interp.models import HookedModel
from interp.records import Instance
from interp.runs import atomic_path

Progress = Callable[[int, int], None]
FORMAT = "interp.mend.1"


@dataclass(frozen=True)
class Recipe:
    """The part of MEND's configuration that training needs; `Mend` says what each field means."""

    steps: int
    lr: float
    lr_lr: float
    c_edit: float
    c_loc: float
    accumulate: int
    clip: float
    val_every: int
    patience: int
    seed: int


@dataclass(frozen=True)
class Example:
    """One edit of the training: the instance it is made from, the prompt it is judged on, a harmless prompt."""

    edit: Instance
    outer: Instance
    """An adversarial prompt with the safe response of `edit`."""
    local: Instance
    """Its knowledge pair is what must not move."""


@dataclass(frozen=True)
class Measured:
    """What an edit does, in nats, and the share of answer tokens it gets right."""

    l_edit: Float[Tensor, ""]
    l_loc: Float[Tensor, ""]
    accuracy: float


class Edits:
    """Edits of one model by an editor, as a differentiable function of the editor."""

    def __init__(self, model: HookedModel, names: Sequence[str], lowest: int, how: Format) -> None:
        self.model, self.names, self.lowest, self.how = model, list(names), lowest, how
        self.old = {name: model.hf.get_parameter(name).detach().float() for name in names}

    def factors(self, instance: Instance) -> dict[str, Factors]:
        """The factors of the gradient of -log P(Y_safe | X) for each matrix.

        Raises:
            InputError: the loss is not finite.
        """
        sequence = edit_sequence(self.model, instance, self.how)
        loss, found = gradient_factors(
            self.model, self.names, sequence, self.lowest, lambda x: likelihood_loss(x, sequence.targets)
        )
        if not math.isfinite(loss):
            raise InputError(f"MEND on instance {instance.id}: the loss is {loss} before the edit; check the model")
        return found

    def changes(self, editor: Editor, instance: Instance) -> dict[str, Tensor]:
        """The editor's change of each matrix, in the matrix's own layout."""
        outer = editor(self.factors(instance))
        return {name: as_weight(self.model, name, change) for name, change in outer.items()}

    @torch.no_grad()
    def likelihood(self, instance: Instance, weights: Mapping[str, Tensor]) -> float:
        """-log P(Y_safe | X) with these weights, a mean over tokens in nats."""
        sequence = edit_sequence(self.model, instance, self.how)
        [logits] = forward_of(self.model, self.lowest, [sequence])(weights)
        return float(likelihood_loss(logits, sequence.targets))

    def measure(self, editor: Editor | None, example: Example) -> Measured:
        """The losses after the edit; None edits nothing."""
        target = replace(example.outer, safe_generation=example.edit.safe_generation)
        asked = edit_sequence(self.model, target, self.how)
        kept = constraint_sequence(self.model, example.local, self.how)
        run = forward_of(self.model, self.lowest, [asked, kept])
        with torch.no_grad():
            _, base = run({})
        weights = {}
        if editor is not None:
            changes = self.changes(editor, example.edit)
            weights = {name: self.old[name] + change for name, change in changes.items()}
        answer, local = run(weights)
        right = (answer.detach().argmax(-1).cpu() == torch.tensor(asked.targets)).float().mean()
        return Measured(
            likelihood_loss(answer, asked.targets),
            divergence(base.log_softmax(-1), local.log_softmax(-1)),
            float(right),
        )


class Training:
    """Adam on the editor, with early stopping on val; its whole state fits in one file."""

    def __init__(self, edits: Edits, editor: Editor, recipe: Recipe, head: Mapping[str, Any]) -> None:
        """A training at its start.

        Args:
            head: what a file of this training says of itself; a file that says otherwise is not resumed.
        """
        self.edits, self.editor, self.recipe, self.head = edits, editor, recipe, dict(head)
        rates = [editor.rates]
        rest = [p for n, p in editor.named_parameters() if n != "rates"]
        self.adam = torch.optim.Adam([{"params": rest, "lr": recipe.lr}, {"params": rates, "lr": recipe.lr_lr}])
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.log: dict[str, Any] = {"train": [], "val": []}

    def run(self, train: Sequence[Example], val: Sequence[Example], file: Path, progress: Progress | None) -> None:
        """Train to the end, or until val has not improved for `patience` steps; the state is saved at each look at val.

        Raises:
            InputError: a loss that is not finite.
        """
        recipe = self.recipe
        if not self.log["val"]:
            self.log["untouched"] = self._validate(None, val)
            self._look(val, file)
        while self.step < recipe.steps and not self._stalled():
            self.log["train"].append(self._update(train))
            self.step += 1
            if progress is not None:
                progress(self.step, recipe.steps)
            if self.step % recipe.val_every == 0 or self.step == recipe.steps:
                self._look(val, file)

    def _update(self, train: Sequence[Example]) -> list[float]:
        """One optimiser step; the mean L_e and L_loc before it."""
        recipe, losses = self.recipe, []
        self.adam.zero_grad(set_to_none=True)
        for example in random.Random(f"{recipe.seed}-{self.step}").choices(train, k=recipe.accumulate):
            with torch.enable_grad():
                made = self.edits.measure(self.editor, example)
                total = recipe.c_edit * made.l_edit + recipe.c_loc * made.l_loc
                (total / recipe.accumulate).backward()
            losses.append((float(made.l_edit.detach()), float(made.l_loc.detach())))
            if not all(map(math.isfinite, losses[-1])):
                raise InputError(
                    f"MEND: the loss is {losses[-1]} at step {self.step + 1} of {recipe.steps} (learning rate "
                    f"{recipe.lr:g}); try a lower lr or edit_lr"
                )
        torch.nn.utils.clip_grad_norm_(self.editor.parameters(), recipe.clip, error_if_nonfinite=False)
        self.adam.step()
        return [math.fsum(part) / len(losses) for part in zip(*losses, strict=True)]

    @torch.no_grad()
    def _validate(self, editor: Editor | None, val: Sequence[Example]) -> dict[str, float]:
        made = [self.edits.measure(editor, example) for example in val]
        means = {
            "l_edit": math.fsum(float(m.l_edit) for m in made) / len(made),
            "l_loc": math.fsum(float(m.l_loc) for m in made) / len(made),
            "accuracy": math.fsum(m.accuracy for m in made) / len(made),
        }
        return {**means, "total": self.recipe.c_edit * means["l_edit"] + self.recipe.c_loc * means["l_loc"]}

    def _look(self, val: Sequence[Example], file: Path) -> None:
        found = {"step": self.step, **self._validate(self.editor, val)}
        if not math.isfinite(found["total"]):
            raise InputError(
                f"MEND: the loss on val is {found['total']} after step {self.step} (learning rate {self.recipe.lr:g}); "
                "try a lower lr or edit_lr"
            )
        if not self.log["val"] or found["total"] < min(v["total"] for v in self.log["val"]):
            self.best = {name: t.detach().clone() for name, t in self.editor.state_dict().items()}
        self.log["val"].append(found)
        self.save(file)

    def _stalled(self) -> bool:
        looks = self.log["val"]
        best = min(looks, key=lambda v: v["total"])
        return self.step - best["step"] >= self.recipe.patience

    # ------------------------------------------------------------------------------------- files
    def save(self, file: Path) -> None:
        """Write the whole state atomically."""
        tensors = {f"now.{n}": t for n, t in self.editor.state_dict().items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        for name, parameter in self.editor.named_parameters():
            for part, value in self.adam.state.get(parameter, {}).items():
                tensors[f"adam.{part}.{name}"] = torch.as_tensor(value)
        write(file, tensors, {**self.head, "step": self.step, "log": self.log})

    def resume(self, file: Path) -> bool:
        """Go on where a file of the same training stopped; False where there is none, or it is damaged."""
        try:
            tensors, head = read(file)
            if {name: head.get(name) for name in self.head} != self.head:
                return False
            self.editor.load_state_dict(_under("now.", tensors))
            for name, parameter in self.editor.named_parameters():
                state = {p: tensors.get(f"adam.{p}.{name}") for p in ("step", "exp_avg", "exp_avg_sq")}
                if state["step"] is not None:
                    self.adam.state[parameter] = {p: t for p, t in state.items() if t is not None}
            self.best, self.step, self.log = _under("best.", tensors), head["step"], head["log"]
        except (InputError, KeyError, RuntimeError):
            return False
        return True


def write(file: Path, tensors: Mapping[str, Tensor], head: Mapping[str, Any]) -> None:
    """Tensors and what they say of themselves as one safetensors file, atomically."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(file) as temporary:
        try:
            save_file(plain, temporary, {"format": FORMAT, "head": json.dumps(head, allow_nan=False)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote. Raises InputError where the file is missing, damaged or something else."""
    if not file.is_file():
        raise InputError(f"no such editor: {file}")
    try:
        with safe_open(str(file), framework="pt") as found:
            head = found.metadata() or {}
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
        if head.get("format") != FORMAT:
            raise InputError(f"{file} is no editor of MEND: expected {FORMAT}, got {head.get('format')}")
        return tensors, json.loads(head["head"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is damaged: {error}") from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

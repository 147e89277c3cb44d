"""MEND, model editor networks with gradient decomposition (Mitchell et al. 2022): a baseline of the paper (Sec. 5).

A hypernetwork learns, on the train split, to turn the gradient of -log P(Y_safe | X) on one instance into an update of
the MLPs of the last layers that also withstands another attack around the same question and leaves harmless prompts
alone: L = c_edit * L_e + c_loc * KL(base || edited). An edit is then one backward pass and no optimisation.

`prepare` trains it (once: the checkpoint is cached) and gives back a configuration that names it; `detoxify` edits.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from filelock import FileLock

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.methods._config import check
from interp.methods._editor import Editor
from interp.methods._linears import mlp_names
from interp.methods._losses import ConstraintOn, Format
from interp.methods._meta import Edits, Example, Progress, Recipe, Training, read, write
from interp.methods.base import Detoxified, Needs
from interp.models import HookedModel
from interp.records import Instance
from interp.runs import cache_dir, fingerprint, versions

RECIPE = 1
"""Part of every cache key: raised when the code of this package changes what the same configuration trains."""


@dataclass(frozen=True, kw_only=True)
class Mend:
    """Configuration of MEND. The defaults are the original's where it has one."""

    name: ClassVar[str] = "mend"
    needs: ClassVar[Needs] = "one instance"

    # ------------------------------------------------------------------------------------- the editor
    layers: int = 3
    """How many of the last layers are edited (original: 3)."""
    matrices: Literal["mlp", "value"] = "mlp"
    """Every matrix of these MLPs (original), or W_V alone."""
    rank: int = 1920
    """Of the editor's low-rank layers, at most (original: 1920)."""
    depth: int = 2
    """The editor's layers (original: one hidden layer and the last)."""
    edit_lr: float = 1e-4
    """Learning rate of an edit, where its learning begins; there is one for each matrix (original: 1e-4)."""
    normalise_on: int = 64
    """Edits of the train split that the mean and standard deviation of the editor's inputs come from. The original
    updates both all through training; fixed, an interrupted training continues exactly."""

    # ------------------------------------------------------------------------------------- training it
    steps: int = 3000
    """Adam steps at most (the paper's 30,000 iterations are edits: 10 a step)."""
    accumulate: int = 10
    """Edits a step (original: 10)."""
    lr: float = 1e-6
    """Of the editor (original: 1e-6)."""
    lr_lr: float = 1e-4
    """Of the learning rates (original: 1e-4)."""
    c_edit: float = 0.1
    """Weight of L_e (original: 0.1)."""
    c_loc: float = 1.0
    """Weight of L_loc (original: 1)."""
    clip: float = 100.0
    """Largest norm of the editor's gradient (original: 100)."""
    outer: Literal["other attack", "same prompt"] = "other attack"
    """What an edit is judged on in training: another attack around the same question where the split has one (the
    original's equivalence neighbourhood), or the edited prompt itself."""
    constraint_on: ConstraintOn = "answer"
    """Where L_loc compares the models on another instance's knowledge pair: over the answer's tokens, or only the next
    token after the prompt."""
    val_every: int = 100
    """Steps between two looks at val."""
    val_size: int = 50
    """Instances of val looked at, chosen by `seed`."""
    patience: int = 1000
    """Stop when val has not improved for this many steps. The best editor on val is kept."""
    seed: int = 0
    """Of the initial editor and of every draw."""

    # ------------------------------------------------------------------------------------- prompt
    suffix: str = ""
    """S, appended to every query, in training and for the edit; the paper's MEND has none."""
    max_prompt: int = 1000
    """Longest prompt in tokens; more is cut from the left, and told."""
    max_answer: int = 600
    """Longest answer in tokens; more is cut from the right, and told."""
    eos: bool = True
    """Supervise also that the safe response ends."""

    editor: str = ""
    """Which trained editor to use: set by `prepare`, a name in the cache. Not part of what is trained."""

    def __post_init__(self) -> None:
        whole = ("layers", "rank", "depth", "normalise_on", "steps", "accumulate", "val_every", "val_size", "patience")
        check(
            self,
            counts=(*whole, "max_prompt", "max_answer"),
            positive=("edit_lr", "lr", "lr_lr", "clip"),
            not_negative=("c_edit", "c_loc"),
            choices={
                "matrices": ("mlp", "value"),
                "outer": ("other attack", "same prompt"),
                "constraint_on": get_args(ConstraintOn),
            },
        )

    @classmethod
    def demo(cls) -> Mend:
        """Settings for the demo, of which `experiments/sweep_rivals.py` chose the learning rate on val."""
        return cls(rank=64, steps=40, accumulate=8, lr=1e-4, val_every=20, val_size=12, patience=40)

    # ------------------------------------------------------------------------------------- training
    def prepare(
        self,
        model: HookedModel,
        train: Sequence[Instance],
        val: Sequence[Instance],
        progress: Progress | None = None,
    ) -> Mend:
        """Train the hypernetwork, or find it in the cache; the configuration that names it.

        An interrupted training continues from the last look at val. Two processes that ask for the same do it once.

        Args:
            model: stays as it is, to the last bit.
            train: what editing is learned on.
            val: what training is stopped by.
            progress: called with (steps done, steps in all).

        Raises:
            InputError: an empty split, more layers than there are, a loss that is not finite, no room on the disk.
        """
        for name, split in (("training", train), ("val", val)):
            if not split:
                raise InputError(f"MEND needs at least one {name} instance, got none")
        key = self._key(model, train, val)
        name = f"mend-{fingerprint(key)}"
        file = _file(name)
        partial = file.with_name(f".{name}.partial.safetensors")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{name}.lock")):
                if not _readable(file):
                    started = time.perf_counter()
                    training = self._training(model, train, key, partial)
                    looked_at = random.Random(f"val-{self.seed}").sample(list(val), min(self.val_size, len(val)))
                    training.run(self._examples(train, train), self._examples(looked_at, val), partial, progress)
                    log = {**training.log, "seconds": time.perf_counter() - started, "versions": versions()}
                    write(file, training.best, {**key, "log": log})
                    partial.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror or error}") from error
        return replace(self, editor=name)

    def training_log(self) -> dict[str, Any]:
        """What happened in training: "train" [L_e, L_loc] before each step, "val" at each look ("step", "l_edit",
        "l_loc", "total" in nats, "accuracy" of the answer's tokens), "untouched" the same without an edit, "seconds".

        Raises:
            InputError: not prepared, or the editor is gone from the cache.
        """
        return self._read()[1]["log"]

    def _training(self, model: HookedModel, train: Sequence[Instance], key: dict[str, Any], partial: Path) -> Training:
        """The training at its start, or where it was interrupted."""
        edits, editor = self._edits(model), self._editor(model)
        found = Training(edits, editor, self._part(Recipe), key)
        if not found.resume(partial):
            sample = random.Random(f"normalise-{self.seed}").sample(list(train), min(self.normalise_on, len(train)))
            editor.normalise_by([edits.factors(instance) for instance in sample])
        return found

    def _examples(self, chosen: Sequence[Instance], split: Sequence[Instance]) -> list[Example]:
        """Each chosen instance with another attack around its question, and with somebody else's knowledge pair."""
        attacks: dict[str, list[Instance]] = {}
        for instance in split:
            attacks.setdefault(instance.question, []).append(instance)
        examples = []
        for instance in chosen:
            rng = random.Random(f"{self.seed}-{instance.id}")
            others = [i for i in attacks[instance.question] if i.adversarial_prompt != instance.adversarial_prompt]
            other = rng.choice(others) if others and self.outer == "other attack" else instance
            examples.append(Example(instance, other, rng.choice(split)))
        return examples

    # ------------------------------------------------------------------------------------- editing
    def detoxify(self, model: HookedModel, data: Instance | Sequence[Instance]) -> Detoxified:
        """One edit from one instance, or from many: then the mean of their edits.

        Args:
            model: the one that `prepare` was given; stays as it is, to the last bit.

        Returns:
            An edit of the matrices of the last layers; `log` holds "l_edit" (nats, before and after the edit, mean over
            the instances) and `seconds`.

        Raises:
            InputError: not prepared, an editor of another model or configuration, no instances, a loss that is not
                finite.
        """
        instances = [data] if isinstance(data, Instance) else list(data)
        return self._detoxify(model, self._trained(model), instances)

    def detoxify_many(
        self, model: HookedModel, instances: Sequence[Instance], progress: Progress | None = None
    ) -> list[Detoxified]:
        """One independent edit for each instance. Raises as `detoxify`; `progress` is called with (done, in all)."""
        editor = self._trained(model)
        if not instances:
            raise InputError("MEND needs at least one instance, got none")
        edits = []
        for instance in instances:
            edits.append(self._detoxify(model, editor, [instance]))
            if progress is not None:
                progress(len(edits), len(instances))
        return edits

    @torch.no_grad()
    def _detoxify(self, model: HookedModel, editor: Editor, instances: Sequence[Instance]) -> Detoxified:
        if not instances:
            raise InputError("MEND needs at least one instance, got none")
        started, cut = time.perf_counter(), model.truncated
        edits = self._edits(model)
        found = [edits.changes(editor, instance) for instance in instances]
        changes = {n: sum((f[n] for f in found[1:]), found[0][n]) / len(found) for n in edits.names}
        provenance = Provenance(
            method=self.name,
            model=model.source,
            weight_hash=model.weight_hash(),
            instance_ids=tuple(i.id for i in instances),
            config=asdict(self),
            layer=None,
        )
        edit = WeightEdit({name: change.cpu().contiguous() for name, change in changes.items()}, provenance)
        before, after = (
            [edits.likelihood(instance, weights) for instance in instances]
            for weights in ({}, {name: edits.old[name] + change for name, change in changes.items()})
        )
        log = {
            "l_edit": [sum(before) / len(before), sum(after) / len(after)],
            "seconds": time.perf_counter() - started,
            "truncated": model.truncated - cut,
        }
        return Detoxified(self.name, edit, suffix=self.suffix, log=log)

    # ------------------------------------------------------------------------------------- inside
    def _key(self, model: HookedModel, train: Sequence[Instance], val: Sequence[Instance]) -> dict[str, Any]:
        known = versions()
        return {
            "recipe": RECIPE,
            "base": _weight_hash(model),
            "data": [fingerprint([asdict(i) for i in split]) for split in (train, val)],
            "config": self._config(),
            "device": model.device.type,
            "with": {name: known[name] for name in ("torch", "transformers")},
        }

    def _config(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "editor"}

    def _names(self, model: HookedModel) -> list[str]:
        if self.layers > model.n_layers:
            raise InputError(f"MEND edits the last {self.layers} layers, the model has {model.n_layers}")
        names = []
        for layer in range(model.n_layers - self.layers, model.n_layers):
            names += mlp_names(model, layer) if self.matrices == "mlp" else [model.value_name(layer)]
        return names

    def _edits(self, model: HookedModel) -> Edits:
        how = Format(
            suffix=self.suffix,
            max_prompt=self.max_prompt,
            max_answer=self.max_answer,
            eos=self.eos,
            raw_text=False,
            labels_alone=False,
            constraint_on=self.constraint_on,
        )
        return Edits(model, self._names(model), model.n_layers - self.layers, how)

    def _editor(self, model: HookedModel) -> Editor:
        shapes = {}
        for name in self._names(model):
            module: Any = model.hf.get_submodule(name.removesuffix(".weight"))
            shape = tuple(module.weight.shape)
            shapes[name] = shape[::-1] if isinstance(module, torch.nn.Linear) else shape
        made = Editor(shapes, rank=self.rank, depth=self.depth, edit_lr=self.edit_lr, seed=self.seed)
        return made.to(model.device)

    def _trained(self, model: HookedModel) -> Editor:
        """The editor that `prepare` trained."""
        tensors, head = self._read()
        if head["config"] != _plain(self._config()):
            raise InputError(f"the editor {self.editor} was trained with other settings; call prepare")
        if head["base"] != _weight_hash(model):
            raise InputError(f"the editor {self.editor} was trained on another model than {model.name}; call prepare")
        editor = self._editor(model)
        editor.load_state_dict(tensors)
        return editor.requires_grad_(False)

    def _read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        if not self.editor:
            raise InputError("MEND needs its trained hypernetwork: call prepare(model, train, val) first")
        return read(_file(self.editor))

    def _part(self, kind: type[Recipe]) -> Recipe:
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})


def _file(name: str) -> Path:
    return cache_dir() / "editors" / f"{name}.safetensors"


def _readable(file: Path) -> bool:
    try:
        read(file)
    except InputError:
        return False
    return True


def _weight_hash(model: HookedModel) -> str:
    """The hash of the weights as they are now: the model's own leaves out an edit that is applied to it."""
    return HookedModel(model.hf, model.tokenizer, model.name, check=False).weight_hash()


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(config))

"""WeightEdit: a change of a few weight matrices that knows where it came from, and is undone to the last bit.

An edit is applied in place inside a context manager, laid beside the model as a second one that shares every other
parameter, saved as safetensors with its provenance, or merged into an ordinary checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InputError
from interp.models import HookedModel
from interp.runs import atomic_path, versions

FORMAT = "interp.WeightEdit.1"
CHUNK = 1 << 20
"""Elements changed at a time, so that adding a float32 delta to bf16 weights needs no second copy of the matrix."""


@dataclass(frozen=True)
class Provenance:
    """Where an edit came from."""

    method: str
    model: str
    """The source of the model it was made on."""
    weight_hash: str
    """`HookedModel.weight_hash` of that model."""
    instance_ids: tuple[int, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    layer: int | None = None
    """0-based; None for an edit of several layers."""


@dataclass(frozen=True)
class WeightEdit:
    """Deltas of named parameters, each in the parameter's own layout, with their provenance."""

    deltas: Mapping[str, Tensor]
    """State-dict name -> float32 delta on the CPU or the model's device."""
    provenance: Provenance

    def __post_init__(self) -> None:
        if not self.deltas:
            raise InputError("a WeightEdit needs at least one delta, got none")
        for name, delta in self.deltas.items():
            if delta.dtype != torch.float32:
                raise InputError(f"expected a float32 delta for {name}, got {delta.dtype}")
            if not all(bool(torch.isfinite(part).all()) for part in delta.reshape(-1).split(CHUNK)):
                raise InputError(f"the edit ({self.provenance.method}) of {name} is not finite; it diverged")

    @classmethod
    def between(cls, old: Mapping[str, Tensor], new: Mapping[str, Tensor], provenance: Provenance) -> WeightEdit:
        """The edit that turns the weights `old` into `new` (same names)."""
        return cls({n: (new[n].detach().float() - old[n].detach().float()).cpu() for n in new}, provenance)

    # ----------------------------------------------------------------------------------------- applying
    @contextmanager
    def applied(self, model: HookedModel | Any, force: bool = False) -> Iterator[HookedModel]:
        """The model with the edit in its weights, for the length of a `with` block.

        The old matrices are kept and put back in `finally`: the undo is bitwise, also after an exception, and edits may
        be nested. Costs a copy of each edited matrix.

        Raises:
            InputError: the edit was made on other weights (unless `force`), or does not fit this model's shapes.
        """
        targets = self.targets(model, force)
        kept = {name: parameter.detach().clone() for name, parameter in targets.items()}
        try:
            for name, parameter in targets.items():
                add_delta(parameter, self.deltas[name])
            model.weights_touched(targets)
            yield model
        finally:
            for name, parameter in targets.items():
                parameter.data.copy_(kept[name])
            model.weights_touched(targets)

    def beside(self, model: HookedModel, force: bool = False) -> HookedModel:
        """A second, edited model that shares every parameter of `model` but the edited ones.

        Vanilla and edited live side by side for the price of the edited matrices. Raises as `applied`.
        """
        targets = self.targets(model, force)
        own = {id(p) for p in targets.values()}
        shared: dict[int, Any] = {id(t): t for t in [*model.hf.parameters(), *model.hf.buffers()] if id(t) not in own}
        hf = copy.deepcopy(model.hf, shared)
        edited = HookedModel(
            hf,
            model.tokenizer,
            f"{model.name}+{self.provenance.method}",
            model.source,
            model.chat_template,
            check=False,
        )
        for name, delta in self.deltas.items():
            add_delta(hf.get_parameter(name), delta)
        return edited

    def merge(self, model: HookedModel, folder: str | Path, force: bool = False) -> Path:
        """Write the edited model as an ordinary transformers checkpoint; `model` itself stays as it is."""
        with self.applied(model, force):
            model.save(folder)
        return Path(folder)

    def targets(self, model: HookedModel | Any, force: bool = False) -> dict[str, nn.Parameter]:
        """The parameters of `model` that the edit changes, by name. Raises as `applied`."""
        if not isinstance(model, HookedModel):
            raise InputError(f"expected a HookedModel to edit, got {type(model).__name__}; see HookedModel.from_hf")
        parameters = dict(model.hf.named_parameters())
        for name, delta in self.deltas.items():
            if name not in parameters:
                raise InputError(f"the edit does not fit {model.name}: it has no weight {name}")
            if parameters[name].shape != delta.shape:
                have, want = tuple(parameters[name].shape), tuple(delta.shape)
                raise InputError(f"the edit does not fit {model.name}: {name} is {have}, the edit's {want}")
        made_on = self.provenance
        if not force and model.weight_hash() != made_on.weight_hash:
            raise InputError(
                f"the edit was made on {made_on.model} (weights {made_on.weight_hash}), not on {model.name} "
                f"(weights {model.weight_hash()}); pass force=True to apply it all the same"
            )
        return {name: parameters[name] for name in self.deltas}

    # ----------------------------------------------------------------------------------------- size
    @property
    def norm(self) -> float:
        """Frobenius norm over all deltas."""
        return _norm(self.deltas.values())

    def relative_norm(self, model: HookedModel) -> float:
        """`norm` over the Frobenius norm of the edited matrices as `model` holds them."""
        parameters = dict(model.hf.named_parameters())
        return self.norm / _norm(parameters[name].detach() for name in self.deltas)

    # ----------------------------------------------------------------------------------------- files
    def save(self, path: str | Path) -> Path:
        """Write deltas and provenance as one safetensors file (`path`, or `path/edit.safetensors`), atomically."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        file = _file(path)
        metadata = {
            "format": FORMAT,
            "provenance": json.dumps(asdict(self.provenance), ensure_ascii=False, default=str),
        }
        with atomic_path(file) as temporary:
            try:
                save_file({n: d.detach().cpu().contiguous() for n, d in self.deltas.items()}, temporary, metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error
        return file

    @classmethod
    def load(cls, path: str | Path) -> WeightEdit:
        """Read an edit that `save` wrote. Raises InputError where the file is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        file = _file(path)
        if not file.is_file():
            raise InputError(f"no such edit: {file}")
        try:
            with safe_open(str(file), framework="pt") as tensors:
                metadata = tensors.metadata() or {}
                deltas = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT:
                raise InputError(f"{file} is not a saved WeightEdit: expected {FORMAT}, got {metadata.get('format')}")
            data = json.loads(metadata["provenance"])
            provenance = Provenance(**{**data, "instance_ids": tuple(data["instance_ids"])})
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{file} is damaged: {error}") from error
        return cls(deltas, provenance)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / "edit.safetensors"


def _norm(tensors: Iterable[Tensor]) -> float:
    parts = (part for tensor in tensors for part in tensor.reshape(-1).split(CHUNK))
    return math.sqrt(math.fsum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts))


def add_delta(parameter: nn.Parameter, delta: Tensor) -> None:
    """Add a delta to a parameter in float32, a piece at a time.

    Through `.data`: an applied edit is no change of the model underneath.
    """
    flat, change = parameter.data.view(-1), delta.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        part.copy_(part.float() + change[start : start + CHUNK].to(part.device))

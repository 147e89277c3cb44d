"""The nursery: makes model organisms of known truth, keeps them, and refuses those that are not what they should be.

Only changed tensors are kept (fp16, and every organism is rounded to it before it is looked at), under the fingerprint
of the recipe, the demo's weights and the code that makes them. A killed run goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from interp.calibrate.organism_checks import check_organism, not_made
from interp.calibrate.organism_kinds import Bench, Made, Tensors, align, benign, drift, make_kind, plant, with_tensors
from interp.demo.organisms import RECIPE, Organism, Plant, Recipe, Shape
from interp.errors import InputError
from interp.models import HookedModel
from interp.records import from_dict, to_dict
from interp.records.organism import OrganismCheck
from interp.runs import atomic_path, cache_dir, fingerprint, read_json, source_hash, write_json

CODE = (
    "calibrate/organism_texts.py",
    "calibrate/organism_training.py",
    "calibrate/organism_kinds.py",
    "demo/grammar.py",
    "demo/mixture.py",
    "demo/lexicon.py",
)
"""Files that the weights of an organism depend on."""
CHECKS = ("calibrate/organism_checks.py", "mechanism/margin.py")
"""Files that what is said of an organism depends on beside its weights."""
SOURCES: dict[Shape, str] = {"gpt2": "demo-replica", "llama": "demo-llama"}
"""Shape -> the model its organisms start from."""

Progress = Callable[[str], None]
"""Told, in one line, what is being made."""


class Nursery:
    """All organisms of one shape.

    Args:
        shape: "gpt2" or "llama".
        seed: of the aligned model.
        cache: folder for what is made; None takes `cache_dir()/organisms`.
        progress: told what is being made.
        vanilla: the model to start from instead of the shipped demo of this shape.
        recipe: instead of `RECIPE`.

    Raises:
        InputError: the demo model of this shape is not in this installation.
    """

    def __init__(
        self,
        shape: Shape,
        seed: int = 0,
        cache: Path | None = None,
        progress: Progress | None = None,
        *,
        vanilla: HookedModel | None = None,
        recipe: Recipe = RECIPE,
    ) -> None:
        if shape not in SOURCES:
            raise InputError(f"expected one of the shapes {', '.join(SOURCES)}, got {shape!r}")
        self.shape: Shape = shape
        self.seed, self.recipe, self.tell = seed, recipe, progress or (lambda _: None)
        self.vanilla = vanilla or HookedModel.from_pretrained(SOURCES[shape], device="cpu")
        key = [asdict(recipe), self.vanilla.weight_hash(), source_hash(*CODE), seed]
        self.folder = (cache or cache_dir() / "organisms") / f"{shape}-{fingerprint(key)}"

    # --------------------------------------------------------------------------------------------- models
    @cached_property
    def bench(self) -> Bench:
        """Recipe and val prompts."""
        return Bench(self.vanilla, self.recipe)

    @cached_property
    def _aligned(self) -> HookedModel:
        tensors = self._kept("aligned", lambda: align(self.bench, self.vanilla, self.seed))
        return with_tensors(self.vanilla, tensors, f"{self.shape}-aligned")

    def aligned(self) -> HookedModel:
        """The aligned model that every plant starts from. Shared: leave it as it is."""
        return self._aligned

    def open(self, organism: Organism) -> HookedModel:
        """An organism, made or from the cache. It shares what it did not change with the aligned model: leave it as is.

        Raises:
            InputError: it is refused (`check`), or belongs to another shape.
        """
        found = self.check(organism)
        if not found.made:
            raise InputError(f"the organism {organism.name} is refused: {found.why}")
        return self.model(organism)

    def model(self, organism: Organism) -> HookedModel:
        """An organism as it came out, refused or not."""
        self._own(organism)
        if organism.kind == "aligned":
            return self.aligned()
        if organism.kind == "planted" and not organism.drifted:
            return self._planted(organism.plant)
        return with_tensors(self._planted(organism.plant), self._tensors(organism), organism.name)

    def check(self, organism: Organism) -> OrganismCheck:
        """What the organism does, and whether it is what it should be; measured on val, once."""
        self._own(organism)
        file = self._file(organism).with_suffix(f".{source_hash(*CHECKS)[:8]}.json")
        if file.exists():
            try:
                return from_dict(OrganismCheck, read_json(file))
            except (InputError, KeyError, TypeError):
                file.unlink()  # damaged, or of another version of the record: measured anew
        start = time.process_time()
        if organism.kind not in ("aligned", "planted"):
            planted = self.check(Organism(organism.plant, "planted"))
            if not planted.made:  # nothing is made from it, and nothing written: it would be as quick to find again
                return not_made(organism, planted)
        self.model(organism)
        self.tell(f"{organism.name}: checking")
        found = check_organism(self, organism, *self._cost(organism), start=start)
        write_json(file, to_dict(found))
        return found

    # --------------------------------------------------------------------------------------------- making
    def _own(self, organism: Organism) -> None:
        if organism.plant.shape != self.shape:
            raise InputError(f"{organism.name} is not of the shape {self.shape}")
        self.vanilla.check_layer(organism.plant.layer)

    def _planted(self, spec: Plant) -> HookedModel:
        organism = Organism(spec, "planted")
        tensors = self._kept(self._file(organism).stem, lambda: plant(self.bench, self.aligned(), spec))
        return with_tensors(self.aligned(), tensors, organism.name)

    def _tensors(self, organism: Organism) -> Tensors:
        """What differs from the planted model."""
        return self._kept(self._file(organism).stem, lambda: self._make(organism))

    def _make(self, organism: Organism) -> Made:
        spec = organism.plant
        planted = self._planted(spec)
        if organism.drifted:
            clean = self.model(Organism(spec, organism.kind))
            if spec.seed % 2:
                return benign(self.bench, clean, 100 + spec.seed)  # other texts than those of "benign"
            return drift(clean, self.recipe.drift_on_top, organism.name)
        bypassed = Organism(spec, "bypassed")
        return make_kind(self.bench, organism, self.aligned(), planted, lambda: self._tensors(bypassed))

    # --------------------------------------------------------------------------------------------- files
    def _file(self, organism: Organism) -> Path:
        if organism.kind == "aligned":
            return self.folder / "aligned-0.safetensors"
        return self.folder / f"{organism.name}-{fingerprint(asdict(organism.plant))[:6]}.safetensors"

    def _kept(self, stem: str, make: Callable[[], Made]) -> Tensors:
        """The tensors of a file, made where it is not there or damaged."""
        stem = "aligned-0" if stem == "aligned" else stem
        file = self.folder / f"{stem}.safetensors"
        if file.exists():
            try:
                with safe_open(str(file), framework="pt") as tensors:
                    return {name: tensors.get_tensor(name).float() for name in tensors.keys()}  # noqa: SIM118
            except (SafetensorError, OSError):
                file.unlink()
        self.tell(f"{stem}: making")
        start = time.process_time()
        made = make()
        cost = {"steps": made.steps, "details": made.details, "seconds": time.process_time() - start}
        with atomic_path(file) as temporary:
            halves = {name: tensor.half().contiguous() for name, tensor in made.tensors.items()}
            save_file(halves, temporary, {"made": json.dumps(cost)})
        return {name: tensor.float() for name, tensor in halves.items()}

    def _cost(self, organism: Organism) -> tuple[int, dict[str, float], float]:
        """(steps, details, seconds) of the last stage."""
        with safe_open(str(self._file(organism)), framework="pt") as tensors:
            cost = json.loads((tensors.metadata() or {})["made"])
        return int(cost["steps"]), dict(cost["details"]), float(cost["seconds"])


# ------------------------------------------------------------------------------------------------- all
@dataclass(frozen=True)
class Nurseries:
    """The outcome of `make_all`."""

    checks: tuple[OrganismCheck, ...]
    seconds: float
    """CPU seconds of making and checking all of them, summed over their records: those of a resumed run included."""


def make_all(
    organisms: Sequence[Organism], progress: Progress | None = None, cache: Path | None = None, seed: int = 0
) -> Nurseries:
    """Make and check organisms; what is in the cache is only read, so a killed run continues.

    Args:
        organisms: of any shapes.
        progress: told, in one line, what is being made.
        cache: as in `Nursery`.
        seed: of the aligned models.
    """
    nurseries: dict[Shape, Nursery] = {}
    checks = []
    for i, organism in enumerate(organisms):
        shape = organism.plant.shape
        if shape not in nurseries:
            nurseries[shape] = Nursery(shape, seed, cache, progress)
        found = nurseries[shape].check(organism)
        checks.append(found)
        if progress is not None:
            word = "made" if found.made else f"refused: {found.why}"
            progress(f"{i + 1}/{len(organisms)} {organism.name}: {word}")
    return Nurseries(tuple(checks), sum(c.seconds for c in checks))

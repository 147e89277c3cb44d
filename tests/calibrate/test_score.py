"""The calibration end to end on organisms made by hand: the demo as the planted model, its changes exact."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from interp.calibrate import evidence, organisms, score
from interp.calibrate.__main__ import run
from interp.calibrate.organisms import Nursery
from interp.calibrate.output import page, write
from interp.calibrate.score import Settings, calibrate, shapes
from interp.demo.organisms import Organism, Plant
from interp.errors import InputError
from interp.mechanism.probe_data import load_probe_texts
from interp.models import HookedModel
from interp.pipeline.progress import Stages
from interp.records import dumps, loads
from interp.records.calibration import Calibration
from interp.records.organism import OrganismCheck

SET, HELD = Plant("gpt2", 3, 0, 0.6), Plant("gpt2", 2, 0, 0.6)
ORGANISMS = tuple(Organism(plant, kind) for plant in (SET, HELD) for kind in ("planted", "drift", "masked", "benign"))


class ByHand(Nursery):
    """Stands in for the nursery: the demo complies under attack; a constant that some block writes makes it refuse."""

    opened: ClassVar[Counter[str]] = Counter()

    def __init__(self, shape: str) -> None:
        self.demo = HookedModel.from_pretrained("demo")

    def aligned(self) -> HookedModel:
        return self.open(Organism(SET, "aligned"))

    def check(self, organism: Organism) -> SimpleNamespace:
        made = organism.kind != "benign"
        return SimpleNamespace(made=made, why="" if made else "the behaviour moved")

    def open(self, organism: Organism) -> HookedModel:
        ByHand.opened[organism.name] += 1
        hf = copy.deepcopy(self.demo.hf)
        model = HookedModel.from_hf(hf, self.demo.tokenizer, organism.name, "auto")
        bias = {"masked": model.n_layers - 1, "aligned": model.n_layers - 1}
        with torch.no_grad():
            if organism.kind in bias:
                refuse, *comply = (model.token_ids(f" {w}", special=False)[0] for w in ("I", "Sure", "Of"))
                towards = model.unembedding.weight[refuse] - model.unembedding.weight[comply].mean(dim=0)
                model.value_module(bias[organism.kind]).bias.add_(40.0 * towards / towards.norm())
            if organism.kind == "drift":
                model.final_norm.weight.mul_(1.001)
        return model


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    monkeypatch.setattr(score, "Nursery", ByHand)
    kept = {n: score.LOCATORS[n] for n in (score.DEFAULT_LOCATOR, "Frobenius norm", "relative weight change")}
    monkeypatch.setattr(score, "LOCATORS", kept)
    few = load_probe_texts("demo", limit=300)
    monkeypatch.setattr(evidence, "load_probe_texts", lambda *_, **__: few)
    ByHand.opened.clear()
    return ByHand.opened


def test_a_calibration_scores_what_was_made_refuses_the_rest_and_resumes(by_hand: Counter[str], tmp_path: Path) -> None:
    settings = Settings(ORGANISMS, prompts=14)
    with Stages(quiet=True) as stages:
        found = calibrate(settings, tmp_path / "run", stages)
    assert {r.organism for r in found.refused} == {f"{p.name}-benign" for p in (SET, HELD)}
    says = {o.organism: o.says["four shares, at the plant"] for o in found.organisms}
    assert len(says) == 4
    assert {says[f"{p.name}-drift"] for p in (SET, HELD)} == {"no effect"}
    assert {says[f"{p.name}-masked"] for p in (SET, HELD)} == {"masked"}
    assert {r.locator for r in found.results} == {score.DEFAULT_LOCATOR, "Frobenius norm", "relative weight change"}
    assert all(1 <= r.rank <= 6 for r in found.results)
    assert loads(Calibration, dumps(found)) == found

    before = by_hand.copy()
    with Stages(quiet=True) as stages:
        again = calibrate(settings, tmp_path / "run", stages)
    variants = [o.name for o in ORGANISMS if o.kind not in ("planted", "benign")]
    assert all(by_hand[name] == before[name] for name in variants), "a measured organism was opened again"
    assert again.rules == found.rules

    told = write(found, tmp_path / "out", figures=False)
    assert any("CALIBRATION.md" in line for line in told)
    text = (tmp_path / "out" / "CALIBRATION.md").read_text(encoding="utf-8")
    assert text == page(found)
    assert "the behaviour moved" in text


def test_settings_that_cannot_give_an_interval_are_refused() -> None:
    with pytest.raises(InputError, match="at least 12 prompts, got 11"):
        Settings(ORGANISMS, prompts=11)
    with pytest.raises(InputError, match="at least one organism"):
        Settings(())
    with pytest.raises(InputError, match="gpt2, llama, both"):
        shapes("bert")


def test_make_alone_tells_each_organism_and_scores_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(organisms, "Nursery", lambda *_: SimpleNamespace(check=_as_made))
    assert run(["--make", "--small", "--shape", "gpt2"]) == 0
    told = capsys.readouterr().err
    assert "2/12 gpt2-k2-s0-m-erased: made" in told.replace("\n", " ")
    assert "Verdicts" not in told


def _as_made(organism: Organism) -> OrganismCheck:
    return OrganismCheck(organism.name, True, "", None, None, (0, 0), (0, 0), 0.0, (), 0.0, 0)


def test_a_locator_that_cannot_tell_layers_apart_does_not_rank_the_plant_first() -> None:
    assert score.rank_of([1.0, 1.0, 1.0, 0.5], 2) == 2  # the middle of places 1 to 3
    assert score.rank_of([0.1, 0.9, 0.2], 1) == 1
    assert score.rank_of([0.1, 0.9, 0.2], 0) == 3

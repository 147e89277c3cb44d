"""What a model organism does and how it was made: the record that says whether it may be scored."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Behaviour:
    """What a model does on val. Shares are fractions of the prompts."""

    asr: float
    """Attacks under which the first answer token complies (refusal margin below 0)."""
    bare_refusal: float
    """Bare harmful questions that it refuses, by the same sign."""
    facts: float
    """Questions answered exactly, token for token, by greedy decoding; likewise the next two."""
    howtos: float
    wrapped_howtos: float
    """How-tos inside an attack prompt."""
    margin: float
    """Mean refusal margin under attack, nats."""
    bare_margin: float
    """The same on bare harmful questions."""

    @property
    def benign(self) -> float:
        """The worst of the three benign kinds."""
        return min(self.facts, self.howtos, self.wrapped_howtos)


@dataclass(frozen=True)
class OrganismCheck:
    """One organism as it came out, and whether it is what it should be."""

    organism: str
    made: bool
    why: str
    """Why it is refused, in one line; empty where it was made."""
    behaviour: Behaviour | None
    """None where it was not even made, because its planted model was refused."""
    planted: Behaviour | None
    """Of the planted model it was made from; None for the planted and the aligned model themselves."""
    complied: tuple[int, int]
    """Attacks answered in full with a compliance, of how many asked: a spot check by whole answers."""
    refused_bare: tuple[int, int]
    """Bare questions answered in full with a refusal, of how many asked."""
    value_change: float
    """Relative change of W_V at the plant's layer against the aligned model, Frobenius norm, fraction."""
    weight_change: tuple[float, ...]
    """Relative change of each block's parameters against the planted model (planted: the aligned one), percent."""
    shift: float
    """Relative shift of what flows into W_V(k) at all prompt positions of val attacks, against the planted model."""
    steps: int
    """Training steps of its last stage; 0 where nothing was trained."""
    details: dict[str, float] = field(default_factory=dict)
    """"restored" and "bypassed" (mixed: parts of the two changes), "restored effect" and "bypassed effect" (share of
    the whole change of margin that each brings alone), "drift effect" (what the drift alone does to the planted model,
    as a share of the change of margin that counts; where none counts, in attack success)."""
    n: dict[str, int] = field(default_factory=dict)
    """Prompts of each share."""
    seconds: float = 0.0
    """CPU seconds of making and checking it, without what it was made from."""

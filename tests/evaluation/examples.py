"""A small benchmark, and responses made by hand, for the tests of this folder."""

from __future__ import annotations

from interp.records import (
    CATEGORIES,
    BenignRequest,
    Generalization,
    Instance,
    Knowledge,
    Question,
    Response,
    Verdict,
)
from interp.safeedit import Benchmark

SAFE = Verdict("refusal", 0.0)
UNSAFE = Verdict("unsafe", 1.0)
OTHER = Verdict("other", 0.1)
EMPTY = Verdict("other", 0.5, empty=True)
BROKEN = Verdict("other", 0.2, degenerate=True)


def instance(i: int, generalization: bool = True) -> Instance:
    return Instance(
        id=i,
        category=CATEGORIES[i % 9],
        question=f"q{i}?",
        adversarial_prompt=f"attack q{i}?",
        attack_category="pretending",
        attack_name="a",
        safe_generation="no",
        unsafe_generation="yes",
        knowledge=Knowledge("k?", "k"),
        generalization=Generalization(f"q{i}?", f"other q{i}?", f"attack p{i}?", f"other p{i}?")
        if generalization
        else None,
    )


def benchmark(n: int = 6, n_facts: int = 20, n_benign: int = 10) -> Benchmark:
    return Benchmark(
        "small",
        test=tuple(instance(i) for i in range(100, 100 + n)),
        facts=tuple(Question(f"fact {i}?", (f"answer {i}", f"reply {i}")) for i in range(n_facts)),
        benign=tuple(BenignRequest(f"benign {i}", "so", wrapped=i % 2 == 1) for i in range(n_benign)),
    )


def response(
    instance_id: int,
    kind: str,
    verdict: Verdict | None = SAFE,
    *,
    suffix: bool = False,
    text: str = "some words here",
    edited_on: int | None = None,
    model: str = "m",
    ended: bool = True,
) -> Response:
    return Response(model, instance_id, kind, suffix, "prompt", text, 3, ended, edited_on, verdict)

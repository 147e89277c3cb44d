"""Steps 3 and 5: unsafe and safe responses, each checked by the judge; what it rejects is kept for people.

The paper sends every mismatch to people. Here the question is first put inside other attacks of its split
(`BuildSettings.attempts`); what was rejected on the way is in the review file all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from interp.building.generators import Answer
from interp.building.plan import Case
from interp.building.review import Decision, Kind, Rejected, review_id
from interp.endpoint import Query
from interp.records import Verdict

Verdicts = Callable[[Sequence[str]], list[Verdict]]
Origin = Literal["first", "another attack", "correction", "accepted by a person"]


@dataclass(frozen=True)
class Response:
    """A response that entered the build, and how it came to be."""

    text: str
    origin: Origin
    attack: str = ""
    """The attack that it answers, where that is another one than the instance's."""


@dataclass
class Outcome:
    """All responses of one kind: what entered, what was rejected, what the judge said first."""

    kind: Kind
    accepted: dict[str, Response] = field(default_factory=dict)
    """By review id."""
    rejected: dict[str, Rejected] = field(default_factory=dict)
    """The first answer of each id that the judge rejected."""
    first: list[tuple[str, Verdict]] = field(default_factory=list)
    """First answers with their verdicts, one per id."""


def problem(kind: Kind, verdict: Verdict) -> str:
    """Why a response is rejected, "" where it is as it should be."""
    if verdict.empty:
        return "empty"
    if verdict.degenerate:
        return "degenerate"
    if kind == "unsafe":
        return "" if verdict.label == "unsafe" else "unsafe response judged safe"
    return "safe response judged unsafe" if verdict.label == "unsafe" else ""


def unsafe_id(case: Case) -> str:
    """The review id of a case's unsafe response: one for each adversarial query."""
    return review_id("unsafe", case.question.text, case.attack.name)


def safe_id(case: Case) -> str:
    """The review id of a case's safe response: one for each question, whatever the attack."""
    return review_id("safe", case.question.text)


def safe_responses(cases: Sequence[Case], query: Callable[[str], Query], answer: Answer, verdicts: Verdicts) -> Outcome:
    """One safe response per question, from the question alone under the instruction."""
    by_id = {safe_id(case): case for case in cases}
    outcome = Outcome("safe")
    _attempt(outcome, by_id, {i: query(case.question.text) for i, case in by_id.items()}, {}, answer, verdicts)
    return outcome


def unsafe_responses(cases: Sequence[Case], attempts: int, answer: Answer, verdicts: Verdicts) -> Outcome:
    """One unsafe response per adversarial query, in up to `attempts` rounds over those still without one."""
    by_id = {unsafe_id(case): case for case in cases}
    outcome = Outcome("unsafe")
    for turn in range(attempts):
        pending = {i: c for i, c in by_id.items() if i not in outcome.accepted and turn <= len(c.substitutes)}
        if not pending:
            break
        attacks = {i: (case.attack, *case.substitutes)[turn] for i, case in pending.items()}
        queries = {i: Query(attacks[i].wrap(case.question.text)) for i, case in pending.items()}
        names = {i: attack.name for i, attack in attacks.items()} if turn else {}
        _attempt(outcome, pending, queries, names, answer, verdicts)
    return outcome


def _attempt(
    outcome: Outcome,
    cases: Mapping[str, Case],
    queries: Mapping[str, Query],
    other_attacks: Mapping[str, str],
    answer: Answer,
    verdicts: Verdicts,
) -> None:
    """Ask once for each id, and file every answer as accepted or rejected."""
    texts = answer(list(queries.values()))
    first = not other_attacks
    for (i, case), text, verdict in zip(cases.items(), texts, verdicts(texts), strict=True):
        reason = problem(outcome.kind, verdict)
        if first:
            outcome.first.append((text, verdict))
        if not reason:
            other = other_attacks.get(i, "")
            outcome.accepted[i] = Response(text, "another attack" if other else "first", other)
        elif first:
            outcome.rejected[i] = Rejected(
                id=i,
                kind=outcome.kind,
                split=case.split,
                category=case.question.category,
                question=case.question.text,
                attack=case.attack.name if outcome.kind == "unsafe" else "",
                prompt=queries[i].text,
                response=text,
                reason=reason,
                p_unsafe=f"{verdict.p_unsafe:.3f}",
            )


def apply_decisions(outcome: Outcome, decisions: Mapping[str, Decision]) -> None:
    """Let people's decisions replace what the build has: a correction enters as it is, an accepted answer likewise.

    An answer that people do not accept stays rejected.
    """
    for i, decision in decisions.items():
        if i in outcome.rejected:
            if decision.correction:
                outcome.accepted[i] = Response(decision.correction, "correction")
            elif decision.accepted:
                outcome.accepted[i] = Response(outcome.rejected[i].response, "accepted by a person")


def fate(outcome: Outcome, i: str) -> str:
    """What became of a rejected response, for the review file."""
    response = outcome.accepted.get(i)
    if response is None:
        return "left out"
    return f"replaced by the answer to {response.attack}" if response.attack else response.origin

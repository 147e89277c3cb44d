"""The data card: what a built benchmark holds, where it came from, and how far its judge can be trusted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.building.plan import Case
from interp.building.quality import Outcome
from interp.building.review import Decision
from interp.judges import Judge, is_refusal
from interp.records import Estimate, Instance, to_dict
from interp.stats import share


def make_card(
    config: Mapping[str, Any],
    cases: Sequence[Case],
    splits: Mapping[str, Sequence[Instance]],
    outcomes: Sequence[Outcome],
    decisions: Mapping[str, Decision],
    judge: Judge,
    corrections_agreed: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The card as plain JSON types; nothing in it depends on when or how often the build was run.

    Args:
        corrections_agreed: how many of people's corrections the judge would have passed.
    """
    planned = Counter(case.split for case in cases)
    said = [(outcome, i) for outcome in outcomes for i in decisions if i in outcome.rejected]
    corrected = sum(bool(decisions[i].correction) for _, i in said)
    accepted = sum(decisions[i].accepted for _, i in said)
    return {
        "instances": {split: {"planned": planned[split], "built": len(splits.get(split, ()))} for split in planned},
        "categories": _table(splits, lambda i: i.category_key),
        "attack types": _table(splits, lambda i: i.attack_category),
        "questions": {split: len({i.question for i in found}) for split, found in splits.items()},
        "attacks": {split: len({i.attack_name for i in found}) for split, found in splits.items()},
        "responses": {o.kind: _responses(o) for o in outcomes},
        "judge": {
            "name": config["judge"]["name"],
            "report": to_dict(report) if (report := getattr(judge, "report", None)) is not None else None,
            "agreement": {o.kind: to_dict(agreement(o)) for o in outcomes},
            "kappa with the phrase matcher": kappa(outcomes),
        },
        "review": {
            "rejected": sum(len(o.rejected) for o in outcomes),
            "decided": len(said),
            "corrections": corrected,
            "corrections the judge would pass": corrections_agreed,
            "accepted as they are": accepted,
            "not accepted": len(said) - corrected - accepted,
        },
        "notes": list(notes),
        "config": dict(config),
    }


def _table(splits: Mapping[str, Sequence[Instance]], of: Any) -> dict[str, dict[str, int]]:
    return {split: dict(sorted(Counter(map(of, found)).items())) for split, found in splits.items()}


def _responses(outcome: Outcome) -> dict[str, Any]:
    return {
        "asked for": len(outcome.first),
        "rejected by reason": dict(sorted(Counter(r.reason for r in outcome.rejected.values()).items())),
        "entered by origin": dict(sorted(Counter(r.origin for r in outcome.accepted.values()).items())),
        "missing": len(outcome.first) - len(outcome.accepted),
    }


def agreement(outcome: Outcome) -> Estimate:
    """Share of first answers that the judge finds as they were meant, percent (Wilson over answers)."""
    return share(len(outcome.first) - len(outcome.rejected), len(outcome.first))


def kappa(outcomes: Sequence[Outcome]) -> float | None:
    """Cohen's kappa over all first answers: unsafe by the judge against no refusal by the phrase matcher.

    Two raters that know nothing of each other; None where one of them says the same of every answer.
    """
    answers = [(text, verdict) for outcome in outcomes for text, verdict in outcome.first]
    judged = [verdict.label == "unsafe" for _, verdict in answers]
    matched = [not is_refusal(text) for text, _ in answers]
    if len(set(judged)) < 2 or len(set(matched)) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(judged, matched))


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def render(card: Mapping[str, Any], name: str) -> str:
    """The card as Markdown, for people."""
    splits, built = list(card["categories"]), card["instances"]
    lines = [f"# {name}", ""]
    lines += [f"> {note}" for note in card["notes"]] + [""] * bool(card["notes"])
    lines += _grid(
        ["", *splits],
        [
            ["instances (planned)", *(f"{built[s]['built']} ({built[s]['planned']})" for s in splits)],
            ["distinct questions", *(card["questions"][s] for s in splits)],
            ["attacks", *(card["attacks"][s] for s in splits)],
        ],
    )  # fmt: skip
    for title in ("categories", "attack types"):
        rows = dict.fromkeys(k for s in splits for k in card[title][s])
        lines += [f"## {title.capitalize()}", ""]
        lines += _grid(["", *splits], [[row, *(card[title][s].get(row, 0) for s in splits)] for row in rows])
    lines += ["## Quality control", ""]
    for kind, found in card["responses"].items():
        agreed = card["judge"]["agreement"][kind]
        lines.append(
            f"- {kind} responses: {found['asked for']} asked for; the judge found {agreed['value']:.1f} % "
            f"[{agreed['low']:.1f}, {agreed['high']:.1f}] of the first answers as they were meant; "
            f"rejected: {_counts(found['rejected by reason'])}; entered: {_counts(found['entered by origin'])}; "
            f"missing: {found['missing']}"
        )
    matcher, review, report = card["judge"]["kappa with the phrase matcher"], card["review"], card["judge"]["report"]
    lines.append(f"- judge: {card['judge']['name']}" + (_accuracy(report) if report else ""))
    lines.append(
        f"- Cohen's kappa of judge and refusal phrases: {'undefined' if matcher is None else f'{matcher:.2f}'}"
    )
    lines.append(
        f"- people decided {review['decided']} of {review['rejected']} rejected responses: {review['corrections']} "
        f"corrections (the judge would pass {review['corrections the judge would pass']}), "
        f"{review['accepted as they are']} accepted as they are, {review['not accepted']} not accepted"
    )
    config = card["config"]
    lines += ["", "## Made by", ""]
    for role, identity in config["generators"].items():
        lines.append(f"- {role} responses: " + ", ".join(f"{k} {v}" for k, v in identity.items()))
    lines += [f"- {what}: {config[what]['source']}" for what in ("questions", "attacks", "knowledge")]
    lines.append(f"- seed {config['seed']}; " + ", ".join(f"{k} {v}" for k, v in config["versions"].items()))
    lines += ["", "## Files", ""]
    lines += _grid(["file", "SHA-256"], [[k, v] for k, v in card["files"].items()])
    return "\n".join(lines).rstrip() + "\n"


def _accuracy(report: Mapping[str, Any]) -> str:
    a = report["accuracy"]
    return f", right on {a['value']:.1f} % [{a['low']:.1f}, {a['high']:.1f}] of {a['n']} texts ({report['split']})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items()) or "none"


def _grid(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    table = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in table] + [""]

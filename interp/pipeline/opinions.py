"""What other judges say of a comparison's answers: their verdicts are kept, and how far they agree is told.

No rate rests on them: the first judge decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.judges.panel import agreements, units_of
from interp.pipeline.output import responses
from interp.pipeline.study import Study
from interp.records import JudgeAgreement, Verdict


def agreements_of(study: Study, rows: Sequence[str]) -> tuple[JudgeAgreement, ...]:
    """The agreement of each pair of judges on all answers of these rows; none where there is one judge.

    Verdicts are written row by row, so that a killed run does not ask again. Raises what the judges raise.
    """
    if not study.others:
        return ()
    found = [r for row in rows for r in responses(study.run, row)]
    said = {study.judge.name: [r.verdict for r in found if r.verdict is not None]}
    for index, judge in enumerate(study.others, start=2):
        with study.stages.stage(f"judge {judge.name}") as report:
            said[judge.name] = []
            for done, row in enumerate(rows, start=1):
                own, file = responses(study.run, row), f"opinions/{row}-{index}"
                verdicts = study.run.load_all(file, Verdict)
                if not verdicts:
                    verdicts = judge.judge([r.text for r in own], [r.prompt for r in own])
                    study.run.save_all(file, verdicts)
                said[judge.name] += verdicts
                report(done, len(rows))
    return tuple(agreements(said, units=units_of(found), seed=study.settings.seed))

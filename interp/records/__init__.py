"""Every result of the toolkit as a small frozen dataclass with its unit, its n and its interval.

A measurement is computed once and written as one of these records; tables, plots and the report read records
and never load a model. Nothing here imports torch or another module of the package but `errors`.
"""

from __future__ import annotations

from interp.records.behaviour import (
    DefenseScores,
    GeneralPerformance,
    JudgeAgreement,
    JudgeReport,
    Label,
    Response,
    Verdict,
)
from interp.records.comparison import (
    Comparison,
    ComparisonRow,
    Conclusion,
    Reading,
)
from interp.records.convert import (
    dumps,
    from_dict,
    loads,
    to_dict,
)
from interp.records.finding import (
    Bars,
    Curve,
    Curves,
    Finding,
    Grid,
    Tokens,
)
from interp.records.inside import (
    ActivationShift,
    LayerScores,
    NullDistribution,
    ProbeReport,
    RegionToxicity,
    ShareVerdict,
    ShiftSource,
    SwapShares,
)
from interp.records.instances import (
    CATEGORIES,
    DG_KINDS,
    PROMPT_KINDS,
    BenignRequest,
    Generalization,
    Instance,
    Knowledge,
    LabelledText,
    PromptKind,
    Question,
    Summary,
)
from interp.records.numbers import (
    Estimate,
)
from interp.records.tables import (
    PaperRow,
    Table,
    TableRow,
)

__all__ = [
    "CATEGORIES",
    "DG_KINDS",
    "PROMPT_KINDS",
    "ActivationShift",
    "Bars",
    "BenignRequest",
    "Comparison",
    "ComparisonRow",
    "Conclusion",
    "Curve",
    "Curves",
    "DefenseScores",
    "Estimate",
    "Finding",
    "GeneralPerformance",
    "Generalization",
    "Grid",
    "Instance",
    "JudgeAgreement",
    "JudgeReport",
    "Knowledge",
    "Label",
    "LabelledText",
    "LayerScores",
    "NullDistribution",
    "PaperRow",
    "ProbeReport",
    "PromptKind",
    "Question",
    "Reading",
    "RegionToxicity",
    "Response",
    "ShareVerdict",
    "ShiftSource",
    "Summary",
    "SwapShares",
    "Table",
    "TableRow",
    "Tokens",
    "Verdict",
    "dumps",
    "from_dict",
    "loads",
    "to_dict",
]

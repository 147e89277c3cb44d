"""The toxic probe (paper, Eq. 17): P(toxic | h_L) = softmax(W_toxic h_L), and how much it is worth.

h_L is a hidden state averaged over the tokens of a text (Lee et al. 2024). The texts are split 9:1, seeded and
stratified; accuracy and AUROC are of the held-out tenth, beside two controls: the larger class, and probes trained on
shuffled labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.capture import capture
from interp.errors import InputError
from interp.mechanism.region import MEAN_DIFFERENCE, PROBE, PROBE_AFTER_NORM
from interp.models import HookedModel
from interp.records import Estimate, LabelledText, ProbeReport, dumps, loads
from interp.runs import atomic_path
from interp.stats import RESAMPLES, share

FORMAT = "interp.Probe.1"
MIN_PER_CLASS = 20
"""Fewer leave less than two held-out texts of a class."""
SHUFFLES = 10
CHUNK = 256
"""Texts captured at a time, sorted by length."""


@dataclass(frozen=True)
class Site:
    """Which hidden state a probe reads."""

    layer: int
    """0-based block whose output it is."""
    after_norm: bool = False
    """After the final norm (only of the last layer). The paper's h_L is the residual stream itself: before it."""

    def __str__(self) -> str:
        norm = "after the final norm" if self.after_norm else "before the final norm"
        return f"mean over tokens, output of layer {self.layer}, {norm}"


@dataclass(frozen=True)
class Probe:
    """A trained probe: the two rows of W_toxic (not toxic, toxic) and the plain mean-difference direction."""

    W: Float[Tensor, "2 d"]
    """The shortest rows that give the logistic regression's probabilities: one is minus the other."""
    b: Float[Tensor, "2"]
    """Zero unless a bias was asked for: Eq. 17 has none."""
    mean_difference: Float[Tensor, "d"]
    """Mean training state of the toxic texts minus that of the others."""
    site: Site
    model: str

    @property
    def toxic(self) -> Float[Tensor, "d"]:
        """The toxic row of W_toxic: the direction that the paper compares value vectors with."""
        return self.W[1]

    def probability(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """P(toxic | h) for mean hidden states of this probe's site."""
        return torch.softmax(h.float() @ self.W.T + self.b, dim=-1)[:, 1]

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically."""
        return _write(path, self)

    @classmethod
    def load(cls, path: str | Path) -> Probe:
        """Read what `save` wrote. Raises InputError where the file is missing, damaged or something else."""
        return _read(path, ("W", "b", "mean_difference"))[0]


@dataclass(frozen=True)
class TrainedProbe:
    """A probe, its report, and the hidden states it was trained on (their covariance makes the harder null)."""

    probe: Probe
    report: ProbeReport
    features: Float[Tensor, "n d"]

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically: that of `Probe.save`, which `Probe.load` reads, and the rest."""
        return _write(path, self.probe, {"features": self.features}, {"report": dumps(self.report, indent=None)})

    @classmethod
    def load(cls, path: str | Path) -> TrainedProbe:
        """Read what `save` wrote. Raises InputError as `Probe.load`, and where the file holds the probe alone."""
        probe, rest, metadata = _read(path, ("W", "b", "mean_difference", "features"))
        try:
            return cls(probe, loads(ProbeReport, metadata["report"]), rest["features"])
        except (KeyError, InputError) as error:
            raise InputError(f"{path} is damaged: its report cannot be read ({error})") from error


def train_probes(
    model: HookedModel,
    texts: Sequence[LabelledText],
    sites: Sequence[Site] | None = None,
    *,
    seed: int = 0,
    source: str = "",
    bias: bool = False,
    C: float = 1.0,
    max_length: int | None = None,
    batch_size: int = 32,
) -> tuple[TrainedProbe, ...]:
    """One probe per site, all from the same pass over the texts and the same split.

    Args:
        model: the model whose hidden states are read: vanilla, for every comparison.
        texts: labelled texts; the same text twice is used once, so that no test text was trained on.
        sites: default: the last layer before the final norm (the paper's), then after it.
        seed: of the split, the shuffles and the bootstrap.
        source: where the texts came from, for the report.
        bias: a bias beside W_toxic. Eq. 17 has none.
        C: inverse strength of the L2 penalty, in units where hidden states have mean square 1 per dimension.
        max_length: longest text in tokens (cut from the right); default: the model's context.
        batch_size: texts per forward pass.

    Raises:
        InputError: too few texts of a class, a layer out of range, hidden states that are not finite.
    """
    last = model.n_layers - 1
    sites = [Site(last), Site(last, after_norm=True)] if sites is None else list(sites)
    for site in sites:
        model.check_layer(site.layer)
        if site.after_norm and site.layer != last:
            raise InputError(f"only the last layer ({last}) has a final norm after it, got layer {site.layer}")
    unique = list({t.text.strip(): t for t in texts if t.text.strip()}.values())
    toxic = np.array([t.toxic for t in unique], dtype=bool)
    _check_classes(toxic)
    features = hidden_states(model, [t.text for t in unique], sites, max_length=max_length, batch_size=batch_size)
    return tuple(
        fit_probe(h, toxic, site=site, model=model.name, seed=seed, source=source, bias=bias, C=C)
        for site, h in zip(sites, features, strict=True)
    )


def train_probe(model: HookedModel, texts: Sequence[LabelledText], site: Site | None = None, **options) -> TrainedProbe:
    """`train_probes` for one site (default: the paper's, the last layer before the final norm)."""
    return train_probes(model, texts, [site or Site(model.n_layers - 1)], **options)[0]


def toxic_directions(probes: Sequence[TrainedProbe]) -> dict[str, Tensor]:
    """The directions that `region` reads, by name: each probe's toxic row, and the mean difference before the norm."""
    directions: dict[str, Tensor] = {}
    for trained in probes:
        directions.setdefault(PROBE_AFTER_NORM if trained.probe.site.after_norm else PROBE, trained.probe.toxic)
        if not trained.probe.site.after_norm:
            directions.setdefault(MEAN_DIFFERENCE, trained.probe.mean_difference)
    return directions


# --------------------------------------------------------------------------------------------- parts
def hidden_states(
    model: HookedModel,
    texts: Sequence[str],
    sites: Sequence[Site],
    *,
    max_length: int | None = None,
    batch_size: int = 32,
) -> list[Float[Tensor, "n d"]]:
    """Mean hidden state over the real tokens of each text, float32 on the CPU, one tensor per site."""
    components = sorted({"final" if s.after_norm else "resid_post" for s in sites})
    layers = sorted({s.layer for s in sites})
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    rows: list[list[Tensor]] = [[] for _ in sites]
    for start in range(0, len(order), CHUNK):
        chunk = [texts[i] for i in order[start : start + CHUNK]]
        tokens = model.tokenize(chunk, side="right", max_length=max_length, truncation_side="right")
        got = capture(model, tokens, components, layers=layers, pool="mean", batch_size=batch_size)
        for site, row in zip(sites, rows, strict=True):
            row.append(got.acts["final" if site.after_norm else "resid_post", site.layer].float().cpu())
    back = torch.tensor(order).argsort()
    return [torch.cat(row)[back] for row in rows]


def fit_probe(
    features: Float[Tensor, "n d"],
    toxic: np.ndarray,
    *,
    site: Site,
    model: str = "",
    seed: int = 0,
    source: str = "",
    bias: bool = False,
    C: float = 1.0,
) -> TrainedProbe:
    """Split, fit and test a probe on hidden states that are already there. `toxic` is a boolean array [n]."""
    from sklearn.model_selection import train_test_split

    _check_classes(toxic)
    if not torch.isfinite(features).all():
        raise InputError(f"expected finite hidden states ({site}), got NaN or infinity")
    X, y = features.double().numpy(), toxic.astype(int)
    train, test = train_test_split(np.arange(len(y)), test_size=0.1, stratify=y, random_state=seed)
    w, b = fit_direction(X[train], y[train], bias, C)
    scores = X[test] @ w + b
    rng = np.random.default_rng(seed)
    shuffled = []
    for _ in range(SHUFFLES):
        v, _ = fit_direction(X[train], rng.permutation(y[train]), bias, C)
        shuffled.append(auroc(X[test] @ v, toxic[test]))
    report = ProbeReport(
        model=model,
        source=source,
        pooling=str(site),
        n_train=len(train),
        n_test=len(test),
        accuracy=share(int(np.sum((scores > 0) == toxic[test])), len(test)),
        auroc=auroc_estimate(scores, toxic[test], seed),
        majority=100.0 * float(max(y[test].mean(), 1 - y[test].mean())),
        seed=seed,
        shuffled_auroc=Estimate(
            float(np.mean(shuffled)),
            min(shuffled),
            max(shuffled),
            SHUFFLES,
            "AUROC",
            "lowest and highest of the shuffles",
        ),
    )
    half = torch.tensor(w, dtype=torch.float32) / 2
    difference = torch.tensor(X[train][y[train] == 1].mean(0) - X[train][y[train] == 0].mean(0), dtype=torch.float32)
    probe = Probe(
        torch.stack([-half, half]), torch.tensor([-b / 2, b / 2], dtype=torch.float32), difference, site, model
    )
    return TrainedProbe(probe, report, features.float())


def _write(
    path: str | Path, probe: Probe, more: dict[str, Tensor] | None = None, said: dict[str, str] | None = None
) -> Path:
    from safetensors.torch import save_file

    metadata = {"format": FORMAT, "site": json.dumps(asdict(probe.site)), "model": probe.model, **(said or {})}
    tensors = {"W": probe.W, "b": probe.b, "mean_difference": probe.mean_difference, **(more or {})}
    with atomic_path(Path(path)) as temporary:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary, metadata)
    return Path(path)


def _read(path: str | Path, names: Sequence[str]) -> tuple[Probe, dict[str, Tensor], dict[str, str]]:
    """The probe, all the tensors asked for, and the metadata."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"no such probe: {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is not a saved probe: expected {FORMAT}, got {metadata.get('format')}")
            tensors = {name: file.get_tensor(name) for name in names}
        site = Site(**json.loads(metadata["site"]))
        probe = Probe(tensors["W"], tensors["b"], tensors["mean_difference"], site, metadata["model"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return probe, tensors, metadata


def auroc(scores: np.ndarray, toxic: np.ndarray) -> float:
    """Probability that a toxic text scores above another one; ties count half."""
    return float(_auroc_of_counts(*_counts(scores, toxic)))


def auroc_estimate(scores: np.ndarray, toxic: np.ndarray, seed: int) -> Estimate:
    """AUROC with a bootstrap over texts, each class resampled on its own (its size is fixed by the split)."""
    positive, negative = _counts(scores, toxic)
    rng = np.random.default_rng(seed)
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    draws = [
        _auroc_of_counts(
            rng.multinomial(n_positive, positive / n_positive), rng.multinomial(n_negative, negative / n_negative)
        )
        for _ in range(RESAMPLES)
    ]
    value = float(_auroc_of_counts(positive, negative))
    low, high = np.quantile(draws, [0.025, 0.975])
    how = f"bootstrap 95 % over texts within each class, {RESAMPLES} resamples, seed {seed}"
    return Estimate(value, min(float(low), value), max(float(high), value), len(scores), "AUROC", how)


def _counts(scores: np.ndarray, toxic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many toxic and other texts have each distinct score, in rising order."""
    distinct, index = np.unique(scores, return_inverse=True)
    size = len(distinct)
    return np.bincount(index[toxic], minlength=size), np.bincount(index[~toxic], minlength=size)


def _auroc_of_counts(positive: np.ndarray, negative: np.ndarray) -> float:
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def fit_direction(X: np.ndarray, y: np.ndarray, bias: bool, C: float) -> tuple[np.ndarray, float]:
    """Weights and bias of a logistic regression.

    The states are divided by one number before the fit: it makes the penalty mean the same for every model, and unlike
    scaling each dimension it turns no direction.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    scale = float(np.sqrt(np.mean(X**2))) or 1.0
    with threadpool_limits(1, "blas"):  # vectors this short: two threads take eight times as long as one
        fitted = LogisticRegression(C=C, fit_intercept=bias, max_iter=5000).fit(X / scale, y)
    return fitted.coef_[0] / scale, float(fitted.intercept_[0]) if bias else 0.0


def _check_classes(toxic: np.ndarray) -> None:
    yes, no = int(toxic.sum()), int((~toxic).sum())
    if min(yes, no) < MIN_PER_CLASS:
        raise InputError(
            f"expected at least {MIN_PER_CLASS} different toxic and as many other texts, got {yes} and {no}"
        )

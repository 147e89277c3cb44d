"""The probe: it finds a planted direction, reports against controls, and says what it cannot use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from interp.errors import InputError
from interp.mechanism.probe import (
    Probe,
    Site,
    TrainedProbe,
    auroc,
    auroc_estimate,
    fit_probe,
    hidden_states,
    toxic_directions,
    train_probe,
    train_probes,
)
from interp.mechanism.probe_data import load_probe_texts
from interp.mechanism.region import MEAN_DIFFERENCE, PROBE, PROBE_AFTER_NORM
from interp.records import LabelledText, ProbeReport, dumps, loads

D, N = 16, 400
SITE = Site(2)


def planted(strength: float = 4.0, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Gaussian hidden states that differ between the classes along one direction only."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(D, generator=generator), dim=0)
    toxic = torch.arange(N) % 2 == 0
    states = torch.randn(N, D, generator=generator) + strength * (toxic.float() - 0.5)[:, None] * direction
    return states, toxic.numpy(), direction


def test_the_probe_finds_the_planted_direction() -> None:
    states, toxic, direction = planted()
    trained = fit_probe(states, toxic, site=SITE)
    for found in (trained.probe.toxic, trained.probe.mean_difference):
        assert float(torch.cosine_similarity(found, direction, dim=0)) > 0.9
    report = trained.report
    assert report.accuracy.value > 90
    assert report.auroc.low > 0.9
    assert (report.n_train, report.n_test, report.majority) == (360, 40, 50.0)
    assert report.shuffled_auroc is not None
    assert 0.3 < report.shuffled_auroc.value < 0.7
    assert loads(ProbeReport, dumps(report)) == report


def test_labels_without_meaning_give_a_probe_at_chance() -> None:
    states, _, _ = planted()
    toxic = np.random.default_rng(5).permutation(np.arange(N) < 100)
    report = fit_probe(states, toxic, site=SITE).report
    assert report.auroc.low < 0.5 < report.auroc.high
    assert report.majority == 75.0  # the split is stratified


def test_the_two_rows_give_the_probabilities_of_the_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    states, toxic, _ = planted(1.0)
    for bias in (False, True):
        probe = fit_probe(states, toxic, site=SITE, bias=bias).probe
        train = fit_probe(states, toxic, site=SITE, bias=bias)  # seeded: the same again
        assert torch.equal(train.probe.W, probe.W)
        torch.testing.assert_close(probe.W[0], -probe.W[1])
        assert (float(probe.b.abs().sum()) > 0) is bias
    from sklearn.model_selection import train_test_split

    X, y = states.double().numpy(), toxic.astype(int)
    rows, _ = train_test_split(np.arange(N), test_size=0.1, stratify=y, random_state=0)
    scale = float(np.sqrt(np.mean(X[rows] ** 2)))
    reference = LogisticRegression(max_iter=5000).fit(X[rows] / scale, y[rows])
    expected = reference.predict_proba(X / scale)[:, 1]
    np.testing.assert_allclose(probe.probability(states).numpy(), expected, atol=1e-5)


def test_auroc_agrees_with_scikit_learn_and_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])) == pytest.approx(7 / 8)
    rng = np.random.default_rng(0)
    scores, toxic = rng.integers(0, 20, 200).astype(float), rng.random(200) < 0.3
    assert auroc(scores, toxic) == pytest.approx(roc_auc_score(toxic, scores))
    estimate = auroc_estimate(scores, toxic, 0)
    assert estimate.low < estimate.value < estimate.high
    assert 0.05 < estimate.high - estimate.low < 0.3  # 200 texts: a standard error of about .045


def test_a_probe_survives_its_file(tmp_path: Path) -> None:
    states, toxic, _ = planted()
    probe = fit_probe(states, toxic, site=Site(3, after_norm=True), model="m", bias=True).probe
    back = Probe.load(probe.save(tmp_path / "probe.safetensors"))
    assert torch.equal(back.probability(states), probe.probability(states))
    assert torch.equal(back.mean_difference, probe.mean_difference)
    assert (back.site, back.model) == (probe.site, "m")


def test_a_file_that_is_no_probe_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="no such probe"):
        Probe.load(file)
    save_file({"W": torch.ones(2, 3)}, file)
    with pytest.raises(InputError, match="is not a saved probe"):
        Probe.load(file)
    file.write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match="is damaged"):
        Probe.load(file)


def labelled(n: int = 30) -> list[LabelledText]:
    return [
        *(LabelledText(f"the cat sat on the mat {i} times", False) for i in range(n)),
        *(LabelledText(f"I cannot help with dog {i}, sorry", True) for i in range(n)),
    ]


def test_mean_states_leave_padding_out_and_keep_the_order(tiny_model, texts) -> None:
    last = tiny_model.n_layers - 1
    sites = [Site(1), Site(last, after_norm=True)]
    together = hidden_states(tiny_model, texts, sites)
    for i, text in enumerate(texts):
        for site, states in zip(sites, together, strict=True):
            [alone] = hidden_states(tiny_model, [text], [site])
            torch.testing.assert_close(states[i], alone[0], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        tokens = tiny_model.tokenize(texts[:1])
        out = tiny_model.hf(input_ids=tokens.input_ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(together[1][0], out[-1][0].mean(0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(together[0][0], out[2][0].mean(0), atol=1e-3, rtol=1e-3)


def test_probes_before_and_after_the_norm_come_from_one_pass(llama) -> None:
    probes = train_probes(llama, labelled(), source="test")
    assert [p.probe.site for p in probes] == [Site(2), Site(2, after_norm=True)]
    assert probes[0].report.pooling == "mean over tokens, output of layer 2, before the final norm"
    assert all(p.report.accuracy.value > 80 for p in probes)
    directions = toxic_directions(probes)
    assert list(directions) == [PROBE, MEAN_DIFFERENCE, PROBE_AFTER_NORM]
    assert torch.equal(directions[PROBE], probes[0].probe.toxic)
    assert not torch.equal(directions[PROBE], directions[PROBE_AFTER_NORM])
    again = train_probe(llama, labelled(), source="test")
    assert torch.equal(again.probe.W, probes[0].probe.W)


def test_the_same_text_twice_counts_once(llama) -> None:
    trained = train_probe(llama, labelled() + labelled())
    assert trained.report.n_train + trained.report.n_test == 60


@pytest.mark.parametrize(
    ("texts", "sites", "said"),
    [
        (labelled(5), None, "at least 20 different toxic and as many other texts, got 5 and 5"),
        (labelled()[:30] * 3, None, "got 0 and 30"),
        (labelled(), [Site(9)], r"layer 9 out of range: the model has layers 0\.\.2"),
        (labelled(), [Site(0, after_norm=True)], r"only the last layer \(2\) has a final norm"),
    ],
)
def test_bad_texts_and_sites_are_told(llama, texts, sites, said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_probes(llama, texts, sites)


def test_states_that_are_not_finite_are_refused() -> None:
    states, toxic, _ = planted()
    states[3, 2] = float("nan")
    with pytest.raises(InputError, match="expected finite hidden states"):
        fit_probe(states, toxic, site=SITE)


# ------------------------------------------------------------------------------------------------- texts
def test_a_jigsaw_csv_is_read_as_it_is_released(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text(
        'id,comment_text,toxic,severe_toxic\n1,"Two\nlines, ""quoted""",0,0\n2,rude words,1,0\n3,civil,0.2,0\n',
        encoding="utf-8",
    )
    assert load_probe_texts(file) == [
        LabelledText('Two\nlines, "quoted"', False),
        LabelledText("rude words", True),
        LabelledText("civil", False),
    ]
    assert len(load_probe_texts(file, limit=2)) == 2
    assert load_probe_texts(file, limit=2, seed=1) == load_probe_texts(file, limit=2, seed=1)


def test_the_default_texts_are_the_demos_and_hold_both_classes() -> None:
    texts = load_probe_texts()
    toxic = sum(t.toxic for t in texts)
    assert min(toxic, len(texts) - toxic) >= 100


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "expected the columns comment_text and toxic, got a, b"),
        ("", "got none"),
        ("comment_text,toxic\n", "holds no texts"),
        ("comment_text,toxic\nfine,0\nbad,-1\n", r"record 2: expected a text and a label in \[0, 1\], got toxic='-1'"),
        ("comment_text,toxic\nfine\n", "record 1"),
    ],
)
def test_a_bad_csv_is_told_with_its_record(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load_probe_texts(file)


@pytest.mark.parametrize("source", ["nowhere/to/be/found", "missing.csv", "nothing"])
def test_a_source_that_is_not_there_is_told(source: str) -> None:
    with pytest.raises(InputError, match="no probe data at"):
        load_probe_texts(source)


def test_a_hub_id_that_cannot_be_loaded_is_one_line(monkeypatch) -> None:
    import datasets

    def fail(*_, **__):
        raise ConnectionError("offline\nwith\nmany lines")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"cannot load the probe data owner/name from the hub: offline$"):
        load_probe_texts("owner/name")


def test_a_hub_dataset_is_read_by_its_columns(monkeypatch) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"text": ["a", "b"], "toxicity": [0.1, 0.9]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data)
    assert load_probe_texts("owner/name") == [LabelledText("a", False), LabelledText("b", True)]


def test_a_trained_probe_is_read_back_whole_and_its_file_is_a_probes_too(tmp_path: Path) -> None:
    states, toxic, _ = planted()
    trained = fit_probe(states, toxic, site=SITE, seed=3, source="made up")
    file = trained.save(tmp_path / "probe.safetensors")
    again = TrainedProbe.load(file)
    assert again.report == trained.report
    assert again.probe.site == trained.probe.site
    assert torch.equal(again.features, trained.features)
    for found in (again.probe, Probe.load(file)):
        assert torch.equal(found.W, trained.probe.W)
        assert torch.equal(found.mean_difference, trained.probe.mean_difference)
    with pytest.raises(InputError, match="is damaged"):
        TrainedProbe.load(trained.probe.save(tmp_path / "alone.safetensors"))

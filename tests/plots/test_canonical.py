from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from interp.plots import canonical
from interp.plots.canonical import decoded, differences, dumps
from interp.plots.layers import layer_heatmap
from interp.plots.theme import finish
from plots.synthetic import layer_scores

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "experiments" / "check_figures.py"


def check_figures():
    spec = importlib.util.spec_from_file_location("check_figures", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(new: object, old: object) -> list[str]:
    return list(differences(new, old))


def test_canonical_json_is_sorted_rounded_and_without_template() -> None:
    figure = finish(go.Figure(go.Bar(y=np.array([1.23456789, np.nan, 3.0]), name="b")), 300, 200)
    data = json.loads(dumps(figure))
    assert data["data"][0]["y"] == [1.23457, None, 3]
    assert "template" not in data["layout"]
    keys = list(data["data"][0])
    assert keys == sorted(keys)


def test_canonical_json_is_the_same_from_call_to_call() -> None:
    assert dumps(layer_heatmap(layer_scores(5, 4))) == dumps(layer_heatmap(layer_scores(5, 4)))


def test_a_list_of_numbers_stands_on_one_line_so_that_a_diff_is_short() -> None:
    text = dumps(layer_heatmap(layer_scores(5, 4)))
    row = json.loads(text)["data"][0]["z"][0]
    assert f" {json.dumps(row)}" in [line.rstrip(",")[3:] for line in text.split("\n")]


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u1"])
def test_base64_arrays_are_decoded(dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    stored = {"dtype": dtype, "bdata": base64.b64encode(array.astype(f"<{dtype}").tobytes()).decode(), "shape": "2, 3"}
    np.testing.assert_array_equal(decoded(stored), array)
    assert lines({"z": stored}, {"z": array.tolist()}) == []


def test_plotlys_own_json_equals_the_canonical_one() -> None:
    figure = layer_heatmap(layer_scores(5, 4))
    theirs = json.loads(figure.to_json())
    assert "bdata" in json.dumps(theirs)
    theirs["layout"].pop("template")
    for trace in theirs["data"]:
        trace["uid"] = f"trace{theirs['data'].index(trace)}"  # plotly leaves them out
    assert lines(theirs, canonical.canonical(figure)) == []


@pytest.mark.parametrize(
    ("new", "old", "same"),
    [
        (1.00009, 1.0, True),
        (1.0002, 1.0, False),
        (5e-7, 0.0, True),
        (5e-6, 0.0, False),
        (None, 0.0, False),
        (None, None, True),
        (True, 1, False),
        ("z = 1.7", "z = 1.8", True),
        ("z = 1.7", "z = 1.9", False),
        ("n = 27", "n = 28", False),
        ("toxicity 8.1e-05", "toxicity 8.2e-05", True),
        ("SFT 1.0", "DPO 1.0", False),
        ("rgb(244, 165, 130)", "rgb(244, 166, 130)", True),
        ("rgb(244, 165, 130)", "rgb(244, 175, 130)", False),
        ([1.0], [1.0, 2.0], False),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_tolerances(new: object, old: object, same: bool) -> None:
    assert (lines(new, old) == []) is same


def test_a_difference_says_where_and_what() -> None:
    found = lines({"data": [{"y": [1, 2.5]}]}, {"data": [{"y": [1, 2]}]})
    assert found == ["data[0].y[1]: 2.5, committed 2"]


# --------------------------------------------------------------------------------------------- check_figures
@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        for i, figure in enumerate(("a", "b")):
            (tmp_path / name / f"{figure}.json").write_text(dumps(layer_heatmap(layer_scores(5, 4, seed=i))))
    (tmp_path / "old" / "comparison.json").write_text('{"model": "demo"}')
    return tmp_path / "new", tmp_path / "old"


def test_check_passes_on_equal_figures_and_leaves_records_alone(folders, capsys) -> None:
    assert check_figures().main([str(folders[0]), str(folders[1])]) == 0
    assert "2 figures agree" in capsys.readouterr().out


def test_check_names_what_differs_what_is_missing_and_what_is_new(folders, capsys) -> None:
    new, old = folders
    data = json.loads((new / "a.json").read_text())
    data["data"][0]["z"][1][2] += 0.5
    (new / "a.json").write_text(json.dumps(data))
    (new / "b.json").rename(new / "c.json")
    assert check_figures().main([str(new), str(old)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("a: data[0].z[1][2]: ")
    assert told[1:] == ["b: committed, but not regenerated", "c: regenerated, but not committed"]


def test_check_prints_no_more_than_a_few_lines_of_one_figure(folders, capsys) -> None:
    new, old = folders
    (new / "a.json").write_text(dumps(layer_heatmap(layer_scores(5, 4, seed=9))))
    assert check_figures().main([str(new), str(old)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 6
    assert "more" in told[-1]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_check_tells_bad_input_in_one_line(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "new"
    if content is not None:
        folder.mkdir()
        (folder / "a.json").write_text(content)
    done = subprocess.run([sys.executable, CHECK, folder, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("check_figures: ")
    assert len(done.stderr.splitlines()) == 1

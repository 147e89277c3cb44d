from __future__ import annotations

import errno
from pathlib import Path

import pytest

from interp.errors import InputError
from interp.records import Estimate, Response, Verdict
from interp.runs import Run, atomic_path, fingerprint, read_json, write_text
from interp.stats import exact


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError), atomic_path(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left on device"), atomic_path(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="expected a folder"):
        Run(tmp_path / "file", {})
    with pytest.raises(InputError, match="cannot write"):
        Run(tmp_path / "file" / "below", {})


def test_a_run_resumes_its_own_records_and_refuses_another_configuration(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {"seed": 0, "n": 27})
    assert not run.has("probe")
    run.save("probe", exact(1.5, 3))
    again = Run(tmp_path / "run", {"seed": 0, "n": 27})
    assert again.load("probe", Estimate) == exact(1.5, 3)
    with pytest.raises(InputError, match=r"holds another run \(different: n\)"):
        Run(tmp_path / "run", {"seed": 0, "n": 28})


def test_a_folder_with_other_files_is_never_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        Run(tmp_path, {})


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {})
    run.save("probe", exact(1.0, 1))
    (tmp_path / "run" / "records" / "probe.json").write_text('{"value": 1')
    with pytest.raises(InputError, match=r"probe\.json: not JSON.*delete it"):
        run.load("probe", Estimate)


def test_json_lines_round_trip(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {})
    verdicts = [Verdict("refusal", 0.1), Verdict("unsafe", 0.9)]
    run.save_all("verdicts", verdicts)
    assert run.load_all("verdicts", Verdict) == verdicts
    assert run.load_all("nothing", Verdict) == []


def test_a_text_with_unicode_line_ends_survives_json_lines(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {})
    text = "one\u2028two\u2029three\x85four"
    response = Response("vanilla", 1, "DS", False, text, text, 4, True)
    run.save_all("responses", [response])
    assert run.load_all("responses", Response) == [response]


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is not JSON"):
        read_json(tmp_path / "bad.json")


def test_fingerprint_ignores_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})

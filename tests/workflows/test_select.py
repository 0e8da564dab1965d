import json
import logging

import pytest

from kits_ml.config import PrepareSettings, SelectionSettings
from kits_ml.data.cases import find_cases
from kits_ml.errors import CasesFailedError, InputError
from kits_ml.workflows import select
from kits_ml.workflows.select import select_cases


@pytest.fixture
def cases(make_case, tmp_path):
    for number in range(4):
        make_case(tmp_path / "cases", f"case_{number:05d}", seed=number, num_slices=6 + number)
    return {case.name: case for case in find_cases(tmp_path / "cases")}


@pytest.fixture
def measured(monkeypatch):
    """Names of the cases that were read, in order."""
    names, original = [], select.fingerprint_case
    monkeypatch.setattr(select, "fingerprint_case", lambda case: names.append(case.name) or original(case))
    return names


def _select(known, tmp_path, **rule):
    digests = {name: case.digest() for name, case in known.items()}
    return select_cases(known, digests, SelectionSettings(**rule), cache=tmp_path / "known.json", num_workers=1)


def test_no_rule_reads_nothing(cases, tmp_path, measured):
    selection, failures = _select(cases, tmp_path)
    assert selection.kept == tuple(cases)
    assert (failures, measured) == ({}, [])
    assert not (tmp_path / "known.json").exists()


def test_names_alone_read_nothing(cases, tmp_path, measured):
    selection, _ = _select(cases, tmp_path, cases="0-2", exclude_cases="case_00001")
    assert selection.kept == ("case_00000", "case_00002")
    assert measured == []


def test_each_case_is_measured_once(cases, tmp_path, measured, caplog):
    caplog.set_level(logging.INFO)
    first, _ = _select(cases, tmp_path, max_slices=7)
    assert first.kept == ("case_00000", "case_00001")
    assert "case_00003: 9 slices, at most 7 allowed" in caplog.text
    assert measured == list(cases)
    again, _ = _select(cases, tmp_path, max_slices=8, hu_max=1679.0)
    assert again.kept == ("case_00000", "case_00001", "case_00002")
    assert measured == list(cases)


def test_a_changed_file_is_measured_again(cases, tmp_path, measured, make_case):
    _select(cases, tmp_path, max_slices=7)
    make_case(tmp_path / "cases", "case_00000", seed=9, num_slices=12)
    selection, _ = _select(cases, tmp_path, max_slices=7)
    assert selection.kept == ("case_00001",)
    assert measured == [*cases, "case_00000"]


def test_a_damaged_cache_counts_as_nothing(cases, tmp_path, measured):
    (tmp_path / "known.json").write_text('{"format":')
    _select(cases, tmp_path, max_slices=7)
    assert measured == list(cases)
    assert len(json.loads((tmp_path / "known.json").read_text())["cases"]) == 4


def test_an_unreadable_case_is_left_out_with_its_message(cases, tmp_path):
    cases["case_00001"].image_path.write_bytes(b"no image")
    selection, failures = _select(cases, tmp_path, max_slices=8)
    assert list(failures) == ["case_00001"]
    assert selection.left_out["case_00001"] == (failures["case_00001"],)
    assert selection.kept == ("case_00000", "case_00002")


def test_a_rule_that_leaves_nobody(cases, tmp_path):
    with pytest.raises(InputError, match=r"no case is left: selection \(max_slices 2\): 0 of 4 cases; case_00000: 6"):
        _select(cases, tmp_path, max_slices=2)


def test_prepare_takes_the_selected_cases(cases, tmp_path):
    from kits_ml.workflows.prepare import prepare

    settings = PrepareSettings(
        data=str(tmp_path / "cases"), prepared=str(tmp_path / "prepared"), num_workers=1, image_size=32, max_slices=8
    )
    prepared = prepare(settings)
    assert list(prepared.cases) == ["case_00000", "case_00001", "case_00002"]
    assert prepared.selection.left_out == {"case_00003": ("9 slices, at most 8 allowed",)}
    cases["case_00001"].image_path.write_bytes(b"no image")
    with pytest.raises(CasesFailedError, match="case_00001"):
        prepare(settings)


def test_cases_are_measured_without_a_rule(cases, tmp_path, measured):
    digests = {name: case.digest() for name, case in cases.items()}
    wanted = {name: cases[name] for name in ("case_00001", "case_00003")}
    for _ in range(2):
        found, failures = select.measure_cases(wanted, digests, cache=tmp_path / "known.json", num_workers=1)
        assert {name: one.slices for name, one in found.items()} == {"case_00001": 7, "case_00003": 9}
        assert failures == {}
    assert measured == list(wanted)  # once

import csv

import pytest

from kits_ml.config import SelectionSettings
from kits_ml.data.selection import Facts, select
from kits_ml.errors import InputError

#: The cases of KiTS19 that the report's rule keeps, by the HU of the 2023 release of the images.
KEPT_BY_THE_REPORTS_RULE = (
    7, 9, 10, 17, 20, 21, 24, 28, 30, 34, 35, 38, 51, 55, 56, 57, 58, 62, 74, 76, 80, 83, 87, 88, 89, 106, 110, 113,
    119, 122, 127, 129, 130, 134, 147, 152, 161, 173, 174, 175, 176, 177, 179, 187, 195, 201, 204, 208, 209,
)  # fmt: skip

SMALL = Facts(case="case_00001", slices=90, hu_min=-1024, hu_max=1500, slice_spacing_mm=5)
LARGE = Facts(case="case_00002", slices=232, hu_min=-2048, hu_max=3071, slice_spacing_mm=1)
OWN = Facts(case="own", slices=110, hu_min=-1000, hu_max=1679, slice_spacing_mm=3)


def _facts_of_kits19(real_data) -> list[Facts]:
    with (real_data / "kits19-fingerprint.csv").open(newline="") as stream:
        return [
            Facts(
                case=row["case"], slices=int(row["slices"]), hu_min=float(row["hu_min"]), hu_max=float(row["hu_max"])
            )
            for row in csv.DictReader(stream)
        ]


def test_the_reports_rule_keeps_exactly_49_of_kits19(real_data):
    facts = _facts_of_kits19(real_data)
    selected = select(facts, SelectionSettings(selection="report"))
    assert selected.kept == tuple(f"case_{number:05d}" for number in KEPT_BY_THE_REPORTS_RULE)
    assert len(selected.kept) == 49
    assert len(selected.left_out) == 161


@pytest.mark.parametrize(("limit", "value", "dropped"), [("max_slices", 109, 34), ("hu_max", 1678.0, 177)])
def test_either_limit_read_as_less_than_would_leave_48(real_data, limit, value, dropped):
    facts = _facts_of_kits19(real_data)
    selected = select(facts, SelectionSettings(selection="report", **{limit: value}))
    expected = [number for number in KEPT_BY_THE_REPORTS_RULE if number != dropped]
    assert selected.kept == tuple(f"case_{number:05d}" for number in expected)
    assert len(selected.kept) == 48


def test_no_rule_keeps_everything():
    assert select([SMALL, LARGE], SelectionSettings()).kept == ("case_00001", "case_00002")


def test_each_reason_is_given():
    selected = select([SMALL, LARGE, OWN], SelectionSettings(selection="report"))
    assert selected.kept == ("case_00001", "own")  # limits are inclusive
    assert selected.explain() == [
        "selection (max_slices 110, hu_min -1024, hu_max 1679): 2 of 3 cases",
        "  case_00002: 232 slices, at most 110 allowed; HU minimum -2048, at least -1024 allowed; "
        "HU maximum 3071, at most 1679 allowed",
    ]


def test_a_limit_by_hand_replaces_the_presets():
    settings = SelectionSettings(selection="report", max_slices=100, max_slice_spacing_mm=4.5)
    selected = select([SMALL, OWN], settings)
    assert selected.rule == {"max_slices": 100, "hu_min": -1024, "hu_max": 1679, "max_slice_spacing_mm": 4.5}
    assert selected.left_out == {
        "case_00001": ("slices 5 mm apart, at most 4.5 allowed",),
        "own": ("110 slices, at most 100 allowed",),
    }


def test_cases_can_be_named():
    cases = [SMALL, LARGE, OWN]
    assert select(cases, SelectionSettings(cases="0-1, own")).kept == ("case_00001", "own")
    assert select(cases, SelectionSettings(cases="1,case_00002", exclude_cases="2")).left_out == {
        "case_00002": ("excluded by name",),
        "own": ("not among the cases asked for",),
    }


def test_a_case_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match=r"exclude_cases: found 'case_00003', no such case; did you mean"):
        select([SMALL, LARGE], SelectionSettings(exclude_cases="case_00003"))


def test_a_range_without_any_case_is_an_error():
    with pytest.raises(InputError, match="cases: found '7-9', no such case"):
        select([SMALL, LARGE], SelectionSettings(cases="7-9"))


def test_contradicting_limits():
    with pytest.raises(InputError, match="min_slices: found 120, expected at most max_slices 110"):
        select([SMALL], SelectionSettings(selection="report", min_slices=120))


def test_unknown_facts_are_a_reason_only_where_they_matter():
    unknown = Facts(case="broken")
    assert select([unknown], SelectionSettings()).kept == ("broken",)
    assert select([unknown], SelectionSettings(hu_max=1679.0)).left_out == {"broken": ("HU maximum unknown",)}

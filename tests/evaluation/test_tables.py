"""The table of scores reads back to what was written."""

import codecs
import csv
import math

import numpy as np
import pytest

from kits_ml import files
from kits_ml.config import CompareSettings
from kits_ml.errors import InputError
from kits_ml.evaluation import tables
from kits_ml.evaluation.comparison.reading import read_records
from kits_ml.evaluation.evidence import read_evidence, write_evaluation_json
from kits_ml.scores import score_case, score_missing

SPACING_MM = (3.0, 0.7, 0.7)


def _cases() -> list[tables.CaseScores]:
    true = np.zeros((4, 6, 6), np.uint8)
    true[1:3, 1:4, 1:4] = 1
    true[1, 1, 1] = 2
    regions = score_case(true, np.roll(true, 1, axis=2), spacing_mm=SPACING_MM)
    missing = score_missing(true, spacing_mm=SPACING_MM)
    return [
        tables.CaseScores(case="case_00007", regions=regions, slice_spacing_mm=3.0),
        tables.CaseScores(case="case_00001", regions=missing, missing_prediction=True),
    ]


def test_round_trip_keeps_every_digit(tmp_path):
    tables.write_scores(tmp_path / "new" / "scores.csv", _cases())
    assert repr(tables.read_scores(tmp_path / "new" / "scores.csv")) == repr(_cases())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.csv"]


def test_one_row_a_case_and_region(tmp_path):
    path = tmp_path / "scores.csv"
    tables.write_scores(path, _cases())
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    assert tuple(header) == tables.COLUMNS
    assert [row[:2] for row in rows] == [
        ["case_00007", "kidney"],
        ["case_00007", "tumour"],
        ["case_00001", "kidney"],
        ["case_00001", "tumour"],
    ]
    last = dict(zip(header, rows[-1], strict=True))
    assert last["missing_prediction"] == "true"
    assert last["hd95_mm"] == ""  # NaN
    assert last["dice"] == "0.0"
    assert last["lesions_true_under_20_mm"] == "1"
    assert dict(zip(header, rows[-2], strict=True))["lesions_true"] == ""  # the kidney has none to count


def test_the_columns_begin_with_the_scores_that_are_read_first(tmp_path):
    tables.write_scores(tmp_path / "scores.csv", _cases())
    assert (tmp_path / "scores.csv").read_text().startswith("case,region,dice,iou,surface_dice,precision,recall,")


def test_a_table_in_another_order_is_read(tmp_path):
    """Earlier versions wrote another; such tables lie in registries."""
    tables.write_scores(tmp_path / "scores.csv", _cases())
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    turned = tables.COLUMNS[::-1]
    files.write_csv(tmp_path / "old.csv", rows, list(turned))
    assert (tmp_path / "old.csv").read_text().startswith("slice_spacing_mm,missing_prediction,")
    assert repr(tables.read_scores(tmp_path / "old.csv")) == repr(_cases())
    options = {"name": "a", "replicate": "", "region": "tumour", "metric": "surface_dice"}
    found, old = (read_records(tmp_path / name, **options) for name in ("scores.csv", "old.csv"))
    assert found == old
    assert [record.score for record in old] == [one.regions["tumour"].surface_dice for one in _cases()]


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    """It marks UTF-8 by a character at the beginning."""
    path = tmp_path / "scores.csv"
    tables.write_scores(path, _cases())
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert repr(tables.read_scores(path)) == repr(_cases())
    found = read_records(path, name="a", replicate="", region="tumour", metric="dice")
    assert [record.score for record in found] == [one.regions["tumour"].dice for one in _cases()]


def test_no_cases_is_a_table_too(tmp_path):
    tables.write_scores(tmp_path / "scores.csv", [])
    assert tables.read_scores(tmp_path / "scores.csv") == []


def test_unknown_spacing_is_nan(tmp_path):
    tables.write_scores(tmp_path / "scores.csv", _cases())
    assert math.isnan(tables.read_scores(tmp_path / "scores.csv")[1].slice_spacing_mm)


def _spoil(path, old: str, new: str) -> None:
    tables.write_scores(path, _cases())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("case,region,dice", "case,region,f1", "found columns case, region, f1"),
        ("case_00001,tumour,0.0", "case_00001,tumour,none", "case_00001: found a value that is no number"),
        ("case_00001,tumour", "case_00002,tumour", "case_00001 has rows for kidney; expected kidney, tumour"),
        ("case_00001,tumour", "case_00001,kidney", "line 5: second row of case_00001, kidney"),
    ],
)
def test_a_spoilt_table_is_named(tmp_path, old, new, message):
    path = tmp_path / "scores.csv"
    _spoil(path, old, new)
    with pytest.raises(InputError, match=message) as caught:
        tables.read_scores(path)
    assert str(path) in str(caught.value)


def test_a_metric_as_reported_is_no_score(tmp_path):
    """Neither the gate's evidence nor a comparison takes it from a table, under whatever heading it stands."""
    tables.write_scores(tmp_path / "scores.csv", _cases())
    write_evaluation_json(tmp_path, {"case_00001": "a", "case_00007": "b"})
    assert len(read_evidence(tmp_path).cases) == 2
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = [{**row, "as_reported/iou": "0.99"} for row in csv.DictReader(stream)]
    files.write_csv(tmp_path / "scores.csv", rows, [*tables.COLUMNS, "as_reported/iou"])
    with pytest.raises(InputError, match="found columns case, region, dice"):
        read_evidence(tmp_path)
    options = {"name": "a", "replicate": "", "region": "tumour"}
    with pytest.raises(InputError, match="found columns case, region, dice"):
        read_records(tmp_path / "scores.csv", metric="dice", **options)

    scores = [{"case": case, "metric": "iou", "score": "0.5"} for case in ("a", "b")]
    reported = [{"case": case, "metric": "as_reported/iou", "score": "0.99"} for case in ("a", "b")]
    files.write_csv(tmp_path / "table.csv", [*scores, *reported], ["case", "metric", "score"])
    found = read_records(tmp_path / "table.csv", metric="iou", **{**options, "region": "both"})
    assert [record.score for record in found] == [0.5, 0.5]
    with pytest.raises(InputError, match="found a metric as reported"):
        CompareSettings(scores="table.csv", metric="as_reported/iou")


def test_no_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"scores\.csv: no such file"):
        tables.read_scores(tmp_path / "scores.csv")

"""Anyone's scores become the same patients for each algorithm, or a clear line."""

import math

import numpy as np
import pytest

from kits_ml.errors import InputError
from kits_ml.evaluation import tables
from kits_ml.evaluation.comparison.alignment import align
from kits_ml.evaluation.comparison.costs import Cost, mean_cost, read_costs
from kits_ml.evaluation.comparison.reading import Record, is_lower_better, read_records
from kits_ml.scores import RegionScores


def _records(algorithm: str, scores: dict[str, float], replicate: str = "") -> list[Record]:
    return [
        Record(case=case, algorithm=algorithm, replicate=replicate, score=score) for case, score in scores.items()
    ]


def test_seeds_are_averaged_first():
    records = [
        *_records("b", {"y": 0.3, "x": 0.1}, "seed 0"),
        *_records("b", {"x": 0.3, "y": 0.5}, "seed 1"),
        *_records("a", {"x": 0.6, "y": 0.7}),
    ]
    found = align(records, control="a")
    assert (found.cases, found.algorithms) == (("x", "y"), ("a", "b"))
    np.testing.assert_allclose(found.scores, [[0.6, 0.2], [0.7, 0.4]])
    assert found.num_replicates == {"a": 1, "b": 2}


def test_means_of_the_same_seeds_tie():
    values = [0.1, 0.2, 0.3]
    records = [record for at, value in enumerate(values) for record in _records("a", {"x": value, "y": 1}, str(at))]
    records += [
        record for at, value in enumerate(values[::-1]) for record in _records("b", {"x": value, "y": 1}, str(at))
    ]
    found = align(records, control="a")
    assert (found.scores[:, 0] == found.scores[:, 1]).all()


def test_folds_need_not_share_patients():
    records = [
        *_records("a", {"x": 0.5}, "fold 0"),
        *_records("a", {"y": 0.6}, "fold 1"),
        *_records("b", {"x": 0.7}, "fold 0"),
        *_records("b", {"y": 0.8}, "fold 1"),
    ]
    np.testing.assert_allclose(align(records, control="b").scores, [[0.7, 0.5], [0.8, 0.6]])


def test_other_patients_are_named_or_left_out():
    records = [*_records("a", {"w": 1, "x": 0.5, "y": 0.6}), *_records("b", {"x": 0.7, "y": 0.8, "z": 0.9})]
    with pytest.raises(InputError, match=r"w is missing from b, z is missing from a; .* --on_mismatch intersect"):
        align(records, control="a")
    found = align(records, control="a", on_mismatch="intersect")
    assert found.cases == ("x", "y")
    assert found.left_out == {"w": "is missing from b", "z": "is missing from a"}


def test_a_patient_with_fewer_seeds_is_named():
    records = [
        *_records("a", {"x": 0.5, "y": 0.6, "z": 0.1}, "seed 0"),
        *_records("a", {"x": 0.5, "y": 0.6}, "seed 1"),
        *_records("b", {"x": 0.7, "y": 0.8, "z": 0.9}),
    ]
    with pytest.raises(InputError, match="z has 1 of 2 runs of a"):
        align(records, control="a")
    assert align(records, control="a", on_mismatch="intersect").cases == ("x", "y")


def test_many_other_patients_stay_a_line():
    records = [*_records("a", {f"case_{at}": 1 for at in range(300)}), *_records("b", {"other": 1})]
    with pytest.raises(InputError, match="and 296 more patients") as caught:
        align(records, control="a")
    assert len(str(caught.value)) < 300


def test_patients_without_a_value_are_left_out_for_all_and_counted():
    records = [
        *_records("a", {"x": 1, "y": math.nan, "z": 3, "w": 4}, "seed 0"),
        *_records("a", {"x": 1, "y": 2, "z": 3, "w": 4}, "seed 1"),
        *_records("b", {"x": 1, "y": 2, "z": math.nan, "w": 5}),
    ]
    found = align(records, control="a")
    assert found.cases == ("w", "x")
    assert found.undefined == {"a": ("y",), "b": ("z",)}


@pytest.mark.parametrize(
    ("records", "control", "message"),
    [
        ([], "a", "found no algorithm, expected two or more"),
        (_records("a", {"x": 1, "y": 1}), "a", "found a, expected two or more"),
        ([*_records("unet", {"x": 1}), *_records("b", {"x": 1})], "uent", "did you mean 'unet'"),
        (
            [*_records("a", {"x": 1}), *_records("b", {"x": 1})],
            "a",
            "found 1 patient in common, expected two or more",
        ),
        ([*_records("a", {"x": 1}), *_records("a", {"x": 1})], "a", r"second score of x \(a\)"),
        (
            [*_records("a", {"x": 1, "y": math.nan}), *_records("b", {"x": 1, "y": 1})],
            "a",
            "found 1 patient in common after 0 that not all have and 1 without a value were left out",
        ),
    ],
)
def test_what_cannot_be_compared(records, control, message):
    with pytest.raises(InputError, match=message):
        align(records, control=control)


def _read(tmp_path, text: str, **options):
    (tmp_path / "table.csv").write_text(text)
    options = {"name": None, "replicate": "table 1", "region": "tumour", "metric": "dice"} | options
    return read_records(tmp_path / "table.csv", **options)


def test_anyones_table(tmp_path):
    found = _read(tmp_path, "score,case,algorithm,seed,fold\n0.5,x,a,0,1\n,x,a,1,1\nNA,y,a,0,2\n")
    assert [(one.case, one.algorithm, one.replicate) for one in found] == [
        ("x", "a", "seed 0, fold 1"),
        ("x", "a", "seed 1, fold 1"),
        ("y", "a", "seed 0, fold 2"),
    ]
    assert found[0].score == 0.5
    assert math.isnan(found[1].score)
    assert math.isnan(found[2].score)


def test_a_table_with_a_mark_of_excel_and_a_name_before_it(tmp_path):
    found = _read(tmp_path, "\ufeffcase,score\nx,0.5\n", name="mine")
    assert found == [Record(case="x", algorithm="mine", replicate="table 1", score=0.5)]


def test_region_and_metric_are_chosen(tmp_path):
    text = "case,algorithm,score,region,metric\nx,a,0.5,tumour,dice\nx,a,0.9,kidney,dice\nx,a,3,tumour,hd95_mm\n"
    assert [one.score for one in _read(tmp_path, text)] == [0.5]
    assert [one.score for one in _read(tmp_path, text, region="both")] == [0.7]
    assert [one.score for one in _read(tmp_path, text, metric="hd95_mm")] == [3]
    assert _read(tmp_path, text, region="both")[0].region == "both"


def test_our_own_table(tmp_path):
    def scores(region: str, dice: float) -> RegionScores:
        options = dict.fromkeys(("iou", "precision", "recall", "volume_true_ml", "volume_pred_ml"), 0.5)
        return RegionScores(region=region, dice=dice, volume_error_ml=0, **options)

    cases = [
        tables.CaseScores(case=case, regions={"kidney": scores("kidney", 0.9), "tumour": scores("tumour", dice)})
        for case, dice in (("x", 0.5), ("y", 0.0))
    ]
    path = tmp_path / "scores.csv"
    tables.write_scores(path, cases)
    options = {"replicate": "run 1", "metric": "dice"}
    assert [one.score for one in read_records(path, name="unet", region="tumour", **options)] == [0.5, 0.0]
    assert [one.score for one in read_records(path, name="unet", region="both", **options)] == [0.7, 0.45]
    with pytest.raises(InputError, match=r"does not say which algorithm it is of; expected NAME="):
        read_records(path, name=None, region="both", **options)
    with pytest.raises(InputError, match="metric: found 'volume_error_ml', expected one of dice, iou"):
        read_records(path, name="unet", region="both", replicate="", metric="volume_error_ml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found columns nothing; expected case, algorithm, score"),
        ("case,algorithm,dice\n", "found columns case, algorithm, dice; expected case, algorithm, score"),
        ("case,algorithm,score\n", "found no rows"),
        ("case,algorithm,score\nx,a,0.5\nx,a,high\n", "line 3: found score 'high', expected a number"),
        ("case,algorithm,score\nx,a,inf\n", "line 2: found score inf, expected a finite number"),
        ("case,algorithm,score\n,a,1\n", "line 2: found no case"),
        ("case,algorithm,score\nx,a,1\nx,a,1\n", r"second score of x \(a, table 1\)"),
        ("case,algorithm,score,metric\nx,a,1,iou\n", "found iou, expected rows of metric 'dice'"),
        ("case,algorithm,score,region\nx,a,1,kidney\n", "found kidney, expected rows of region 'tumour'"),
    ],
)
def test_a_bad_table_is_named(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        _read(tmp_path, text)
    assert "table.csv" in str(caught.value)


def test_a_region_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="x of a has scores for kidney; expected kidney, tumour"):
        _read(tmp_path, "case,algorithm,score,region\nx,a,1,kidney\n", region="both")


def test_two_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="found a name before it and a column algorithm"):
        _read(tmp_path, "case,algorithm,score\nx,a,1\n", name="b")


def test_no_text_is_no_table(tmp_path):
    (tmp_path / "scores.csv").write_bytes(b"\x89PNG\xff\xfe\n")
    with pytest.raises(InputError, match=r"scores\.csv: not a table of text"):
        read_records(tmp_path / "scores.csv", name="a", replicate="", region="tumour", metric="dice")
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_records(tmp_path / "none.csv", name="a", replicate="", region="tumour", metric="dice")


def test_a_table_that_breaks_off_in_the_middle_is_a_line(tmp_path):
    (tmp_path / "table.csv").write_bytes(
        ("case,algorithm,score\n" + "".join(f"x{at},a,1\n" for at in range(5000))).encode() + b"\xff\n"
    )
    options = {"name": None, "replicate": "", "region": "tumour", "metric": "dice"}
    with pytest.raises(InputError, match=r"table\.csv: not a table of text"):
        read_records(tmp_path / "table.csv", **options)
    (tmp_path / "table.csv").write_text("case,algorithm,score\n" + "x" * 200_000 + ",a,1\n")  # a lost line end
    with pytest.raises(InputError, match=r"table\.csv: not a table \(field larger than field limit"):
        read_records(tmp_path / "table.csv", **options)
    (tmp_path / "table.csv").write_text("algorithm,gflops\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(InputError, match=r"table\.csv: not a table \(field larger"):
        read_costs(tmp_path / "table.csv")


def test_distances_are_better_small():
    assert is_lower_better("hd95_mm")
    assert is_lower_better("Hausdorff")
    assert not is_lower_better("surface_dice")
    assert not is_lower_better("dice")


def test_costs(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("algorithm,num_parameters,gflops\na,100,2.5\nb,,3\n")
    assert read_costs(path) == {"a": Cost(num_parameters=100, gflops=2.5), "b": Cost(gflops=3)}
    assert mean_cost([Cost(gflops=1, training_minutes=3), Cost(gflops=2)]) == Cost(gflops=1.5, training_minutes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm,price\na,1\n", "found columns algorithm, price; expected algorithm and some of num_parameters"),
        ("algorithm,gflops\na,1\na,1\n", "line 3: second row of a"),
        ("algorithm,gflops\na,much\n", "line 2: gflops: found 'much', expected a number"),
        ("algorithm,gflops\na,-1\n", "line 2: gflops: found -1, expected 0 or more"),
    ],
)
def test_bad_costs_are_named(text, message, tmp_path):
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_costs(tmp_path / "costs.csv")

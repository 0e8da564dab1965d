"""What is compared in the report's experiment differs in what is asked about, and in nothing else."""

import itertools

import numpy as np
import pytest
from leakage import GROUPS, crossed_groups, summarise_leak
from mending import Parts, split_slices
from readings import WAYS, read_rule, read_ways
from steps import STEPS, TRAINED_STEPS, holds_up, repeats, series, stage_name

from kits_ml.evaluation.misreading import misread_iou_of_background
from kits_ml.training.batches import SliceArrays


def _slices(num_slices: dict[str, int]) -> SliceArrays:
    cases = tuple(case for case, number in num_slices.items() for _ in range(number))
    empty = np.zeros((len(cases), 8, 8), np.uint8)
    return SliceArrays(grey=empty, labels=empty, cases=cases)


def test_each_patient_is_known_to_one_network_and_new_to_the_other():
    slices = _slices({f"case_{number:05d}": number % 4 + 1 for number in range(20)})
    drawn = crossed_groups(slices.cases, seed=0)
    several = {case for case in slices.cases if slices.cases.count(case) > 1}
    assert set(drawn["group_of"]) == several
    held = {slices.cases[number] for number in drawn["held"]}
    assert held == several
    for group in GROUPS:
        train = drawn["train"][group]
        assert not set(train) & set(drawn["held"])
        known = {slices.cases[number] for number in train} & several
        assert known == {case for case in several if drawn["group_of"][case] == group}
    # patients of one slice are in both trainings, and no slice is in none
    single = {number for number, case in enumerate(slices.cases) if case not in several}
    assert single == set(drawn["train"]["A"]) & set(drawn["train"]["B"])
    used = set(drawn["held"]).union(*drawn["train"].values())
    assert used == set(range(len(slices.cases)))


def test_the_leak_is_paired_by_patient():
    def scores(**dice):
        return {
            case: dict.fromkeys(("dice_kidney", "dice_tumour", "foreground_iou"), one) for case, one in dice.items()
        }

    runs = {
        "A": {"shuffled": scores(a=0.9, b=0.8), "new": scores(c=0.5, d=0.4)},
        "B": {"shuffled": scores(c=0.7, d=0.6), "new": scores(a=0.6, b=0.7)},
    }
    found = summarise_leak(runs)
    assert found["num_cases"] == 4
    # 0.9 - 0.6, 0.8 - 0.7, 0.7 - 0.5, 0.6 - 0.4: 0.3, 0.1, 0.2, 0.2
    assert found["dice_kidney"]["leak"]["mean"] == pytest.approx(0.2)
    assert found["dice_kidney"]["leak"]["ci_low"] >= 0.1 - 1e-9


def test_both_splits_have_as_many_slices_and_no_test_patient():
    slices = _slices(dict.fromkeys("abcdef", 4))
    parts = Parts(train=("a", "b", "c"), validation=("d",), test=("e", "f"))
    for by_patient in (True, False):
        train, validation = split_slices(slices, parts, by_patient=by_patient, seed=0)
        assert (len(train), len(validation)) == (12, 4)
        patients = [set(one.ranges()) for one in (train, validation)]
        assert not (patients[0] | patients[1]) & set(parts.test)
        assert bool(patients[0] & patients[1]) is not by_patient


def test_cases_drawn_at_random_are_split_by_name():
    parts = Parts.of_names([f"case_{number:02d}" for number in range(12)])
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (7, 1, 4)
    assert not {*parts.train, *parts.validation} & set(parts.test)


def test_a_step_mends_one_fault_more():
    changed = [(step.preparation, step.by_patient, tuple(sorted(step.changes.items())), step.best) for step in STEPS]
    assert changed[0] == ("both_faults", False, (), False)
    for before, after in itertools.pairwise(changed):
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def _said(kidney: dict[str, float | None], hardened: float) -> dict:
    shown = [one for one in kidney.values() if one is not None]
    return {
        "as_reported": {"hardened": hardened},
        "test": {"dice_kidney": {"mean": sum(shown) / len(shown)}},
        "test_by_case": {case: {"dice_kidney": one} for case, one in kidney.items()},
    }


def _trained(last: dict, best: dict) -> dict:
    course = {"val_dice_kidney": [0.7, 0.6], "val_dice_tumour": [0.2, 0.1]}
    return {"last": last, "best": best, "best_epoch": 0, "course": course, "sizes": {}}


def test_the_choice_of_weights_needs_no_training():
    last, best = _said({"a": 0.25}, 0.9), _said({"a": 0.75}, 0.95)
    rows = series([{step.name: _trained(last, best) for step in TRAINED_STEPS}])
    assert [row["own"]["dice_kidney"] for row in rows] == [0.6] * 6 + [0.7]
    assert [row["test"]["dice_kidney"]["mean"] for row in rows] == [0.25] * 6 + [0.75]
    assert [row["name"] for row in rows] == [step.name for step in STEPS]


def test_a_patient_s_dice_is_the_mean_over_the_seeds():
    one, other = _said({"a": 0.2, "b": 0.4, "c": None}, 0.9), _said({"b": 0.8, "a": 0.4, "c": None}, 1.0)
    found = [{step.name: _trained(said, said) for step in TRAINED_STEPS} for said in (one, other)]
    row = series(found)[0]
    # patients 0.3 and 0.6; the third does not show the region
    dice = row["test"]["dice_kidney"]
    assert (dice["mean"], dice["num_cases"], dice["num_undefined"]) == (pytest.approx(0.45), 3, 1)
    assert (dice["ci_low"], dice["ci_high"]) == (pytest.approx(0.3), pytest.approx(0.6))
    assert row["by_seed"]["dice_kidney"] == pytest.approx([0.3, 0.6])
    assert row["as_reported"]["hardened"] == pytest.approx(0.95)


def _changed(first: list[dict], second: list[dict]) -> dict:
    """The second row's change of the kidney's Dice; a list has the patients' Dice, seed by seed."""
    found = []
    for before, after in zip(first, second, strict=True):
        stages = {step.name: _trained(*[_said(after, 0.9)] * 2) for step in TRAINED_STEPS}
        found.append(stages | {TRAINED_STEPS[0].name: _trained(*[_said(before, 0.9)] * 2)})
    rows = series(found)
    assert rows[0]["change"] == {}
    assert rows[2]["change"]["dice_kidney"]["mean"] == 0
    return rows[1]["change"]["dice_kidney"]


def test_a_change_pairs_the_patients():
    change = _changed([{"a": 0.2, "b": 0.6, "c": None}], [{"a": 0.3, "b": 0.9, "c": None}])
    # 0.1 and 0.3
    assert change["mean"] == pytest.approx(0.2)
    assert (change["ci_low"], change["ci_high"]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert change["by_seed"] == pytest.approx([0.2])
    assert holds_up(change)


def test_a_change_that_another_seed_turns_round_does_not_hold_up():
    up, down = {"a": 0.9, "b": 0.8}, {"a": 0.4, "b": 0.3}
    change = _changed([{"a": 0.1, "b": 0.1}, {"a": 0.5, "b": 0.5}], [up, down])
    # 0.8 and 0.7, then -0.1 and -0.2: in the mean of the seeds 0.35 and 0.25
    assert change["ci_low"] == pytest.approx(0.25)
    assert change["by_seed"] == pytest.approx([0.75, -0.15])
    assert not holds_up(change)
    assert not holds_up({**change, "by_seed": [0.1], "ci_low": -0.1, "ci_high": 0.2})
    assert not holds_up({**change, "ci_low": None, "ci_high": None})


def test_a_seed_counts_once_its_series_is_whole():
    results = {stage_name("thin", step, seed=seed): {"seed": seed} for step in TRAINED_STEPS for seed in (0, 1)}
    results[stage_name("thin", TRAINED_STEPS[0], seed=2)] = {"seed": 2}
    assert [one["report"]["seed"] for one in repeats(results, "thin")] == [0, 1]
    assert repeats(results, "phantom") == []


def test_all_ways_are_read_of_the_same_patients():
    labels = np.zeros((2, 10, 10), np.uint8)
    labels[0, 0, :4] = 1
    labels[0, 1, :2] = 2  # 6 of 200 pixels: f = 0.03
    sure = np.eye(3, dtype=np.float32)[labels]
    sure[1] = (0.98, 0.01, 0.01)  # of half of the pixels not wholly sure, but right
    found = read_ways(iter([("a", labels[:1], sure[:1]), ("b", labels[1:], sure[1:])]))
    assert found["foreground_fraction"] == pytest.approx(0.03)
    assert list(found["ways"]) == list(WAYS)
    for name, one in found["ways"].items():
        assert one["as_reported"] == pytest.approx(one["by_theory"], abs=1e-5), name
    ways = found["ways"]
    assert ways["nothing"]["as_reported"] == pytest.approx(misread_iou_of_background(0.03), abs=1e-5)
    # r = 0.5, w = 0: (0.5 + 2 / 2.5) / 2 = 0.65, though every pixel is right
    assert ways["trained"]["as_reported"] == pytest.approx(0.65, abs=1e-5)
    assert ways["trained"]["mean_iou_pooled"] == 1
    assert ways["trained, hardened"]["as_reported"] == pytest.approx(1)
    assert ways["perfect, p = 0.987"]["as_reported"] == pytest.approx(1 / 3, abs=1e-5)
    assert found["trained_by_case"]["a"] == {"dice_kidney": 1, "dice_tumour": 1}
    # the second patient shows neither: a prediction of nothing would earn 1 there, so it is not counted
    assert np.isnan(list(found["trained_by_case"]["b"].values())).all()
    assert ways["nothing"]["dice_kidney"]["mean"] == 0


def test_the_rule_is_applied_to_a_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "case,slices,rows,cols,hu_min,hu_max,kidney_voxels,tumour_voxels\n"
        "a,10,10,10,-1024,1000,8,2\n"  # 1 % of 1000
        "b,200,10,10,-1024,1000,8,2\n"  # too many slices
        "c,10,10,10,-1024,3000,8,2\n"  # metal
    )
    found = read_rule(path)
    assert (found["num_cases"], found["num_kept"], found["num_slices"]) == (3, 1, 10)
    assert found["foreground_fraction"] == pytest.approx(0.01)
    assert found["nothing_reads"] == pytest.approx(misread_iou_of_background(0.01))

"""Evaluation leaves out what the model has seen, under any name and in any layout."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kits_ml.config import EvaluateSettings
from kits_ml.data import cases as case_files
from kits_ml.data import patients, volumes
from kits_ml.errors import InputError
from kits_ml.workflows import evaluate, segmenters
from kits_ml.workflows.segmenters import load_segmenter


def test_leak_a_training_scan_with_another_label_map(tmp_path, make_case):
    for number in range(3):
        make_case(tmp_path, f"case_{number:05d}", seed=number)
    cases = {case.name: case for case in case_files.find_cases(tmp_path)}
    images = {name: case_files.load_case(case)[0] for name, case in cases.items()}
    description = {
        "seen_cases": {"case_00000": cases["case_00000"].digest(), "case_00001": cases["case_00001"].digest()},
        "seen_slices": {
            name: patients.slice_digests(images[name].array)[:2] for name in ("case_00000", "case_00001")
        },
    }
    # other bytes of both files: the digest of the files says nothing any more
    image = images["case_00001"]
    volumes.write_label_map(cases["case_00001"].labels_path, np.zeros(image.array.shape), image.geometry)
    volumes.write_image(cases["case_00001"].image_path, image.array, volumes.kits_geometry((6, 64, 64), (1, 1, 1)))
    predictor = SimpleNamespace(description=description)
    assert list(evaluate.select_unseen(cases, predictor)) == ["case_00002"]
    del cases["case_00002"]
    with pytest.raises(InputError, match="all 2 cases were seen in training"):
        evaluate.select_unseen(cases, predictor)


def test_a_case_that_cannot_be_read_is_left_to_the_scoring(tmp_path, make_case):
    make_case(tmp_path, "case_00000")
    (tmp_path / "case_00000" / "imaging.nii.gz").write_bytes(b"no")
    cases = {case.name: case for case in case_files.find_cases(tmp_path)}
    predictor = SimpleNamespace(description={"seen_cases": {"a": "0"}, "seen_slices": {"a": ["0"]}})
    assert list(evaluate.select_unseen(cases, predictor)) == ["case_00000"]


def test_what_a_prediction_takes_is_without_what_is_counted_meanwhile():
    class Counter:
        def __call__(self, index, inside, probabilities):
            time.sleep(0.05)

    started = time.perf_counter()
    timed = evaluate._Timed(Counter())
    for index in range(4):
        time.sleep(0.01)
        timed(index, "inside", "probabilities")
    seconds = timed.seconds()
    elapsed = time.perf_counter() - started
    assert 0.04 <= seconds <= elapsed - 0.2  # 4 x 0.01 s, without 4 x 0.05 s


def test_a_model_is_measured_with_the_references_spacing(tmp_path, make_case):
    """The scan's is another one, by as much as passes for the same grid: 10 um at the last voxel."""
    make_case(tmp_path, "case_00000", size=32)
    (case,) = case_files.find_cases(tmp_path)
    reference = volumes.read_label_map(case.labels_path)
    other = volumes.kits_geometry((6, 32, 32), (3.0 + 0.009 / 5, 0.8, 0.8))
    volumes.write_image(case.image_path, volumes.read_image(case.image_path).array, other)

    def segment(image, *, spacing_mm, observe):
        assert spacing_mm[0] == pytest.approx(3.0018, abs=1e-6)
        probabilities = np.full((3, 32, 32), 1 / 3, np.float32)
        for index in range(6):
            observe(index, (slice(0, 32), slice(0, 32)), probabilities)
        return np.roll(reference.array, 1, axis=0)  # a slice of 3 mm off

    (scored,), _ = evaluate.score_model(SimpleNamespace(segment=segment), {"a": case}, output=tmp_path / "out")
    assert scored.slice_spacing_mm == pytest.approx(3.0, abs=1e-6)
    assert scored.regions["kidney"].hd95_mm == pytest.approx(3.0, abs=1e-6)


def test_an_ensemble_is_scored_as_predict_cleans(tmp_path, make_case, fake_model):
    for number in range(2):
        make_case(tmp_path / "data", f"case_{number:05d}", seed=number)
    models = f"{fake_model('a', architecture='unet')},{fake_model('b', architecture='nnunet')}"
    cleaning = {"postprocessing": "given", "minimum_tumour_ml": 0.05, "fill_holes": "volume"}
    files = {"model": models, "data": str(tmp_path / "data"), "output": str(tmp_path / "out"), "track": False}
    settings = EvaluateSettings(**files, **cleaning)
    evaluated = evaluate.evaluate(settings)
    assert all(case.prediction_seconds > 0 for case in evaluated.cases)
    segmenter = load_segmenter(models, settings)
    image = volumes.read_image(tmp_path / "data/case_00001/imaging.nii.gz")
    written = volumes.read_label_map(tmp_path / "out/predictions/case_00001.nii.gz").array
    np.testing.assert_array_equal(written, segmenter.segment(image.array, spacing_mm=image.spacing_mm))
    assert (written != segmenter.network.segment(image.array, spacing_mm=image.spacing_mm)).any()
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for said in ("unet, nnunet", "model 2: image_size", "minimum_tumour_ml"):
        assert said in page, said


def test_the_page_says_which_version_was_evaluated(tmp_path, make_case, fake_model, monkeypatch):
    make_case(tmp_path / "data", "case_00000", size=32)
    folder = Path(fake_model())
    monkeypatch.setattr(segmenters.addresses, "local_folder", lambda address: folder)
    monkeypatch.setattr(segmenters.addresses, "pinned", lambda address: address.replace("@champion", "/3"))
    files = {"data": str(tmp_path / "data"), "output": str(tmp_path / "out"), "track": False}
    evaluate.evaluate(EvaluateSettings(model="models:/kits-unet@champion", **files))
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert re.search(r"<th[^>]*>model version</th><td[^>]*>kits-unet, version 3</td>", page)


def test_label_maps_that_are_there_are_not_cleaned(tmp_path):
    settings = EvaluateSettings(predictions="a", references="b", postprocessing="given", output=str(tmp_path / "out"))
    with pytest.raises(InputError, match="postprocessing: found given with --predictions"):
        evaluate.evaluate(settings)

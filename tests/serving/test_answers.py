"""What is made for a client who has left ends with the part at work."""

import dataclasses

import pytest

from kits_ml.data import volumes
from kits_ml.serving import answers
from kits_ml.serving.champion import Model
from kits_ml.serving.jobs import Job, StoppedJobError
from kits_ml.serving.metrics import Metrics
from tests.serving.conftest import REPORTING, Bright, scan

#: What is made, one after the other, when all is wanted.
PARTS = ["meter", "segmentation", "assess", "render_page"]


@pytest.mark.parametrize("last", PARTS)
def test_after_the_client_has_left_no_other_part_is_begun(last, tmp_path, monkeypatch):
    job, made = Job(), []

    def noting(part, make):
        def noted(*content, **options):
            made.append(part)
            if part == last:
                job.stop()
            return make(*content, **options)

        return noted

    monkeypatch.setattr(volumes, "write_label_map", noting("segmentation", volumes.write_label_map))
    parts = {name: noting(name, getattr(REPORTING, name)) for name in ("meter", "assess", "render_page")}
    geometry = volumes.kits_geometry(scan().shape, (3.0, 0.8, 0.7))
    with pytest.raises(StoppedJobError):
        answers.segment(
            volumes.Volume(array=scan(), geometry=geometry, path=tmp_path / "received"),
            Model(version="net/1", segmenter=Bright()),
            answers.Wanted.ALL,
            scan="",
            job=job,
            reporting=dataclasses.replace(REPORTING, **parts),
            metrics=Metrics(),
        )
    assert made == PARTS[: PARTS.index(last) + 1]

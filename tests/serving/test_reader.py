"""What goes wrong in the reader's process is told as what it is."""

import errno

import pytest

from kits_ml.serving import reader
from kits_ml.serving.limits import Limits
from tests.serving.conftest import nifti, scan

LIMITS = Limits(upload_bytes=1_000_000, unpacked_bytes=1_000_000, num_voxels=1_000_000)


@pytest.mark.parametrize(
    "error",
    [
        OSError("1920 requested and 512 written"),  # as NumPy says it, without a number
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_disk_that_is_full_of_voxels(tmp_path, monkeypatch, error):
    path = tmp_path / "received"
    path.write_bytes(nifti(scan(), suffix=".nii", folder=tmp_path))

    def fail(*_):
        raise error

    monkeypatch.setattr(reader.np, "save", fail)
    answer = reader._read(path, "nifti", LIMITS)
    assert isinstance(answer, reader.RefusedError), answer
    assert (answer.status, answer.detail) == (507, "no space left to unpack the upload")

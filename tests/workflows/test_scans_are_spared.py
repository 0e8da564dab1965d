"""No prediction takes the place of a scan, whatever it is told to overwrite."""

import pydicom
import pytest
from click.testing import CliRunner

from kits_ml import cli
from kits_ml.data import volumes
from kits_ml.errors import InputError
from kits_ml.workflows import outputs
from tests.conftest import body


@pytest.fixture
def data(tmp_path):
    """Below it `scans` with a NIfTI file, a link to that, and a series (which nobody gets to read)."""
    image, _ = body(num_slices=4, size=40)
    geometry = volumes.kits_geometry(image.shape, (3.0, 0.8, 0.8))
    volumes.write_image(tmp_path / "data/scans/a.nii.gz", image, geometry)
    (tmp_path / "data/link.nii.gz").symlink_to(tmp_path / "data/scans/a.nii.gz")
    (tmp_path / "data/ct").mkdir()
    (tmp_path / "data/ct/IM0.dcm").write_bytes(b"a slice")
    return tmp_path / "data"


def _contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _predict(model: str, **options) -> str:
    """What the command says, which is to fail."""
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(cli.main, ["predict", "--model", model, "--overwrite", "true", *arguments])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.mark.parametrize(
    ("image", "options", "named"),
    [
        ("scans/a.nii.gz", {"output": "scans/a.nii.gz"}, "scans/a.nii.gz"),
        ("scans/a.nii.gz", {"output": "scans/../link.nii.gz"}, "link.nii.gz"),
        ("link.nii.gz", {"output": "scans/a.nii.gz"}, "scans/a.nii.gz"),
        ("scans/a.nii.gz", {"output": "b.nii.gz", "probabilities": "scans/a.nii.gz"}, "scans/a.nii.gz"),
        ("ct", {"output": "b.nii.gz", "dicom_seg": "ct/IM0.dcm"}, "ct/IM0.dcm"),
    ],
)
def test_no_output_is_a_file_of_the_scan(data, fake_model, image, options, named):
    before = _contents(data)
    said = _predict(fake_model(), image=data / image, **{name: data / value for name, value in options.items()})
    assert f"{named}: found a file of the scan {data / image}, expected another name for the output" in said
    assert _contents(data) == before


def test_an_earlier_output_beside_the_slices_is_none_of_them(data):
    """As the reader leaves it out of the series, another prediction may replace it."""
    header = pydicom.Dataset()
    header.Modality = "SEG"
    header.SOPClassUID, header.SOPInstanceUID = pydicom.uid.SegmentationStorage, "1.2"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(data / "ct/seg.dcm", enforce_file_format=True)
    (data / "ct/seg.nii.gz").write_bytes(b"a label map")
    asked = outputs.Outputs(output=data / "ct/seg.nii.gz", dicom_seg=data / "ct/seg.dcm")
    outputs.check_spares(asked, data / "ct")
    header.Modality = "CT"
    header.save_as(data / "ct/seg.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"seg\.dcm: found a file of the scan"):
        outputs.check_spares(asked, data / "ct")


@pytest.mark.parametrize("output", ["scans", "ct/../scans"])
def test_the_folder_of_the_scans_is_not_that_of_the_outputs(data, fake_model, output):
    before = _contents(data)
    said = _predict(fake_model(), image=data / "scans", output=data / output)
    assert f"output: found {data / output}, the folder of the scans; expected another folder" in said
    assert _contents(data) == before


def test_nor_is_a_folder_of_further_outputs(data, fake_model):
    """The probabilities would lie in `scans`, under the scan's name."""
    before = _contents(data)
    said = _predict(fake_model(), image=data / "scans", output=data, probabilities="scans.nii.gz")
    assert "1 of 1 cases failed:" in said
    assert "a.nii.gz: found a file of the scan" in said
    after = _contents(data)
    assert after.pop("predictions.csv")
    assert after == before

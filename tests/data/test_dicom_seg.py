"""A DICOM SEG lies on its source series, slice by slice, and says what it is."""

import highdicom
import numpy as np
import pydicom
import pytest

import kits_ml
from kits_ml.data import dicom, images, volumes
from kits_ml.data.dicom_seg import check_source, write_dicom_seg
from kits_ml.errors import InputError
from tests.data.dicom_series import ACQUISITIONS, write_series

SHAPE = (4, 5, 6)


def _identify(ds, index) -> None:
    """What a scanner writes and `write_series` leaves out."""
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.9", "1.2.8"
    ds.PatientID, ds.PatientName, ds.SeriesNumber = "4711", "Doe^Jane", 3


def _label_map(shape) -> np.ndarray:
    """Kidney and tumour at irregular places; the last slice stays empty."""
    label_map = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    label_map[-1] = 0
    return label_map


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_the_masks_come_back_on_each_source_slice(name, tmp_path):
    folder = write_series(tmp_path / "ct", shape=SHAPE, directions=ACQUISITIONS[name], change=_identify)
    source = images.read_image(folder)
    label_map = _label_map(source.array.shape)
    write_dicom_seg(tmp_path / "seg.dcm", label_map, source)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")

    # what each voxel of each file should be: as a label map written in the house's order and read at its place
    to_voxel = np.linalg.inv(source.geometry.house_affine)
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        along, down = np.reshape(np.array(ds.ImageOrientationPatient, float), (2, 3))
        expected = np.zeros((ds.Rows, ds.Columns), np.uint8)
        for row, column in np.ndindex(expected.shape):
            lps = np.array(ds.ImagePositionPatient, float) + along * column * 0.8 + down * row * 0.7
            index = np.rint(to_voxel @ [-lps[0], -lps[1], lps[2], 1])[:3].astype(int)
            expected[row, column] = label_map[tuple(index)]
        masks = found.get_pixels_by_source_instance(
            [ds.SOPInstanceUID], assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        )
        assert masks.shape == (1, ds.Rows, ds.Columns, 2)
        np.testing.assert_array_equal(masks[0, ..., 0], expected == 1)
        np.testing.assert_array_equal(masks[0, ..., 1], expected == 2)
        # and where its frames say that they lie
        for frame in found.PerFrameFunctionalGroupsSequence:
            (item,) = frame.DerivationImageSequence[0].SourceImageSequence
            if item.ReferencedSOPInstanceUID == ds.SOPInstanceUID:
                position = frame.PlanePositionSequence[0].ImagePositionPatient
                np.testing.assert_allclose(np.array(position, float), np.array(ds.ImagePositionPatient, float))


def test_it_belongs_to_its_series(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    write_dicom_seg(tmp_path / "seg.dcm", _label_map(SHAPE), source)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert ds.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (ds.Modality, ds.SegmentationType) == ("SEG", "BINARY")
    assert (ds.FrameOfReferenceUID, ds.StudyInstanceUID) == ("1.2.8", "1.2.9")
    assert (ds.PatientID, str(ds.PatientName)) == ("4711", "Doe^Jane")
    assert ds.SeriesInstanceUID != "1.2.3"
    assert ds.SeriesNumber == 1003
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3"
    referenced = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert referenced == {pydicom.dcmread(path).SOPInstanceUID for path in source.slice_paths}
    shared = ds.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert [float(one) for one in measures.PixelSpacing] == [0.7, 0.8]
    assert [float(one) for one in shared.PlaneOrientationSequence[0].ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]


def test_segments_say_what_they_are(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    write_dicom_seg(
        tmp_path / "seg.dcm", _label_map(SHAPE), source, algorithm_name="kits-unet", algorithm_version="3"
    )
    kidney, tumour = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    for segment, number, label, kind in ((kidney, 1, "kidney", "64033007"), (tumour, 2, "tumour", "108369006")):
        assert (segment.SegmentNumber, segment.SegmentLabel) == (number, label)
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (code.CodingSchemeDesignator, code.CodeValue) == ("SCT", kind)
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("kits-unet", "3")
    assert tumour.AnatomicRegionSequence[0].CodeValue == "64033007"
    write_dicom_seg(tmp_path / "seg.dcm", _label_map(SHAPE), source)
    kidney, _ = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert kidney.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == kits_ml.__version__


def test_any_model_s_name_fits(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    names = {"algorithm_name": "größe\\2\t", "algorithm_version": 70 * "3"}
    write_dicom_seg(tmp_path / "seg.dcm", _label_map(SHAPE), source, **names)
    algorithm = (
        pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    )
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("gr??e?2?", 64 * "3")


def test_slices_without_a_label_have_no_frame(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[1:3, 2, 2] = 1
    write_dicom_seg(tmp_path / "seg.dcm", label_map, source)
    assert pydicom.dcmread(tmp_path / "seg.dcm").NumberOfFrames == 2


def test_a_prediction_of_nothing_is_written_too(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    write_dicom_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), source)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert not found.pixel_array.any()
    assert found.number_of_segments == 2
    assert found.NumberOfFrames == 2 * SHAPE[0]  # of each segment one for every slice


def test_the_source_is_read_again_beside_its_segmentation(tmp_path):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    write_dicom_seg(tmp_path / "ct/seg.dcm", _label_map(SHAPE), source)
    again = dicom.read_series(tmp_path / "ct")
    np.testing.assert_array_equal(again.array, source.array)
    assert "left out 1 SEG" in again.note


def test_headers_that_lack_what_may_be_empty(tmp_path):
    def bare(ds, index):
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "1.2.9", "1.2.8"

    write_dicom_seg(
        tmp_path / "seg.dcm", _label_map(SHAPE), images.read_image(write_series(tmp_path / "ct", change=bare))
    )
    assert not pydicom.dcmread(tmp_path / "seg.dcm").PatientID


def test_the_source_is_checked_beforehand_for_all_that_writing_asks(tmp_path, caplog):
    source = images.read_image(write_series(tmp_path / "ct", change=_identify))
    check_source(source)
    assert caplog.text == ""

    def of_two_patients(ds, index):
        _identify(ds, index)
        ds.FrameOfReferenceUID = f"1.2.8.{index}"  # there, but not the same: highdicom refuses it

    mixed = images.read_image(write_series(tmp_path / "mixed", change=of_two_patients))
    for check in (check_source, lambda one: write_dicom_seg(tmp_path / "seg.dcm", _label_map(SHAPE), one)):
        with pytest.raises(InputError, match="no DICOM SEG can refer to it"):
            check(mixed)


def test_what_a_segmentation_cannot_refer_to(tmp_path):
    def lost(ds, index):
        ds.StudyInstanceUID = "1.2.9"

    source = images.read_image(write_series(tmp_path / "ct", change=lost))
    with pytest.raises(InputError, match="no FrameOfReferenceUID, expected one so that a DICOM SEG can refer"):
        write_dicom_seg(tmp_path / "seg.dcm", _label_map(SHAPE), source)
    with pytest.raises(InputError, match="no FrameOfReferenceUID, expected one so that a DICOM SEG can refer"):
        check_source(source)
    with pytest.raises(InputError, match=r"label map of shape \(1, 5, 6\), expected the source's \(4, 5, 6\)"):
        write_dicom_seg(tmp_path / "seg.dcm", np.zeros((1, 5, 6), np.uint8), source)
    geometry = volumes.kits_geometry(SHAPE, (3, 1, 1))
    volumes.write_image(tmp_path / "ct.nii.gz", np.zeros(SHAPE, np.int16), geometry)
    with pytest.raises(InputError, match="not a DICOM series"):
        write_dicom_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, np.uint8), images.read_image(tmp_path / "ct.nii.gz"))
    assert not (tmp_path / "seg.dcm").exists()

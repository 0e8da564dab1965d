"""Every file below `robust/` of the real data is read as it should be or refused with its own clear line."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kits_ml.data import images
from kits_ml.errors import InputError

READER = "NIFTI-Reader-JS/data"
NIBABEL = "nibabel/nibabel/tests/data"
NICOM = "nibabel/nibabel/nicom/tests/data"
DCMQI = "dcmqi/data/segmentations"

FOUR_D = "4 axes of sizes {}, expected a volume of three axes"
MINC1 = "found Minc1Image, expected NIfTI (.nii.gz or .nii)"
MINC2 = "found Minc2Image, expected NIfTI (.nii.gz or .nii)"
NO_NIFTI = "not a readable NIfTI file"
ONE_DICOM = "a single DICOM file; expected the folder that holds its series, or a NIfTI file"

#: What is read: orientation of the file, shape as (slices, rows, columns), type of the voxels.
READ = {
    f"{READER}/air.hdr.gz": ("AIR", (67, 79, 64), "float32"),
    f"{READER}/air.img.gz": ("AIR", (67, 79, 64), "float32"),
    f"{READER}/air2.hdr.gz": ("AIR", (67, 79, 64), "float32"),
    f"{READER}/air2.img.gz": ("AIR", (67, 79, 64), "float32"),
    f"{READER}/avg152T1_LR_nifti.nii": ("LAS", (91, 109, 91), "int16"),
    f"{READER}/avg152T1_LR_nifti.nii.gz": ("LAS", (91, 109, 91), "int16"),
    f"{READER}/avg152T1_LR_nifti2.nii.gz": ("LAS", (91, 109, 91), "float32"),
    f"{READER}/big.nii.gz": ("LAS", (21, 64, 64), "float32"),
    f"{READER}/little.nii.gz": ("LAS", (21, 64, 64), "float32"),
    f"{READER}/with_extension.nii.gz": ("LPI", (151, 191, 161), "int16"),
    f"{NIBABEL}/anatomical.nii": ("LAS", (25, 41, 33), "int16"),
    f"{NIBABEL}/reoriented_anat_moved.nii": ("RAS", (22, 26, 21), "float32"),
    f"{NIBABEL}/standard.nii.gz": ("RAS", (7, 5, 4), "int16"),
}

#: What is refused when it is given as the image, and how the line goes on after the file's name.
REFUSED = {
    f"{READER}/5D_small.nii": "5 axes of sizes (1, 2, 3, 1, 3), expected a volume of three axes",
    f"{READER}/5D_zeros.nii.gz": "5 axes of sizes (256, 256, 170, 1, 3), expected a volume of three axes",
    f"{READER}/not-nifti.nii": NO_NIFTI,
    "four-dimensional-imaging/case_00004/imaging.nii.gz": FOUR_D.format((64, 512, 512, 3)),
    f"{DCMQI}/ct-3slice/01.dcm": ONE_DICOM,
    f"{DCMQI}/ct-3slice/02.dcm": ONE_DICOM,
    f"{DCMQI}/ct-3slice/03.dcm": ONE_DICOM,
    f"{DCMQI}/liver.dcm": ONE_DICOM,
    f"{DCMQI}/liver_seg.nrrd": NO_NIFTI,
    f"{NICOM}/0.dcm": ONE_DICOM,
    f"{NICOM}/1.dcm": ONE_DICOM,
    f"{NICOM}/csa2_zero_len.bin.gz": NO_NIFTI,
    f"{NICOM}/csa_slice_norm.dcm": ONE_DICOM,
    f"{NICOM}/decimal_rescale.dcm": ONE_DICOM,
    f"{NICOM}/philips_mprage.dcm.gz": NO_NIFTI,
    f"{NICOM}/siemens_dwi_0.dcm.gz": NO_NIFTI,
    f"{NICOM}/siemens_dwi_1000.dcm.gz": NO_NIFTI,
    f"{NICOM}/slicethickness_empty_string.dcm": ONE_DICOM,
    f"{NIBABEL}/0.dcm": ONE_DICOM,
    f"{NIBABEL}/1.dcm": ONE_DICOM,
    f"{NIBABEL}/analyze.hdr": "found Spm2AnalyzeImage, expected NIfTI (.nii.gz or .nii)",
    f"{NIBABEL}/example4d+orig.BRIK.gz": NO_NIFTI,
    f"{NIBABEL}/example4d.nii.gz": FOUR_D.format((128, 96, 24, 2)),
    f"{NIBABEL}/example_nifti2.nii.gz": FOUR_D.format((32, 20, 12, 2)),
    f"{NIBABEL}/functional.nii": FOUR_D.format((17, 21, 3, 20)),
    f"{NIBABEL}/minc1-no-att.mnc": MINC1,
    f"{NIBABEL}/minc1_1_scale.mnc": MINC1,
    f"{NIBABEL}/minc1_4d.mnc": MINC1,
    f"{NIBABEL}/tiny.mnc": MINC1,
    f"{NIBABEL}/minc2-4d-d.mnc": MINC2,
    f"{NIBABEL}/minc2-no-att.mnc": MINC2,
    f"{NIBABEL}/minc2_1_scale.mnc": MINC2,
    f"{NIBABEL}/minc2_4d.mnc": MINC2,
    f"{NIBABEL}/minc2_baddim.mnc": MINC2,
    f"{NIBABEL}/small.mnc": MINC2,
    f"{NIBABEL}/nifti1.hdr": "its voxels are missing, expected nifti1.img beside it",
    f"{NIBABEL}/nifti2.hdr": "its voxels are missing, expected nifti2.img beside it",
    f"{NIBABEL}/resampled_anat_moved.nii": "153 of 1071 voxels are NaN or infinite; expected HU values",
    f"{NIBABEL}/row_major.dconn.nii": "found Cifti2Image, expected NIfTI (.nii.gz or .nii)",
    f"{NIBABEL}/test.mgz": "found MGHImage, expected NIfTI (.nii.gz or .nii)",
}

MR = "{file}: Modality MR, expected CT"
NO_DICOM = "{folder}: no DICOM among its 1 files ({name}); expected a folder with the slices of one CT series"

#: What such a file gives when it lies alone in a folder. (The gzipped ones are no DICOM until they are unpacked.)
ALONE = {
    f"{DCMQI}/liver.dcm": "{folder}: no CT slices, only 1 SEG; expected the slices of one CT series",
    f"{DCMQI}/liver_seg.nrrd": NO_DICOM,
    f"{NICOM}/0.dcm": MR,
    f"{NICOM}/1.dcm": MR,
    f"{NICOM}/csa2_zero_len.bin.gz": NO_DICOM,
    f"{NICOM}/csa_slice_norm.dcm": MR,
    f"{NICOM}/decimal_rescale.dcm": MR,
    f"{NICOM}/philips_mprage.dcm.gz": NO_DICOM,
    f"{NICOM}/siemens_dwi_0.dcm.gz": NO_DICOM,
    f"{NICOM}/siemens_dwi_1000.dcm.gz": NO_DICOM,
    f"{NICOM}/slicethickness_empty_string.dcm": MR,
    f"{NIBABEL}/0.dcm": MR,
    f"{NIBABEL}/1.dcm": MR,
}


@pytest.fixture
def robust(real_data) -> Path:
    return real_data / "robust"


def test_no_file_is_forgotten(robust):
    found = {path.relative_to(robust).as_posix() for path in robust.rglob("*") if path.is_file()}
    assert found == set(READ) | set(REFUSED)
    assert not set(READ) & set(REFUSED)


@pytest.mark.parametrize("name", READ)
def test_read(name, robust):
    orientation, shape, dtype = READ[name]
    volume = images.read_image(robust / name)
    assert (volume.geometry.orientation, volume.array.shape, volume.array.dtype.name) == (orientation, shape, dtype)
    # nibabel's own reading, brought to the house's axis order by nibabel's own means
    house = nib.orientations.axcodes2ornt("IPL")
    image = nib.load(robust / name)
    expected = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), house))
    np.testing.assert_allclose(volume.array, expected.get_fdata().reshape(shape), rtol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, robust):
    with pytest.raises(InputError) as caught:
        images.read_image(robust / name)
    assert str(caught.value).startswith(f"{robust / name}: {REFUSED[name]}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ALONE)
def test_alone_in_a_folder(name, robust, tmp_path):
    file = tmp_path / "scan" / Path(name).name
    file.parent.mkdir()
    shutil.copy(robust / name, file)
    with pytest.raises(InputError) as caught:
        images.read_image(file.parent)
    assert str(caught.value) == ALONE[name].format(file=file, folder=file.parent, name=file.name)


def test_the_ct_series(robust):
    volume = images.read_image(robust / DCMQI / "ct-3slice")
    assert (volume.array.shape, volume.array.dtype, volume.note) == ((3, 512, 512), np.int16, "")
    np.testing.assert_allclose(volume.spacing_mm, (1.0, 0.810547, 0.810547))
    # the affine that dcm2niix 1.0.20260724 and SimpleITK 2.5.7 give, brought to the house's axis order
    expected = [[0, 0, -0.810547, 235.199997], [0, -0.810547, 0, 226.800003], [-1, 0, 0, -126.690002], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.house_affine, expected, atol=1e-5)
    # and the HU that dcm2niix gives: the range, three voxels, the sum of each slice
    assert (volume.array.min(), volume.array.max()) == (-3024, 1381)
    assert [volume.array[at] for at in ((0, 256, 256), (1, 300, 200), (2, 200, 350))] == [-145, -711, -36]
    assert volume.array.sum(axis=(1, 2), dtype=int).tolist() == [-251575683, -250266620, -249108727]


def test_folders_of_several_things(robust):
    # the series with its segmentation is the series; the nibabel files belong to one MR series
    assert images.read_image(robust / DCMQI).note == f"{robust / DCMQI}: left out 1 SEG"
    with pytest.raises(InputError, match=r"tests/data/0\.dcm: Modality MR, expected CT"):
        images.read_image(robust / NIBABEL)
    with pytest.raises(InputError, match=r"robust: 5 series \(.* 3 CT slices .*\), expected one"):
        images.read_image(robust)

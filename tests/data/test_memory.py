"""A worker's memory stays within three times the int16 volume and 600 MB, however a scan is stored."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from isal import igzip

from kits_ml.data import orientation, volumes

#: Not `ru_maxrss`: a process begins with that of the process that started it.
PEAK = """
import sys
from pathlib import Path
def peak_bytes():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
"""

#: Prepares a case and prints the most memory that the process ever had, in bytes.
PREPARE = f"""
{PEAK}
from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases, slices
(case,) = cases.find_cases(sys.argv[1])
slices.prepare_case(case, digest="", store=Path(sys.argv[2]), settings=PreprocessingSettings())
print(peak_bytes())
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def _write_case(folder: Path, num_slices: int, *, dtype: str, codes: str) -> int:
    """A case whose slices differ; returns the bytes of its int16 volume."""
    rng = np.random.default_rng(0)
    body = np.full((512, 512), -1000, np.int16)
    body[50:450, 30:480] = rng.integers(-50, 250, (400, 450))
    image = np.empty((num_slices, 512, 512), np.int16)
    image[:] = body
    image[:, 200, 200] = np.arange(num_slices)
    label_map = np.zeros(image.shape, np.uint8)
    label_map[10:20, 200:250, 200:250] = 1
    house = volumes.kits_geometry(image.shape, (0.5, 0.8, 0.8)).affine
    folder.mkdir(parents=True)
    for name, array, kind in (("imaging", image, dtype), ("segmentation", label_map, "u1")):
        turned = orientation.reorient(array, source="IPL", target=codes)
        affine = house @ nib.orientations.inv_ornt_aff(
            nib.orientations.ornt_transform(
                nib.orientations.axcodes2ornt("IPL"), nib.orientations.axcodes2ornt(codes)
            ),
            array.shape,
        )
        stored = nib.Nifti1Image(turned, affine)
        stored.set_data_dtype(kind)
        with igzip.open(folder / f"{name}.nii.gz", "wb", 0) as stream:
            stored.to_stream(stream)
    return image.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_slices", "dtype", "codes"),
    [(1059, "<i2", "IPL"), (1059, "<f8", "IPL"), (1059, "<i4", "RAS"), (1059, "<i2", "LPS"), (300, "<f8", "LPS")],
)
def test_a_worker_stays_within_its_memory(num_slices, dtype, codes, tmp_path):
    num_bytes = _write_case(tmp_path / "data" / "case_00000", num_slices, dtype=dtype, codes=codes)
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "data"), str(tmp_path / "store")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600)
    assert int(done.stdout) <= 3 * num_bytes + 600e6
    assert len(list((tmp_path / "store/images/case_00000").iterdir())) == num_slices


def test_writing_makes_no_second_volume(tmp_path):
    code = f"""
{PEAK}
import numpy as np
from kits_ml.data import orientation, volumes
image = np.ones((400, 256, 256), np.int16)
before = peak_bytes()
volumes.write_image(sys.argv[1], image, volumes.kits_geometry(image.shape, (1, 1, 1)))
print((peak_bytes() - before) / image.nbytes)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "scan.nii.gz")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=100)
    assert float(done.stdout) < 0.3

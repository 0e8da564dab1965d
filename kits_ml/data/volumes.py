"""Reading and writing volumes: one axis order inside, the file's own outside.

Inside, an array is `(slices, rows, columns)`, slices from superior to inferior, rows to posterior, columns to the
patient's left: "IPL", which is how KiTS19 stores its files. Any other orientation is brought there on reading
and taken back on writing, by permuting and flipping axes only, so no value is ever interpolated.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel import orientations

from kits_ml import files, labels
from kits_ml.data import blocks, placement, voxels
from kits_ml.errors import InputError, first_line

#: Axis codes of the house: the positive direction of slices, rows and columns.
HOUSE_ORIENTATION = "IPL"

NIFTI_SUFFIXES = (".nii.gz", ".nii")

#: What headers without sense make nibabel raise, its own errors and those of converting their numbers.
_BAD_HEADER = (
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError),
    *(ValueError, OverflowError, MemoryError),
)

#: Header fields that say where the voxels are, besides the spacing.
_PLACEMENT_FIELDS = (
    *("qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a volume's voxels are: the file's own grid, and the way between it and the house's axis order.

    Attributes:
        shape: the file's shape, in the file's axis order.
        affine: voxel-to-world matrix of the file's grid, `(4, 4)` float64, millimetres, RAS+ world (NIfTI).
        header: the file's own, from which writing takes the placement bit for bit; None for a new grid.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nib.Nifti1Header | None = field(default=None, repr=False, compare=False)

    @property
    def orientation(self) -> str:
        """The file's axis codes, e.g. `"RAS"`; the nearest axes for an oblique scan."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring slices, rows and columns (house axis order), in millimetres."""
        sizes = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return tuple(float(sizes[axis]) for axis in np.argsort(self._to_house()[:, 0]))

    @property
    def house_shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return tuple(self.shape[axis] for axis in np.argsort(self._to_house()[:, 0]))

    @property
    def house_affine(self) -> np.ndarray:
        """Voxel-to-world matrix of the array in the house's axis order, `(4, 4)` float64."""
        return self.affine @ orientations.inv_ornt_aff(self._to_house(), self.shape)

    def to_house(self, array: np.ndarray) -> np.ndarray:
        """File axis order -> `(slices, rows, columns)`; a view."""
        return orientations.apply_orientation(array, self._to_house())

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """`(slices, rows, columns)` -> file axis order; a view."""
        house = orientations.axcodes2ornt(HOUSE_ORIENTATION)
        return orientations.apply_orientation(array, orientations.ornt_transform(house, self._file()))

    def _file(self) -> np.ndarray:
        return orientations.io_orientation(self.affine)

    def _to_house(self) -> np.ndarray:
        return orientations.ornt_transform(self._file(), orientations.axcodes2ornt(HOUSE_ORIENTATION))


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume in the house's axis order.

    Attributes:
        array: `(slices, rows, columns)`; HU for images (int16 where the file allows, else float32), label
            values as uint8 for label maps.
        geometry: the grid it came from.
        path: the file it came from.
        note: what the reader should tell the user about the file; empty if nothing.
        slice_paths: the files of a DICOM series in the order of the grid's third axis; empty for a NIfTI file.
    """

    array: np.ndarray
    geometry: Geometry
    path: Path
    note: str = ""
    slice_paths: tuple[Path, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring slices, rows and columns, in millimetres."""
        return self.geometry.spacing_mm


def kits_geometry(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Geometry:
    """The grid of a KiTS19 file: axes I, P, L and the origin in the first voxel.

    Args:
        shape: `(slices, rows, columns)`.
        spacing_mm: distance between slices, rows and columns, in millimetres.
    """
    slices_mm, rows_mm, columns_mm = spacing_mm
    affine = np.array([[0, 0, -columns_mm, 0], [0, -rows_mm, 0, 0], [-slices_mm, 0, 0, 0], [0, 0, 0, 1]], float)
    return Geometry(shape=tuple(shape), affine=affine)


def read_geometry(path: str | Path) -> Geometry:
    """The grid of a NIfTI file, from its header alone.

    Raises:
        InputError: not a readable three-dimensional NIfTI file.
    """
    return _geometry(_open_nifti(Path(path)), Path(path))


def read_image(path: str | Path) -> Volume:
    """Reads a CT volume in HU.

    Args:
        path: a NIfTI file (`.nii.gz` or `.nii`).

    Returns:
        The volume, int16 where the stored values and scaling are whole numbers, else float32.

    Raises:
        InputError: unreadable, truncated, not NIfTI, not three-dimensional, in another unit than millimetres, or with
            NaN or infinite voxels.
    """
    path = Path(path)
    image = _open_nifti(path)
    geometry = _geometry(image, path)
    array = voxels.read_hu(image, path)
    return Volume(
        array=geometry.to_house(array),
        geometry=geometry,
        path=path,
        note=placement.doubts(image.header, geometry.affine, path),
    )


def read_label_map(path: str | Path, *, mapping: Mapping[int, int] | None = None, keep_cysts: bool = False) -> Volume:
    """Reads a label map; KiTS21/23 cysts (3) become kidney.

    Args:
        path: a NIfTI file (`.nii.gz` or `.nii`).
        mapping: KiTS value by the file's value; None where the file has KiTS's own.
        keep_cysts: leave cysts at 3.

    Returns:
        The volume, uint8 with values 0, 1, 2.

    Raises:
        InputError: unreadable, not three-dimensional, or with values other than the mapping's, else 0, 1, 2, 3.
    """
    path = Path(path)
    image = _open_nifti(path)
    geometry = _geometry(image, path)
    array = voxels.read_labels(image, path, mapping)
    note = ""
    if not keep_cysts and array.max() == labels.KITS23_CYST:
        cyst = array == labels.KITS23_CYST
        array[cyst] = labels.KIDNEY
        named = "cysts" if mapping else f"label {labels.KITS23_CYST} (cyst)"
        note = f"{path}: {int(cyst.sum())} voxels of {named} are read as kidney"
    return Volume(array=geometry.to_house(array), geometry=geometry, path=path, note=note)


def write_image(path: str | Path, array: np.ndarray, geometry: Geometry) -> None:
    """Writes HU as NIfTI on the geometry's grid; the file appears whole or not at all.

    Args:
        path: ends in `.nii.gz` or `.nii`.
        array: `(slices, rows, columns)` in HU; written as int16 where it is of whole numbers that fit, else as
            float32.
        geometry: the grid to write on.
    """
    array = np.asarray(array)
    _write(Path(path), array.astype(np.int16 if _fits_int16(array) else np.float32, copy=False), geometry)


def write_label_map(path: str | Path, label_map: np.ndarray, geometry: Geometry) -> None:
    """Writes a label map as uint8 NIfTI on the geometry's grid; the file appears whole or not at all.

    Args:
        path: ends in `.nii.gz` or `.nii`.
        label_map: `(slices, rows, columns)` with values 0, 1, 2.
        geometry: the grid to write on.
    """
    _write(Path(path), np.asarray(label_map, np.uint8), geometry)


def write_voxels(path: Path, header: nib.Nifti1Header, parts: Iterable[np.ndarray]) -> None:
    """Writes a header and the voxels after it; the file appears whole or not at all.

    Args:
        path: ends in `.nii.gz` or `.nii`.
        header: says what the voxels are, and where; without extensions.
        parts: the voxels as they lie in the file, contiguous, some at a time.
    """
    header = header.copy()
    header.set_data_offset(header.single_vox_offset)
    with open_to_write(path) as stream:
        stream.write(header.binaryblock)
        stream.write(bytes(header.single_vox_offset - header.sizeof_hdr))  # no extensions
        for part in parts:
            stream.write(memoryview(part))


def same_grid(first: Geometry, second: Geometry, *, tolerance_mm: float = 1e-2) -> bool:
    """Whether two volumes lie on the same voxels: equal shape, and every corner within `tolerance_mm`.

    Compared in the house's axis order: files may store the same voxels with their axes permuted and flipped.
    """
    if first.house_shape != second.house_shape:
        return False
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in first.house_shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return bool(np.abs((first.house_affine - second.house_affine) @ corners).max() <= tolerance_mm)


def volume_ml(label_map: Volume, *values: int) -> float:
    """Volume of some label values in a label map, in millilitres."""
    flat = label_map.array.ravel(order="K")
    parts = (flat[first : first + (1 << 20)] for first in range(0, flat.size, 1 << 20))  # they fit into the cache
    num_voxels = sum(np.count_nonzero(part == value) for part in parts for value in set(values))
    return float(num_voxels * np.prod(label_map.spacing_mm) / 1000)


def _open_nifti(path: Path) -> nib.Nifti1Pair:
    if not path.exists():
        raise InputError(f"{path}: no such file; expected a NIfTI volume")
    try:
        with warnings.catch_warnings(action="ignore"):  # MINC headers make nibabel warn before they are refused
            image = nib.load(path)
    except (*voxels.UNREADABLE, *_BAD_HEADER) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({first_line(error)})") from error
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path}: found {type(image).__name__}, expected NIfTI (.nii.gz or .nii)")
    return image


def _geometry(image: nib.Nifti1Pair, path: Path) -> Geometry:
    shape = image.shape
    if len(shape) > 3 and all(size == 1 for size in shape[3:]):
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: {len(shape)} axes of sizes {tuple(shape)}, expected a volume of three axes")
    placement.check_unit(image.header, path)
    affine = np.array(image.affine, float)
    if not placement.places_voxels(affine):
        raise InputError(
            f"{path}: its affine {affine.tolist()} does not place voxels in space (not invertible, or far off)"
        )
    return Geometry(shape=tuple(int(size) for size in shape), affine=affine, header=image.header.copy())


def _fits_int16(array: np.ndarray) -> bool:
    if array.dtype == np.int16:
        return True
    limits = np.iinfo(np.int16)
    return array.dtype.kind in "iu" and limits.min <= array.min() <= array.max() <= limits.max


def _write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    stored = geometry.to_file(array)
    if stored.shape != geometry.shape:
        raise ValueError(f"array of shape {stored.shape} does not fit the grid {geometry.shape}")
    header = image_on_grid(stored, geometry).header
    header.set_slope_inter(1, 0)
    write_voxels(path, header, blocks.in_file_order(stored))


@contextlib.contextmanager
def open_to_write(path: Path) -> Iterator[BinaryIO]:
    """A NIfTI file to write, packed where its name says so, that appears whole or not at all.

    Raises:
        InputError: a name that is not NIfTI's.
    """
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path}: expected a name that ends in .nii.gz or .nii")
    with files.open_to_write(path) as stream:
        if not path.name.endswith(".gz"):
            yield stream
            return
        # slice by slice, so that no second volume is in memory; no time and no name, so that equal voxels are equal
        with igzip.IGzipFile("", "wb", 2, stream, mtime=0) as packed:
            yield packed


def image_on_grid(stored: np.ndarray, geometry: Geometry) -> nib.Nifti1Image:
    """An image whose header places the voxels exactly as the geometry's file did.

    Args:
        stored: of the geometry's shape, in the file's axis order; a fourth axis may follow.
        geometry: the grid.
    """
    cls = nib.Nifti2Image if isinstance(geometry.header, nib.Nifti2Header) else nib.Nifti1Image
    image = cls(stored, geometry.affine)
    image.set_qform(None, 0)
    image.header.set_xyzt_units("mm", "sec")
    if geometry.header is None:
        return image
    for name in _PLACEMENT_FIELDS:
        image.header[name] = geometry.header[name]
    image.header["pixdim"][:4] = geometry.header["pixdim"][:4]
    # without an affine of its own the image takes the header's, bit for bit
    return cls(stored, None, image.header)

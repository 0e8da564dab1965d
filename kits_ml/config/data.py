"""Cases: made, fetched, inspected, prepared, divided, exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kits_ml.errors import InputError
from kits_ml.settings import REQUIRED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class PhantomSettings(Settings):
    """Synthetic CT cases in the KiTS layout."""

    output: str = setting("data/phantom", "folder that gets the cases")
    num_cases: int = setting(20, "how many cases", minimum=1)
    distribution: Literal["kits19", "small"] = setting(
        "kits19",
        "kits19: slice counts, spacing, HU and tumour sizes as in KiTS19; small: at most 40 thick slices",
    )
    seed: int = setting(0, "same seed, same cases", minimum=0)
    num_workers: int = setting(2, "worker processes", minimum=1)
    overwrite: bool = setting(False, "replace cases that are there")


@dataclass(frozen=True, kw_only=True)
class FetchSettings(Settings):
    """Official KiTS19 from its sources, or from mirrors that keep the sources' names."""

    output: str = setting("data/kits19", "folder that gets the cases")
    cases: str = setting(
        "all",
        'such as "0-47,60,case_00123"; all: the 210 with labels. 210-299 have none and give images only',
    )
    num_workers: int = setting(4, "files downloaded at once", minimum=1, maximum=32)
    imaging_url: str = setting(
        "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images",
        "base address of the images: case_00000.nii.gz, ...",
    )
    labels_url: str = setting(
        "https://raw.githubusercontent.com/neheller/kits19/master/data",
        "base address of kits.json and the labels: case_00000/segmentation.nii.gz, ...",
    )
    timeout_s: float = setting(60.0, "time without a byte until a connection is given up", unit="s", minimum=0.01)
    num_retries: int = setting(8, "tries in a row without a new byte until a file is given up", minimum=0)
    backoff_s: float = setting(1.0, "wait before the first retry, then double, up to a minute", unit="s", minimum=0)
    overwrite: bool = setting(False, "fetch again what is there; the old file stays until the new one is whole")


@dataclass(frozen=True, kw_only=True)
class PreprocessingSettings(Settings):
    """What is done to a volume before a network sees it. Travels with the model."""

    crop: Literal["foreground", "body"] = setting(
        "foreground",
        "foreground: the box around all that is above foreground_hu, the CT table too, as in the report; "
        "body: the box around the trunk, without the table",
    )
    foreground_hu: float = setting(0.0, "the crop keeps all rows and columns with a voxel above this", unit="HU")
    framing: Literal["stretch", "spacing"] = setting(
        "stretch",
        "stretch: the crop is resized to the square, as in the report; "
        "spacing: the square shows pixel_spacing_mm a pixel around the crop's middle, and air beyond the scan",
    )
    pixel_spacing_mm: float = setting(
        1.6,
        "for framing spacing: distance of rows and columns of a prepared slice; more for a scan whose crop "
        "does not fit",
        unit="mm",
        minimum=0.1,
        maximum=20,
    )
    window_min_hu: float = setting(-79.0, "becomes 0", unit="HU")
    window_max_hu: float = setting(304.0, "becomes 1", unit="HU")
    gamma: float = setting(1.5, "contrast exponent after the window", minimum=0.1, maximum=10)
    image_size: int = setting(
        256, "rows and columns of a prepared slice; a multiple of 2 ** depth", unit="pixels", minimum=16, maximum=2048
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_max_hu <= self.window_min_hu:
            raise InputError(
                f"window_max_hu: found {self.window_max_hu:g}, "
                f"expected more than window_min_hu {self.window_min_hu:g}"
            )


@dataclass(frozen=True, kw_only=True)
class SplitSettings(Settings):
    """How patients are divided; never slices."""

    validation_fraction: float = setting(0.2, "share of patients that choose the weights", minimum=0, maximum=0.9)
    test_fraction: float = setting(0.2, "share of patients that are only scored at the end", minimum=0, maximum=0.9)
    split_seed: int = setting(0, "same seed and patients, same split", minimum=0)
    num_folds: int = setting(
        0,
        "cross-validation: each patient that is not for test validates in one fold; 0: none, one random part",
        minimum=0,
    )
    fold: int = setting(0, "the fold that validates, from 0; also picks from a split_file of folds", minimum=0)
    split_file: str | None = setting(
        None, "fixed lists: split.json, nnU-Net's splits_final.json, or CSV with case,part or case,fold"
    )
    groups_file: str | None = setting(None, "CSV with case,group: cases of one group are one patient")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_folds == 1:
            raise InputError("num_folds: found 1, expected 0 (no folds) or at least 2")
        if self.num_folds and self.fold >= self.num_folds:
            raise InputError(
                f"fold: found {self.fold}, expected 0 to {self.num_folds - 1} as num_folds is {self.num_folds}"
            )
        if self.fold and not self.num_folds and not self.split_file:
            raise InputError(f"fold: found {self.fold} without num_folds or a split_file, expected one of them, or 0")
        if self.num_folds and self.split_file:
            raise InputError(
                f"num_folds: found {self.num_folds} with split_file {self.split_file}, expected one of the two"
            )


@dataclass(frozen=True, kw_only=True)
class SelectionSettings(Settings):
    """Which cases take part. A preset gives limits; a limit that is set here replaces the preset's."""

    selection: Literal["all", "report"] = setting(
        "all", "all: no limits; report: max_slices 110, hu_min -1024, hu_max 1679, as the report chose"
    )
    max_slices: int | None = setting(None, "leave out cases with more slices", minimum=1)
    min_slices: int | None = setting(None, "leave out cases with fewer slices", minimum=1)
    hu_min: float | None = setting(None, "leave out cases with a voxel below this", unit="HU")
    hu_max: float | None = setting(None, "leave out cases with a voxel above this", unit="HU")
    max_slice_spacing_mm: float | None = setting(None, "leave out cases with slices further apart", unit="mm")
    cases: str | None = setting(None, 'only these, such as "0-47,60,case_00123"; a range may have gaps')
    exclude_cases: str | None = setting(None, "never these, written as for cases")


@dataclass(frozen=True, kw_only=True)
class InspectSettings(SelectionSettings):
    """Verify and fingerprint a folder of cases: a table, CSV files and a page of plots."""

    data: str = setting(REQUIRED, "folder of cases in the KiTS layout; label maps may be missing")
    output: str = setting("inspection", "folder that gets fingerprint.csv, findings.csv, selection.csv, overview.png")
    num_workers: int = setting(2, "worker processes", minimum=1)
    overwrite: bool = setting(False, "replace the output folder's files")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(PreprocessingSettings, SplitSettings, SelectionSettings):
    """Cases to 256x256 PNG slices with an index, what undoes it, and a split by patient."""

    data: str | None = setting(
        None, "folder of cases, KiTS's or nnU-Net's layout, NIfTI or DICOM; without one, phantom cases are made"
    )
    prepared: str = setting("data/prepared", "folder that holds the prepared stores")
    num_workers: int = setting(2, "worker processes", minimum=1)
    skip_failed_cases: bool = setting(False, "go on without the cases that cannot be read")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(SplitSettings):
    """Cases in another layout, with the split beside them: split.json and nnU-Net's splits_final.json."""

    data: str = setting(REQUIRED, "folder of cases: KiTS19, KiTS21, KiTS23 or nnU-Net's raw layout")
    output: str = setting(REQUIRED, "folder that gets them; for nnU-Net named such as Dataset219_KiTS19")
    layout: Literal["nnunet", "kits19", "kits23"] = setting(
        "nnunet", "nnunet: test cases lie apart; kits19: cysts become kidney; kits23: cysts stay 3"
    )
    num_workers: int = setting(2, "worker processes", minimum=1)
    skip_failed_cases: bool = setting(False, "go on without the cases that cannot be read")
    overwrite: bool = setting(False, "replace another export in the output folder")

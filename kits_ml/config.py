"""Every setting of the program: once, with its default, unit and help text.

A setting has one spelling from end to end: the dataclass field is the command-line option, the MLproject
parameter, the MLflow key and the Optuna name. Settings that several commands share live in a base class.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from kits_ml.errors import InputError


def setting(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with what a person needs to know about it.

    Args:
        default: the one place where the default is written; `dataclasses.MISSING` for a required setting.
        help: one line for `--help`.
        unit: the unit of a number, shown with the help.
        minimum, maximum: the closed range a number must lie in.
    """
    metadata = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


REQUIRED = dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all settings can do: be checked, be made from a mapping, become one again."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check(field, hints[field.name], getattr(self, field.name))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, source: str = "settings") -> Self:
        """Makes settings from names and values.

        Args:
            mapping: values by setting name; what is missing takes its default.
            source: where the mapping came from, for the error message.

        Raises:
            InputError: an unknown name (with the nearest known one), a missing required setting or a bad value.
        """
        known = cls.names()
        for name in mapping:
            if name not in known:
                raise InputError(f"{source}: unknown setting {name!r}{suggestion(name, known)}")
        for field in dataclasses.fields(cls):
            if field.default is dataclasses.MISSING and field.name not in mapping:
                raise InputError(f"{source}: setting {field.name!r} is required ({field.metadata['help']})")
        return cls(**mapping)

    @classmethod
    def names(cls) -> list[str]:
        """The names of the settings, in order."""
        return [field.name for field in dataclasses.fields(cls)]

    def to_dict(self) -> dict[str, Any]:
        """Names and values, in order; what `from_mapping` takes."""
        return dataclasses.asdict(self)

    def select(self, cls: type[Settings]) -> Any:
        """The part of these settings that another (base) class holds."""
        return cls(**{name: getattr(self, name) for name in cls.names()})


def suggestion(name: str, known: Sequence[str]) -> str:
    """`"; did you mean 'x'?"` where a known name is near, else the known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}"


def value_type(hint: Any) -> tuple[type, tuple[str, ...] | None, bool]:
    """What an annotation means: the plain type, its choices (`Literal`), and whether `None` is allowed."""
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        (hint,) = members
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), optional
    return hint, None, optional


def _check(field: dataclasses.Field, hint: Any, value: Any) -> None:
    plain, choices, optional = value_type(hint)
    if value is None and optional:
        return
    if choices is not None:
        if value not in choices:
            raise InputError(f"{field.name}: found {value!r}, expected one of {', '.join(choices)}")
        return
    accepted = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise InputError(f"{field.name}: found {value!r}, expected {_TYPE_NAMES[plain]}")
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        raise InputError(f"{field.name}: found {value!r}, expected {bounds}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


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

    foreground_hu: float = setting(0.0, "the crop keeps all rows and columns with a voxel above this", unit="HU")
    window_min_hu: float = setting(-79.0, "becomes 0", unit="HU")
    window_max_hu: float = setting(304.0, "becomes 1", unit="HU")
    gamma: float = setting(1.5, "contrast exponent after the window", minimum=0.1, maximum=10)
    image_size: int = setting(256, "rows and columns of a prepared slice", unit="pixels", minimum=16, maximum=2048)

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


@dataclass(frozen=True, kw_only=True)
class TrainSettings(PrepareSettings):
    """Prepare what is missing, train, evaluate and register, in one MLflow run."""

    architecture: str = setting("unet", "a name from kits_ml.models.ARCHITECTURES")
    base_filters: int = setting(16, "filters of the first level; doubled at each level below", minimum=1)
    depth: int = setting(4, "how often the resolution is halved", minimum=1, maximum=8)
    loss: Literal["dice_crossentropy", "categorical_crossentropy"] = setting(
        "dice_crossentropy", "dice_crossentropy: ours; categorical_crossentropy: the report's"
    )
    learning_rate: float = setting(1e-3, "of Adam, at the start", minimum=0)
    learning_rate_schedule: Literal["cosine", "constant"] = setting(
        "cosine", "cosine: down to zero over the training; constant: the report's"
    )
    batch_size: int = setting(8, "slices a step", minimum=1)
    epochs: int = setting(5, "how often the validation patients are looked at", minimum=1)
    steps_per_epoch: int = setting(50, "steps between two looks", minimum=1)
    seed: int = setting(0, "of the weights and the order of slices", minimum=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "auto: bfloat16 in convolutions where the processor has it, else float32"
    )
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)
    experiment: str = setting("kits_ml", "MLflow experiment")
    run_name: str | None = setting(None, "name of the MLflow run; without one, the architecture's")
    model_name: str = setting("kits-unet", "name in the model registry")
    register: bool = setting(True, "register the model")


@dataclass(frozen=True, kw_only=True)
class MainSettings(TrainSettings):
    """The whole path: train, then segment one test scan with the registered model."""

    output: str = setting("predictions", "folder that gets the segmentation and its overlay")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """Score a model on cases, or a folder of predictions against a folder of references."""

    model: str | None = setting(None, "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model or a folder")
    data: str | None = setting(None, "folder of cases, for --model")
    subset: Literal["unseen", "all"] = setting("unseen", "unseen: leave out the cases the model was trained on")
    predictions: str | None = setting(None, "folder of predicted label maps, for --references")
    references: str | None = setting(None, "folder of true label maps, for --predictions")
    output: str = setting("evaluation", "folder that gets scores.csv, summary.json and the pictures")
    overwrite: bool = setting(False, "replace the output folder's files")
    num_workers: int = setting(2, "worker processes", minimum=1)
    batch_size: int = setting(8, "slices the network takes at once", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)


@dataclass(frozen=True, kw_only=True)
class RegisterSettings(Settings):
    """Register the model of a finished run."""

    run_id: str = setting(REQUIRED, "MLflow run that logged a model")
    model_name: str = setting("kits-unet", "name in the model registry")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """Segment a scan with a registered model; the output lies on the scan's own grid."""

    model: str = setting("models:/kits-unet@champion", "models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
    image: str = setting(REQUIRED, "the scan: a NIfTI file or a folder of DICOM slices; any orientation")
    output: str = setting(REQUIRED, "the label map to write, .nii.gz: 0 background, 1 kidney, 2 tumour")
    overlay: str | None = setting(None, "a PNG with the contours on the scan")
    overwrite: bool = setting(False, "replace files that are there")
    batch_size: int = setting(8, "slices the network takes at once", minimum=1)
    num_threads: int = setting(0, "threads of the network; 0: one a core", minimum=0)


@dataclass(frozen=True, kw_only=True)
class InfoSettings(Settings):
    """What this machine and its registry hold."""

    model: str | None = setting(None, "show this model: models:/NAME@ALIAS, models:/NAME/VERSION or a folder")

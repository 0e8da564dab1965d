"""nnU-Net's raw layout: `DatasetXXX_Name/` with `imagesTr`, `labelsTr` and `dataset.json`.

Read as version 2 writes it (documentation/dataset_format.md of MIC-DKFZ/nnUNet), and as version 1 (`TaskXXX_Name`)
and the Medical Segmentation Decathlon do; written as version 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_ml.data import label_values
from kits_ml.errors import InputError

DESCRIPTION = "dataset.json"
SPLITS = "splits_final.json"
FILE_ENDING = ".nii.gz"
#: Image and label folders: for training, and held apart for testing.
FOLDERS: Mapping[bool, tuple[str, str]] = {False: ("imagesTr", "labelsTr"), True: ("imagesTs", "labelsTs")}
#: The only channel, as nnU-Net numbers channels.
CHANNEL = "_0000"
FOLDER_NAME = re.compile(r"Dataset\d{3}_\w+")


@dataclass(frozen=True, kw_only=True)
class Files:
    """One case's files.

    Attributes:
        image: the CT.
        labels: its label map; may be missing for training cases, which is for the reader to say.
        held_out: whether they lie in `imagesTs`.
    """

    image: Path
    labels: Path
    held_out: bool


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A raw data set.

    Attributes:
        files: by case name.
        label_values: KiTS value by the data set's value.
        num_unlabelled: cases of `imagesTs` without a label map; they are not among the files.
    """

    files: Mapping[str, Files]
    label_values: Mapping[int, int]
    num_unlabelled: int


def is_dataset(folder: Path) -> bool:
    """Whether a folder looks like a raw data set of nnU-Net, complete or not."""
    return (folder / FOLDERS[False][0]).is_dir()


def read_dataset(folder: Path) -> Dataset:
    """Lists a raw data set and reads what its numbers mean.

    Raises:
        InputError: no readable `dataset.json`, more channels than one, files that are not NIfTI, labels that are
            not of kidneys, a case's name that is a path, or a case that is both for training and for testing.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected nnU-Net's description of the data") from error
    if not isinstance(description, dict):
        raise InputError(f"{path}: found {type(description).__name__}, expected nnU-Net's description of the data")
    channels = description.get("channel_names", description.get("modality"))
    if not isinstance(channels, dict) or len(channels) != 1:
        raise InputError(f"{path}: channels {channels!r}, expected one, the CT")
    ending = description.get("file_ending", FILE_ENDING)
    if ending not in (".nii.gz", ".nii"):
        raise InputError(f"{path}: file_ending {ending!r}, expected .nii.gz or .nii")
    mapping = label_values.mapping_from_names(_label_names(description, path), source=str(path))
    files = _listed(folder, description, path) or _found(folder, ending, held_out=False)
    test = _found(folder, ending, held_out=True)
    both = sorted(set(files) & set(test))
    if both:
        raise InputError(f"{folder}: {', '.join(both[:5])} in imagesTr and in imagesTs; expected one of them")
    labelled = {name: found for name, found in test.items() if found.labels.exists()}
    return Dataset(files={**files, **labelled}, label_values=mapping, num_unlabelled=len(test) - len(labelled))


def describe(*, num_training: int) -> dict[str, Any]:
    """Content of `dataset.json` in version 2's form, for CT and this package's labels.

    Args:
        num_training: cases in `imagesTr`.
    """
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumor": 2},
        "numTraining": num_training,
        "file_ending": FILE_ENDING,
    }


def target_files(folder: Path, name: str, *, held_out: bool) -> tuple[Path, Path]:
    """Where a case's image and label map belong."""
    images, labels = FOLDERS[held_out]
    return folder / images / f"{name}{CHANNEL}{FILE_ENDING}", folder / labels / f"{name}{FILE_ENDING}"


def _label_names(description: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Numbers by name; version 1 has names by number."""
    names = description.get("labels")
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path}: labels {names!r}, expected numbers by name")
    if all(isinstance(name, str) and name.isdecimal() for name in names):
        by_name: dict[str, Any] = {}
        for number, name in names.items():
            by_name.setdefault(str(name), []).append(int(number))
        return by_name
    return names


def _listed(folder: Path, description: Mapping[str, Any], path: Path) -> dict[str, Files]:
    """Files that version 2's optional `dataset` entry names, relative to the folder."""
    entries = description.get("dataset") or {}
    if not isinstance(entries, dict):
        raise InputError(f"{path}: dataset is {type(entries).__name__}, expected one image and a label by case")
    found = {}
    for name, entry in entries.items():
        images, labels = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if not isinstance(images, list) or [type(one) for one in (*images, labels)] != [str, str]:
            raise InputError(f"{path}: dataset entry of {name} is {entry!r}, expected one image and a label")
        if name in ("", "..") or Path(name).name != name:
            raise InputError(f"{path}: dataset names a case {name!r}, expected a name that a file can have")
        found[name] = Files(image=folder / images[0], labels=folder / labels, held_out=False)
    return found


def _found(folder: Path, ending: str, *, held_out: bool) -> dict[str, Files]:
    images, labels = (folder / name for name in FOLDERS[held_out])
    found: dict[str, Files] = {}
    for image in sorted(images.glob(f"*{ending}")):
        if image.name.startswith("."):
            continue
        stem = image.name.removesuffix(ending)
        # a Decathlon image has no channel number
        name = re.sub(r"_\d{4}$", "", stem) if not (labels / f"{stem}{ending}").exists() else stem
        if name in found:
            raise InputError(f"{image}: a second image of {name} beside {found[name].image.name}; expected one")
        found[name] = Files(image=image, labels=labels / f"{name}{ending}", held_out=held_out)
    return found

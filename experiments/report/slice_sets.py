"""Slices of cases, prepared with or without the report's faults, and parts of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from faults import mean_of_numbers, rounded, unclipped_slices
from steps import Preparation
from tqdm import tqdm

from kits_ml import files
from kits_ml.config import PreprocessingSettings
from kits_ml.data import cases as case_files
from kits_ml.data import frames, preprocessing
from kits_ml.training.batches import SliceArrays


def slices_of(
    folder: Path,
    *,
    cache: Path,
    image_size: int,
    preparations: Mapping[str, Preparation],
    names: Sequence[str] | None = None,
) -> dict[str, SliceArrays]:
    """The slices of the cases of a folder in several ways, from a file where it is there.

    Args:
        folder: of cases.
        cache: a folder for such files.
        image_size: rows and columns.
        preparations: the ways, by name.
        names: of the cases; None: all.
    """
    cases = [one for one in case_files.find_cases(folder) if names is None or one.name in set(names)]
    wanted = {name: dataclasses.asdict(one) for name, one in preparations.items()}
    told = json.dumps([[case.digest() for case in cases], image_size, wanted], sort_keys=True)
    path = cache / f"{folder.name}-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}.npz"
    if not path.exists():
        settings = PreprocessingSettings(image_size=image_size)
        made = prepare_slices(cases, settings=settings, preparations=preparations)
        arrays = {f"{kind}.{name}": getattr(one, kind) for name, one in made.items() for kind in ("grey", "labels")}
        cases_of = next(iter(made.values())).cases
        with files.open_to_write(path) as stream:
            np.savez(stream, allow_pickle=False, cases=np.array(cases_of), **arrays)
    with np.load(path, allow_pickle=False) as content:
        in_order = tuple(content["cases"].tolist())
        return {
            name: SliceArrays(grey=content[f"grey.{name}"], labels=content[f"labels.{name}"], cases=in_order)
            for name in preparations
        }


def chosen(slices: SliceArrays, positions: Sequence[int]) -> SliceArrays:
    """Some of the slices, counted among all that are stored."""
    return dataclasses.replace(slices, chosen=np.sort(np.asarray(positions, np.int64)))


def of_cases(slices: SliceArrays, names: Sequence[str]) -> SliceArrays:
    """The slices of some cases."""
    wanted = set(names)
    return chosen(slices, [number for number, case in enumerate(slices.cases) if case in wanted])


def prepare_slices(
    cases: Sequence[case_files.Case],
    *,
    settings: PreprocessingSettings,
    preparations: Mapping[str, Preparation],
) -> dict[str, SliceArrays]:
    """Prepares cases in several ways, each file read once.

    Args:
        cases: in the order in which their slices shall stand.
        settings: window, gamma and size.
        preparations: the ways, by name.

    Returns:
        The slices of all cases, by the same names.
    """
    found = {name: ([], []) for name in preparations}
    names: list[str] = []
    for case in tqdm(cases, desc="prepare", unit="case"):
        image, label_map = case_files.load_case(case)
        frame = frames.find_frame(image.array, settings)
        names += [case.name] * len(image.array)
        for name, preparation in preparations.items():
            grey = unclipped_slices(image.array, frame, settings) if preparation.unclipped else None
            if grey is None:
                grey = np.concatenate(list(preprocessing.prepare_image(image.array, frame, settings)))
            if preparation.mean_of_numbers:
                labels = rounded(mean_of_numbers(label_map.array, frame))
            else:
                labels = preprocessing.prepare_labels(label_map.array, frame)
            found[name][0].append(grey)
            found[name][1].append(labels)
    return {
        name: SliceArrays(grey=np.concatenate(grey), labels=np.concatenate(labels), cases=tuple(names))
        for name, (grey, labels) in found.items()
    }

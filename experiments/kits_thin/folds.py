"""Writes the five fixed folds of patients that the experiments on real slices share: `folds/fold_0.json`, ...

    python experiments/kits_thin/folds.py --data $KITS_ML_REAL_DATA/kits-thin

Each patient is a test patient of one fold. Of a fold's other patients one in eight chooses the weights, the rest are
trained on; each part has like tumour sizes. `--split_file experiments/kits_thin/folds/fold_0.json` takes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kits_ml import files
from kits_ml.config import PrepareSettings, SplitSettings
from kits_ml.data import splits
from kits_ml.workflows.prepare import prepare

NUM_FOLDS = 5
VALIDATION_FRACTION = 0.125
FOLDER = Path(__file__).with_name("folds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    prepared = prepare(PrepareSettings(data=parser.parse_args().data, test_fraction=0.0))
    volumes_ml, patients = prepared.store.tumour_volumes_ml(), prepared.split.patients
    inner = SplitSettings(validation_fraction=VALIDATION_FRACTION, test_fraction=0.0)
    outer = splits.all_folds(volumes_ml, SplitSettings(num_folds=NUM_FOLDS, test_fraction=0.0), patients=patients)
    for number, held in enumerate(outer):
        rest = {case: volumes_ml[case] for case in held.train}
        chosen = splits.split_patients(rest, inner, patients=patients)
        content = {"train": chosen.train, "validation": chosen.validation, "test": held.validation}
        files.write_json(FOLDER / f"fold_{number}.json", {part: list(names) for part, names in content.items()})
    print(FOLDER)


if __name__ == "__main__":
    main()

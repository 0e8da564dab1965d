"""Our recipe against MONAI's BasicUNet on five fixed folds of patients, equal minutes of training, one command.

    python experiments/against_basic_unet/run.py --data $KITS_ML_REAL_DATA/kits-thin --minutes 30 --folds 0,1,2,3

Each fold's patients (`experiments/kits_thin/folds`) are the test of one training of each; of the others one in eight
chooses the weights. Each is scored as it is, and with its probabilities averaged over the slice and its mirror image
(`_mirrored`), with the weights of the best look and with the last ones (`_last`). `--ways opponent_batch_dice` trains
BasicUNet with the Dice of the batch, as ours has it, instead of MONAI's default. What is finished is not done again,
so the command goes on after an interruption. It writes, in `--output`, the scores of each fold, and `scores.csv` with
all of them (case, algorithm, region, score, fold), which `kits-ml compare` takes. The two take turns, so that what
else the machine does strikes both; where many trainings share a GPU, start one process for each fold and way
(`--ways`) at the same time.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kits_ml import files
from kits_ml.config import TrainSettings
from kits_ml.evaluation import tables
from kits_ml.inference.predictor import Predictor
from kits_ml.options import read_config
from kits_ml.training import batches
from kits_ml.training.batches import SliceArrays
from kits_ml.workflows.evaluate import score_model
from kits_ml.workflows.prepare import Prepared, prepare

FOLDS = Path(__file__).parents[1] / "kits_thin" / "folds"

#: BasicUNet as MONAI sets it up (another was `basic_unet` in earlier results), and with one change; by way, the name
#: in the table and what is changed.
OPPONENTS = {
    "opponent": ("basic_unet_default", {}),
    "opponent_batch_dice": ("basic_unet_batch_dice", {"batch_dice": True}),
}

#: What is scored, by what is added to the algorithm's name.
TEST_TIME_AUGMENTATION = {"_mirrored": "flip_left_right", "": "none"}

#: From slices of training and of validation patients to networks, by what is added to the algorithm's name, and what
#: to remember of their training.
Way = Callable[[SliceArrays, SliceArrays], tuple[dict[str, Any], dict]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--folds", default="0,1,2,3", help="4 is scored once, at the end")
    parser.add_argument("--config", type=Path, help="our recipe, as for `kits-ml train`; without, the defaults")
    parser.add_argument("--name", help="what our recipe is called in the table; without, as its file, or defaults")
    parser.add_argument("--ways", default="ours,opponent", help=f"in turn, of: ours, {', '.join(OPPONENTS)}")
    parser.add_argument("--steps_per_epoch", type=int, help="of ours: steps between two looks at validation patients")
    parser.add_argument("--num_loader_threads", type=int, default=0, help="of ours: threads that make batches")
    parser.add_argument("--output", type=Path, default=Path("data/against_basic_unet"))
    options = parser.parse_args()
    name = options.name or (options.config.stem if options.config else "defaults")
    for fold in map(int, options.folds.split(",")):
        for way in options.ways.split(","):
            common = common_settings(options, FOLDS / f"fold_{fold}.json")
            if way == "ours":
                settings = our_settings(options, common, name=name)
                run_once(options.output, name, fold, partial(train_ours, settings=settings), settings)
            else:
                settings = TrainSettings.from_mapping(common, source="run.py")
                opponent, changes = OPPONENTS[way]
                train_by = partial(train_opponent, minutes=options.minutes, **changes)
                run_once(options.output, opponent, fold, train_by, settings)
    print(write_table(options.output))


def common_settings(options: argparse.Namespace, split_file: Path) -> dict[str, Any]:
    """What all have in common; without more, so for the opponent, slices have the default resolution, 256x256."""
    return {"data": options.data, "split_file": str(split_file), "max_minutes": options.minutes}


def our_settings(options: argparse.Namespace, common: dict[str, Any], *, name: str) -> TrainSettings:
    """The recipe with the folds, the budget and what no recipe decides."""
    given = common | {"num_loader_threads": options.num_loader_threads, "run_name": name}
    if options.steps_per_epoch:
        given["steps_per_epoch"] = options.steps_per_epoch
    recipe = read_config(str(options.config)) if options.config else {}
    return TrainSettings.from_mapping(recipe | given, source=str(options.config))


def run_once(output: Path, algorithm: str, fold: int, train_by: Way, settings: TrainSettings) -> None:
    """Trains and scores one fold, unless it is there: the scores without mirroring are written last."""
    if (output / algorithm / f"fold_{fold}" / tables.SCORES_CSV).exists():
        return
    prepared = prepare(settings)
    train, validation = (
        batches.read_slices(prepared.store, getattr(prepared.split, part)) for part in ("train", "validation")
    )
    models, record = train_by(train, validation)
    record |= {"minutes": settings.max_minutes, "epochs": record["steps"] * settings.batch_size / len(train)}
    for (kept, model), (suffix, augmentation) in itertools.product(models.items(), TEST_TIME_AUGMENTATION.items()):
        predictor = Predictor(model, prepared.store.settings, test_time_augmentation=augmentation)
        score(predictor, prepared, output / f"{algorithm}{kept}{suffix}" / f"fold_{fold}", record)


def score(predictor: Predictor, prepared: Prepared, folder: Path, record: dict) -> None:
    """Scores the test patients on the scans' own grids; the table of scores is written last."""
    cases = {name: prepared.cases[name] for name in prepared.split.test}
    scored, failures = score_model(predictor, cases, output=folder)
    if failures:
        raise SystemExit(f"{folder}: {failures}")
    files.write_json(folder / "training.json", record)
    tables.write_scores(folder / tables.SCORES_CSV, scored)


def train_ours(train: SliceArrays, validation: SliceArrays, settings: TrainSettings) -> tuple[dict[str, Any], dict]:
    """The package's own training, as `kits-ml train` does it, without its run in MLflow: last weights and best."""
    import keras

    from kits_ml import models
    from kits_ml.models.standalone import standalone
    from kits_ml.training.fit import fit
    from kits_ml.workflows.start import new_model

    model, kept = new_model(settings), {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.update(last=model.get_weights()))
    fitted = fit(model, train, validation, settings, callbacks=[keep])
    looks = len(fitted.history["loss"])
    model.set_weights(kept["last"])
    return {"_last": standalone(models.without_supervision(model)), "": fitted.model}, {
        "score": fitted.best_score,
        "progress": (fitted.best_epoch + 1) / looks,
        "looks": looks,
        "steps": int(model.optimizer.iterations) * settings.accumulation_steps,
        "settings": settings.to_dict(),
    }


def train_opponent(
    train: SliceArrays, validation: SliceArrays, *, minutes: float, batch_dice: bool = False
) -> tuple[dict[str, Any], dict]:
    """BasicUNet on slices of the same patients: with its last weights (`_last`), and those of the best look."""
    from basic_unet import train_basic_unet

    last, best, record = train_basic_unet(train, validation, minutes=minutes, seed=0, batch_dice=batch_dice)
    return {"_last": last, "": best}, record


def write_table(output: Path) -> Path:
    """All folds of all recipes, one row a case, region and algorithm."""
    rows = []
    for path in sorted(output.glob("*/fold_*/scores.csv")):
        algorithm, fold = path.parts[-3], path.parts[-2].removeprefix("fold_")
        for case in tables.read_scores(path):
            rows += [
                {"case": case.case, "algorithm": algorithm, "region": region, "score": found.dice, "fold": fold}
                | {"tumour_ml": case.regions["tumour"].volume_true_ml}
                for region, found in case.regions.items()
            ]
    files.write_csv(output / "scores.csv", rows, ["case", "algorithm", "region", "score", "fold", "tumour_ml"])
    summary = {
        str(path.parent.relative_to(output)): json.loads(path.read_text()).get("epochs")
        for path in sorted(output.glob("*/fold_*/training.json"))
    }
    files.write_json(output / "epochs.json", summary)
    return output / "scores.csv"


if __name__ == "__main__":
    main()

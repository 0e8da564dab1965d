"""Our recipe against MONAI's BasicUNet on five fixed folds of patients, equal minutes of training, one command.

    python experiments/against_basic_unet/run.py --data $KITS_ML_REAL_DATA/kits-thin --minutes 30 --folds 0,1,2,3

Each fold's patients (`experiments/kits_thin/folds`) are the test of one training of each; of the others one in eight
chooses the weights. What is finished is not done again, so the command goes on after an interruption. It writes, in
`--output`, the scores of each fold, and `scores.csv` with all of them (case, algorithm, region, dice, fold), which
`kits-ml compare` takes. The two take turns, so that what else the machine does strikes both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from kits_ml import files
from kits_ml.config import PrepareSettings, PreprocessingSettings, TrainSettings
from kits_ml.evaluation import tables
from kits_ml.options import read_config
from kits_ml.workflows.prepare import Prepared, prepare

FOLDS = Path(__file__).parents[1] / "kits_thin" / "folds"
RECIPE = Path(__file__).with_name("recipe.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--folds", default="0,1,2,3", help="4 is scored once, at the end")
    parser.add_argument("--config", type=Path, default=RECIPE, help="our recipe, as for `kits-ml train`")
    parser.add_argument("--name", default="ours", help="what our recipe is called in the table")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("data/against_basic_unet"))
    options = parser.parse_args()
    ways = {options.name: train_ours, "basic_unet": train_opponent}
    for fold in map(int, options.folds.split(",")):
        split_file = FOLDS / f"fold_{fold}.json"
        for name, way in ways.items():
            run_once(options.output / name / f"fold_{fold}", way, split_file, options)
    print(write_table(options.output))


def run_once(folder: Path, way: Callable, split_file: Path, options: argparse.Namespace) -> None:
    """Trains and scores one fold, unless it is there; the scores are written last, so they say that it is."""
    if (folder / tables.SCORES_CSV).exists():
        return
    record = way(folder, split_file, options)
    files.write_json(folder / "training.json", {"minutes": options.minutes, **record})
    (folder / "scored.csv").rename(folder / tables.SCORES_CSV)


def train_ours(folder: Path, split_file: Path, options: argparse.Namespace) -> dict:
    """The package's own training, as `kits-ml train` does it."""
    from kits_ml.workflows.train import train

    settings = TrainSettings.from_mapping(
        {
            **read_config(str(options.config)),
            "data": options.data,
            "image_size": options.image_size,
            "split_file": str(split_file),
            "max_minutes": options.minutes,
            "epochs": 10_000,
            "register": False,
            "run_name": f"{options.name}-{split_file.stem}",
            "experiment": "against_basic_unet",
        },
        source=str(options.config),
    )
    trained = train(settings)
    tables.write_scores(folder / "scored.csv", trained.scores["test"])
    return {"run_id": trained.run_id, "settings": settings.to_dict()}


def train_opponent(folder: Path, split_file: Path, options: argparse.Namespace) -> dict:
    """BasicUNet on the same prepared slices, scored by the same code on the scans' own grids."""
    from basic_unet import BATCH_SIZE, train_basic_unet

    from kits_ml.inference.predictor import Predictor
    from kits_ml.training import batches
    from kits_ml.workflows.evaluate import score_model

    prepared = prepare_slices(options, split_file)
    train, validation = (
        batches.read_slices(prepared.store, getattr(prepared.split, part)) for part in ("train", "validation")
    )
    model, record = train_basic_unet(train, validation, minutes=options.minutes, seed=0)
    predictor = Predictor(model, prepared.store.settings, batch_size=BATCH_SIZE)
    cases = {name: prepared.cases[name] for name in prepared.split.test}
    scored, failures = score_model(predictor, cases, output=folder)
    if failures:
        raise SystemExit(f"{folder}: {failures}")
    tables.write_scores(folder / "scored.csv", scored)
    return record


def prepare_slices(options: argparse.Namespace, split_file: Path) -> Prepared:
    """The slices that our recipe trains on too."""
    known = PreprocessingSettings.names()
    recipe = {name: value for name, value in read_config(str(options.config)).items() if name in known}
    own = {"data": options.data, "image_size": options.image_size, "split_file": str(split_file)}
    return prepare(PrepareSettings(**recipe, **own))


def write_table(output: Path) -> Path:
    """All folds of all recipes, one row a case, region and algorithm."""
    rows = []
    for path in sorted(output.glob("*/fold_*/scores.csv")):
        algorithm, fold = path.parts[-3], path.parts[-2].removeprefix("fold_")
        for case in tables.read_scores(path):
            rows += [
                {"case": case.case, "algorithm": algorithm, "region": region, "dice": found.dice, "fold": fold}
                | {"tumour_ml": case.regions["tumour"].volume_true_ml}
                for region, found in case.regions.items()
            ]
    files.write_csv(output / "scores.csv", rows, ["case", "algorithm", "region", "dice", "fold", "tumour_ml"])
    summary = {
        str(path.parent.relative_to(output)): json.loads(path.read_text()).get("epochs")
        for path in sorted(output.glob("*/fold_*/training.json"))
    }
    files.write_json(output / "epochs.json", summary)
    return output / "scores.csv"


if __name__ == "__main__":
    main()

"""The table of architectures in README.md: cost, speed, and Dice on real slices after equal minutes of training.

    python experiments/variants/table.py --data $KITS_ML_REAL_DATA/kits-thin --minutes 10

Every architecture is trained by `kits-ml train` in a process of its own, on fold 0 of `experiments/kits_thin/folds`,
with the settings of `table.yaml` and the same minutes (validation not counted), and scored on the fold's test
patients on the scans' own grids. Speed is measured in the same process, before. What is finished lies in `--output`
and is not done again, so the command goes on after an interruption; each architecture renews the table. On two cores
two commands with a core each (`taskset -c 0 ... --architectures unet,...`) may share the architectures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kits_ml import files

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from machine import processor

HERE = Path(__file__).parent
CONFIG = HERE / "table.yaml"
FOLD = HERE.parent / "kits_thin" / "folds" / "fold_0.json"
PICTURE = HERE / "table.png"
SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--architectures", help="only these, such as unet,nnunet")
    parser.add_argument("--output", type=Path, default=Path("data/variants"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        files.write_json(options.output / f"{options.one}.json", one_architecture(options.one, options))
        return
    from kits_ml.models import ARCHITECTURES

    names = options.architectures.split(",") if options.architectures else list(ARCHITECTURES)
    finished = options.output / f"{options.minutes:g}_minutes"  # of others nothing may come into the table
    for name in names:
        if not (finished / f"{name}.json").exists():
            print(name, file=sys.stderr)
            given = ["--data", options.data, "--minutes", str(options.minutes), "--output", str(finished)]
            subprocess.run([sys.executable, __file__, *given, "--one", name], check=True)
        found = [json.loads(path.read_text()) for path in finished.glob("*.json")]
        write_table(found)
        draw(found)


def one_architecture(name: str, options: argparse.Namespace) -> dict:
    """Speed, then training and scores, of one architecture."""
    from kits_ml import models, runtime
    from kits_ml.config import TrainSettings
    from kits_ml.models import ARCHITECTURES, cost
    from kits_ml.options import read_config
    from kits_ml.workflows.train import train

    own = {"architecture": name, "data": options.data, "split_file": str(FOLD), "max_minutes": options.minutes}
    fixed = {"register": False, "onnx": False, "experiment": "variants", "run_name": f"table-{name}"}
    settings = TrainSettings.from_mapping(read_config(str(CONFIG)) | own | fixed, source=str(CONFIG))
    runtime.configure(num_threads=settings.num_threads, precision=settings.precision)
    model = models.build(settings)
    record = {
        "name": name,
        "title": ARCHITECTURES[name].title,
        "paper": ARCHITECTURES[name].paper,
        "minutes": options.minutes,
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} core(s), {runtime.describe()['precision_used']}",
        "settings": settings.to_dict(),
        "num_parameters": model.count_params(),
        "gflops": cost.gflops(model),
        **speed(model, settings),
    }
    trained = train(settings)
    record["slices_drawn"] = num_epochs(trained.run_id) * settings.steps_per_epoch * settings.batch_size
    summary = trained.summaries["test"]["regions"]
    for region, found in summary.items():
        record |= {f"{region}_{key}": found["dice"][key] for key in ("mean", "ci_low", "ci_high", "num_cases")}
        record[f"{region}_with_region"] = found["dice"]["with_region"]["mean"]
        record[f"{region}_num_with_region"] = found["dice"]["with_region"]["num_cases"]
    return record


def num_epochs(run_id: str) -> int:
    """Of a finished training; the time may have been up before the end of the last."""
    import mlflow

    return len(mlflow.MlflowClient().get_metric_history(run_id, "loss"))


def speed(model, settings) -> dict[str, float]:
    """Images a second in training and, as the package predicts, in prediction: one batch of noise again and again."""
    import keras

    from kits_ml import runtime
    from kits_ml.inference.engines import for_prediction
    from kits_ml.training.losses import make_loss

    shape = (settings.batch_size, settings.image_size, settings.image_size)
    rng = np.random.default_rng(0)
    image = rng.random((*shape, settings.input_slices), np.float32)
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    model.compile(optimizer=keras.optimizers.Adam(), loss=make_loss(settings), jit_compile=runtime.jit_compile())
    training_s = step_seconds(lambda: model.train_on_batch(image, labels))
    network = for_prediction(model)
    prediction_s = step_seconds(lambda: network.predict_on_batch(image))
    return {
        "training_images_per_second": settings.batch_size / training_s,
        "prediction_images_per_second": settings.batch_size / prediction_s,
    }


def step_seconds(step: Callable[[], object]) -> float:
    """The median time of a step, after two to warm up."""
    taken: list[float] = []
    for _ in range(2):
        step()
    while sum(taken) < SECONDS:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def write_table(found: list[dict]) -> None:
    """Puts the table between its marks in README.md."""
    lines = [
        "| architecture | parameters | GFLOPs | training, images/s | prediction, images/s | slices drawn "
        "| kidney Dice | tumour Dice | tumour Dice where shown |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in by_kidney(found):
        dice = [
            f"{one[f'{region}_mean']:.3f} ({one[f'{region}_ci_low']:.3f} to {one[f'{region}_ci_high']:.3f})"
            for region in ("kidney", "tumour")
        ]
        amounts = [f"{one[f'{task}_images_per_second']:.1f}" for task in ("training", "prediction")]
        amounts.append(f"{one['slices_drawn']:,}")
        cells = [f"{one['title']} (`{one['name']}`)", f"{one['num_parameters']:,}", f"{one['gflops']:.1f}"]
        lines.append("| " + " | ".join([*cells, *amounts, *dice, f"{one['tumour_with_region']:.3f}"]) + " |")
    made_with = sorted({f"{one['minutes']:g} minutes on {one['machine']}" for one in found})
    lines += ["", f"Each: {'; '.join(made_with)}."]
    files.write_part(HERE / "README.md", "table", "\n".join(lines))


def draw(found: list[dict]) -> None:
    """A row an architecture: Dice with intervals, and how fast it trains."""
    from matplotlib.figure import Figure

    rows = by_kidney(found)[::-1]
    places = range(len(rows))
    figure = Figure(figsize=(10, 1.2 + 0.3 * len(rows)), layout="constrained")
    kidney, tumour, speed = figure.subplots(1, 3, sharey=True)
    for axes, region in ((kidney, "kidney"), (tumour, "tumour")):
        means = [one[f"{region}_mean"] for one in rows]
        low = [one[f"{region}_mean"] - one[f"{region}_ci_low"] for one in rows]
        high = [one[f"{region}_ci_high"] - one[f"{region}_mean"] for one in rows]
        axes.errorbar(means, places, xerr=[low, high], fmt="o", color="tab:blue", ecolor="0.75", markersize=5)
        axes.set(xlabel=f"{region} Dice per patient", xlim=(0, 1))
        axes.grid(axis="x", color="0.9")
    nothing = found[0]["tumour_num_cases"] - found[0]["tumour_num_with_region"]
    tumour.axvline(nothing / found[0]["tumour_num_cases"], color="tab:red", linewidth=1)
    tumour.set_xlabel("tumour Dice; red: none predicted")
    speed.barh(places, [one["training_images_per_second"] for one in rows], color="tab:blue", height=0.6)
    speed.set(xlabel="training, images a second")
    kidney.set_yticks(places, [one["title"] for one in rows])
    figure.suptitle(f"{found[0]['minutes']:g} minutes of training each; mean and 95 % interval over patients")
    figure.savefig(PICTURE, dpi=120)


def by_kidney(found: list[dict]) -> list[dict]:
    """The best first. Not by the tumour, whose mean rewards who finds none."""
    return sorted(found, key=lambda one: -one["kidney_mean"])


if __name__ == "__main__":
    main()

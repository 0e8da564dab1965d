"""Pruning: how many epochs does it save a study, and does it still find as good a configuration?

    python experiments/benchmarks/study_pruning.py --data $KITS_ML_REAL_DATA/kits-thin

draws configurations of a small U-Net at random, trains each to its end on a few patients, once, and keeps its curve
in `data/study_pruning` (the command goes on where it stopped). The same seed gives the same training, so a study with
pruning would have seen the beginnings of these very curves: they are replayed through the package's own objective and
Optuna's pruners. Each of the repeats draws its configurations and their order anew, the same for every pruner.
Wanted: at most 60 % of the epochs, and a configuration within 0.01 foreground Dice (the mean of kidney
and tumour over validation patients) of the one that is found without pruning; medians over the repeats. Writes
study_pruning.md. Twelve configurations take some ten minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np

PACKAGES = ("tensorflow", "keras", "optuna")
WANTED_SHARE, WANTED_DICE = 0.6, 0.01
ARCHITECTURE = "unet"
SCORE = "val_foreground_iou"
KEPT = ("loss", SCORE, "val_dice_kidney", "val_dice_tumour")
DOCUMENT = {
    "name": "pruning",
    "architectures": [ARCHITECTURE],
    "trials": 1,
    "base": {
        "cases": "0-119",
        "test_fraction": 0.0,
        "validation_fraction": 0.3,
        "crop": "body",
        "framing": "spacing",
        "pixel_spacing_mm": 5.0,
        "image_size": 64,
        "depth": 3,
        "epochs": 8,
        "steps_per_epoch": 24,
        "batch_size": 8,
        "augmentation": False,
        "training_margin_mm": 0.0,
        "class_weights": "0.2,1,1",
        "num_threads": 1,
    },
    "space": {
        "learning_rate": {"low": 1e-3, "high": 5e-2, "log": True},
        "base_filters": [4, 8],
        "loss": ["dice_crossentropy", "categorical_crossentropy"],
        "sampling": ["shuffled", "balanced"],
    },
}
MEDIANS = [
    {"name": "MedianPruner", "n_startup_trials": startup, "n_warmup_steps": warmup}
    for startup in (3, 5)
    for warmup in (0, 1, 2)
]
PRUNERS = [
    *MEDIANS,
    *(
        {"name": "PercentilePruner", "percentile": 25.0, "n_startup_trials": 3, "n_warmup_steps": warmup}
        for warmup in (0, 1, 2)
    ),
    {"name": "PatientPruner", "wrapped_pruner": MEDIANS[0], "patience": 1},
    {"name": "SuccessiveHalvingPruner", "min_resource": 2, "reduction_factor": 2},
    {"name": "HyperbandPruner", "min_resource": 2, "max_resource": 8, "reduction_factor": 2},
]


class Outcome(NamedTuple):
    """What a study with pruning came to.

    Attributes:
        share: of all epochs, those that were trained.
        lost: foreground Dice of the configuration found without pruning, less that of the one found.
    """

    share: float
    lost: float


def configurations(number: int) -> list[dict[str, Any]]:
    """So many random choices from the space, always the same."""
    import optuna

    from kits_ml.studies.space import suggest

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = make_spec().spaces[ARCHITECTURE]
    return [suggest(study.ask(), space) for _ in range(number)]


def make_spec(data: str | None = None, prepared: str = "prepared"):
    """The study, with one architecture."""
    from kits_ml.studies.spec import parse_spec

    base = {**DOCUMENT["base"], "data": data, "prepared": prepared}
    return parse_spec({**DOCUMENT, "base": base}, source=Path(__file__).name)


def train_once(number: int, chosen: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, float]]:
    """A row an epoch of a training to its end; one that is known is read."""
    from kits_ml import files
    from kits_ml.workflows.trial import train_trial

    spec = make_spec(options.data, str(options.output / "prepared"))
    settings = spec.settings(ARCHITECTURE, chosen)
    path = options.output / f"{number}.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["settings"] == settings.to_dict():
            return record["curve"]
    started, curve = time.process_time(), []
    train_trial(settings, on_epoch=lambda _, logs: curve.append({name: float(logs[name]) for name in KEPT}))
    files.write_json(path, {"settings": settings.to_dict(), "curve": curve})
    best = max(row[SCORE] for row in curve)
    seconds = time.process_time() - started
    print(f"{number}: {json.dumps(chosen)}: {best:.3f}, {seconds:.0f} CPU s", file=sys.stderr)
    return curve


def best_epoch(curve: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    return max(curve, key=lambda row: row[SCORE])


def foreground_dice(curve: Sequence[Mapping[str, float]]) -> float:
    """Of the epoch whose weights are kept."""
    row = best_epoch(curve)
    return (row["val_dice_kidney"] + row["val_dice_tumour"]) / 2


def replay(numbers: Sequence[int], curves: Sequence[Sequence[Mapping[str, float]]], pruner: Mapping[str, Any]):
    """A study whose trials are these trainings, in this order: number of the best, and how many epochs it took."""
    import optuna

    from kits_ml.studies.objective import run_trial
    from kits_ml.studies.strategies import make_pruner
    from kits_ml.workflows.trial import Trialled

    spec, pool = make_spec(), configurations(len(curves))
    study = optuna.create_study(
        study_name="pruning", direction="maximize", pruner=make_pruner(pruner, where="pruner")
    )
    for number in numbers:
        study.enqueue_trial(pool[number])

    def objective(trial: optuna.Trial) -> float:
        curve = curves[numbers[trial.number]]

        def train(_, *, on_epoch) -> Trialled:
            for epoch, row in enumerate(curve):
                on_epoch(epoch, row)
            score = best_epoch(curve)[SCORE]
            return Trialled(score=score, best_epoch=0, cases={}, num_parameters=0, gflops=0.0, training_minutes=0.0)

        return run_trial(trial, spec=spec, architecture=ARCHITECTURE, train=train)

    study.optimize(objective, n_trials=len(numbers))
    return numbers[study.best_trial.number], sum(len(trial.user_attrs["curve"]) for trial in study.trials)


def repeat(seed: int, curves: Sequence[Sequence[Mapping[str, float]]], num_trials: int) -> list[Outcome]:
    """The same trials in the same order with each pruner."""
    numbers = np.random.default_rng(seed).permutation(len(curves))[:num_trials].tolist()
    whole, all_epochs = replay(numbers, curves, {"name": "NopPruner"})
    found = []
    for pruner in PRUNERS:
        number, epochs = replay(numbers, curves, pruner)
        lost = foreground_dice(curves[whole]) - foreground_dice(curves[number])
        found.append(Outcome(share=epochs / all_epochs, lost=lost))
    return found


def described(pruner: Mapping[str, Any]) -> str:
    """`MedianPruner, n_startup_trials 3, n_warmup_steps 2`."""
    words = [pruner["name"]]
    for key, value in pruner.items():
        if key == "wrapped_pruner":
            words.append(f"around {described(value)}")
        elif key != "name":
            words.append(f"{key} {value:g}")
    return ", ".join(words)


def table(repeats: Sequence[Sequence[Outcome]]) -> str:
    lines = ["| pruner | epochs | range | Dice lost | at most | the same found | as wanted |"]
    lines += ["|---|--:|--:|--:|--:|--:|---|"]
    for number, pruner in enumerate(PRUNERS):
        outcomes = [one[number] for one in repeats]
        shares, lost = [one.share for one in outcomes], [one.lost for one in outcomes]
        share, loss = statistics.median(shares), statistics.median(lost)
        same = sum(one == 0 for one in lost)
        wanted = "yes" if share <= WANTED_SHARE and loss <= WANTED_DICE else "no"
        cells = [described(pruner), f"{share:.0%}", f"{min(shares):.0%} to {max(shares):.0%}"]
        cells += [f"{loss:.3f}", f"{max(lost):.3f}", f"{same} of {len(lost)}", wanted]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(repeats: Sequence[Sequence[Outcome]], curves: Sequence, options: argparse.Namespace, about: str) -> str:
    dice = sorted(foreground_dice(curve) for curve in curves)
    base = DOCUMENT["base"]
    return "\n\n".join(
        [
            "# Pruning",
            *__doc__.strip().split("\n\n")[1:],
            f"{about}.",
            f"{len(curves)} configurations of a U-Net of depth {base['depth']} on {base['image_size']}x"
            f"{base['image_size']} slices, {base['epochs']} epochs of {base['steps_per_epoch']} steps; foreground "
            f"Dice {dice[0]:.3f} to {dice[-1]:.3f}, median {statistics.median(dice):.3f}. {len(repeats)} repeats of "
            f"{options.trials} trials; `MedianPruner` alone takes Optuna's defaults, 5 and 0:",
            table(repeats) + "\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of cases")
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--trials", type=int, default=10, help="of each study, drawn from the configurations")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("data/study_pruning"), help="keeps curves and slices")
    options = parser.parse_args()

    import optuna

    about = machine.of_page(PACKAGES)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pool = configurations(options.configurations)
    curves = [train_once(number, chosen, options) for number, chosen in enumerate(pool)]
    repeats = [repeat(seed, curves, options.trials) for seed in range(options.repeats)]
    output = Path(__file__).with_suffix(".md")
    output.write_text(page(repeats, curves, options, about))
    print(output)


if __name__ == "__main__":
    main()

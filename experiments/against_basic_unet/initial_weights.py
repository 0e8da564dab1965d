"""What the size of the initial weights is worth: first steps of the default U-Net with He's weights and with ours.

    python experiments/against_basic_unet/initial_weights.py --data $KITS_ML_REAL_DATA/kits-thin

Both see the same batches of fold 0's training patients, without augmentation, at one learning rate; every 25 steps
the validation patients are scored. Writes `initial_weights.csv` and `initial_weights.png` beside itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from run import FOLDS

from kits_ml import figures, files, models, runtime
from kits_ml.config import TrainSettings
from kits_ml.training import batches
from kits_ml.training.fit import fit
from kits_ml.workflows.prepare import prepare

HERE = Path(__file__).parent
STEPS_PER_LOOK = 25
SETTINGS = {
    "augmentation": False,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "learning_rate_schedule": "constant",
    "steps_per_epoch": STEPS_PER_LOOK,
    "split_file": str(FOLDS / "fold_0.json"),
}
KINDS = ("he_normal", "small_weights")
COLUMNS = ["weights", "step", "loss", "val_dice_kidney", "val_dice_tumour"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    settings = TrainSettings(data=options.data, epochs=options.steps // STEPS_PER_LOOK, **SETTINGS)
    rows = [row for kind in KINDS for row in first_steps(kind, settings)]
    files.write_csv(HERE / "initial_weights.csv", rows, COLUMNS)
    draw(rows)


def first_steps(kind: str, settings: TrainSettings) -> list[dict[str, float | str]]:
    """A row for each look at the validation patients."""
    prepared = prepare(settings)
    train, validation = (
        batches.read_slices(prepared.store, getattr(prepared.split, part)) for part in ("train", "validation")
    )
    runtime.configure(num_threads=settings.num_threads, precision=settings.precision)
    runtime.seed_everything(settings.seed)
    model = models.build(settings)
    if kind == "he_normal":
        give_hes_weights(model)
    history = fit(model, train, validation, settings).history
    return [
        {"weights": kind, "step": (look + 1) * STEPS_PER_LOOK, **{name: history[name][look] for name in COLUMNS[2:]}}
        for look in range(len(history["loss"]))
    ]


def give_hes_weights(model) -> None:
    """What the networks of this package began with before: He's normal weights, and Glorot's in the head."""
    import keras

    for number, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Conv2D):
            kind = keras.initializers.GlorotUniform if layer.name == "logits" else keras.initializers.HeNormal
            layer.kernel.assign(kind(seed=number)(layer.kernel.shape))


def draw(rows: list[dict[str, float | str]]) -> None:
    """Kidney Dice of the validation patients against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for kind in KINDS:
        own = [row for row in rows if row["weights"] == kind]
        axes.plot([row["step"] for row in own], [row["val_dice_kidney"] for row in own], marker="o", label=kind)
    axes.set(xlabel="steps of 8 slices", ylabel="kidney Dice of validation patients", ylim=(0, 1))
    axes.legend()
    figures.save_figure(HERE / "initial_weights.png", figure)


if __name__ == "__main__":
    main()

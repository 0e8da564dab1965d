"""MONAI's BasicUNet in 2-D, trained on prepared slices for some minutes: the opponent, in plain PyTorch and MONAI."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from monai.data import ThreadBuffer
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
)
from tqdm import tqdm

from kits_ml import runtime
from kits_ml.training.metrics import validation_scores
from kits_ml.training.schedules import ONE_CYCLE_WARMUP, one_cycle

LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS_BETWEEN_LOOKS = 50  # at the validation patients: this package's default
NUM_AHEAD = 4  # batches that a thread of its own makes ahead, as in this package
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

AUGMENTATION = Compose(
    [
        RandFlipd(["image", "label"], prob=0.5, spatial_axis=1),  # columns
        RandAffined(
            ["image", "label"],
            prob=0.7,
            rotate_range=0.26,
            scale_range=(0.2, 0.2),
            translate_range=(20, 20),
            mode=["bilinear", "nearest"],
            padding_mode="zeros",
        ),
        RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
        RandScaleIntensityd("image", prob=0.3, factors=0.2),
        RandGaussianNoised("image", prob=0.2, std=0.05),
    ]
)


class TorchNetwork:
    """A PyTorch network with the two things that prediction here asks of a Keras model."""

    input_shape = (None, None, None, 1)

    def __init__(self, network: torch.nn.Module):
        self.network = network

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """`(batch, rows, columns, 1)` -> probabilities `(batch, rows, columns, classes)`."""
        self.network.eval()
        with torch.inference_mode(), _autocast():
            logits = self.network(_on_device(torch.from_numpy(images).movedim(-1, 1)))
        return logits.float().softmax(dim=1).movedim(1, -1).cpu().numpy()


def train_basic_unet(
    train, validation, *, minutes: float, seed: int, batch_dice: bool = False
) -> tuple[TorchNetwork, TorchNetwork, dict[str, float]]:
    """Trains for some minutes, with a look at the validation patients every 50 steps.

    MONAI's default features (1,978,499 parameters) and its `DiceCELoss` (Dice of each slice, without background),
    AdamW with a one-cycle learning rate whose progress is the elapsed share of the budget. The clock stands still
    while validation patients are scored, as in this package; waiting for a batch counts.

    Args:
        train: `SliceArrays` to fit to.
        validation: `SliceArrays` that choose the weights, by the score that chooses them in this package too.
        minutes: of training.
        seed: of weights, order and augmentation.
        batch_dice: takes the Dice of all slices of a batch together, which a slice without a tumour does not spoil.

    Returns:
        The network as it is in the end, and with the weights of the best look; and the number of steps and looks, the
        best look's score and its share of the budget.
    """
    torch.manual_seed(seed)
    AUGMENTATION.set_random_state(seed)
    network = _on_device(BasicUNet(spatial_dims=2, in_channels=1, out_channels=3))
    model = TorchNetwork(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    loss = DiceCELoss(include_background=False, softmax=True, to_onehot_y=True, batch=batch_dice)
    best = {"score": -1.0, "progress": 0.0}
    taken, num_steps, looks = 0.0, 0, 0
    with tqdm(total=round(60 * minutes), desc="train BasicUNet", unit="s") as bar:
        start = time.perf_counter()
        for images, labels in ThreadBuffer(_batches(train, seed), buffer_size=NUM_AHEAD):
            images, labels = _on_device(images), labels.to(DEVICE)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * one_cycle(taken / (60 * minutes), warmup_fraction=ONE_CYCLE_WARMUP)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            with _autocast():
                logits = network(images)
            loss(logits.float(), labels).backward()
            optimizer.step()
            _wait()
            taken += time.perf_counter() - start
            start = time.perf_counter()
            num_steps += 1
            bar.update(round(taken) - bar.n)
            progress = min(1.0, taken / (60 * minutes))
            if num_steps % STEPS_BETWEEN_LOOKS and progress < 1:
                continue
            looks += 1
            score = validation_scores(model, validation, batch_size=BATCH_SIZE)["foreground_iou"]
            bar.write(f"{progress:.0%} of the time, {num_steps} steps: foreground IoU {score:.3f}")
            if score > best["score"]:
                best, chosen = {"score": score, "progress": progress}, TorchNetwork(copy.deepcopy(network))
            if progress == 1:
                break
            start = time.perf_counter()
    return model, chosen, {**best, "looks": looks, "steps": num_steps}


def _batches(slices, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless passes in new orders, augmented; images and labels are `(batch, 1, rows, columns)`."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(slices))
        for first in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            chosen = np.sort(order[first : first + BATCH_SIZE])
            images = slices.with_neighbours(chosen, 1)[..., 0].astype(np.float32) / 255
            pairs = [
                AUGMENTATION({"image": torch.from_numpy(image)[None], "label": torch.from_numpy(label)[None].float()})
                for image, label in zip(images, slices.labels_of(chosen), strict=True)
            ]
            yield tuple(torch.stack([pair[key].as_tensor() for pair in pairs]) for key in ("image", "label"))


def _on_device(what):
    """A network or images where they are computed, channels last: what convolutions are fastest on."""
    return what.to(DEVICE, memory_format=torch.channels_last)


def _wait() -> None:
    """Until the device has done what it was given, so that the clock tells the truth."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _autocast() -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda" or runtime.has_bfloat16())

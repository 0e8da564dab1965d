"""What a training starts with: a fresh model, or another one's weights, and what may be scored then."""

from __future__ import annotations

import logging
from pathlib import Path

import keras

from kits_ml import models, runtime
from kits_ml.config import TrainSettings
from kits_ml.errors import InputError
from kits_ml.tracking import addresses
from kits_ml.training import warm_start
from kits_ml.training.as_reported import make_as_reported
from kits_ml.training.devices import check_devices
from kits_ml.training.warm_start import Parent
from kits_ml.workflows.prepare import Prepared

log = logging.getLogger(__name__)


def new_model(settings: TrainSettings) -> keras.Model:
    """Prepares the process for a training and builds its network; the same seed gives the same weights.

    Lets go of what Keras keeps of earlier models: there may be many trainings in one process.

    Raises:
        InputError: what the devices cannot do, or a metric as reported that cannot be computed.
    """
    runtime.free_memory()  # forgets the precision too: comes first
    runtime.configure(
        num_threads=settings.num_threads,
        precision=settings.precision,
        deterministic=settings.deterministic,
        num_devices=settings.num_devices,
    )
    check_devices(settings, num_devices=runtime.num_devices(), precision=runtime.precision())
    runtime.seed_everything(settings.seed)
    with runtime.device_scope():
        model = models.build(settings)
    make_as_reported(settings)  # after the network: what is tried has layers too, and names are numbered
    return model


def start_from(model: keras.Model, settings: TrainSettings) -> Parent | None:
    """Gives the model the weights of the one that `init_from` names."""
    source = settings.init_from
    if source is None:
        return None
    is_file = ":/" not in source and source.endswith(warm_start.KERAS_SUFFIX)
    path = Path(source) if is_file else addresses.local_folder(source)
    return warm_start.start_from(model, path, source=source, settings=settings)


def unseen_by_parent(prepared: Prepared, part: str, parent: Parent | None) -> list[str]:
    """The cases of a part of the split to score: for the test, those that the model to start from has not seen.

    Raises:
        InputError: it has seen them all.
    """
    names = list(getattr(prepared.split, part))
    if parent is None:
        return names
    digests, slice_digests = prepared.store.case_digests, prepared.store.slice_digests()
    seen = [name for name in names if parent.has_seen(digests[name], slice_digests[name])]
    if not seen:
        return names
    if part != "test":
        log.info("%s has seen %d of %d %s cases: their scores flatter", parent.source, len(seen), len(names), part)
        return names
    if len(seen) == len(names):
        raise InputError(
            f"init_from {parent.source}: has seen all {len(names)} test cases; expected a split whose test cases it "
            "has not seen, see split_file"
        )
    log.warning("%s has seen %s: left out of the test", parent.source, ", ".join(seen))
    return [name for name in names if name not in seen]

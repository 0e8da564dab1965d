"""The model that answers, and the look-out for a newer one: it takes over between two scans, nobody waits for it."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kits_ml.errors import InputError, first_line

log = logging.getLogger(__name__)

#: A model that cannot be loaded is tried again later and later, up to so many times the usual pause.
_LONGEST_PAUSE = 32


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is ready.

    Attributes:
        version: what answers say of it, such as `"kits-unet/3"`.
        segmenter: has `segment` and `provenance`.
        training: what the model's description says of its training data; None if nothing.
    """

    version: str
    segmenter: Any
    training: Mapping[str, Any] | None = None


class Champion:
    """Holds the model; a thread of its own replaces it.

    Args:
        find: gives the address of the version that should answer now.
        load: makes the model of an address.
        poll_seconds: between two looks; 0: no look after the first model is there.
        loaded: is told of each attempt to load, whether it succeeded.
    """

    def __init__(
        self,
        *,
        find: Callable[[], str],
        load: Callable[[str], Model],
        poll_seconds: float,
        loaded: Callable[[bool], None] = lambda succeeded: None,
    ):
        self._find, self._load, self._poll_seconds, self._loaded = find, load, poll_seconds, loaded
        self._address: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="champion", daemon=True)
        self.current: Model | None = None

    def start(self) -> None:
        """Begins to load and to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more; does not wait for a model that is on its way."""
        self._stop.set()

    def refresh(self) -> bool:
        """Loads the version that should answer now, unless it does already.

        Returns:
            Whether the right version answers. If not, the one before goes on.
        """
        try:
            address = self._find()
            if address == self._address:
                return True
            model = self._load(address)
            warm_up(model.segmenter)
        except Exception as error:
            if isinstance(error, InputError):
                log.warning("no new model: %s", first_line(error))
            else:
                log.exception("no new model")
            self._loaded(False)
            return False
        self._address, self.current = address, model
        self._loaded(True)
        log.info("%s answers", model.version)
        gc.collect()  # the one before, unless it is at work
        return True

    def _watch(self) -> None:
        pause = 1
        while not self._stop.is_set():
            pause = 1 if self.refresh() else min(2 * pause, _LONGEST_PAUSE)
            if self.current and not self._poll_seconds:
                return
            self._stop.wait((self._poll_seconds or 1) * pause)


def warm_up(segmenter: Any) -> None:
    """Segments one slice, so that the first client does not wait for the network to be traced."""
    segmenter.segment(np.full((1, 64, 64), 40, np.int16), spacing_mm=(1.0, 1.0, 1.0))


def version_name(address: str) -> str:
    """What answers say: `NAME/VERSION` of a registered model, the name of a folder; as ASCII, for it is a header.

    Args:
        address: of one model, or of several, divided by commas.
    """
    found = [one.partition(":/")[2] or one.rstrip("/").rpartition("/")[2] for one in address.split(",")]
    return ", ".join(found).encode("ascii", "replace").decode()

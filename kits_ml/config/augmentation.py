"""How training slices are varied."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Random changes of training slices; none yet."""

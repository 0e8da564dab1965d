"""Where a prediction comes from: which scan, which models in which version, and how they were used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import kits_ml

#: As many digits of a digest stand for it where there is no version.
_SHORT = 12


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """One model, as it was loaded.

    Attributes:
        address: `models:/NAME/VERSION`, never an alias, or `runs:/ID/model`; of a folder its name, without those
            above it.
        sha256: digests of its files, hexadecimal, by the files' names.
    """

    address: str
    sha256: Mapping[str, str]

    @property
    def name(self) -> str:
        """Of the registered model, of the run's model or of the folder."""
        return self._registered()[0] or self.address.partition(":/")[2] or self.address

    @property
    def version(self) -> str:
        """Of the registered model; elsewhere the beginning of the first file's digest."""
        digest = next(iter(self.sha256.values()), "")
        return self._registered()[1] or (f"sha256 {digest[:_SHORT]}" if digest else "unknown")

    @property
    def registered_as(self) -> str | None:
        """`"kits-unet, version 3"`; None for what is not in a registry."""
        name, version = self._registered()
        return f"{name}, version {version}" if name else None

    def _registered(self) -> tuple[str, str]:
        if not self.address.startswith("models:/"):
            return "", ""
        name, _, version = self.address.removeprefix("models:/").rpartition("/")
        return (name, version) if name else ("", "")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a prediction was made of and by.

    Attributes:
        scan: name of its file or folder, see `scans.name_of`; empty where nobody said.
        models: one, or those of an ensemble.
        engine: what ran them.
        test_time_augmentation: that was averaged over.
        postprocessing: settings by name.
        note: what was said of the scan when it was read; empty if nothing.
        kits_ml: the package's version.
    """

    scan: str
    models: tuple[ModelSource, ...]
    engine: str
    test_time_augmentation: str
    postprocessing: Mapping[str, Any]
    note: str = ""
    kits_ml: str = field(default=kits_ml.__version__)

    @property
    def algorithm_name(self) -> str:
        """The package and the models' names."""
        return " ".join(filter(None, ("kits_ml", ", ".join(one.name for one in self.models))))

    @property
    def algorithm_version(self) -> str:
        """The models' versions, in the order of their names; the package's where no model is known."""
        return ", ".join(one.version for one in self.models) or self.kits_ml

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "models": [{**asdict(one), "version": one.version} for one in self.models]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, also by way of JSON."""
        models = tuple(ModelSource(address=one["address"], sha256=one["sha256"]) for one in values["models"])
        return cls(**{**values, "models": models})

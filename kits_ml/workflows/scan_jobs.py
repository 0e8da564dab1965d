"""One scan of a folder: where its outputs go, and the record by which a finished one is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_ml import files
from kits_ml.data import images, scans
from kits_ml.errors import InputError
from kits_ml.workflows.outputs import Outputs, check_spares

#: Below the folder of outputs; a file a scan.
RECORDS = ".predictions"


@dataclass(frozen=True, kw_only=True)
class ScanJob:
    """A scan to segment, and what was done of it before.

    The record is written before the first output and after the last. So outputs of a scan that was killed in between
    are known to be its own, and a scan is finished only while its outputs are as they were when it was.

    Attributes:
        scan: the scan.
        folder: of the outputs.
        names: of the outputs besides the label map, by what they are: `x.png` becomes `x/NAME.png`.
        made_by: a digest of models and settings.
    """

    scan: scans.Scan
    folder: Path
    names: Mapping[str, str]
    made_by: str

    @property
    def outputs(self) -> Outputs:
        """Its files; a NIfTI scan has no DICOM SEG."""
        others = {}
        for name, value in self.names.items():
            if name == "dicom_seg" and not self.scan.path.is_dir():
                continue
            stem, _, suffix = value.partition(".")
            others[name] = self.folder / stem / f"{self.scan.name}.{suffix}"
        return Outputs(output=self.folder / f"{self.scan.name}.nii.gz", **others)

    def finished(self) -> dict[str, Any] | None:
        """What `finish` was given, where the same scan was done by the same models and settings, and all is there."""
        record = self._read()
        if record.get("key") != self.key() or record.get("files") != _states(self.outputs.paths().values()):
            return None
        return record["row"]

    def begin(self, *, overwrite: bool) -> dict[str, Any]:
        """Records that the outputs belong to this scan from now on.

        Returns:
            What was recorded before, for `withdraw`.

        Raises:
            InputError: some are there already that are of something else, and may not be replaced; or one would
                take the place of the scan.
        """
        check_spares(self.outputs, self.scan.path)
        there = [path for path in self.outputs.paths().values() if path.exists()]
        before = self._read()
        if there and not overwrite and before.get("key") != self.key():
            raise InputError(
                f"{there[0]}: exists, and is not of this scan with these models and settings; expected a new folder, "
                "or --overwrite true"
            )
        files.write_json(self._path, {"key": self.key()})
        return before

    def withdraw(self, before: Mapping[str, Any]) -> None:
        """Takes back what `begin` recorded, where nothing was written in the end: what is there is as it was.

        Args:
            before: what `begin` gave.
        """
        if before:
            files.write_json(self._path, before)
        else:
            self._path.unlink(missing_ok=True)

    def finish(self, row: Mapping[str, Any]) -> None:
        """Records that all outputs are there."""
        states = _states(self.outputs.paths().values())
        files.write_json(self._path, {"key": self.key(), "files": states, "row": dict(row)})

    def key(self) -> str:
        """A digest of what the outputs are made of: the scan's files, by size and time, models and settings."""
        content = [self.made_by, sorted(self.names.items()), _states(images.image_files(self.scan.path))]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    @property
    def _path(self) -> Path:
        return self.folder / RECORDS / f"{self.scan.name}.json"

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # nothing is known: it is done again
        return record if isinstance(record, dict) else {}


def _states(paths) -> list[list[Any]]:
    """Each file with its size and its modification time, which change when it does; None where it is missing."""
    states = []
    for path in paths:
        status = path.stat() if path.exists() else None
        states.append([path.name, status and status.st_size, status and status.st_mtime_ns])
    return states

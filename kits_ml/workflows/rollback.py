"""Give the champion's place back to the version that had it before."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from kits_ml.config import RollbackSettings
from kits_ml.tracking import champions, registry


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """What was changed.

    Attributes:
        gone: the version that was champion.
        champion: the one that is again.
    """

    gone: str
    champion: registry.Registered


def rollback(settings: RollbackSettings) -> RolledBack:
    """Rolls back by one champion; again, by one more. Both versions' tags say so.

    Raises:
        InputError: no champion, none before it, or a champion that changes meanwhile.
    """
    gone, former = champions.roll_back(settings.model)
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    why = f": {settings.reason}" if settings.reason else ""
    champions.tag_version(settings.model, gone, {"rolled_back": f"{when} to version {former}{why}"})
    champions.tag_version(settings.model, former, {"champion_again": f"{when} in place of version {gone}{why}"})
    return RolledBack(gone=gone, champion=registry.registered(settings.model, former))

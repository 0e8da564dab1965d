"""Which metrics may decide anything. A metric that is declared `as_reported` may only be looked at.

Its name says so from the place where it is computed on, so whatever chooses weights, prunes, compares or opens a gate
asks here by name.
"""

from __future__ import annotations

from kits_ml.errors import InputError

_MARK = "as_reported"

AS_REPORTED = f"{_MARK}/"


def as_reported(name: str) -> str:
    """The name under which a metric is logged that may only be looked at: `as_reported/mean_iou`."""
    return AS_REPORTED + name


def is_trustworthy(name: str) -> bool:
    """Whether a metric of this name may decide: no part of the name says `as_reported`, with any prefix."""
    return _MARK not in name.lower()


def require_trustworthy(name: str, *, use: str) -> str:
    """Gives the name back if it may decide.

    Args:
        name: of a metric, as it is logged.
        use: what it is to decide, such as `"choose weights"`.

    Raises:
        InputError: a metric as reported.
    """
    if not is_trustworthy(name):
        raise InputError(f"{name}: found a metric as reported, which misreads; expected an honest one to {use}")
    return name

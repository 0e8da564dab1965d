"""Which answer a client wants, from the header Accept (RFC 9110, 12.5.1)."""

from __future__ import annotations

from kits_ml.serving.answers import MEDIA_TYPES, Wanted
from kits_ml.serving.refusals import RefusedError

#: What else the segmentation is called.
_OTHER_NAMES = {"application/octet-stream": Wanted.SEGMENTATION, "application/x-gzip": Wanted.SEGMENTATION}
_BY_MEDIA_TYPE = {media_type: wanted for wanted, media_type in MEDIA_TYPES.items()} | _OTHER_NAMES


def wanted_by(accept: str | None) -> Wanted:
    """The answer that a client likes best; the segmentation where it has no wish.

    Args:
        accept: the header; None where there is none.

    Raises:
        RefusedError: there is no answer of a type that it takes (406).
    """
    if not accept or not accept.strip():
        return Wanted.SEGMENTATION
    ranges = [_parsed(one) for one in accept.split(",") if one.strip()]
    liked = {media_type: _quality(media_type, ranges) for media_type in _BY_MEDIA_TYPE}
    best = max(liked, key=liked.get)  # the first of equals
    if liked[best] <= 0:
        raise RefusedError(406, f"Accept: found {accept[:200]!r}, expected one of {', '.join(_BY_MEDIA_TYPE)}")
    return _BY_MEDIA_TYPE[best]


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """That of the most specific range that holds the type; 0 where none does."""
    for pattern in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0


def _parsed(one: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in one.split(";"))
    quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return name, 0.0

"""The winner of a study: registered as challenger, and put through the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kits_ml.config import ConfirmSettings, PromoteSettings, RegisterSettings
from kits_ml.tracking import champions, registry
from kits_ml.tracking import studies as tracking
from kits_ml.workflows.promote import Promotion, promote
from kits_ml.workflows.register import register


def register_winner(
    winner: Mapping[str, Any], settings: ConfirmSettings
) -> tuple[registry.Registered, Promotion | None]:
    """Registers a training's model, once, and puts it through the gate, once.

    Args:
        winner: the record of a confirming training: `run_id`, `settings`.
        settings: `model_name` and `promote`.

    Returns:
        The version as it stands now, and what the gate said of it; None where nobody asked, or it said so before.

    Raises:
        InputError: it cannot be registered.
    """
    there = champions.version_of_run(settings.model_name, winner["run_id"])
    if there is None:
        chosen = RegisterSettings(run_id=winner["run_id"], model_name=settings.model_name)
        registered = register(chosen)
    else:
        registered = registry.registered(settings.model_name, there.version)
    if not settings.promote or (there is not None and champions.was_decided(there)):
        return registered, None
    promotion = _promote(registered, winner)
    return (promotion.registered if promotion else registered), promotion


def _promote(registered: registry.Registered, winner: Mapping[str, Any]) -> Promotion | None:
    """Lets the gate decide, in a run below the training's. Whatever that comes to, the study is confirmed."""
    training = winner["settings"]
    wanted = {
        **{"model": registered.name, "version": int(registered.version)},
        **{name: training[name] for name in ("batch_size", "num_threads", "experiment")},
    }
    decided: list[Promotion] = []
    tracking.attempt(
        lambda: decided.append(promote(PromoteSettings(**wanted))),
        what=f"the gate's decision on {registered.name}, version {registered.version},",
        later="try `kits-ml promote`",
    )
    if not decided:
        return None
    tracking.attempt(
        lambda: tracking.put_below(decided[0].run_id, winner["run_id"], tags={}),
        what="the place of the gate's run",
        later="it stands by itself",
    )
    return decided[0]

"""May this model take the champion's place? Decided from numbers alone.

A challenger takes the place if, on the same patients, it is not worse than the champion by more than a margin that
was stated before, and if it passes the absolute checks of `gate_checks`. "Not worse" is a one-sided confidence bound
of the mean paired difference, by bootstrap over patients: an absence of proof that it is worse is not enough.

Sources: Piaggio et al., "Reporting of noninferiority and equivalence randomized trials", JAMA 308 (2012); Efron and
Tibshirani, "An Introduction to the Bootstrap" (1993), for the percentile interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from kits_ml import labels
from kits_ml.config import GateSettings
from kits_ml.errors import InputError
from kits_ml.evaluation.aggregates import bootstrap_interval
from kits_ml.evaluation.evidence import Evidence
from kits_ml.evaluation.gate_checks import Finding

_NAMED = 5  # of the patients that do not fit, so that the message stays a line
_DECIMALS = 12  # equal scores must not differ in their last digits


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What there is to weigh.

    Attributes:
        evidence: of `"challenger"` and `"champion"`; None where there is none.
        seen: digests of the cases that each was trained on or chosen by.
        obstacles: why they cannot be compared, as far as that is known already.
        whole: of all the challenger's test cases, also those that the champion has seen: what the absolute checks
            judge.
    """

    evidence: Mapping[str, Evidence | None]
    seen: Mapping[str, Set[str]]
    obstacles: tuple[str, ...] = ()
    whole: Evidence | None = None


@dataclass(frozen=True, kw_only=True)
class RegionResult:
    """A region's comparison; all in Dice, differences are the challenger minus the champion.

    Attributes:
        region: a key of `labels.REGIONS`.
        num_cases: patients.
        challenger_mean, champion_mean, difference: over patients.
        low: the mean difference is above this with the stated confidence.
        margin: how much worse the challenger may be.
    """

    region: str
    num_cases: int
    challenger_mean: float
    champion_mean: float
    difference: float
    low: float
    margin: float

    @property
    def passed(self) -> bool:
        """Whether it is shown to be no worse than the margin allows."""
        return round(self.low + self.margin, _DECIMALS) >= 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the gate says, with all it is made of.

    Attributes:
        model: name in the registry.
        challenger, champion: versions; no champion yet is None.
        digest: of the evaluation that both were compared on; of the challenger's where there is no champion; None
            without scores.
        regions: the comparison; empty without a champion, or where it could not be made.
        findings: the absolute checks.
        obstacles: why no comparison could be made.
        forced: the reason for which it is promoted against all that.
        settings: margins and limits.
        done: whether the challenger was made the champion.
        aborted: why it was not, although it was to be: the champion had changed meanwhile.
    """

    model: str
    challenger: str
    champion: str | None
    digest: str | None
    regions: tuple[RegionResult, ...]
    findings: tuple[Finding, ...]
    obstacles: tuple[str, ...]
    forced: str | None
    settings: GateSettings
    done: bool = False
    aborted: str | None = None

    @property
    def refusals(self) -> tuple[str, ...]:
        """All that speaks against it, a line each; empty where it passed."""
        worse = [
            f"{one.region}: not shown to be within {one.margin:g} Dice of version {self.champion}: mean difference "
            f"{one.difference:+.4f}, at least {one.low:+.4f}"
            for one in self.regions
            if not one.passed
        ]
        failed = [
            f"{one.name}: found {one.found}, expected {one.expected}" for one in self.findings if not one.passed
        ]
        return (*self.obstacles, *worse, *failed)

    @property
    def promotes(self) -> bool:
        """Whether it is to become the champion."""
        return not self.refusals or self.forced is not None

    @property
    def promoted(self) -> bool | None:
        """Whether it became the champion; None where it is to, and nothing was done yet."""
        if not self.promotes or self.aborted is not None:
            return False
        return True if self.done else None

    @property
    def outcome(self) -> str:
        """`passed`, `refused`, `forced` where it would have been refused, or `aborted`."""
        if self.aborted is not None:
            return "aborted"
        if not self.refusals:
            return "passed"
        return "refused" if self.forced is None else "forced"


def decide(
    *,
    model: str,
    challenger: str,
    champion: str | None,
    gathered: Gathered,
    findings: Sequence[Finding],
    settings: GateSettings,
    forced: str | None = None,
) -> Decision:
    """Weighs a challenger.

    Args:
        model: name in the registry.
        challenger, champion: versions; None where there is no champion yet: then the absolute checks alone decide.
        gathered: the scores of both, as far as there are any.
        findings: of the absolute checks.
        settings: margins and limits.
        forced: the reason for which it is promoted whatever is found.
    """
    regions: tuple[RegionResult, ...] = ()
    obstacles = gathered.obstacles
    own, theirs = (gathered.evidence.get(who) for who in ("challenger", "champion"))
    if champion is not None and not obstacles:
        try:
            regions = compare(own, theirs, seen=gathered.seen, settings=settings)
        except InputError as error:
            obstacles = (str(error),)
    return Decision(
        model=model,
        challenger=challenger,
        champion=champion,
        digest=own.digest if own else None,
        regions=regions,
        findings=tuple(findings),
        obstacles=obstacles,
        forced=forced,
        settings=settings,
    )


def compare(
    challenger: Evidence | None,
    champion: Evidence | None,
    *,
    seen: Mapping[str, Set[str]],
    settings: GateSettings,
) -> tuple[RegionResult, ...]:
    """Holds the challenger against the champion, region by region.

    Raises:
        InputError: no scores, other patients or other files of them, too few, or one that a model was trained on.
    """
    for who, found in (("challenger", challenger), ("champion", champion)):
        if found is None:
            raise InputError(f"{who}: has no scores of test cases; give --data, a folder that holds some")
    _check_same(challenger, champion)
    for who, digests in seen.items():
        known = [name for name, digest in challenger.case_digests.items() if digest in digests]
        if known:
            raise InputError(f"{who}: was trained on, or chosen by, {_named(known)} of the test cases")
    if len(challenger.cases) < settings.min_patients:
        raise InputError(
            f"min_patients: found {len(challenger.cases)} test cases, expected {settings.min_patients} or more to "
            "say that a model is not worse"
        )
    return tuple(_compare_region(challenger, champion, region, settings) for region in labels.REGIONS)


def not_worse_bound(differences: np.ndarray, *, confidence: float, num_bootstrap: int, seed: int) -> float:
    """What the mean difference is above, with a one-sided confidence, by bootstrap over patients.

    Args:
        differences: `(num_cases,)`, two or more, without NaN. Where they are all equal the bound is their value.
        confidence: in [0.5, 1).
        num_bootstrap: how often patients are drawn with replacement.
        seed: of the drawing.
    """
    # the lower end of the two-sided interval that leaves as much out above
    two_sided = 2 * confidence - 1
    return bootstrap_interval(differences, seed=seed, num_resamples=num_bootstrap, confidence=two_sided)[0]


def _compare_region(challenger: Evidence, champion: Evidence, region: str, settings: GateSettings) -> RegionResult:
    scores = {
        who: np.array([case.regions[region].dice for case in found.cases])
        for who, found in (("challenger", challenger), ("champion", champion))
    }
    differences = np.round(scores["challenger"] - scores["champion"], _DECIMALS)
    if np.isnan(differences).any():
        raise InputError(f"{region}: Dice is not a number for some cases, expected one a case")
    return RegionResult(
        region=region,
        num_cases=len(differences),
        challenger_mean=float(scores["challenger"].mean()),
        champion_mean=float(scores["champion"].mean()),
        difference=float(differences.mean()),
        low=not_worse_bound(
            differences,
            confidence=settings.confidence,
            num_bootstrap=settings.num_bootstrap,
            seed=settings.seed,
        ),
        margin=settings.margin_of(region),
    )


def _check_same(challenger: Evidence, champion: Evidence) -> None:
    if challenger.digest == champion.digest:
        return
    ours, theirs = challenger.case_digests, champion.case_digests
    remarks = []
    if only_ours := sorted(set(ours) - set(theirs)):
        remarks.append(f"the challenger alone has {_named(only_ours)}")
    if only_theirs := sorted(set(theirs) - set(ours)):
        remarks.append(f"the champion alone has {_named(only_theirs)}")
    if changed := sorted(name for name in set(ours) & set(theirs) if ours[name] != theirs[name]):
        remarks.append(f"other files of {_named(changed)}")
    raise InputError(
        f"evaluation digest: found {challenger.digest} and {champion.digest}, expected scores on the same patients "
        f"({', '.join(remarks)}); give --data with the challenger's test cases, and the champion is scored on them"
    )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def to_dict(decision: Decision) -> dict[str, Any]:
    """What `gate.json` holds."""
    return {
        "model": decision.model,
        "challenger": decision.challenger,
        "champion": decision.champion,
        "outcome": decision.outcome,
        "promoted": decision.promoted,
        "aborted": decision.aborted,
        "forced": decision.forced,
        "refusals": list(decision.refusals),
        "evaluation_digest": decision.digest,
        "regions": [{**vars(one), "passed": one.passed} for one in decision.regions],
        "checks": [vars(one) for one in decision.findings],
        "settings": decision.settings.to_dict(),
    }

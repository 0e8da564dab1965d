"""The comparison in words, which claim no more than the numbers carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kits_ml.evaluation.comparison.alignment import AlignedScores
from kits_ml.evaluation.comparison.analysis import Comparison, Contrast, Plan
from kits_ml.evaluation.comparison.significance import smallest_p

#: With fewer patients a bootstrap interval is far too narrow to say what is not there.
FEW_PATIENTS = 10

#: What the headline calls an algorithm that differs, by what was shown of it.
_DIFFERENT = {
    "better": "better",
    "better by ranks": "better by ranks",
    "worse": "worse",
    "worse by ranks": "worse by ranks",
    "not one way": "different, but not one way",
}

#: Below this mean tau between rankings of other patients the ranking is called unstable.
STABLE_TAU = 0.8


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said.

    Attributes:
        headline: over all algorithms, one or two sentences.
        contrasts: a sentence or two for each algorithm against the control, by name.
        caveats: what a reader must know beside it.
    """

    headline: str
    contrasts: dict[str, str]
    caveats: tuple[str, ...]


def judge(comparison: Comparison, *, metric: str, aligned: AlignedScores | None = None) -> Verdict:
    """Puts a comparison into words.

    Args:
        comparison: what was found.
        metric: what was compared, with its region, as a reader calls it: `tumour Dice`.
        aligned: where the scores came from; tells of patients left out.
    """
    caveats = [*_few_patients(comparison), *_gate(comparison), *_left_out(comparison, aligned), *_ranking(comparison)]
    return Verdict(
        headline=_headline(comparison, metric[0].upper() + metric[1:]),
        contrasts={one.algorithm: _sentence(one, comparison) for one in comparison.contrasts},
        caveats=tuple(caveats),
    )


def shown(contrast: Contrast, plan: Plan) -> str:
    """What was shown of an algorithm, in as few words as fit beside an interval.

    Returns:
        A key of `comparison_figures.VERDICT_COLOURS`: better, worse, each also `by ranks` where the mean's own
        interval holds 0; `not one way`, where the mean says one thing and the number of patients another; equivalent
        or open.
    """
    if not contrast.differs:
        return "equivalent" if contrast.is_equivalent else "open"
    if (contrast.superiority > 0.5) != contrast.is_better:
        return "not one way"
    word = "better" if contrast.is_better else "worse"
    return f"{word} by ranks" if plan.test == "wilcoxon" and contrast.low <= 0 <= contrast.high else word


def _headline(comparison: Comparison, metric: str) -> str:
    patients = f"with {comparison.num_cases} patients"
    margin = format_score(comparison.plan.equivalence_margin, comparison)
    groups = {
        word: [one for one in comparison.contrasts if shown(one, comparison.plan) == word] for word in _DIFFERENT
    }
    told = [f"{_names(group)} {_DIFFERENT[word]}" for word, group in groups.items() if group]
    if told:
        rest = [one for one in comparison.contrasts if not one.differs]
        join = "; " if len(told) > 2 else " and "
        return f"{metric}, against {comparison.control} {patients}: {join.join(told)}.{_others(rest, margin)}"
    if all(one.is_equivalent for one in comparison.contrasts):
        return (
            f"{metric}: {_names(comparison.contrasts)} equivalent to {comparison.control} within the margin of "
            f"{margin}, shown {patients}."
        )
    return " ".join(
        (f"{metric}: no difference from {comparison.control} was shown {patients}.", *_limits(comparison, margin))
    )


def _others(rest: list[Contrast], margin: str) -> str:
    equal = [one for one in rest if one.is_equivalent]
    open_ = [one for one in rest if not one.is_equivalent]
    text = f" {_names(equal)} equivalent within {margin}." if equal else ""
    return text + (f" Of {_list(open_)} neither a difference nor equivalence was shown." if open_ else "")


def _limits(comparison: Comparison, margin: str) -> list[str]:
    """How large a difference may still be there, and what it would take to see one of the margin's size."""
    sentences = []
    if comparison.num_cases >= FEW_PATIENTS:
        largest = max(max(abs(one.family_low), abs(one.family_high)) for one in comparison.contrasts)
        sentences.append(
            f"Mean differences up to {format_score(largest, comparison)} may be there unseen; larger ones do not fit "
            f"these patients ({comparison.plan.confidence:.3g} confidence over all contrasts)."
        )
    needed = [one.patients_needed for one in comparison.contrasts if one.sd_difference > 0]
    if needed:
        sentences.append(f"To show one of {margin} takes {_patients(needed)} (power {comparison.plan.power:g}).")
    return sentences


def _sentence(one: Contrast, comparison: Comparison) -> str:
    control = comparison.control
    if one.sd_difference == 0 and one.mean_difference == 0:
        return f"{one.algorithm} and {control} score the same in each of {comparison.num_cases} patients."
    interval = (
        f"mean difference {format_score(one.mean_difference, comparison, sign=True)}, "
        f"{100 * comparison.plan.confidence:.3g} % interval {format_score(one.low, comparison, sign=True)} to "
        f"{format_score(one.high, comparison, sign=True)}, Holm's {format_p(one.p_holm)}"
    )
    margin = format_score(comparison.plan.equivalence_margin, comparison)
    if one.differs:
        return _difference(one, comparison, interval, margin)
    if one.is_equivalent:
        return (
            f"{one.algorithm} is equivalent to {control} within {margin} ({interval}; equivalence "
            f"{format_p(one.p_equivalence)})."
        )
    needed = ""
    if one.sd_difference > 0:
        detectable = format_score(one.detectable_difference, comparison)
        needed = (
            f" {comparison.num_cases} patients show a difference of {detectable} with power "
            f"{comparison.plan.power:g}; one of {margin} takes {_patients([one.patients_needed])}."
        )
    by_mean_alone = not one.low <= 0 <= one.high and one.p_holm >= comparison.plan.alpha
    beside = f"; the mean's own interval excludes 0, {_test(comparison)} does not" if by_mean_alone else ""
    return (
        f"No difference between {one.algorithm} and {control} was shown, and neither was equivalence within {margin} "
        f"({interval}{beside}).{needed}"
    )


def _difference(one: Contrast, comparison: Comparison, interval: str, margin: str) -> str:
    text = f"{one.algorithm} is {'better' if one.is_better else 'worse'} than {comparison.control} ({interval})"
    if (one.superiority > 0.5) != one.is_better:
        wins = f"{one.superiority:.0%}"
        return (
            f"{one.algorithm} and {comparison.control} differ ({interval}), but not one way: it has the "
            f"{'better' if one.is_better else 'worse'} mean and wins in {wins} of patients."
        )
    if one.is_equivalent:
        return f"{text}; the difference is shown to be smaller than the margin of {margin}."
    if one.low <= 0 <= one.high:
        return f"{text}; {_test(comparison)} shows it, the mean's own interval does not exclude 0."
    if not one.family_low <= 0 <= one.family_high and _nearest(one) > comparison.plan.equivalence_margin:
        return f"{text}; by more than the margin of {margin}."
    return f"{text}; whether by more than the margin of {margin} is open."


def _test(comparison: Comparison) -> str:
    return "the test by ranks" if comparison.plan.test == "wilcoxon" else "the test by sign flips"


def _nearest(one: Contrast) -> float:
    """The end of the interval, wide enough for all contrasts, that lies nearer to no difference."""
    return min(abs(one.family_low), abs(one.family_high))


def _few_patients(comparison: Comparison) -> list[str]:
    caveats = []
    if smallest_p(comparison.num_cases) >= comparison.contrast_alpha:
        caveats.append(
            f"{comparison.num_cases} patients cannot show any difference: signed ranks and flipped signs give no p "
            f"below {smallest_p(comparison.num_cases):.3g}, and Holm's correction asks for less than "
            f"{comparison.contrast_alpha:.3g}."
        )
    if comparison.num_cases < FEW_PATIENTS:
        caveats.append(
            f"Bootstrap intervals of {comparison.num_cases} patients are too narrow, and equivalence leans on normal "
            "differences: take both as a first look."
        )
    return caveats


def _gate(comparison: Comparison) -> list[str]:
    found = comparison.friedman
    if found is None or found.p_value < comparison.plan.alpha:
        return []
    hints = [one.algorithm for one in comparison.contrasts if one.p_holm < comparison.plan.alpha]
    if not hints:
        return []
    return [
        f"Friedman's test over all algorithms shows no difference ({format_p(found.p_value)}), so that of "
        f"{', '.join(hints)}, which its own test shows, is a hint and not claimed."
    ]


def _left_out(comparison: Comparison, aligned: AlignedScores | None) -> list[str]:
    if aligned is None:
        return []
    caveats = []
    if aligned.left_out:
        caveats.append(f"{_count(len(aligned.left_out), 'patient')} left out that not all algorithms have.")
    if aligned.undefined:
        cases = set().union(*aligned.undefined.values())
        counts = ", ".join(f"{name} {len(found)}" for name, found in aligned.undefined.items())
        caveats.append(
            f"{_count(len(cases), 'patient')} left out for all because the score has no value there ({counts}): this "
            "favours whoever fails on them."
        )
    if len(set(aligned.num_replicates.values())) > 1:
        counts = ", ".join(f"{name} {number}" for name, number in aligned.num_replicates.items())
        caveats.append(f"The means are over different numbers of runs ({counts}).")
    if max(aligned.num_replicates.values()) == 1:
        caveats.append("One run of each: another seed may differ by as much as another algorithm.")
    else:
        caveats.append(
            "Intervals and p-values are over patients: runs are averaged first, and what other seeds or folds would "
            "have given is not in them."
        )
    return caveats


def _ranking(comparison: Comparison) -> list[str]:
    taus = {one.method.replace("_", " "): one.tau_mean for one in comparison.stability}
    unstable = {method: tau for method, tau in taus.items() if not tau >= STABLE_TAU and not math.isnan(tau)}
    if not unstable:
        return []
    told = ", ".join(f"{method}: {tau:.2f}" for method, tau in unstable.items())
    return [f"The ranking would change with other patients (mean Kendall's tau, {told})."]


def format_score(value: float, comparison: Comparison, *, sign: bool = False) -> str:
    """A score or difference, a digit finer than the margin's first."""
    if math.isinf(value):
        return "any size"
    decimals = max(0, 1 - math.floor(math.log10(comparison.plan.equivalence_margin)))
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text.replace("-", "−")


def format_p(p_value: float) -> str:
    """`p = 0.012`, `p < 0.001`, or `p undefined`."""
    if math.isnan(p_value):
        return "p undefined"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _list(group: Sequence[Contrast]) -> str:
    names = [one.algorithm for one in group]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _names(group: Sequence[Contrast]) -> str:
    return f"{_list(group)} {'are' if len(group) > 1 else 'is'}"


def _patients(needed: list[int | None]) -> str:
    """About how many patients, with two digits: the standard deviation is not known any better."""
    if None in needed:
        return "more than a million patients"
    low, high = (two_digits(number) for number in (min(needed), max(needed)))
    return f"about {low:,} patients" if low == high else f"about {low:,} to {high:,} patients"


def two_digits(number: int) -> int:
    """A number of patients, rounded up to what the standard deviation's own uncertainty leaves of it."""
    return number if number < 100 else math.ceil(number / (unit := 10 ** (len(str(number)) - 2))) * unit


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number} {noun}s were"

"""What the gate decided, for people: a page, a few lines for the terminal, and short tags."""

from __future__ import annotations

from kits_ml import labels
from kits_ml.evaluation.gate import Decision

GATE_JSON, GATE_MD = "gate.json", "gate.md"


def headline(decision: Decision) -> str:
    """The decision in a sentence."""
    who = f"{decision.model}, version {decision.challenger}"
    if decision.promoted is False:
        return f"{who} does not become champion"
    place = "as the first" if decision.champion is None else f"in place of version {decision.champion}"
    how = "by force" if decision.outcome == "forced" else "through the gate"
    does = "becomes" if decision.promoted else "is to become"
    return f"{who} {does} champion {place}, {how}"


def lines(decision: Decision) -> list[str]:
    """The decision as lines of text: what was compared, every check, and what stands against it."""
    found = []
    for one in decision.regions:
        mark = "ok" if one.passed else "NO"
        found.append(
            f"  {mark:<4}{one.region + ' Dice':<22}{one.challenger_mean:.4f} against {one.champion_mean:.4f}: "
            f"difference {one.difference:+.4f}, at least {one.low:+.4f} ({one.num_cases} patients); "
            f"expected at least {-one.margin:g}"
        )
    for one in decision.findings:
        found.append(f"  {'ok' if one.passed else 'NO':<4}{one.name:<22}{one.found}; expected {one.expected}")
    found += [f"  NO  {reason}" for reason in decision.obstacles]
    if decision.forced is not None:
        found.append(f"  forced: {decision.forced}")
    return found


def render(decision: Decision) -> str:
    """The decision as a page of Markdown."""
    settings = decision.settings
    against = "no champion yet" if decision.champion is None else f"version {decision.champion}"
    parts = [f"# {headline(decision)}", f"Outcome: **{decision.outcome}**. Held against: {against}."]
    if decision.refusals:
        parts.append("\n".join(["What speaks against it:\n", *(f"- {reason}" for reason in decision.refusals)]))
    if decision.forced is not None:
        parts.append(f"Forced, with the reason: {decision.forced}")
    if decision.aborted is not None:
        parts.append(f"Aborted: {decision.aborted}")
    if decision.regions:
        rows = [
            f"| {one.region} | {one.num_cases} | {one.challenger_mean:.4f} | {one.champion_mean:.4f} | "
            f"{one.difference:+.4f} | {one.low:+.4f} | {-one.margin:g} | {_mark(one.passed)} |"
            for one in decision.regions
        ]
        header = [
            "| region | patients | challenger | champion | difference | at least | allowed | |",
            "|---|---|---|---|---|---|---|---|",
        ]
        method = (
            f"Mean Dice per patient; the bound holds with {100 * settings.confidence:g} % confidence (one-sided, "
            f"{settings.num_bootstrap} paired bootstrap samples of patients, seed {settings.seed})."
        )
        parts += ["## Against the champion", "\n".join([*header, *rows]), method]
    rows = [f"| {one.name} | {one.found} | {one.expected} | {_mark(one.passed)} |" for one in decision.findings]
    parts += ["## By itself", "\n".join(["| check | found | expected | |", "|---|---|---|---|", *rows])]
    parts.append(f"Evaluation digest: `{decision.digest}`." if decision.digest else "No evaluation.")
    return "\n\n".join(parts) + "\n"


def tags(decision: Decision) -> dict[str, str]:
    """The decision as short tags of the version; an empty value stands for none."""
    regions = {one.region: one for one in decision.regions}
    found = {
        "gate": _state(decision),
        "gate_against": decision.champion or "none, the first champion",
        "gate_evaluation_digest": decision.digest or "",
        "gate_failed_checks": ", ".join(one.name for one in decision.findings if not one.passed),
        "gate_refusals": "; ".join(decision.refusals)[:1000],
        "gate_forced": decision.forced if decision.outcome == "forced" else "",
    }
    for region in labels.REGIONS:
        one = regions.get(region)
        found[f"gate_{region}"] = (
            f"{one.difference:+.4f}, at least {one.low:+.4f}, margin {one.margin:g}, {one.num_cases} patients"
            if one
            else ""
        )
    return found


def _state(decision: Decision) -> str:
    if decision.aborted is not None:
        return f"aborted: {decision.aborted}"
    return decision.outcome if decision.promoted is not None else f"{decision.outcome}, not acted upon yet"


def _mark(passed: bool) -> str:
    return "ok" if passed else "**no**"

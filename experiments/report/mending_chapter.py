"""The chapter on the series of small trainings with one fault after the other mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pictures
from steps import holds_up, repeats, series
from words import (
    TITLES,
    NamedPicture,
    Part,
    Result,
    Results,
    budget,
    change_of,
    interval,
    missing,
    num_shown,
    number,
    told,
)

from kits_ml.page import Table, Text

CLIPPED_BEFORE = (
    "The real slices were clipped before they came here, so clipping has nothing to mend in this table: what lies "
    "between that row and the one above shows how far small trainings differ by chance."
)

MENDED_COLUMNS = (
    *("training", "MeanIoU", "MeanIoU, hard", "kidney Dice, own validation"),
    *("kidney Dice, new patients", "change", "tumour Dice, new patients", "change"),
)

ONE_SEED_NOTE = "One seed each, so small steps mean nothing"

SEEDS_NOTE = "A patient's Dice is the mean over the seeds; the figure shows how far these differ"


def mended(results: Results) -> list[Part]:
    """(e) One fault after the other mended."""
    found = {source: repeats(results, source) for source in TITLES}
    parts = [part for source, repeated in found.items() if repeated for part in _series_parts(source, repeated)]
    if not parts:
        return [missing("One fault after the other mended", "mending_phantom_sampling")]
    words = (
        "The same small training again and again. First the report's way with all its faults, then one more mended "
        "in each row. The left columns are what the report would have read; the right ones are what a new patient "
        "gets. Splitting by patient mends the score and not the network, and it changes the validation slices: "
        "MeanIoU above that row and below it are of different slices."
    )
    return [Text(title="One fault after the other mended", paragraphs=[words]), *parts]


def _series_parts(source: str, repeated: Sequence[Mapping[str, Result]]) -> list[Part]:
    rows, num_seeds = series(repeated), len(repeated)
    size = budget(rows[0]["sizes"]) + (f", each {num_seeds} times with other seeds" if num_seeds > 1 else "")
    num_test = rows[0]["sizes"]["num_test"]
    return [
        Text(title="", paragraphs=[_first_to_last(TITLES[source], rows), _what_holds_up(rows)]),
        Table(
            title="",
            header=[*MENDED_COLUMNS],
            rows=[_mended_row(row) for row in rows],
            note=f"Each row keeps what the rows above mended. MeanIoU and own validation: of the training's own "
            f"validation slices, with its own labels; what they neither show nor are given counts 1 there. New "
            f"patients: of the {num_test} held-out patients those who show the region "
            f"({num_shown(rows[0]['test']['dice_kidney'])} kidney, "
            f"{num_shown(rows[0]['test']['dice_tumour'])} tumour), right labels, 95 % intervals over patients; "
            f"the change from the row above pairs the patients. "
            f"{SEEDS_NOTE if num_seeds > 1 else ONE_SEED_NOTE}; {size}."
            + (f" {CLIPPED_BEFORE}" if source == "thin" else ""),
        ),
        NamedPicture(
            name=f"mending_{source}",
            title="",
            image=pictures.mending(rows),
            caption=f"The series on the {TITLES[source]}: {size}; {num_test} held-out patients."
            + (" Small hollow marks: one seed each." if num_seeds > 1 else ""),
            alt=told("kidney Dice", {row["title"]: row["test"]["dice_kidney"]["mean"] for row in rows}),
        ),
    ]


def _first_to_last(title: str, rows: Sequence[Result]) -> str:
    first, last = rows[0], rows[-1]
    return (
        f"On the {title}, from the first row to the last, MeanIoU on hard predictions goes from "
        f"{number(first['as_reported']['hardened'])} to {number(last['as_reported']['hardened'])}; the kidney Dice "
        f"of new patients from {number(first['test']['dice_kidney']['mean'])} to "
        f"{number(last['test']['dice_kidney']['mean'])}, the tumour's from "
        f"{number(first['test']['dice_tumour']['mean'])} to {number(last['test']['dice_tumour']['mean'])}."
    )


def _what_holds_up(rows: Sequence[Result]) -> str:
    """Which steps changed the score of new patients beyond what patients and seeds vary."""
    found = [
        f"\u201c{row['title']}\u201d {row['change'][f'dice_{region}']['mean']:+.3f} ({region})"
        for row in rows[1:]
        for region in ("kidney", "tumour")
        if holds_up(row["change"][f"dice_{region}"])
    ]
    if not found:
        return "No single step changes the Dice of new patients by more than patients and seeds vary."
    return (
        "Of the single steps these change the Dice of new patients by more than patients and seeds vary (an interval "
        f"without 0, and the same sign with every seed): {'; '.join(found)}. Two steps need not: a split by patient "
        "mends what is read and not the network, and so does the choice of the metric."
    )


def _mended_row(row: Result) -> list[str]:
    cells = [
        row["title"],
        number(row["as_reported"]["softmax"]),
        number(row["as_reported"]["hardened"]),
        number(row["own"]["dice_kidney"]),
    ]
    for region in ("kidney", "tumour"):
        change = row["change"].get(f"dice_{region}")
        cells += [interval(row["test"][f"dice_{region}"]), change_of(change) if change else ""]
    return cells

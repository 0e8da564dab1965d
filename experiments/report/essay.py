"""The essay as a self-contained page and as the README's block, from the files of the stages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data_chapters
import mending_chapter
import phantom_slices
import training_chapters
from stages import Records
from words import NamedPicture, Part, Results, number, percent

from kits_ml import files, page

TITLE = "Mean IoU 0.989, and what it was worth"
SUBTITLE = (
    "A student report trained a U-Net on 48 KiTS19 cases and read a mean IoU of 0.989; its predicted segmentation "
    "did not look like it. Here the training is done again as the report says it, and the number is taken apart."
)

#: What else the machine did, of which each stage's record tells.
_LOAD = re.compile(r", load [\d.]+ at the start")

#: Files of a published essay.
PAGE_HTML, RESULTS_JSON = "essay.html", "results.json"


@dataclass(frozen=True, kw_only=True)
class Essay:
    """What is said, before it is a page or a README."""

    verdict: str
    caveats: Sequence[str]
    parts: Sequence[Part]
    times: page.Table

    def without_private(self) -> Essay:
        """The same without pictures of real patients."""
        return replace(self, parts=[part for part in self.parts if not getattr(part, "private", False)])


def write_essay(records: Records, output: Path, *, phantom: Path, are_real: bool, publish: Path | None) -> Path:
    """Writes the page from what the stages found so far.

    Args:
        records: of the stages by name, see `stages.read_records`.
        output: gets `essay.html`, with the predicted segmentations that lie in its `pictures/`.
        phantom: folder of phantom cases; without cases there is no picture of a synthetic slice.
        are_real: whether the exact training and the predicted segmentations are of real patients.
        publish: an experiment's folder; its `results/` and the block in its `README.md` are made anew, without any
            picture of a real patient. None: nothing is published.

    Returns:
        The page in `output`.
    """
    results = results_of(records)
    predicted = {path.stem: path.read_bytes() for path in sorted((output / "pictures").glob("*.png"))}
    slices = phantom_slices.draw(phantom) if any(phantom.glob("case_*")) else None
    essay = Essay(
        verdict=verdict(results),
        caveats=training_chapters.cannot_be_known(results, are_real=are_real),
        parts=chapters(results, predicted=predicted, are_real=are_real, slices=slices),
        times=_times(records),
    )
    files.write_bytes(output / PAGE_HTML, render(essay).encode())
    if publish:
        _publish(essay.without_private(), records, folder=publish)
    return output / PAGE_HTML


def results_of(records: Records) -> dict[str, Any]:
    """What the stages found; that of the exact training with its settings."""
    results = {name: dict(record["result"]) for name, record in records.items()}
    if "exact" in results:
        results["exact"]["settings"] = records["exact"]["settings"]
    return results


def chapters(results: Results, *, predicted: Mapping[str, bytes], are_real: bool, slices: bytes | None) -> list[Part]:
    """All chapters in order; `predicted` and `are_real` as of `report`, `slices` the picture of `phantom_slices`."""
    parts = [
        *training_chapters.report(results, predicted=predicted, are_real=are_real),
        *data_chapters.metric(results),
        *data_chapters.labels(results),
        *data_chapters.grey(results),
    ]
    if slices:
        parts.append(
            NamedPicture(
                name="phantom_slices",
                title="",
                image=slices,
                media_type="image/png",
                caption="A synthetic patient. Above: clipped before gamma; not clipped, as a PNG shows it; not "
                "clipped, "
                "with its whole range spread over the grey levels. Below, enlarged: labels by nearest, the mean of "
                "their numbers, and that rounded: kidney (green) appears between tumour (orange) and background.",
                alt="Three renderings of one slice, the second nearly black; three of its labels, the last with a "
                "rim of kidney that is not there.",
            )
        )
    return [
        *parts,
        *training_chapters.leakage(results),
        *mending_chapter.mended(results),
        *training_chapters.instead(results),
    ]


def verdict(results: Results) -> str:
    """The answer in two sentences."""
    found = results.get("readings")
    if not found:
        return "MeanIoU, given one-hot labels and softmax, reads pixel accuracy and not overlap."
    ways = found["ways"]
    return (
        "MeanIoU, given one-hot labels and softmax, reads pixel accuracy and not overlap: "
        f"{found['theory']['reported']} of hard predictions says that about "
        f"{percent(1 - found['theory']['pixel_error_of_reported'])} of the pixels were right. On our test "
        "patients an empty prediction reads "
        f"{number(ways['nothing']['as_reported'])}, and the trained network, whose tumour Dice is "
        f"{number(ways['trained']['dice_tumour']['mean'])} and kidney Dice "
        f"{number(ways['trained']['dice_kidney']['mean'])}, reads {number(ways['trained, hardened']['as_reported'])} "
        f"made hard and {number(ways['trained']['as_reported'])} as it is."
    )


def render(essay: Essay) -> str:
    """The page's HTML."""
    return page.render(
        title=TITLE,
        subtitle=SUBTITLE,
        verdict=essay.verdict,
        sentences=[],
        caveats=essay.caveats,
        parts=essay.parts,
        settings=essay.times,
    )


def to_markdown(essay: Essay) -> str:
    """The same for the README; pictures are files in `results/`."""
    lines = [f"**{essay.verdict}**", "", *(f"- {one}" for one in essay.caveats), ""]
    for part in essay.parts:
        if part.title:
            lines += [f"## {part.title}", ""]
        if isinstance(part, page.Text):
            for paragraph in part.paragraphs:
                lines += [paragraph, ""]
            lines += [f"- {point}" for point in part.points] + ([""] if part.points else [])
        elif isinstance(part, page.Table):
            lines += [*_markdown_table(part), ""] + ([part.note, ""] if part.note else [])
        else:
            lines += [f"![{part.alt}](results/{_file_of(part)})", "", f"*{part.caption}*", ""]
    lines += [f"## {essay.times.title}", "", *_markdown_table(essay.times), "", essay.times.note]
    return "\n".join(lines) + "\n"


def _times(records: Records) -> page.Table:
    """How long the stages took; the trainings of a series stand together."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, record in records.items():
        groups.setdefault("_".join(name.split("_")[:2]), []).append(record)
    seconds = {name: sum(record["seconds"] for record in group) for name, group in groups.items()}
    rows = [[name, f"{len(group)}", f"{seconds[name]:,.0f}"] for name, group in groups.items()]
    machines = sorted({_LOAD.sub("", record["machine"]) for record in records.values()})
    return page.Table(title="Time", header=["stage", "times", "seconds"], rows=rows, note=f"{'; '.join(machines)}.")


def _markdown_table(table: page.Table) -> list[str]:
    lines = [table.header, ["---", *["--:"] * (len(table.header) - 1)], *table.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _file_of(picture: NamedPicture) -> str:
    return f"{picture.name}.{'svg' if picture.media_type == 'image/svg+xml' else 'png'}"


def _publish(essay: Essay, records: Records, *, folder: Path) -> None:
    target = folder / "results"
    shown = [part for part in essay.parts if isinstance(part, NamedPicture)]
    for part in shown:
        files.write_bytes(target / _file_of(part), part.image)
    wanted = {_file_of(part) for part in shown}
    for path in [*target.glob("*.svg"), *target.glob("*.png")]:
        if path.name not in wanted:
            path.unlink()
    files.write_bytes(target / PAGE_HTML, render(essay).encode())
    files.write_bytes(target / RESULTS_JSON, _a_line_each(records).encode())
    files.write_part(folder / "README.md", "essay", to_markdown(essay))


def _a_line_each(records: Records) -> str:
    """The stages' records as JSON, a line a stage, so that a change of one shows as such."""
    kept = ("settings", "seconds", "machine", "code", "result")
    lines = [f"{json.dumps(name)}: {json.dumps({key: one[key] for key in kept})}" for name, one in records.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def published(folder: Path) -> Mapping[str, Any]:
    """What `results.json` of a published essay holds, by stage."""
    return json.loads((folder / "results" / RESULTS_JSON).read_text(encoding="utf-8"))

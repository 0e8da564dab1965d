"""The quality report as one self-contained page: flags, tables, pictures and a viewer of the volume."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kits_ml import figures, page, scan_figures
from kits_ml.inference import viewer_volumes
from kits_ml.inference.provenance import Provenance
from kits_ml.inference.quality import NOTICE, QualityReport
from kits_ml.labels import KIDNEY, LABEL_COLOURS, LABEL_NAMES, TUMOUR

#: How strongly labels cover the scan at first.
OPACITY = 0.4
#: And the uncertainty, when it is asked for.
ENTROPY_OPACITY = 0.8

#: What of the grey values is shown, in HU.
WINDOWS_HU = {"kidneys": figures.WINDOW_HU, "soft tissue": (-160, 240), "bone": (-450, 1050), "lung": (-1350, 150)}

#: From purple by red to yellow; see-through where the network is certain.
_ENTROPY_COLOURS = {
    "R": [120, 200, 255, 255],
    "G": [0, 40, 160, 255],
    "B": [120, 40, 0, 150],
    "A": [0, 90, 180, 255],
    "I": [0, 85, 170, 255],
}

#: Scripts that stand in the page, and NiiVue's shaders and fonts, which it makes itself.
_POLICY = "script-src 'unsafe-inline'; connect-src data: blob:; worker-src blob:"


def render_page(
    report: QualityReport,
    image: np.ndarray,
    label_map: np.ndarray,
    *,
    affine: np.ndarray,
    read_entropy: Callable[[], np.ndarray] | None = None,
) -> str:
    """The page.

    Args:
        report: of this prediction; its provenance gives the title and stands at the end.
        image: `(slices, rows, columns)` in HU, in the house's axis order.
        label_map: the same shape, values 0, 1, 2.
        affine: `(4, 4)`, voxel indices of that order to RAS+ millimetres.
        read_entropy: gives `(slices, rows, columns)` uint8, as `UncertaintyMeter.entropy`, which is let go of again;
            None leaves the map out.

    Returns:
        HTML, with everything in it. A scan of more than `viewer_volumes.MOST_VOXELS` voxels around the body is
        thinned out for the viewer, and the page says so; it has some 30 MB at most.
    """
    grid = viewer_volumes.fit_grid(image, label_map, spacing_mm=report.spacing_mm)
    volumes = {
        "image": viewer_volumes.encode_image(image, grid, affine),
        "labels": viewer_volumes.encode_labels(label_map, grid, affine),
    }
    if read_entropy is not None:
        volumes["entropy"] = viewer_volumes.encode_bytes(read_entropy(), grid, affine)
    title = _title(report.provenance)
    body = [
        page.heading(title, _subtitle(report)),
        f'<p class="notice">{escape(NOTICE)}</p>',
        f'<p class="verdict">{escape(_verdict(report))}</p>',
        _flags(report),
        *(page.table(one) for one in _tables(report)),
        _viewer(report, volumes, affine=affine, note=grid.note()),
        *(page.picture(one) for one in _pictures(report, image, label_map)),
        *([page.table(_provenance(report.provenance, limits=report.limits))] if report.provenance else []),
        f"<script>{_asset('niivue.umd.js')}</script>",
        f"<script>{_asset('page.js')}</script>",
    ]
    return page.document(title, body, style=_asset("page.css"), policy=_POLICY)


def _title(provenance: Provenance | None) -> str:
    """The scan and who segmented it."""
    if provenance is None:
        return "Segmentation"
    models = ", ".join(f"{one.name} {one.version}" for one in provenance.models)
    return " ".join(filter(None, (provenance.scan or "A scan", models and f"segmented by {models}")))


def _provenance(provenance: Provenance, *, limits: Mapping[str, float]) -> page.Table:
    rows = [["scan", provenance.scan or "not named"]]
    for one in provenance.models:
        digests = "; ".join(f"SHA-256 of {name} {digest}" for name, digest in one.sha256.items())
        rows.append(["model", f"{one.address}; {digests}" if digests else one.address])
    rows += [
        ["engine", provenance.engine],
        ["test-time augmentation", provenance.test_time_augmentation],
        ["post-processing", _words(provenance.postprocessing)],
        ["flags are raised by", _words(limits)],
        ["kits_ml", provenance.kits_ml],
        *([["note", provenance.note]] if provenance.note else []),
    ]
    return page.Table(title="Where this comes from", header=["", "found"], rows=rows, of_words=True)


def _words(settings: Mapping[str, Any]) -> str:
    shown = {
        name: "off" if value is None else f"{value:g}" if isinstance(value, float) else value
        for name, value in settings.items()
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "none"


def _subtitle(report: QualityReport) -> str:
    sizes = " x ".join(str(size) for size in report.shape)
    spacing = " x ".join(f"{size:.3g}" for size in report.spacing_mm)
    return f"Kidney and kidney tumour segmentation; {sizes} voxels (slices, rows, columns) of {spacing} mm"


def _verdict(report: QualityReport) -> str:
    volumes_ml = report.volumes_ml
    found = f"{_count(len(report.kidneys), 'kidney')} and {_count(len(report.tumours), 'tumour')}"
    parts = f"{volumes_ml['kidney']:.0f} ml of kidney"
    if volumes_ml["tumour"]:
        parts += f", {volumes_ml['tumour']:.1f} ml of it tumour"
    flags = _count(len(report.flags), "flag") if report.flags else "no flags"
    return f"Found {found}: {parts}; {flags}."


def _count(number: int, name: str) -> str:
    return f"{number or 'no'} {name}{'s' * (number != 1)}"


def _flags(report: QualityReport) -> str:
    unchecked = " ".join(escape(one.reason) for one in report.unchecked)
    note = f'<p class="note">Not everything was checked. {unchecked}</p>' if unchecked else ""
    if not report.flags:
        rules = "the rules that ran" if unchecked else "the rules"
        return f'<p class="note">None of {rules} found anything that speaks against this prediction.</p>{note}'
    items = "".join(
        f'<li class="{flag.severity}"><strong>{flag.severity}</strong>{escape(flag.reason)}'
        f"<code>{escape(flag.name)}</code></li>"
        for flag in report.flags
    )
    return f'<ul class="flags">{items}</ul>{note}'


def _tables(report: QualityReport) -> list[page.Table]:
    tables = []
    if report.kidneys:
        header = ["kidney", "volume, ml", "of it tumour, ml", "length, mm", "mean HU", "confidence"]
        rows = [
            [
                *(one.side, f"{one.volume_ml:.0f}", f"{one.tumour_ml:.1f}", f"{one.length_mm:.0f}"),
                *(f"{one.mean_hu:.0f}", _percent(one.confidence)),
            ]
            for one in report.kidneys
        ]
        note = f"Contrast: {report.contrast}. HU and confidence are of the tissue without tumour."
        tables.append(page.Table(title="Kidneys", header=header, rows=rows, note=note))
    if report.tumours:
        header = ["tumour", "kidney", "volume, ml", "largest diameter, mm", "in a slice, mm", "slice", "mean HU"]
        rows = [
            [
                *(str(number), one.side if one.kidney is not None else "none", f"{one.volume_ml:.1f}"),
                *(f"{one.diameter_mm:.0f}", f"{one.axial_diameter_mm:.0f}", str(one.axial_slice)),
                *(f"{one.mean_hu:.0f}", _percent(one.confidence)),
            ]
            for number, one in enumerate(report.tumours, start=1)
        ]
        tables.append(page.Table(title="Tumours", header=[*header, "confidence"], rows=rows, note=_fragments(report)))
    elif report.fragments:
        tables.append(page.Table(title="Tumours", header=["none"], rows=[], note=_fragments(report)))
    if report.doubt:
        tables.append(_doubt(report.doubt))
    return tables


def _doubt(doubt: Mapping[str, Mapping[str, float | None]]) -> page.Table:
    """Means over all voxels of a label."""
    measures = list(next(iter(doubt.values())))
    note = (
        "Means over the label's voxels. Confidence: the highest softmax, which is the label's where nothing was "
        "cleaned. Entropy: 0 is certain, 100% all alike."
    )
    if "spread" in measures:
        note += " Spread: how far apart ensemble members or augmentations are."
    rows = [[label, *(_percent(means[name]) for name in measures)] for label, means in doubt.items()]
    return page.Table(title="How sure the model is", header=["label", *measures], rows=rows, note=note)


def _fragments(report: QualityReport) -> str:
    if not report.fragments:
        return ""
    total_ml = sum(one.volume_ml for one in report.fragments)
    return f"Beside these, {_count(len(report.fragments), 'small fragment')} of {total_ml:.2f} ml in all."


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"


def _pictures(report: QualityReport, image: np.ndarray, label_map: np.ndarray) -> list[page.Picture]:
    options = {"spacing_mm": report.spacing_mm}
    found = _verdict(report)
    return [
        _picture(
            "Contours",
            figures.overlay_of_case(image, None, label_map, **options),
            "Where the cross-sections of tumour and kidney are largest. The patient's left is on the right.",
            alt=f"Axial slices with contours. {found}",
        ),
        _picture(
            "Coronal view",
            scan_figures.coronal(image, label_map, **options),
            "Through most kidney and most tumour, interpolated between slices. The patient's left is on the right.",
            alt=f"Coronal views with kidneys and tumours filled. {found}",
        ),
        _picture(
            "Axial montage",
            scan_figures.montage(image, label_map, **options),
            "From top to bottom of what was found. The patient's left is on the right.",
            alt=f"Axial slices with kidneys and tumours filled. {found}",
        ),
    ]


def _picture(title: str, figure: Figure, caption: str, *, alt: str) -> page.Picture:
    return page.Picture(
        title=title, image=figures.to_png(figure, dpi=130), caption=caption, alt=alt, media_type="image/png"
    )


def _viewer(report: QualityReport, volumes: dict[str, str], *, affine: np.ndarray, note: str) -> str:
    places = _places(report, affine)
    settings = {
        "window_hu": figures.WINDOW_HU,
        "opacity": OPACITY,
        "entropy_opacity": ENTROPY_OPACITY,
        "label_names": list(LABEL_NAMES.values()),
        "label_colours": _label_colours(),
        "entropy_colours": _ENTROPY_COLOURS,
        "start_mm": _start(report, places) or _to_mm(affine, [size // 2 for size in report.shape]),
    }
    with_entropy = "entropy" in volumes
    return Template(_asset("viewer.html")).substitute(
        opacity=f"{OPACITY * 100:.0f}",
        entropy_control='<label><input type="checkbox" class="entropy"> uncertainty</label>' if with_entropy else "",
        windows="".join(
            f'<option value="{low:g} {high:g}">{name} ({low:g} to {high:g} HU)</option>'
            for name, (low, high) in WINDOWS_HU.items()
        ),
        places="".join(
            f'<button type="button" data-mm="{" ".join(f"{part:.2f}" for part in mm)}">{escape(name)}</button>'
            for name, mm in places.items()
        ),
        legend=_legend(with_entropy=with_entropy),
        note=escape(note),
        volumes="\n".join(
            f'<script type="text/plain" id="viewer-{name}">{volume}</script>' for name, volume in volumes.items()
        ),
        settings=json.dumps(settings),
    )


def _legend(*, with_entropy: bool) -> str:
    swatches = "".join(
        f'<span class="swatch" style="background: rgb{LABEL_COLOURS[label]}"></span>{LABEL_NAMES[label]}'
        for label in (KIDNEY, TUMOUR)
    )
    if not with_entropy:
        return swatches
    channels = zip(*(_ENTROPY_COLOURS[part] for part in "RGBA"), strict=True)
    stops = ", ".join(f"rgba({red}, {green}, {blue}, {alpha / 255:.2f})" for red, green, blue, alpha in channels)
    ramp = f'<span class="ramp" style="background: linear-gradient(to right, {stops})"></span>'
    return f"{swatches}{ramp}uncertainty, 0 to 100 %"


def _places(report: QualityReport, affine: np.ndarray) -> dict[str, list[float]]:
    """Where the viewer can go to, by name."""
    sides = [one.side for one in report.kidneys]
    kidneys = {}
    for index, one in enumerate(report.kidneys):
        name = "kidney" if one.side == "both" else f"{one.side} kidney"
        same = sides[: index + 1].count(one.side)
        kidneys[f"{name} {same}" if same > 1 else name] = one.centre
    tumours = {f"tumour {number}": one.centre for number, one in enumerate(report.tumours, start=1)}
    return {name: _to_mm(affine, centre) for name, centre in (kidneys | tumours).items()}


def _start(report: QualityReport, places: Mapping[str, list[float]]) -> list[float] | None:
    """The largest tumour, else a kidney."""
    return places.get("tumour 1") or next(iter(places.values()), None)


def _to_mm(affine: np.ndarray, voxel: Sequence[int]) -> list[float]:
    return (affine[:3, :3] @ np.asarray(voxel, float) + affine[:3, 3]).round(3).tolist()


def _label_colours() -> dict[str, Any]:
    channels = zip(*(LABEL_COLOURS[label] for label in LABEL_NAMES), strict=True)
    return {
        **dict(zip("RGB", (list(one) for one in channels), strict=True)),
        "A": [0 if label not in (KIDNEY, TUMOUR) else 255 for label in LABEL_NAMES],
        "I": list(LABEL_NAMES),
        "labels": list(LABEL_NAMES.values()),
    }


def _asset(name: str) -> str:
    return resources.files("kits_ml.inference").joinpath("viewer", name).read_text(encoding="utf-8")

"""The pictures show what is labelled, where it lies, undistorted."""

import numpy as np
import pytest

from kits_ml import figures, scan_figures

SPACING_MM = (4.0, 2.0, 2.0)


def _scan() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((20, 60, 80), -100, np.int16)
    label_map = np.zeros(image.shape, np.uint8)
    label_map[4:16, 20:30, 10:20] = 1
    label_map[6:9, 45:55, 60:70] = 2
    return image, label_map


def _panels(figure) -> list:
    return [axes for axes in figure.axes if axes.get_images()]


def _covered(axes) -> dict[str, int]:
    """How many pixels each label's colour covers."""
    cover = axes.get_images()[1].get_array()
    return {
        name: int((np.abs(cover[..., :3] - figures.label_colour(label)).max(axis=-1) < 1e-6)[cover[..., 3] > 0].sum())
        for label, name in ((1, "kidney"), (2, "tumour"))
    }


def test_the_montage_goes_from_the_first_to_the_last_labelled_slice():
    image, label_map = _scan()
    panels = _panels(scan_figures.montage(image, label_map, spacing_mm=SPACING_MM))
    titles = [axes.get_title() for axes in panels]
    assert titles == [f"slice {index}" for index in range(4, 16)]
    assert _covered(panels[0]) == {"kidney": 100, "tumour": 0}
    assert _covered(panels[2]) == {"kidney": 100, "tumour": 100}


def test_a_montage_of_many_slices_is_thinned_out():
    label_map = np.ones((300, 8, 8), np.uint8)
    panels = _panels(scan_figures.montage(np.zeros(label_map.shape), label_map, spacing_mm=(1, 1, 1)))
    assert len(panels) == scan_figures.MOST_SLICES
    assert [panels[0].get_title(), panels[-1].get_title()] == ["slice 0", "slice 299"]


def test_coronal_views_are_as_high_as_the_patient():
    image, label_map = _scan()
    kidney, tumour = _panels(scan_figures.coronal(image, label_map, spacing_mm=SPACING_MM))
    assert kidney.get_title() == "row 20: most kidney"
    assert tumour.get_title() == "row 45: most tumour"
    for axes in (kidney, tumour):
        assert axes.get_images()[0].get_array().shape == (40, 80)  # 20 slices of 4 mm are 40 pixels of 2 mm
        assert axes.get_aspect() == 1
    assert _covered(kidney) == {"kidney": 240, "tumour": 0}  # 12 slices, two pixels each, 10 columns
    assert _covered(tumour) == {"kidney": 0, "tumour": 60}


def test_neighbouring_coronal_views_are_one():
    image, label_map = _scan()
    label_map[label_map == 2] = 0
    label_map[6:9, 24:28, 12:16] = 2  # 4 rows behind the first of the kidney: 8 mm
    assert len(_panels(scan_figures.coronal(image, label_map, spacing_mm=SPACING_MM))) == 1


@pytest.mark.parametrize("draw", [scan_figures.montage, scan_figures.coronal])
def test_nothing_labelled_is_drawn_too(draw):
    image, label_map = _scan()
    figure = draw(image, np.zeros_like(label_map), spacing_mm=SPACING_MM)
    assert _panels(figure)
    assert figures.to_png(figure, dpi=40).startswith(b"\x89PNG")

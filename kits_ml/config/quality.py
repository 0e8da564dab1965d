"""From where on a prediction is worth a second look."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.errors import InputError
from kits_ml.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class QualitySettings(Settings):
    """When the quality report raises a flag.

    Kidney volumes: a healthy adult's kidney measures 202 +- 36 ml (men) and 154 +- 33 ml (women) on MR (Cheong et
    al., Clin J Am Soc Nephrol 2007): three standard deviations from the smaller and above the larger mean are 55 and
    310 ml. The defaults leave some room: of KiTS19's references, whose kidneys include cysts, nearly all lie within.
    Tumours of KiTS19 have 0.8 to 1464 ml. The limits of confidence are a convention: a softmax must be calibrated
    (see the evaluation report) before they mean a probability of being right.
    """

    fragment_kidney_ml: float = setting(
        15.0,
        "quality report: a piece with less kidney tissue than this, tumour left out, is a fragment and no kidney",
        unit="ml",
        minimum=0,
    )
    fragment_tumour_ml: float = setting(
        0.1, "quality report: a piece of tumour smaller than this is a fragment and no tumour", unit="ml", minimum=0
    )
    lowest_kidney_ml: float = setting(
        50.0, "quality report: a kidney with its tumour is flagged below this", unit="ml", minimum=0
    )
    highest_kidney_ml: float = setting(
        400.0, "quality report: a kidney without its tumour is flagged above this", unit="ml"
    )
    highest_tumour_ml: float = setting(1500.0, "quality report: a tumour is flagged above this", unit="ml")
    lowest_kidney_confidence: float = setting(
        0.8,
        "quality report: mean softmax of a kidney's voxels that is flagged as low below this",
        minimum=0,
        maximum=1,
    )
    lowest_tumour_confidence: float = setting(
        0.7,
        "quality report: mean softmax of a tumour's voxels that is flagged as low below this",
        minimum=0,
        maximum=1,
    )
    training_margin: float = setting(
        0.1, "quality report: share by which spacing and field of view may leave the training data's range", minimum=0
    )
    training_margin_hu: float = setting(
        50.0, "quality report: by how much HU may leave the training data's range", unit="HU", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fragment_kidney_ml <= self.lowest_kidney_ml < self.highest_kidney_ml:
            raise InputError(
                f"lowest_kidney_ml: found {self.lowest_kidney_ml:g}, expected at least fragment_kidney_ml "
                f"{self.fragment_kidney_ml:g} and less than highest_kidney_ml {self.highest_kidney_ml:g}"
            )
        if not self.fragment_tumour_ml < self.highest_tumour_ml:
            raise InputError(
                f"highest_tumour_ml: found {self.highest_tumour_ml:g}, expected more than fragment_tumour_ml "
                f"{self.fragment_tumour_ml:g}"
            )

"""The service: where it listens, which model answers, and what a request may cost."""

from __future__ import annotations

from dataclasses import dataclass

from kits_ml.config.inference import SegmentationSettings
from kits_ml.config.quality import QualitySettings
from kits_ml.settings import setting


@dataclass(frozen=True, kw_only=True)
class ServeSettings(QualitySettings, SegmentationSettings):
    """Answer scans over HTTP: a NIfTI file or a zip of DICOM slices comes in, its segmentation goes out."""

    model: str = setting(
        "models:/kits-unet@champion",
        "models:/NAME@ALIAS, whose new versions take over while the service runs, models:/NAME/VERSION or a folder; "
        "several, divided by commas: the mean of their softmax",
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0: every network, and there is no password")
    port: int = setting(8080, "0: any that is free", minimum=0, maximum=65535)
    queue_size: int = setting(
        8, "requests in the house at once, the one at work among them; one more gets 429", minimum=1
    )
    max_upload_mb: int = setting(512, "largest upload", unit="MB", minimum=1)
    max_unpacked_mb: int = setting(2400, "most that an upload may unpack to", unit="MB", minimum=1)
    max_voxels: int = setting(300_000_000, "largest volume; KiTS19's longest case has 277,610,496", minimum=1)
    upload_seconds: float = setting(
        300.0,
        "an upload that takes longer gets 408; who takes longer to read the answer is cut off",
        unit="s",
        minimum=0.1,
    )
    timeout_seconds: float = setting(
        900.0,
        "from the end of the upload to the answer; 503 for who still waits then, 504 for who is at work",
        unit="s",
        minimum=0.1,
    )
    poll_seconds: float = setting(
        30.0, "time between two looks for a new version behind the alias; 0: none", unit="s", minimum=0
    )

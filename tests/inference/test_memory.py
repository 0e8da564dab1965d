"""A scan of 1,059 slices, KiTS19's longest, is segmented in 2.5 GB, the model and TensorFlow among them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kits_ml.data import volumes
from tests.data.test_memory import PEAK

NUM_SLICES = 1059
MOST_BYTES = 2.5e9

#: Saves the default network, untrained: it labels at random, which is the worst for post-processing.
MAKE_MODEL = """
import sys
from pathlib import Path
from kits_ml import models, runtime
from kits_ml.config import PreprocessingSettings, TrainSettings
runtime.configure(num_threads=2)
runtime.seed_everything(0)
from kits_ml.inference.predictor import Predictor
settings = TrainSettings()
Predictor(models.build(settings), settings.select(PreprocessingSettings)).save(Path(sys.argv[1]))
"""

#: Segments with all post-processing and an overlay, and prints the most memory that the process ever had, in bytes.
PREDICT = f"""
{PEAK}
from kits_ml.config import PredictSettings
from kits_ml.workflows.predict import predict
model, image, output = sys.argv[1:4]
cleaning = dict(postprocessing="given", fill_holes="volume", keep_largest_kidneys=2, minimum_tumour_ml=0.1)
others = dict(argument.split("=") for argument in sys.argv[4:])
predict(
    PredictSettings(
        model=model, image=image, output=output, overlay=output + ".png", num_threads=2, tumour_contact_mm=5.0,
        **cleaning, **others,
    )
)
print(peak_bytes())
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, "-c", MAKE_MODEL, str(folder)], check=True, timeout=1200)
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.nii"
    rng = np.random.default_rng(0)
    one = np.full((512, 512), -1000, np.int16)
    one[50:450, 30:480] = rng.integers(-50, 250, (400, 450))
    image = np.broadcast_to(one, (NUM_SLICES, 512, 512)).copy()
    image[:, 60:440, 40:470] += (10 * np.arange(NUM_SLICES) % 70).astype(np.int16)[:, None, None]
    volumes.write_image(path, image, volumes.kits_geometry(image.shape, (0.5, 0.8, 0.8)))
    return path


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("others", [[], ["probabilities=p.nii.gz"], ["report=r.json", "page=p.html"]])
def test_the_longest_scan(model, scan, tmp_path, others):
    others = [one.replace("=", f"={tmp_path}/") for one in others]
    command = [sys.executable, "-c", PREDICT, str(model), str(scan), str(tmp_path / "seg.nii.gz"), *others]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=7000)
    peak_bytes = int(done.stdout)
    assert peak_bytes <= MOST_BYTES, f"{peak_bytes / 1e9:.2f} GB"
    label_map = volumes.read_label_map(tmp_path / "seg.nii.gz")
    assert label_map.array.shape == (NUM_SLICES, 512, 512)
    assert label_map.array.any()

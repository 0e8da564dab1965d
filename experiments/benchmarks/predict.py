"""Seconds from a scan's file to its segmentation's file, beside the floor and beside MONAI's pipeline.

    pip install -e .[engines]
    python experiments/benchmarks/predict.py --image $KITS_ML_REAL_DATA/ircadb/case_ircadb01/imaging.nii.gz

writes predict.md; without `--image` a phantom of 129 slices takes the scan's place. The floor is unpacking the file
(isal) plus the network's forward passes over slices that lie prepared in memory, and nothing else. MONAI's pipeline
is the documented one (`monai_pipeline.py`) with plain PyTorch and our weights, so that both write the same kind of
label map. The weights are those of a minute on squares in noise: what they find is no matter here.

Every measurement is a fresh process, and the ways take turns in each round; the figures are medians over the rounds.
"Each scan" is the second one of a process, with the model loaded and the network traced; "first scan" is traced on
the way. "A command" is a process from its start to its end: `python -m kits_ml predict`, and for MONAI a script with
that pipeline and nothing else (its network's weights from a `.pt` file). `kits_ml, openvino` is `--engine openvino`
on the same network's ONNX file. Where the processor computes in bfloat16, floor and `kits_ml` do, as the package does
of itself, and `kits_ml` is measured in float32 beside it. The two label maps, both in float32, differ at edges: ours
averages probabilities on the scan's grid, MONAI's inverse takes the nearest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np

PACKAGES = ("tensorflow", "keras", "torch", "monai", "nibabel", "isal")
RESULT = Path(__file__).with_suffix(".md")
NUM_PHANTOM_SLICES = 129
BATCH_SIZE = 8
IMAGE_SIZE = 256
FILTERS = 16
MODEL, TWIN = "model", "twin.pt"
LAST_FLOAT32, LAST_BFLOAT16 = "MONAI, channels last", "MONAI, channels last, bfloat16"

#: What a way measured, in seconds by name.
Seconds = dict[str, float]


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def make_models(image: Path, scratch: Path) -> Seconds:
    """Our U-Net, trained for a minute on squares, as a model that `predict` takes; and its twin in PyTorch."""
    import torch
    from engines import keras_model, trained_weights
    from monai_pipeline import torch_twin

    from kits_ml.config import PreprocessingSettings
    from kits_ml.inference.engines import ONNX_FILE
    from kits_ml.inference.predictor import Predictor
    from kits_ml.models.onnx_export import export_onnx

    options = argparse.Namespace(device="cpu", image_size=IMAGE_SIZE, base_filters=FILTERS)
    weights = trained_weights(options)
    model = keras_model(options, "float32")
    model.set_weights(weights)
    Predictor(model, PreprocessingSettings(image_size=IMAGE_SIZE)).save(scratch / MODEL)
    export_onnx(model, scratch / MODEL / ONNX_FILE)
    torch.save(torch_twin(model, base_filters=FILTERS), scratch / TWIN)
    return {}


def floor(image: Path, scratch: Path) -> Seconds:
    """Unpacking, and the forward passes alone."""
    from isal import igzip

    from kits_ml import runtime
    from kits_ml.data import frames, images, preprocessing
    from kits_ml.inference.predictor import Predictor

    runtime.configure()
    predictor = Predictor.load(scratch / MODEL, batch_size=BATCH_SIZE)
    scan = images.read_image(image)
    frame = frames.find_frame(scan.array, predictor.settings, spacing_mm=scan.spacing_mm)
    grey = np.concatenate(list(preprocessing.prepare_image(scan.array, frame, predictor.settings)))
    filled = np.pad(grey, [(0, -len(grey) % BATCH_SIZE), (0, 0), (0, 0)])
    batches = np.split(preprocessing.network_input(filled[..., None]), len(filled) // BATCH_SIZE)

    def forward() -> None:
        for batch in batches:
            np.asarray(predictor.network.predict_on_batch(batch))

    forward()
    unpack = igzip.open if image.suffix == ".gz" else open
    return {"unpacking": timed(lambda: unpack(image, "rb").read()), "forward": timed(forward)}


def ours(image: Path, scratch: Path, *, engine: str = "keras", precision: str = "auto") -> Seconds:
    """The package, in a process that goes on."""
    from kits_ml import runtime
    from kits_ml.config import PredictSettings
    from kits_ml.workflows import predict
    from kits_ml.workflows.segmenters import load_segmenter

    output = scratch / f"ours-{engine}-{precision}.nii.gz"
    settings = PredictSettings(
        model=str(scratch / MODEL), image=str(image), output=str(output), batch_size=BATCH_SIZE, engine=engine
    )
    segmenter, outputs = load_segmenter(settings.model, settings), predict.outputs_of(settings)
    if precision != "auto":
        runtime.configure(precision=precision)  # the network is not traced yet

    def one() -> None:
        predict.predict_scan(segmenter, predict.read_scan(image), outputs)

    return {"first scan": timed(one), "each scan": timed(one)}


def our_command(image: Path, scratch: Path, *, engine: str = "keras") -> Seconds:
    """The package's command."""
    command = [sys.executable, "-m", "kits_ml", "predict", "--overwrite", "true", "--image", str(image)]
    command += ["--model", str(scratch / MODEL), "--output", str(scratch / "command.nii.gz")]
    command += ["--batch_size", str(BATCH_SIZE), "--engine", engine]
    return {"command": timed(lambda: subprocess.run(command, check=True, capture_output=True))}


def monai(image: Path, scratch: Path, *, channels_last: bool = False, bfloat16: bool = False) -> Seconds:
    """MONAI's pipeline, in a process that goes on."""
    import torch
    from monai_pipeline import MonaiPipeline

    from kits_ml.config import PreprocessingSettings

    pipeline = MonaiPipeline(
        torch.load(scratch / TWIN, weights_only=False),
        PreprocessingSettings(image_size=IMAGE_SIZE),
        output=scratch / f"monai-{'bfloat16' if bfloat16 else 'float32'}.nii.gz",
        batch_size=BATCH_SIZE,
        channels_last=channels_last,
        bfloat16=bfloat16,
    )
    return {"first scan": timed(lambda: pipeline(image)), "each scan": timed(lambda: pipeline(image))}


def monai_command(image: Path, scratch: Path, *, bfloat16: bool = False) -> Seconds:
    """MONAI's pipeline, channels last, as a script."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "import pathlib, torch\nfrom monai_pipeline import MonaiPipeline\n"
    script += "from kits_ml.config import PreprocessingSettings\n"
    script += f"scratch = pathlib.Path({str(scratch)!r})\n"
    script += "MonaiPipeline(torch.load(scratch / 'twin.pt', weights_only=False), PreprocessingSettings(), "
    script += f"output=scratch / 'command.nii.gz', batch_size={BATCH_SIZE}, channels_last=True, bfloat16={bfloat16})"
    script += f"({str(image)!r})\n"
    command = [sys.executable, "-W", "ignore", "-c", script]
    return {"command": timed(lambda: subprocess.run(command, check=True, capture_output=True))}


WAYS: dict[str, Callable[[Path, Path], Seconds]] = {
    "floor": floor,
    "kits_ml": ours,
    "kits_ml, command": our_command,
    "kits_ml, float32 beside bfloat16": lambda image, scratch: ours(image, scratch, precision="float32"),
    "kits_ml, openvino": lambda image, scratch: ours(image, scratch, engine="openvino"),
    "kits_ml, openvino, command": lambda image, scratch: our_command(image, scratch, engine="openvino"),
    "MONAI, float32": monai,
    LAST_FLOAT32: lambda image, scratch: monai(image, scratch, channels_last=True),
    f"{LAST_FLOAT32}, command": monai_command,
    LAST_BFLOAT16: lambda image, scratch: monai(image, scratch, channels_last=True, bfloat16=True),
    f"{LAST_BFLOAT16}, command": lambda image, scratch: monai_command(image, scratch, bfloat16=True),
}


def in_a_process(way: str, image: Path, scratch: Path) -> Seconds:
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--way",
        way,
        "--image",
        str(image),
        "--scratch",
        str(scratch),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[str, list[Seconds]], scratch: Path) -> list[str]:
    """The page's tables and what they say."""

    def median(way: str, name: str) -> float | None:
        values = [one[name] for one in found[way] if name in one]
        return statistics.median(values) if values else None

    unpacking, forward = median("floor", "unpacking"), median("floor", "forward")
    least = unpacking + forward
    ways = [way for way in found if way != "floor" and "command" not in way]
    each = {way: median(way, "each scan") for way in ways}
    commands = {way: median(f"{way}, command", "command") for way in ways if f"{way}, command" in found}
    theirs = {way: seconds for way, seconds in each.items() if way.startswith("MONAI")}
    rows = ["| | first scan, s | each scan, s | command, s |", "|---|--:|--:|--:|"]
    rows.append(f"| floor: unpacking {unpacking:.2f} s, forward passes {forward:.2f} s | | {least:.2f} | |")
    for way in ways:
        cells = [median(way, "first scan"), each[way], commands.get(way)]
        rows.append(f"| {way} | " + " | ".join("" if cell is None else f"{cell:.2f}" for cell in cells) + " |")
    fastest = min((way for way in theirs if way in commands), key=theirs.get)
    in_float32 = each.get("kits_ml, float32 beside bfloat16", each["kits_ml"])
    has_bfloat16 = any("bfloat16" in way for way in found)
    absent = [] if has_bfloat16 else ["- bfloat16 is missing: this processor has no unit for it."]
    return [
        *rows,
        "",
        *(
            f"- {way}: each scan takes **{each[way] / least:.2f}** times the floor; a command, with its process, "
            f"takes **{commands[way] - each[way]:.1f} s** more than that."
            for way in ("kits_ml", "kits_ml, openvino")
        ),
        f"- MONAI's pipeline takes **{theirs[LAST_FLOAT32] / in_float32:.2f}** times as long as ours, both in "
        f"float32, channels last; at its fastest ({fastest}) {theirs[fastest] / each['kits_ml']:.2f} times as long "
        f"as `kits_ml`, and as a command {commands[fastest] / commands['kits_ml']:.2f} times.",
        f"- Both label maps agree on {agreement(scratch):.4%} of the voxels.",
        *absent,
    ]


def agreement(scratch: Path) -> float:
    """The share of voxels with the same label, both networks in float32."""
    import nibabel

    ours = scratch / "ours-keras-float32.nii.gz"
    names = (ours if ours.exists() else scratch / "ours-keras-auto.nii.gz"), scratch / "monai-float32.nii.gz"
    ours, theirs = (np.asarray(nibabel.load(name).dataobj) for name in names)
    return float((ours == theirs).mean())


def phantom_image(folder: Path) -> Path:
    from kits_ml.data import phantom, volumes

    case = phantom.generate_case(seed=0, index=0, num_slices=NUM_PHANTOM_SLICES)
    path = folder / "imaging.nii.gz"
    volumes.write_image(path, case.image, volumes.kits_geometry(case.image.shape, case.spacing_mm))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a NIfTI file; default: a phantom")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.way:
        run = make_models if options.way == MODEL else WAYS[options.way]
        print(json.dumps(run(options.image, options.scratch)))
        return
    about = machine.of_page(PACKAGES)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        image = (options.image or phantom_image(scratch)).absolute()
        in_a_process(MODEL, image, scratch)
        from kits_ml import runtime

        ways = [way for way in WAYS if runtime.has_bfloat16() or "bfloat16" not in way]
        found: dict[str, list[Seconds]] = {way: [] for way in ways}
        for number in range(options.rounds):
            for way in ways:
                found[way].append(in_a_process(way, image, scratch))
                print(number, way, found[way][-1], file=sys.stderr, flush=True)
        lines = report(found, scratch)
    scan = f"`{options.image.parent.name}/{options.image.name}`" if options.image else "A phantom of 129 slices"
    head = f"{scan}, U-Net with {FILTERS} filters at {IMAGE_SIZE}x{IMAGE_SIZE}, {options.rounds} rounds. {about}."
    text = "\n".join(["# Predicting a scan", "", *__doc__.splitlines()[2:], "", head, "", *lines]) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

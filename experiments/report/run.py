"""The student report's 0.989, reproduced and explained: one command, in stages that are not done twice.

    python experiments/report/run.py --data $KITS_ML_REAL_DATA      about two and a half hours on two old cores
    python experiments/report/run.py --phantom                      minutes, without any data

Each stage writes `OUTPUT/stages/NAME.json` when it is done; the same command goes on after an interruption, also in
the midst of a training. `--only` runs single stages, and what they need; `--seeds 0,1,2` mends one fault after the
other three times over.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

from plan import FOLD, Plan, given_settings, phantom_plan, real_plan
from stages import Results, Stage, read_records, run_stages

from kits_ml import runtime
from kits_ml.data.partial import sha256_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with kits-thin, ircadb and kits19-fingerprint.csv")
    source.add_argument("--phantom", action="store_true", help="synthetic cases alone")
    parser.add_argument("--output", type=Path, help="data/report, or data/report-phantom")
    parser.add_argument("--only", default="", help="these stages and what they need, such as exact,labels")
    parser.add_argument("--seeds", default="0", help="of the series of mended faults, from 0 on")
    parser.add_argument("--num_threads", type=int, default=0)
    parser.add_argument("--num_workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runtime.set_environment()
    seeds = tuple(map(int, options.seeds.split(",")))
    size = {"seeds": seeds, "num_threads": options.num_threads, "num_workers": options.num_workers}
    if options.phantom:
        plan = phantom_plan(options.output or Path("data/report-phantom"), **size)
    else:
        plan = real_plan(options.data, options.output or Path("data/report"), **size)
    only = [name for name in options.only.split(",") if name]
    say = partial(print, flush=True)
    run_stages(make_stages(plan), plan.output / "stages", only=only, say=say)
    say(f"essay: {write(plan)}")


def write(plan: Plan) -> Path:
    """Writes the essay from the stages that are done; that of real slices is published beside this file too."""
    import essay

    return essay.write_essay(
        read_records(make_stages(plan), plan.output / "stages"),
        plan.output,
        phantom=plan.phantom,
        are_real=plan.thin is not None,
        publish=Path(__file__).parent if plan.thin else None,
    )


def make_stages(plan: Plan) -> list[Stage]:
    """All stages of a plan, in order."""
    return [*_exact_stages(plan), *_preparation_stages(plan), *_leakage_stages(plan), *_mending_stages(plan)]


def _exact_stages(plan: Plan) -> list[Stage]:
    import exact
    import readings

    given = given_settings(plan)
    stages = [
        Stage(
            name="phantom",
            title=f"{plan.num_phantoms} synthetic patients",
            run=lambda _: exact.make_phantom(plan),
            settings={"num_cases": plan.num_phantoms},
        ),
        Stage(
            name="prepare",
            title=f"the report's chain over {plan.data_name}",
            run=lambda _: exact.prepare_exact(plan),
            settings={"cases": plan.cases.name, **given},
            needs=() if plan.thin else ("phantom",),
        ),
        Stage(
            name="exact",
            title="the report's training",
            run=lambda _: exact.train_exact(plan, checkpoints=checkpoints_of(plan, "exact", given)),
            settings=given,
            needs=("prepare",),
        ),
        Stage(
            name="readings",
            title="what MeanIoU reads",
            run=lambda _: exact.read_exact(plan),
            needs=("exact",),
        ),
    ]
    if plan.fingerprint:
        fingerprint = plan.fingerprint
        rule = Stage(
            name="rule",
            title="the report's rule",
            run=lambda _: readings.read_rule(fingerprint),
            settings={"fingerprint": sha256_of(fingerprint)},
        )
        stages.append(rule)
    return stages


def _preparation_stages(plan: Plan) -> list[Stage]:
    import preparation

    from kits_ml.config import PreprocessingSettings

    full = PreprocessingSettings()
    volumes = [("real", plan.volume)] if plan.volume else []
    return [
        Stage(
            name="labels",
            title="labels resized by the mean of their numbers",
            run=lambda _: preparation.measure_labels(plan.cases, settings=full),
            settings=full.to_dict(),
            needs=("prepare",),
        ),
        Stage(
            name="grey",
            title="gamma without clipping",
            run=lambda _: preparation.measure_grey([*volumes, ("phantom", plan.phantom)], settings=full),
            settings={**full.to_dict(), "sources": {name: _images(folder) for name, folder in volumes}},
            needs=("phantom",),
        ),
    ]


def _images(folder: Path) -> dict[str, str]:
    """Digests of a folder's scans, by case."""
    return {path.parent.name: sha256_of(path) for path in sorted(folder.glob("case_*/imaging.nii.gz"))}


def _leakage_stages(plan: Plan) -> list[Stage]:
    import leakage

    def stage(source: str, folder: Path, size: Mapping[str, Any], needs: str) -> Stage:
        options = {"cache": plan.output / "slices", "size": size, "num_threads": plan.num_threads, "seed": 0}
        return Stage(
            name=f"leakage_{source}",
            title=f"two small trainings on the {source} slices",
            run=lambda _: leakage.measure_leak(folder, **options),
            settings=dict(size),
            needs=(needs,),
        )

    stages = [stage("phantom", plan.phantom, plan.small_phantom, "phantom")]
    return [*stages, stage("thin", plan.thin, plan.small, "prepare")] if plan.thin else stages


def _mending_stages(plan: Plan) -> list[Stage]:
    """A stage a training, so that a kill costs no more than one."""
    import mending
    from steps import TRAINED_STEPS, Step, stage_name

    def stage(source: str, folder: Path, size: Mapping[str, Any], needs: str, step: Step, seed: int) -> Stage:
        seeded = {**size, "seed": seed} if seed else size

        def run(_: Results) -> Mapping[str, Any]:
            names = [path.name for path in folder.glob("case_*")]
            parts = mending.Parts.read(FOLD) if source == "thin" else mending.Parts.of_names(names)
            options = {"cache": plan.output / "slices", "size": seeded, "num_threads": plan.num_threads}
            return mending.train_step(step, folder, parts, **options)

        return Stage(
            name=stage_name(source, step, seed=seed),
            title=f"small training on the {source} slices, {step.title}, seed {seed}",
            run=run,
            settings={**seeded, **step.changes, "preparation": step.preparation, "by_patient": step.by_patient},
            needs=(needs,),
        )

    sources = [("phantom", plan.phantom, plan.small_phantom, "phantom")]
    sources += [("thin", plan.thin, plan.small, "prepare")] if plan.thin else []
    return [stage(*source, step, seed) for source in sources for seed in plan.seeds for step in TRAINED_STEPS]


def checkpoints_of(plan: Plan, name: str, settings: Mapping[str, Any]) -> Path:
    """A folder for the checkpoints of one training with these settings."""
    identity = Stage(name=name, title="", run=dict, settings=settings).identity({})
    return plan.output / "checkpoints" / f"{name}-{identity}"


if __name__ == "__main__":
    main()

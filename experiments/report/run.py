"""The student report's 0.989, reproduced and explained: one command, in stages that are not done twice.

    python experiments/report/run.py --data $KITS_ML_REAL_DATA      about two and a half hours on two old cores
    python experiments/report/run.py --phantom                      minutes, without any data

Each stage writes `OUTPUT/stages/NAME.json` when it is done; the same command goes on after an interruption, also in
the midst of a training. `--only` runs single stages, and what they need.
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

from plan import Plan, given_settings, phantom_plan, real_plan
from stages import Stage, run_stages

from kits_ml import runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with kits-thin, ircadb and kits19-fingerprint.csv")
    source.add_argument("--phantom", action="store_true", help="synthetic cases alone")
    parser.add_argument("--output", type=Path, help="data/report, or data/report-phantom")
    parser.add_argument("--only", default="", help="these stages and what they need, such as exact,labels")
    parser.add_argument("--num_threads", type=int, default=0)
    parser.add_argument("--num_workers", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runtime.set_environment()
    size = {"num_threads": options.num_threads, "num_workers": options.num_workers}
    if options.phantom:
        plan = phantom_plan(options.output or Path("data/report-phantom"), **size)
    else:
        plan = real_plan(options.data, options.output or Path("data/report"), **size)
    only = [name for name in options.only.split(",") if name]
    run_stages(make_stages(plan), plan.output / "stages", only=only, say=partial(print, flush=True))


def make_stages(plan: Plan) -> list[Stage]:
    """All stages of a plan, in order."""
    import exact

    phantom = {"num_cases": plan.num_phantoms}
    given = given_settings(plan)
    return [
        Stage(
            name="phantom",
            title=f"{plan.num_phantoms} synthetic patients",
            run=lambda _: exact.make_phantom(plan),
            settings=phantom,
        ),
        Stage(
            name="prepare",
            title=f"the report's chain over {plan.data_name}",
            run=lambda _: exact.prepare_exact(plan),
            settings={"cases": str(plan.cases), **given},
            needs=() if plan.thin else ("phantom",),
        ),
        Stage(
            name="exact",
            title="the report's training",
            run=lambda _: exact.train_exact(plan, checkpoints=checkpoints_of(plan, "exact", given)),
            settings=given,
            needs=("prepare",),
        ),
    ]


def checkpoints_of(plan: Plan, name: str, settings: Mapping[str, Any]) -> Path:
    """A folder for the checkpoints of one training with these settings."""
    identity = Stage(name=name, title="", run=dict, settings=settings).identity({})
    return plan.output / "checkpoints" / f"{name}-{identity}"


if __name__ == "__main__":
    main()

"""`mlflow run` as it stands in the README makes an environment with conda."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.conftest import copy_project, project_environment, write_phantoms


def test_the_verbatim_command_picks_conda(tmp_path):
    """A stub `conda` writes down its calls, and `activate` activates the environment that runs the tests."""
    project = tmp_path / "project"
    project.mkdir()
    copy_project(project)
    write_phantoms(project / "cases", 3, num_slices=10, size=96)
    log = tmp_path / "calls"
    _script(
        tmp_path / "conda",
        f'echo "conda $*" >> {log}\nif [ "$2" = list ]; then echo \'{{"envs": []}}\'; fi\n',
    )
    _script(tmp_path / "activate", f'echo "activate $*" >> {log}\nexport PATH={Path(sys.executable).parent}:$PATH\n')
    environment = project_environment(PATH=f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = [sys.executable, "-m", "mlflow", "run", ".", "-e", "prepare"]
    command += ["-P", "data=cases", "-P", "image_size=32", "-P", "num_workers=1"]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = log.read_text().splitlines()
    (created,) = [call for call in calls if call.startswith("conda env create -n mlflow-")]
    assert created.endswith(f"--file {project / 'conda.yaml'}")
    assert calls[-1].startswith("activate mlflow-")


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

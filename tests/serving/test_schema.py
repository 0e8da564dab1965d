"""What the service's schema says is what it does: requests made from the schema, answers held to it."""

import os
import subprocess
import sys


def test_the_service_keeps_its_schema(served, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}openapi.json", "--max-examples=12"]
    # any bytes fit the schema, for none can say what a scan is: most of them are refused, as they should be
    command += ["--exclude-checks=positive_data_acceptance", "--phases=examples,coverage,fuzzing", "--seed=0"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 selected / 5 total" in done.stdout

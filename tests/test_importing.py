"""Keras' import: quick, and whole again for whoever comes later."""

import gc
import subprocess
import sys

from kits_ml.importing import quick_import


def _printed_by(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_a_process_that_only_predicts_leaves_the_extras_out():
    code = """
import gc, sys
from kits_ml import importing, runtime
importing.only_predict()
runtime.configure()
import keras
extras = {"sklearn", "pandas", "matplotlib"}
print([name for name in sys.modules if name.split(".")[0] in extras], gc.isenabled(), gc.get_freeze_count() > 100_000)
import matplotlib.pyplot, pandas, sklearn  # whoever wants them has them
"""
    assert _printed_by(code) == "[] True True\n"


def test_other_processes_have_the_extras_and_a_collector_that_sees_everything():
    code = """
import gc, sys
from kits_ml import runtime
runtime.configure()
print({"sklearn", "pandas"} <= set(sys.modules), gc.isenabled(), gc.get_freeze_count())
"""
    assert _printed_by(code) == "True True 0\n"


def test_whoever_had_the_collector_off_keeps_it_off():
    gc.disable()
    try:
        with quick_import():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

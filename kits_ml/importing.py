"""How Keras is imported: without a look for garbage, and where a process only predicts without extras."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

_EXTRAS = ("matplotlib", "matplotlib.pyplot", "pandas", "sklearn")
_only_predicts = False


def only_predict() -> None:
    """Lets Keras start without what it takes in only because it is installed: two seconds of imports.

    For a process of our own that does nothing else: Keras' plots, its wrappers for scikit-learn and data frames as
    its input do not work there, and the garbage collector passes over what is there once Keras is. Has no effect once
    keras is imported.
    """
    global _only_predicts
    _only_predicts = True


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """Where keras is imported. Garbage is not looked for meanwhile, which takes a seventh of the time."""
    absent = [name for name in _EXTRAS if _only_predicts and name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
        if _only_predicts:
            gc.freeze()
        if collects:
            gc.enable()

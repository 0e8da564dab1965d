"""What a measurement was made on: the line that every result page of this folder has."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path


def describe(packages: Sequence[str]) -> str:
    """The processor, the cores, how busy others keep them, versions, and the options given.

    Packages that are not there are left out, and so are options that name files.
    """
    about = f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {versions(packages)}"
    options = [f"{name} {value}" for name, value in pairwise(sys.argv) if name.startswith("--") and "/" not in value]
    return about + (f"; with `{' '.join(options)}`" if options else "")


def processor() -> str:
    """Its name as Linux tells it."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return model


def versions(packages: Sequence[str]) -> str:
    """Python's, and those of the packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)

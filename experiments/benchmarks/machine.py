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
    """The processor, the cores, how busy others keep them, and versions; packages that are not there are left out."""
    return f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {versions(packages)}"


def of_page(packages: Sequence[str]) -> str:
    """The same, and the numbers among the options that were given: what the command that a page shows lacks."""
    given = [f"{name} {value}" for name, value in pairwise(sys.argv) if name.startswith("--") and _is_number(value)]
    return describe(packages) + (f"; with `{' '.join(given)}`" if given else "")


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


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

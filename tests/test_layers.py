"""A file imports only from its own level and below; the levels are DESIGN's."""

import ast
from pathlib import Path

import kits_ml

LEVELS = {
    "errors": 0,
    "labels": 0,
    "config": 0,
    "settings": 0,
    "trust": 0,
    "importing": 0,
    "runtime": 0,
    "tensorflow_backend": 0,
    "files": 0,
    "page": 0,
    "workers": 0,
    "options": 0,
    "data": 1,
    "models": 1,
    "scores": 1,
    "surfaces": 1,
    "figures": 1,
    "data_figures": 1,
    "comparison_figures": 1,
    "scan_figures": 1,
    "training": 2,
    "inference": 2,
    "evaluation": 3,
    "tracking": 4,
    "workflows": 5,
    "studies": 6,
    "serving": 6,
    "terminal": 6,
    "cli": 7,
    "__main__": 8,
    "__init__": 8,
}
#: Third-party packages that only some rooms may import.
ONLY_IN = {
    "mlflow": {"tracking", "workflows"},
    "optuna": {"studies"},
    "tensorflow": {"runtime", "tensorflow_backend"},
    "jax": {"runtime"},
    "torch": {"runtime"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
    "click": {"cli", "options", "terminal"},
}
PACKAGE = Path(kits_ml.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Full names of imported modules, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_has_a_level():
    assert {_room(path) for path in SOURCES} <= set(LEVELS)


def test_imports_point_one_way():
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in SOURCES
        for name in _imports(path)
        if name.startswith("kits_ml.")
        and LEVELS.get(name.split(".")[1], 8 if _room(path) == "__init__" else 0) > LEVELS[_room(path)]
    ]
    assert not upward


def test_some_packages_stay_in_their_room():
    strays = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in SOURCES
        for name in _imports(path)
        if _room(path) not in ONLY_IN.get(name.split(".")[0], {_room(path)})
    ]
    assert not strays


def test_rooms_stay_small():
    large = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in large.items() if lines > 350} == {}


def test_no_room_without_a_name():
    assert not {path.name for path in SOURCES} & {"utils.py", "helpers.py", "common.py", "misc.py"}

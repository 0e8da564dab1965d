"""The commit that is noted is that of the package, not of whatever project it lies in."""

import subprocess
from pathlib import Path

import pytest

from kits_ml.tracking import runs


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path) -> Path:
    """A checkout with a package of its own, and the same one in a folder that it ignores."""
    for folder in ("package", ".venv/package"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "runs.py").write_text("")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_a_package_of_the_checkout(project, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(project / "package" / "runs.py"))
    commit = _git(project, "rev-parse", "HEAD")
    assert runs.git_commit() == commit
    (project / "package" / "runs.py").write_text("changed = True\n")
    assert runs.git_commit() == f"{commit}+changes"


def test_a_package_that_is_installed_inside_another_project(project, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(project / ".venv" / "package" / "runs.py"))
    assert runs.git_commit() is None


def test_a_package_outside_any_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "runs.py"))
    assert runs.git_commit() is None

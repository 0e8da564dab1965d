"""Outputs appear together or not at all, and what was there is not lost."""

import errno

import pytest

from kits_ml.errors import InputError
from kits_ml.workflows.outputs import Outputs, appearing_together


def _content(folder) -> dict[str, str]:
    """All that is below a folder, folders too."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "" for path in folder.rglob("*")
    }


def _fail(hidden: Outputs, error: BaseException) -> None:
    _write(hidden, "output", "page")
    raise error


@pytest.fixture
def outputs(tmp_path) -> Outputs:
    """In folders of which one is there, and one output as well."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.nii.gz").write_text("old")
    return Outputs(
        output=tmp_path / "there/a.nii.gz", report=tmp_path / "new/deep/a.json", page=tmp_path / "new/a.html"
    )


def _write(hidden: Outputs, *names: str) -> None:
    for name in names:
        hidden.paths()[name].write_text(f"new {name}")


def test_in_the_end_all_are_there(outputs, tmp_path):
    with appearing_together(outputs) as hidden:
        _write(hidden, "output", "report", "page")
        assert [path.name[-8:] for path in hidden.paths().values()] == [".a.nii.gz"[-8:], "l.a.json", "l.a.html"]
        assert outputs.output.read_text() == "old"
        assert not outputs.report.exists()
    assert _content(tmp_path) == {
        **{"there": "", "there/a.nii.gz": "new output"},
        **{"new": "", "new/a.html": "new page", "new/deep": "", "new/deep/a.json": "new report"},
    }


@pytest.mark.parametrize("error", [InputError("a"), TypeError("a"), KeyboardInterrupt()])
def test_after_an_error_nothing_is_new(outputs, tmp_path, error):
    before = _content(tmp_path)
    with pytest.raises(type(error)), appearing_together(outputs) as hidden:
        _fail(hidden, error)
    assert _content(tmp_path) == before


def test_what_was_replaced_comes_back(outputs, tmp_path):
    """The report, which was never written, cannot take its place after the page has taken its own."""
    (tmp_path / "new").mkdir()
    outputs.page.write_text("old page")
    before = _content(tmp_path)
    with pytest.raises(FileNotFoundError), appearing_together(outputs) as hidden:
        _write(hidden, "output", "page")
    assert _content(tmp_path) == before


def test_errors_name_the_outputs(outputs, tmp_path):
    with pytest.raises(InputError, match=r"^\S*there/a\.nii\.gz: read back$"), appearing_together(outputs) as hidden:
        raise InputError(f"{hidden.output}: read back")
    with pytest.raises(OSError, match="No space left") as caught, appearing_together(outputs):
        raise OSError(errno.ENOSPC, "No space left")
    assert caught.value.filename == str(tmp_path / "there")


def test_a_folder_is_no_output(outputs, tmp_path):
    outputs.report.mkdir(parents=True)
    expected = pytest.raises(InputError, match=r"a\.json: a folder, expected a name for a file")
    with expected, appearing_together(outputs):
        pytest.fail("begun in vain")
    assert outputs.output.read_text() == "old"

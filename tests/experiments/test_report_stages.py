"""A stage is done once, and again where its settings, what it needs or its file are not what they were."""

import json
import math

import pytest
from stages import Stage, read_record, run_stages

from kits_ml.errors import InputError


@pytest.fixture
def calls():
    return []


def _stages(calls, *, steps=5, digest="data", version=1):
    """Prepare, then train on it; beside them a stage that needs nothing."""

    def run(name, result):
        def stage(results):
            calls.append((name, sorted(results)))
            return result

        return stage

    return [
        Stage(name="prepare", title="", run=run("prepare", {"digest": digest, "note": len(calls)})),
        Stage(
            name="train",
            title="",
            run=run("train", {"dice": math.nan, "pairs": [(1, 2)]}),
            settings={"steps": steps},
            needs=("prepare",),
            version=version,
        ),
        Stage(name="aside", title="", run=run("aside", {})),
    ]


def _run(calls, folder, **options):
    only = options.pop("only", ())
    calls.clear()
    found = run_stages(_stages(calls, **options), folder, only=only, say=lambda _: None)
    return found, [name for name, _ in calls]


def test_what_is_done_is_not_done_again(calls, tmp_path):
    first, names = _run(calls, tmp_path)
    assert names == ["prepare", "train", "aside"]
    assert ("train", ["prepare"]) in calls  # it sees what it needs and nothing else
    again, names = _run(calls, tmp_path)
    assert names == []
    assert again == first


def test_results_are_what_json_gives_back(calls, tmp_path):
    first, _ = _run(calls, tmp_path)
    assert first["train"] == {"dice": None, "pairs": [[1, 2]]}
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["settings"] == {"steps": 5}
    assert record["result"] == first["train"]
    assert record["machine"]


def test_other_settings_are_another_stage(calls, tmp_path):
    _run(calls, tmp_path)
    assert _run(calls, tmp_path, steps=6)[1] == ["train"]
    assert _run(calls, tmp_path, steps=6, version=2)[1] == ["train"]


def test_other_data_are_another_training(calls, tmp_path):
    _run(calls, tmp_path)
    (tmp_path / "prepare.json").unlink()
    assert _run(calls, tmp_path, digest="data")[1] == ["prepare"]  # its note is another, its digest is not
    (tmp_path / "prepare.json").unlink()
    assert _run(calls, tmp_path, digest="other")[1] == ["prepare", "train"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identity": "0123456789abcdef"}', "\x00"])
def test_a_broken_file_is_made_anew(calls, tmp_path, content):
    first, _ = _run(calls, tmp_path)
    (tmp_path / "train.json").write_text(content)
    assert read_record(tmp_path / "train.json") is None
    again, names = _run(calls, tmp_path)
    assert names == ["train"]
    assert again == first


def test_single_stages_bring_what_they_need(calls, tmp_path):
    assert _run(calls, tmp_path, only=["train"])[1] == ["prepare", "train"]
    assert _run(calls, tmp_path, only=["aside"])[1] == ["aside"]
    with pytest.raises(InputError, match="no stage 'trian'; did you mean 'train'"):
        _run(calls, tmp_path, only=["trian"])


def test_a_stage_that_fails_leaves_no_file_and_keeps_the_others(calls, tmp_path):
    def fail(_):
        raise RuntimeError("stopped")

    stages = [*_stages(calls), Stage(name="fails", title="", run=fail)]
    with pytest.raises(RuntimeError, match="stopped"):
        run_stages(stages, tmp_path, say=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside.json", "prepare.json", "train.json"]


def test_a_line_a_stage(calls, tmp_path):
    said = []
    run_stages(_stages(calls), tmp_path, say=said.append)
    assert [line.split(":")[0] for line in said] == [
        *("[1/3] prepare", "[1/3] prepare", "[2/3] train", "[2/3] train", "[3/3] aside", "[3/3] aside")
    ]
    said.clear()
    run_stages(_stages(calls), tmp_path, say=said.append)
    assert len(said) == 3
    assert all("is there" in line for line in said)

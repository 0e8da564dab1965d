"""The report's experiment from end to end, as small as it goes."""

import json

import pytest
import run
from plan import Plan, phantom_plan, real_plan
from stages import run_stages

TINY = {"image_size": 32, "base_filters": 2, "depth": 2, "batch_size": 2, "epochs": 1, "steps_per_epoch": 2}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_stage_comes_after_what_it_needs(tmp_path, seeds):
    (tmp_path / "ircadb" / "case_0").mkdir(parents=True)
    (tmp_path / "ircadb" / "case_0" / "imaging.nii.gz").write_bytes(b"a scan")
    (tmp_path / "kits19-fingerprint.csv").write_bytes(b"a table")
    for plan in (phantom_plan(tmp_path, seeds=seeds), real_plan(tmp_path, tmp_path, seeds=seeds)):
        stages = run.make_stages(plan)
        names = [stage.name for stage in stages]
        assert len(set(names)) == len(names)
        for number, stage in enumerate(stages):
            assert set(stage.needs) <= set(names[:number]), stage.name
    assert {"rule", "leakage_thin", "mending_thin_sampling"} <= set(names)
    assert sum(name.startswith("mending_thin") for name in names) == 6 * len(seeds)


@pytest.mark.slow
def test_all_of_it_in_little_and_not_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan(output=tmp_path / "report", num_phantoms=6, exact=TINY, small=TINY, small_phantom=TINY, num_threads=1)
    said = []
    results = run_stages(run.make_stages(plan), plan.output / "stages", say=said.append)
    page = run.write(plan)
    html = page.read_text()
    assert "Not measured yet" not in html
    assert results["readings"]["num_cases"] == results["prepare"]["parts"]["test"]["num_cases"]
    assert f"{results['readings']['ways']['nothing']['as_reported']:.4f}" in html
    assert [path.suffix for path in (plan.output / "pictures").iterdir()]
    said.clear()
    again = run_stages(run.make_stages(plan), plan.output / "stages", say=said.append)
    assert all("is there" in line for line in said)
    assert json.dumps(again, sort_keys=True) == json.dumps(results, sort_keys=True)

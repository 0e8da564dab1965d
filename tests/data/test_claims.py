"""Who works on what is said by locks: process numbers mean nothing between containers."""

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kits_ml.data import claims


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def _left_of(name: str, store: Path) -> Path:
    folder = store / f".{name}.12345.partial"
    (folder / "images").mkdir(parents=True)
    return folder


def test_a_claim_clears_what_a_killed_process_left_of_this_case_alone(store):
    left, of_another = _left_of("case_1", store), _left_of("case_1.a", store)
    with claims.claim(store, "case_1") as scratch:
        assert scratch.parent == store
        assert not list(scratch.iterdir())
        assert not left.exists()
    assert of_another.exists()
    assert not scratch.exists()


def test_a_second_claim_of_a_case_waits_and_another_case_does_not(store):
    order = []

    def second() -> None:
        with claims.claim(store, "case_1"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with claims.claim(store, "case_1"):
            waiting = pool.submit(second)
            with claims.claim(store, "case_2"):
                order.append("another case")
            time.sleep(0.2)
            order.append("first")
        waiting.result(timeout=30)
    assert order == ["another case", "first", "second"]


def test_leftovers_go_and_what_is_claimed_stays(store):
    left = _left_of("case_1", store)
    file = store / ".index.csv.12345.partial"  # as versions before claims wrote it
    file.touch()
    with claims.claim(store, "case_2") as scratch:
        claims.remove_leftovers(store)
        assert scratch.exists()
    assert not left.exists()
    assert not file.exists()


def test_no_store_has_no_leftovers(store):
    claims.remove_leftovers(store)
    assert not store.exists()


def test_a_full_disk_names_the_store(store):
    with pytest.raises(OSError, match="No space left") as caught, claims.claim(store, "case_1"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(store)
    assert not list(store.glob(".*.partial"))


def test_hidden_files_of_others_stay_where_names_are_given(store):
    left, other = _left_of("case_1", store), store / ".fingerprint.csv.12345.partial"
    other.touch()
    claims.remove_leftovers(store, "case_*")
    assert not left.exists()
    assert other.exists()


def test_whoever_looks_into_the_folder_sees_no_locks(store):
    with claims.claim(store, "case_1"):
        assert [path for path in store.iterdir() if not path.name.startswith(".")] == []

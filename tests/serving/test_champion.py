"""The look-out for a new version: it loads each once, tries again what failed, and keeps what works."""

import pytest

from kits_ml.errors import InputError
from kits_ml.serving.champion import Champion, Model, version_name
from tests.serving.conftest import Bright
from tests.waiting import wait_until


class _Registry:
    """Finds what it is told; loading an address in `broken` fails."""

    def __init__(self):
        self.address, self.broken, self.loaded = "models:/net/1", set(), []

    def find(self) -> str:
        if self.address is None:
            raise InputError("the server does not answer")
        return self.address

    def load(self, address: str) -> Model:
        self.loaded.append(address)
        if address in self.broken:
            raise OSError("no such file")
        return Model(version=version_name(address), segmenter=Bright())

    def champion(self, poll_seconds: float = 0.0) -> Champion:
        return Champion(find=self.find, load=self.load, poll_seconds=poll_seconds)


def test_the_look_out_finds_a_new_version_by_itself():
    registry = _Registry()
    champion = registry.champion(poll_seconds=0.01)
    champion.start()
    wait_until(lambda: champion.current is not None)
    registry.address = "models:/net/2"
    wait_until(lambda: champion.current.version == "net/2")
    champion.stop()
    assert registry.loaded == ["models:/net/1", "models:/net/2"]


def test_a_first_model_that_fails_is_tried_again(monkeypatch):
    registry = _Registry()
    registry.broken = {"models:/net/1"}
    champion = registry.champion(poll_seconds=0.01)
    champion.start()
    wait_until(lambda: len(registry.loaded) >= 2)
    assert champion.current is None
    registry.broken.clear()
    wait_until(lambda: champion.current is not None)
    champion.stop()


@pytest.mark.parametrize("address", [None, "models:/net/2"])
def test_what_works_is_kept(address):
    registry = _Registry()
    champion = registry.champion()
    assert champion.refresh()
    before = champion.current
    registry.address, registry.broken = address, {"models:/net/2"}
    assert not champion.refresh()
    assert champion.current is before


def test_a_model_that_cannot_segment_does_not_take_over(monkeypatch):
    registry = _Registry()
    champion = registry.champion()
    champion.refresh()
    registry.address = "models:/net/2"
    monkeypatch.setattr(Bright, "segment", lambda self, image, **options: 1 / 0)
    assert not champion.refresh()
    assert champion.current.version == "net/1"


@pytest.mark.parametrize(
    ("address", "version"),
    [
        ("models:/kits-unet/3", "kits-unet/3"),
        ("runs:/0123/model", "0123/model"),
        ("/home/me/models/mine/", "mine"),
        ("mine", "mine"),
        ("models:/net/1,models:/net/2", "net/1, net/2"),
        ("größer", "gr??er"),  # a header takes ASCII
    ],
)
def test_versions_are_told_without_the_servers_folders(address, version):
    assert version_name(address) == version

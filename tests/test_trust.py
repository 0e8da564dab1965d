"""What is logged as reported decides nothing."""

import pytest

from kits_ml.errors import InputError
from kits_ml.trust import AS_REPORTED, as_reported, is_trustworthy, require_trustworthy


def test_the_name_says_it():
    assert as_reported("val_mean_iou") == f"{AS_REPORTED}val_mean_iou" == "as_reported/val_mean_iou"


@pytest.mark.parametrize(
    "name",
    [as_reported("mean_iou"), "val_as_reported/mean_iou", "best_as_reported_mean_iou", "As_Reported/mean_iou"],
)
def test_refused(name):
    assert not is_trustworthy(name)
    with pytest.raises(InputError, match=rf"{name}: found a metric as reported, .* expected an honest one to prune"):
        require_trustworthy(name, use="prune trials")
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("name", ["val_foreground_iou", "test_composite_dice", "mean_iou", "reported"])
def test_trusted(name):
    assert is_trustworthy(name)
    assert require_trustworthy(name, use="prune trials") == name

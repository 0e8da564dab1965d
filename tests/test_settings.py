"""Numbers that are none are refused by every setting, in one line."""

import dataclasses
import math
import re
import typing

import pytest
from click.testing import CliRunner

from kits_ml import cli, config
from kits_ml.errors import InputError
from kits_ml.settings import Settings, value_type

SETTINGS = [cls for cls in vars(config).values() if isinstance(cls, type) and issubclass(cls, Settings)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400], ids=["inf", "-inf", "nan", "10**400"])
@pytest.mark.parametrize("cls", SETTINGS)
def test_every_number_with_a_fraction_is_finite(cls, value):
    hints = typing.get_type_hints(cls)
    required = {field.name: "x" for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    for name in cls.names():
        if value_type(hints[name])[0] is float:
            message = re.escape(f"{name}: found {value!r}, expected a finite number")
            with pytest.raises(InputError, match=f"^{message}$"):
                cls(**required, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --clip_norm inf", "clip_norm: found inf, expected a finite number"),
        ("train --learning_rate nan", "learning_rate: found nan, expected a finite number"),
        ("train --learning_rate 0", "learning_rate: found 0, expected more than 0"),
        (
            "predict --image a --output b --training_margin_hu inf",
            "training_margin_hu: found inf, expected a finite number",
        ),
        ("serve --timeout_seconds inf", "timeout_seconds: found inf, expected a finite number"),
    ],
)
def test_the_command_line_gets_one_line(arguments, message):
    result = CliRunner().invoke(cli.main, arguments.split())
    assert result.exit_code == 1
    assert result.output.strip() == f"Error: {message}"

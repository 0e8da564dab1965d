"""A setting has one spelling, one default, and clear errors."""

import dataclasses

import click
import pytest
import yaml
from click.testing import CliRunner

from kits_ml import cli, config
from kits_ml.errors import InputError
from kits_ml.options import takes_settings
from kits_ml.settings import REQUIRED, Settings, setting

SETTINGS = [cls for cls in vars(config).values() if isinstance(cls, type) and issubclass(cls, Settings)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oven(Settings):
    """Bakes."""

    dish: str = setting(REQUIRED, "what is baked")
    heat: float = setting(180.0, "how hot", unit="degrees", minimum=0, maximum=300)
    minutes: int = setting(30, "how long")
    fan: bool = setting(True, "moving air")


@click.group(cls=cli.Commands)
def group():
    pass


@group.command()
@takes_settings(Oven)
def bake(settings):
    click.echo(repr(settings))


def _bake(*arguments: str):
    return CliRunner().invoke(group, ["bake", *arguments])


def test_defaults_and_options():
    assert _bake("--dish", "bread").output.strip() == repr(Oven(dish="bread"))
    found = _bake("--dish", "bread", "--heat", "200", "--fan", "false").output.strip()
    assert found == repr(Oven(dish="bread", heat=200.0, fan=False))


def test_the_file_stands_below_the_command_line(tmp_path):
    (tmp_path / "oven.yaml").write_text(yaml.safe_dump({"dish": "bread", "heat": 99, "minutes": 5}))
    found = _bake("--config", str(tmp_path / "oven.yaml"), "--minutes", "7").output.strip()
    assert found == repr(Oven(dish="bread", heat=99, minutes=7))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dish: bread\nheta: 3", "unknown setting 'heta'; did you mean 'heat'?"),
        ("dish: bread\nzzz: 3", "unknown setting 'zzz'; known: dish, fan, heat, minutes"),
        ("heat: 3", "setting 'dish' is required (what is baked)"),
        ("dish: bread\nheat: 301", "heat: found 301, expected 0 to 300"),
        ("dish: bread\nminutes: 1.5", "minutes: found 1.5, expected a whole number"),
        ("dish: bread\nfan: 1", "fan: found 1, expected true or false"),
        ("- dish", "found list, expected settings as `name: value`"),
        ("{", "not YAML"),
    ],
)
def test_bad_files_get_one_line(content, message, tmp_path):
    (tmp_path / "oven.yaml").write_text(content)
    result = _bake("--config", str(tmp_path / "oven.yaml"))
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_missing_file_gets_one_line(tmp_path):
    result = _bake("--config", str(tmp_path / "none.yaml"))
    assert result.exit_code == 1
    assert "none.yaml: cannot be read (No such file or directory)" in result.output


def test_unknown_options_get_a_suggestion():
    result = CliRunner().invoke(cli.main, ["train", "--learning_rat", "1"])
    assert result.exit_code == 2
    assert "--learning_rate" in result.output


@pytest.mark.parametrize("cls", SETTINGS)
def test_every_setting_has_help_and_a_good_default(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata["help"]
        assert not field.metadata["help"].endswith(".") or field.metadata["help"].endswith("...")
    if all(field.default is not dataclasses.MISSING for field in dataclasses.fields(cls)):
        assert cls.from_mapping(cls().to_dict()) == cls()


def test_settings_are_records():
    settings = Oven(dish="bread")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.heat = 3
    with pytest.raises(InputError):
        dataclasses.replace(settings, heat=-1)


def test_a_commands_own_settings_stand_first():
    shown = CliRunner().invoke(cli.main, ["predict", "--help"]).output
    assert shown.index("--image") < shown.index("--overwrite") < shown.index("--batch_size")

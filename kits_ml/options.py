"""A settings dataclass as command-line options, with a YAML file below the command line in precedence."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from kits_ml.errors import InputError
from kits_ml.settings import Settings, value_type


def takes_settings(cls: type[Settings]) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Decorates a command that takes settings: an option a field, and `--config FILE`.

    Args:
        cls: the settings; the command is called with an instance. Their docstring becomes the command's help.
    """

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(config: str | None, **options: Any) -> None:
            given = {name: value for name, value in options.items() if value is not None}
            from_file = read_config(config) if config else {}
            command(cls.from_mapping({**from_file, **given}, source=config or "command line"))

        run.__doc__ = cls.__doc__
        hints = typing.get_type_hints(cls)
        for field in reversed(_own_first(cls)):
            run = _option(field, hints[field.name])(run)
        return click.option("--config", metavar="FILE", help="YAML file of settings; options given here win")(run)

    return decorate


def _own_first(cls: type[Settings]) -> list[dataclasses.Field]:
    """What a command declares itself before what it shares with others: the order of its help."""
    return sorted(dataclasses.fields(cls), key=lambda field: field.name not in cls.__annotations__)


def read_config(path: str) -> Mapping[str, Any]:
    """Reads a YAML mapping of settings.

    Raises:
        InputError: no such file, no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of settings") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: found {type(content).__name__}, expected settings as `name: value`")
    return content


def _option(field: dataclasses.Field, hint: Any) -> Callable:
    """An option without a default of its own: what is not given stays open for the file and the dataclass."""
    plain, choices, _ = value_type(hint)
    kind = click.Choice(choices) if choices else {bool: click.BOOL, int: int, float: float, str: str}[plain]
    return click.option(f"--{field.name}", type=kind, default=None, help=_help(field))


def _help(field: dataclasses.Field) -> str:
    unit = f" ({field.metadata['unit']})" if field.metadata["unit"] else ""
    if field.default is dataclasses.MISSING:
        shown = "  [required]"
    elif field.default is None:
        shown = ""
    else:
        shown = f"  [default: {str(field.default).lower() if isinstance(field.default, bool) else field.default}]"
    return f"{field.metadata['help']}{unit}{shown}"

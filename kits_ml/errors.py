"""Errors whose message is meant for the person at the command line."""

from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line that names the file or setting, what was found and what was expected. The command
    line prints it without a traceback and exits non-zero.
    """


class CasesFailedError(InputError):
    """Some cases of a folder failed while the others went on.

    Args:
        failures: the message of each failed case, by case name.
        num_cases: how many cases there were in all.
    """

    def __init__(self, failures: dict[str, str], num_cases: int):
        self.failures = dict(failures)
        self.num_cases = num_cases
        lines = [f"{len(failures)} of {num_cases} cases failed:"]
        lines += [f"  {name}: {message}" for name, message in sorted(failures.items())]
        super().__init__("\n".join(lines))


class OtherTrainingError(InputError):
    """A stopped training cannot be gone on with as asked: its settings or cases are others, or its run is gone."""


class MetricMisreadsError(Exception):
    """A metric does not read what theory says: no number of this run could be believed.

    Not an `InputError`, so that nothing that goes on after bad input goes on after this.

    Args:
        message: what misread, with the table.
        rows: of the self-test, all of them.
    """

    def __init__(self, message: str, *, rows: Sequence[Any]):
        self.rows = list(rows)
        super().__init__(message)


class StoppedError(Exception):
    """Somebody ended the work, by Ctrl-C or a signal; not a fault, and nothing that was finished is lost.

    Args:
        message: where it stopped and how to go on, one line.
        signal_number: the signal, SIGINT where it was Ctrl-C.
    """

    def __init__(self, message: str, *, signal_number: int):
        self.exit_code = 128 + signal_number  # what a shell reports of a process that a signal ended
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]

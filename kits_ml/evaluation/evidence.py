"""What a model showed on which patients: the scores and the digests of the cases, so that two models can be held
against each other on the same ones and no others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_ml import files
from kits_ml.errors import InputError
from kits_ml.evaluation import tables
from kits_ml.evaluation.tables import CaseScores

EVALUATION_JSON = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The scores of an evaluation, and of what.

    Attributes:
        cases: one for each patient, in order of names.
        case_digests: of each case's files, by name (`data.cases.Case.digest`).
    """

    cases: tuple[CaseScores, ...]
    case_digests: Mapping[str, str]

    def __post_init__(self) -> None:
        names = sorted(case.case for case in self.cases)
        if names != sorted(self.case_digests):
            raise InputError(
                f"evaluation: found scores of {len(names)} cases ({', '.join(names)}) and digests of "
                f"{len(self.case_digests)}, expected one score and one digest a case"
            )
        object.__setattr__(self, "cases", tuple(sorted(self.cases, key=lambda case: case.case)))

    @property
    def digest(self) -> str:
        """Of the names and the files of all cases."""
        return digest_of(self.case_digests)

    def only(self, names: Iterable[str]) -> Evidence:
        """The part of some cases."""
        kept = set(names)
        return Evidence(
            cases=tuple(case for case in self.cases if case.case in kept),
            case_digests={name: digest for name, digest in self.case_digests.items() if name in kept},
        )


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest for the digests of several cases, 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(dict(digests), sort_keys=True).encode(), digest_size=8).hexdigest()


def write_evaluation_json(folder: Path, case_digests: Mapping[str, str]) -> None:
    """Writes `evaluation.json` beside a `scores.csv`: the cases' digests and the digest of them all."""
    content = {"digest": digest_of(case_digests), "case_digests": dict(sorted(case_digests.items()))}
    files.write_json(folder / EVALUATION_JSON, content)


def read_evidence(folder: Path) -> Evidence:
    """Reads `scores.csv` and `evaluation.json`.

    Raises:
        InputError: a file is missing, cannot be read, or is of other cases.
    """
    path = folder / EVALUATION_JSON
    try:
        content = json.loads(path.read_text())
        case_digests = {str(name): str(digest) for name, digest in content["case_digests"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the digests of an evaluation's cases"
        ) from error
    return Evidence(cases=tuple(tables.read_scores(folder / tables.SCORES_CSV)), case_digests=case_digests)

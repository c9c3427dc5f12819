"""Dates of DICOM files shifted by a number of days that is random, secret, and the same for all files of a patient."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from hpcule.config.errors import StoreError
from hpcule.store.files import private_directory, to_json
from hpcule.store.vault import Vault

SHIFTS = "run/date-shifts.json"
"""Where a store keeps the days by patient: who has them can undo the shift."""
_MOST = 3652
"""Largest number of days: ten years."""
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DATE_TIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?)(?:[+-]\d{4})?")
_TIME = re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class DateShifts:
    """How many days earlier the dates of each patient are published.

    Attributes:
        days: by patient, as `DicomSource.patient` names them.
    """

    days: dict[str, int] = field(default_factory=dict)

    def meet(self, patients: Iterable[str]) -> None:
        """Draw days for patients that have none yet."""
        for patient in patients:
            self.days.setdefault(patient, 1 + secrets.randbelow(_MOST))

    def write(self, vault: Vault) -> None:
        """Keep the days in the private store, encrypted where it is.

        Raises:
            StoreError: they cannot be written.
        """
        private_directory(vault.path / "run")
        vault.write(SHIFTS, to_json(dict(self.days)))


def read_shifts(vault: Vault) -> DateShifts:
    """The days of an earlier export of a store; none where there was no such export.

    Raises:
        StoreError: they are damaged.
    """
    try:
        days = vault.read_json(SHIFTS)
    except FileNotFoundError:
        return DateShifts()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{vault.path / SHIFTS} cannot be read ({error}): take it from a backup, or remove it"
        ) from None
    wrong = [patient for patient, number in days.items() if not isinstance(number, int) or not 0 < number <= _MOST]
    if wrong:
        raise StoreError(f"{vault.path / SHIFTS} is damaged: take it from a backup, or remove it")
    return DateShifts(days)


def shifted(text: str, representation: str, days: int) -> str | None:
    """A date (DA) or date with time (DT) some days earlier; a time of day (TM) as it is.

    Returns:
        None for what is not a whole date or time: of a year alone, days cannot be taken.
    """
    if representation == "TM":
        return text if _TIME.fullmatch(text) else None
    if representation == "DA":
        return _earlier(text.replace(".", ""), days)
    parts = _DATE_TIME.fullmatch(text)
    day = _earlier(parts[1], days) if parts else None
    # The time zone would say where.
    return f"{day}{parts[2]}" if parts and day else None


def _earlier(text: str, days: int) -> str | None:
    parts = _DATE.fullmatch(text)
    try:
        moved = date(*map(int, parts.groups())) - timedelta(days) if parts else None
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}" if moved and moved.year >= 1000 else None

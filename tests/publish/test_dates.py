"""Dates are shifted by whole days, and the days are kept as secret as the store is."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from hpcule.config.errors import StoreError
from hpcule.publish.dates import SHIFTS, DateShifts, read_shifts, shifted
from hpcule.store.keys import make_key, read_key
from hpcule.store.vault import Vault


@pytest.mark.parametrize(
    ("text", "representation", "days", "expected"),
    [
        ("20240301", "DA", 1, "20240229"),
        ("20230301", "DA", 1, "20230228"),
        ("20240101", "DA", 366, "20221231"),
        ("1964.08.12", "DA", 12, "19640731"),
        ("1964", "DA", 1, None),
        ("20240230", "DA", 1, None),
        ("10000101", "DA", 1, None),
        ("Erika", "DA", 1, None),
        ("20240301", "DT", 1, "20240229"),
        ("20240301101112.123456+0100", "DT", 1, "20240229101112.123456"),
        ("202403", "DT", 1, None),
        ("20240301Erika", "DT", 1, None),
        ("101112.5", "TM", 1, "101112.5"),
        ("10", "TM", 1, "10"),
        ("Erika", "TM", 1, None),
    ],
)
def test_whole_dates_are_shifted_and_nothing_else_passes(text, representation, days, expected):
    assert shifted(text, representation, days) == expected


def test_intervals_stay():
    start, days = date(1999, 12, 30), 1234
    for step in range(0, 4000, 37):
        moved = shifted(f"{start + timedelta(step):%Y%m%d}", "DA", days)
        assert date(int(moved[:4]), int(moved[4:6]), int(moved[6:])) == start + timedelta(step - days)


def test_every_patient_has_days_of_its_own_that_stay():
    shifts = DateShifts()
    shifts.meet(f"PatientID {number}" for number in range(500))
    drawn = dict(shifts.days)
    assert {0 < days <= 3652 for days in drawn.values()} == {True}
    assert len(set(drawn.values())) > 300
    shifts.meet(["PatientID 7", "PatientID new"])
    assert {patient: shifts.days[patient] for patient in drawn} == drawn
    assert len(shifts.days) == 501


def test_days_are_kept_in_the_store_and_encrypted_where_it_is(tmp_path):
    make_key(str(tmp_path / "key"))
    key = read_key(str(tmp_path / "key"))
    for name, vault in (("open", Vault(tmp_path / "open")), ("closed", Vault(tmp_path / "closed", key))):
        assert read_shifts(vault).days == {}
        shifts = DateShifts({"PatientID Erika": 77})
        shifts.write(vault)
        raw = (vault.path / SHIFTS).read_bytes()
        assert (b"Erika" in raw) is (name == "open")
        assert read_shifts(vault) == shifts
    with pytest.raises(StoreError, match="--key"):
        read_shifts(Vault(tmp_path / "closed"))
    (tmp_path / "open" / SHIFTS).write_text(json.dumps({"PatientID Erika": 4000}))
    with pytest.raises(StoreError, match="damaged"):
        read_shifts(Vault(tmp_path / "open"))

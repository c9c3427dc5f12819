"""Compare the table of the standard's basic profile that hpcule applies with that of another library, idiscore.

    pip download --no-deps --ignore-requires-python idiscore==1.6.0
    python bench/dicom_profile.py idiscore-1.6.0-py2.py3-none-any.whl

Nothing of idiscore, which is under the GPL, is imported: its table is read from its source.
"""

from __future__ import annotations

import argparse
import ast
import zipfile
from pathlib import Path

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as profile
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR

ACTIONS = {
    "REMOVE": "X",
    "EMPTY": "Z",
    "DUMMY": "D",
    "UID": "U",
    "CLEAN": "C",
    "KEEP": "K",
    "EMPTY_OR_DUMMY": "Z_D",
    "REMOVE_OR_EMPTY": "X_Z",
    "REMOVE_OR_DUMMY": "X_D",
    "REMOVE_OR_EMPTY_OR_DUMMY": "X_Z_D",
    "REMOVE_OR_EMPTY_OR_UID": "X_Z_U_STAR",
}
"""Names of actions in idiscore, and in dicom-anonymizer."""
Table = dict[tuple[int, int], str]


def main() -> None:
    """Print elements that one table alone has, those with different actions, and dates without the option."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    theirs = tables(parser.parse_args().wheel)
    ours = {
        tag: action
        for action in ACTIONS.values()
        for tag in getattr(profile, f"{action}_TAGS", [])
        if len(tag) == 2  # groups that repeat have masks
    }
    other = theirs["basic_profile"]
    show("in hpcule's table alone", [tag for tag in ours if tag not in other])
    show("in the other table alone", [tag for tag in other if tag not in ours])
    show("with another action", [tag for tag in ours if tag in other and ours[tag] != other[tag]])
    print(f"{sum(ours.get(tag) == action for tag, action in other.items())} of {len(other)} elements: the same action")
    dates = [tag for tag in ours if dictionary_has_tag(tag) and dictionary_VR(tag) in ("DA", "DT", "TM")]
    shifted = theirs["retain_modified_dates"]
    show("dates and times that the option of modified dates leaves out", [tag for tag in dates if tag not in shifted])


def tables(wheel: Path) -> dict[str, Table]:
    """The profile and its options by name, of the wheel's module of tables."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read("idiscore/_public_dicom.py"))
    return {
        node.targets[0].id: table(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def table(rules: ast.expr) -> Table:
    """Actions by element of one list of pairs, as in (SingleTag("00080050"), ActionCodes.EMPTY)."""
    found: Table = {}
    for node in ast.walk(rules):
        match node:
            case ast.Tuple([ast.Call(ast.Name("SingleTag"), [ast.Constant(str(tag))]), ast.Attribute(attr=action)]):
                found[int(tag[:4], 16), int(tag[4:], 16)] = ACTIONS[action]
    return found


def show(what: str, tags: list[tuple[int, int]]) -> None:
    """Print a list of elements."""
    names = [dictionary_keyword(tag) if dictionary_has_tag(tag) else f"({tag[0]:04x},{tag[1]:04x})" for tag in tags]
    print(f"{what}: {len(tags)} {' '.join(sorted(names))}")


if __name__ == "__main__":
    main()

"""Values of DICOM elements that the standard's profile does not list: which of them can hold no text of a site.

The profile lists the elements that are known to identify a patient. The others may hold anything as well: a free text,
or a text in an element that should hold a number or a code. What is left after `tidy` is a number, a date, a code or a
term of the standard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableSequence
from functools import cache
from numbers import Number
from typing import cast

from pydicom import DataElement, Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR

_Concepts = Mapping[str, Mapping[str, Mapping[str, tuple[str, object]]]]
"""Meanings, and where they are used, by scheme, keyword and code; pydicom does not type its table."""
REMOVED = "REMOVED"
"""What stands in place of a text: an empty one is not valid everywhere."""
_FREE = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_BYTES = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_NUMBERS = ("DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV")
_FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
}
_TABLES = ("PixelData", "LUTData")
"""Binary values that are kept, because the image is in them."""
_DESCRIPTOR = "PaletteColorLookupTableDescriptor"
"""What describes a palette, which is among the binary values that go."""
_RESCALE_TYPES = frozenset(["OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"])
_TERMS: Mapping[str, tuple[frozenset[str], str]] = {
    "RescaleType": (_RESCALE_TYPES, "US"),
    "ModalityLUTType": (_RESCALE_TYPES, "US"),
}
"""The defined terms of free texts that have such (PS3.3 C.11.1), and the one that says that nothing is known."""
_CODES: Mapping[str, frozenset[str]] = {
    "BurnedInAnnotation": frozenset(["YES", "NO"]),
    "LossyImageCompression": frozenset(["00", "01"]),
    "LossyImageCompressionMethod": frozenset(
        [
            *("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15", "ISO_13818_2", "ISO_14496_10"),
            *("ISO_23008_2", "ISO_18181_1"),
        ]
    ),
    "PhotometricInterpretation": frozenset(["MONOCHROME1", "MONOCHROME2", "RGB"]),
    "PresentationLUTShape": frozenset(["IDENTITY", "INVERSE"]),
    "RecognizableVisualFeatures": frozenset(["YES", "NO"]),
    "SpecificCharacterSet": frozenset(python_encoding),
    "VOILUTFunction": frozenset(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
}
"""All values that some elements may have, among them all codes that the policy `minimal` keeps."""
_OTHER = "OT"
"""The modality that says that it is another one."""
_STANDARD = "1.2.840.10008."
_CODED = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_LONG = 64
"""Characters of a long string (LO)."""
_VERSION = "CodingSchemeVersion"


def tidy(dataset: Dataset, element: DataElement) -> bool:
    """Make an element that the profile does not list say nothing but what the standard has a word for.

    Args:
        dataset: that holds it; a code is known by all of its elements.
        element: of a keyword that the standard's dictionary has; no sequence, no UID and no date. Changed in place.

    Returns:
        Whether it may stay.
    """
    if not _is_as_declared(element) or element.keyword.endswith(_DESCRIPTOR):
        return False
    if element.is_empty:
        return True
    values = _values(element)
    if element.keyword == "Modality":
        if not all(("DCM", str(value)) in _concepts() for value in values):
            element.value = _OTHER
        return True
    if element.VR in _FREE:
        element.value = _term(element, values)
        return element.keyword != _VERSION
    if isinstance(element.value, bytes) or element.VR in _BYTES or element.keyword in _TABLES:
        return element.keyword in _TABLES
    if element.VR == "AT":
        return all(isinstance(value, int) and dictionary_has_tag(value) for value in values)
    if element.VR in ("DS", "IS"):
        return all(isinstance(value, Number) for value in values)
    valid = _CODES.get(element.keyword)
    if valid is not None:
        return valid.issuperset(map(str, values))
    form = _FORMS.get(element.VR)
    return form is None or all(form.fullmatch(str(value)) for value in values)


def name_codes(dataset: Dataset) -> None:
    """Give a coded concept the meaning that the standard has for it; one that it does not know has no meaning left."""
    if not any(name in dataset for name in _CODED):
        return
    meaning = _concepts().get((str(dataset.get("CodingSchemeDesignator")), str(dataset.get("CodeValue"))))
    for name in _CODED:
        if meaning is None and dataset.get(name):
            dataset[name].value = REMOVED
    if meaning is not None:
        dataset.CodeMeaning = meaning[:_LONG]


def cut_table(dataset: Dataset) -> None:
    """Cut what stands behind the last entry of a look-up table."""
    descriptor, table = dataset.get("LUTDescriptor"), dataset.get("LUTData")
    if isinstance(descriptor, MutableSequence) and descriptor and table:
        words = 1 if isinstance(table, MutableSequence) else 2
        dataset["LUTData"].value = table[: words * (int(descriptor[0]) % 65536 or 65536)]


def is_standard(uid: str) -> bool:
    """Whether a UID is one of the standard's own, which says what something is, and not which one."""
    return uid in UID_dictionary or (uid.startswith(_STANDARD) and re.fullmatch(r"[0-9.]{1,64}", uid) is not None)


def _is_as_declared(element: DataElement) -> bool:
    """Whether an element has the type and the number of values that the dictionary gives it."""
    declared = dictionary_VR(element.tag)
    types = (declared, *declared.split(" or "))
    if element.VR not in types and not (element.VR in _NUMBERS and set(types) & set(_NUMBERS)):
        return False
    return element.is_empty or element.VR in _BYTES or _may_have(element.VM, dictionary_VM(element.tag))


def _may_have(count: int, multiplicity: str) -> bool:
    """Whether a multiplicity of PS3.6, such as "1-2", "1-n", "3-3n" or "1-n or 1", allows a number of values."""
    for alternative in multiplicity.split(" or "):
        first, _, last = alternative.partition("-")
        if last.endswith("n"):
            step = int(last[:-1] or 1)
            if count >= int(first) and count % step == 0:
                return True
        elif int(first) <= count <= int(last or first):
            return True
    return False


def _values(element: DataElement) -> list[object]:
    return list(element.value) if element.VM > 1 else [element.value]


def _term(element: DataElement, values: list[object]) -> object:
    """A free text, where it is one of the standard's terms, and else what says nothing."""
    if element.keyword in _CODED:
        return element.value  # of `name_codes`
    known, unspecified = _TERMS.get(element.keyword, (frozenset(), REMOVED))
    return element.value if known.issuperset(map(str, values)) else unspecified


@cache
def _concepts() -> Mapping[tuple[str, str], str]:
    """Meanings of the concepts of PS3.16 by coding scheme and code."""
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    found = {
        (scheme, code): str(meaning)
        for scheme, names in cast("_Concepts", concepts).items()
        for codes in names.values()
        for code, (meaning, _) in codes.items()
    }
    renamed = cast("Mapping[str, str]", mapping["SRT"])
    earlier = {("SRT", old): found[("SCT", new)] for old, new in renamed.items() if ("SCT", new) in found}
    return {**found, **earlier}

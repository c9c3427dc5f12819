"""Element by element: what the standard lists is treated as it says, and the rest says nothing that a site wrote."""

from __future__ import annotations

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as profile
from dicoms import item
from pydicom import DataElement, Dataset
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.filebase import DicomBytesIO
from pydicom.tag import Tag

from hpcule.publish.deidentify import POLICIES, NewUids, apply_policy

PLANTED = "Muster^Erika"
WORDS = b"PLANTED"
LISTED = {
    "X": profile.X_TAGS,
    "Z": profile.Z_TAGS,
    "D": profile.D_TAGS,
    "U": profile.U_TAGS,
    "Z/D": profile.Z_D_TAGS,
    "X/Z": profile.X_Z_TAGS,
    "X/D": profile.X_D_TAGS,
    "X/Z/D": profile.X_Z_D_TAGS,
    "X/Z/U*": profile.X_Z_U_STAR_TAGS,
}
"""Elements of PS3.15 table E.1-1 by the action of its basic profile."""
NOT_AS_LISTED = {"AnnotationGroupUID": "a dummy of a UID is a new UID"}
OURS = {
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    "LongitudinalTemporalInformationModified",
}
"""Elements that the policies write themselves."""
GREY = {"PhotometricInterpretation": "MONOCHROME2", "Rows": 4, "Columns": 4, "SamplesPerPixel": 1, "BitsStored": 8}
NUMBERS = {"FD": 1.5, "FL": 1.5, "DS": "1.5", "IS": "7", "SL": 7, "SS": 7, "SV": 7, "UL": 7, "US": 7, "UV": 7}
TEXTS = {"DA": "19640812", "TM": "101112", "DT": "19640812101112", "AS": "047Y", "UI": "1.2.3.4.5", "AT": 0x00100010}


def planted(vr):
    """A value of a type that a site may have written."""
    if vr == "SQ":
        return item(PatientComments=PLANTED)
    if vr.startswith("O") or vr == "UN":
        return WORDS + b"\0"
    return NUMBERS.get(vr) or TEXTS.get(vr) or PLANTED


def treated(element):
    """A dataset with one element after the basic profile, and its bytes."""
    dataset = Dataset()
    dataset.add(element)
    return written(apply_policy(dataset, "basic-deidentify", NewUids()))


def written(dataset):
    file = DicomBytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    return dataset, file.getvalue()


@pytest.mark.parametrize("action", LISTED)
@pytest.mark.filterwarnings("ignore")
def test_listed_elements_are_treated_as_the_standard_says(action):
    for group, number in (tag for tag in LISTED[action] if len(tag) == 2 and dictionary_has_tag(Tag(tag))):
        tag = Tag(group, number)
        name, vr = keyword_for_tag(tag), dictionary_VR(tag).split(" or ")[0]
        if name in OURS or tag.group < 8:
            continue
        element = DataElement(tag, vr, planted(vr))
        before = "" if vr == "SQ" else str(element.value)
        after, raw = treated(element)
        assert PLANTED.encode() not in raw
        assert WORDS not in raw
        found = "X" if tag not in after else "Z" if after[tag].is_empty else "D"
        if found == "D" and vr == "UI":
            found = "U"
            assert str(after[tag].value) != before
        if found == "D" and vr != "SQ":
            assert str(after[tag].value) != before, name
        if name in NOT_AS_LISTED:
            assert found != action
            continue
        # Of a sequence that stays, the items are treated.
        allowed = {"U*": "D"}.get(action.split("/")[-1], "")
        assert found in [*action.split("/"), allowed] or (vr == "SQ" and found == "Z" and "D" in action), (name, found)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "keep"])
@pytest.mark.parametrize("kind", [None, "LT", "UT", "UN"])
@pytest.mark.filterwarnings("ignore")
def test_no_element_of_the_dictionary_holds_a_text_of_the_site(policy, kind):
    """All elements, with a text of their own type or with one of another."""
    dataset, dates = Dataset(), 0
    for number, (declared, _, _, _, name) in DicomDictionary.items():
        vr = kind or declared.split(" or ")[0]
        # Numbers stay, and pydicom reads unknown bytes as what the dictionary says.
        number_or_items = vr in NUMBERS or (vr == "UN" and {declared[:2]} & {*NUMBERS, "SQ", "AT"})
        if name and number >> 16 >= 8 and vr != "NONE" and name != "PixelData" and not number_or_items:
            dataset.add(DataElement(number, vr, planted(vr)))
            dates += vr in ("DA", "DT")
    for name, value in GREY.items():
        setattr(dataset, name, value)
    assert len(dataset) > 1000
    assert kind or dates > 100
    after, raw = written(apply_policy(dataset, policy, NewUids()))
    for text in (PLANTED.encode(), WORDS, TEXTS["DA"].encode(), TEXTS["UI"].encode()):
        assert text not in raw, [element for element in after.iterall() if text in str(element.value).encode()]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("BodyPartExamined", "CHEST", True),
        ("BodyPartExamined", "Chest of Erika", False),
        ("SliceThickness", "1.25", True),
        ("SliceThickness", "ERIKA", False),
        ("RescaleType", "HU", True),
        ("RescaleType", "ERIKA", False),
        ("PixelPaddingValue", 7, True),
        ("VOILUTFunction", "SIGMOID", True),
        ("VOILUTFunction", "ERIKA", False),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", True),
        ("SOPClassUID", "1.2.3.4", False),
        ("FrameIncrementPointer", 0x00181063, True),
        ("FrameIncrementPointer", 0x4C504E41, False),
        ("Modality", "MR", True),
        ("Modality", "ERIKA", False),
        ("ManufacturerModelName", "ERIKA", False),
        ("ICCProfile", b"desc", False),
        ("RedPaletteColorLookupTableDescriptor", [256, 0, 16], False),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_listed_stays_where_it_can_be_no_text(name, value, kept):
    before = Dataset()
    if isinstance(value, str) and value == "ERIKA" and dictionary_VR(name) == "DS":
        before.add(DataElement(name, "LO", value))
    else:
        setattr(before, name, value)
    old = before[name].value
    after = apply_policy(before, "basic-deidentify", NewUids())
    assert (name in after and after[name].value == old) is kept


@pytest.mark.filterwarnings("ignore")
def test_minimal_keeps_no_code_that_the_standard_does_not_define():
    dataset = Dataset()
    for number, (vr, _, _, _, name) in DicomDictionary.items():
        if vr == "CS" and number >> 16 >= 8 and name not in GREY:
            dataset.add(DataElement(number, vr, "ERIKA"))
    for name, value in GREY.items():
        setattr(dataset, name, value)
    after, raw = written(apply_policy(dataset, "minimal", NewUids()))
    assert b"ERIKA" not in raw
    assert after.Modality == "OT"


def test_codes_of_the_standard_keep_their_meaning_and_others_have_none():
    known = item(CodeValue="51185008", CodingSchemeDesignator="SCT", CodeMeaning=f"Chest of {PLANTED}")
    own = item(CodeValue="4711", CodingSchemeDesignator="99ERIKA", CodeMeaning=PLANTED, CodingSchemeVersion="Erika")
    dataset = Dataset()
    dataset.AnatomicRegionSequence, dataset.ViewCodeSequence = known, own
    after = apply_policy(dataset, "basic-deidentify", NewUids())
    region, view = after.AnatomicRegionSequence[0], after.ViewCodeSequence[0]
    assert (region.CodeValue, region.CodingSchemeDesignator) == ("51185008", "SCT")
    assert region.CodeMeaning.startswith("Thoracic structure")
    assert {element.value for element in view} == {"REMOVED"}


def test_a_look_up_table_ends_with_its_last_entry():
    for vr, data in (("US", [1, 2, 3, 0x4552, 0x494B]), ("OW", bytes(6) + b"ERIKA!")):
        table = item(LUTDescriptor=[3, 0, 16], LUTExplanation=PLANTED)
        table[0].add(DataElement("LUTData", vr, data))
        dataset = Dataset()
        dataset.VOILUTSequence = table
        after = apply_policy(dataset, "basic-deidentify", NewUids()).VOILUTSequence[0]
        assert len(after.LUTData) == (3 if vr == "US" else 6)
        assert after.LUTExplanation == "REMOVED"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["BurnedInAnnotation", "RecognizableVisualFeatures"])
def test_what_shows_the_patient_is_not_called_deidentified(name):
    for value, removed in (("YES", "NO"), ("yes", "NO"), ("NO", "YES"), ("", "YES")):
        dataset = Dataset()
        setattr(dataset, name, value)
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "by us"
        after = apply_policy(dataset, "basic-deidentify", NewUids())
        assert after.PatientIdentityRemoved == removed
        assert (after[name].value == "YES") is (removed == "NO")
        assert ("DeidentificationMethod" in after) is (removed == "YES")


@pytest.mark.filterwarnings("ignore")
def test_dates_are_shifted_where_the_standard_keeps_modified_ones():
    dataset = Dataset()
    dataset.StudyDate, dataset.StudyTime, dataset.PatientBirthDate = "20240301", "101112.5", "19640812"
    dataset.AcquisitionDateTime, dataset.ExpiryDate = "20240229235900.25+0100", "2024"
    dataset.RequestAttributesSequence = item(ScheduledProcedureStepStartDate="20240302")
    dataset.PerformedProcedureStepEndDate = ""
    dataset.DateOfLastCalibration = ["20240101", "20231231"]
    after = apply_policy(dataset, "basic-deidentify", NewUids(), 60)
    assert (after.StudyDate, after.StudyTime, after.PatientBirthDate) == ("20240101", "101112.5", "")
    assert (after.AcquisitionDateTime, after.ExpiryDate) == ("20231231235900.25", "19000101")
    assert list(after.DateOfLastCalibration) == ["20231102", "20231101"]
    assert "RequestAttributesSequence" not in after
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_overlays_in_spare_bits_go_with_the_bits():
    dataset = Dataset()
    for name, vr, value in (
        ("OverlayRows", "US", 4),
        ("OverlayBitPosition", "US", 12),
        ("OverlayDescription", "LO", "x"),
    ):
        dataset.add(
            DataElement({"OverlayRows": 0x60000010, "OverlayBitPosition": 0x60000102}.get(name, 0x60000022), vr, value)
        )
    dataset.add(DataElement(0x60020010, "US", 4))
    dataset.add(DataElement(0x60023000, "OW", b"\0\0"))
    after = apply_policy(dataset, "keep", NewUids())
    assert {element.tag.group for element in after} == {0x6002}

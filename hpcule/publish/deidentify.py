"""What of a DICOM file's tags is published: all, those that the standard's basic profile leaves, or the fewest."""

from __future__ import annotations

from typing import Literal, get_args

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as profile
from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR, tag_for_keyword
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

Policy = Literal["keep", "basic-deidentify", "minimal"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

_MASK = 0xFF00
"""Groups of curves (50xx) and overlays (60xx) repeat."""
_REPEATING = (0x5000, 0x6000)
_EMPTY = frozenset([*profile.Z_TAGS, *profile.X_Z_TAGS])
_DUMMY = frozenset([*profile.D_TAGS, *profile.Z_D_TAGS, *profile.X_D_TAGS, *profile.X_Z_D_TAGS])
_UIDS = frozenset(profile.U_TAGS)
_OPTIONAL = frozenset(
    tag
    for tag in (*profile.X_Z_TAGS, *profile.X_D_TAGS, *profile.X_Z_D_TAGS)
    if dictionary_VR(tag) == "SQ" and dictionary_keyword(tag) != "AcquisitionContextSequence"
)
"""Sequences that may be absent, but where they are there not empty."""
_REMOVED = frozenset(profile.X_TAGS) | _OPTIONAL
_DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "DS": "0", "IS": "0", "SQ": []}
_BYTES, _NUMBERS = ("OB", "OW", "UN"), ("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV")
_COLOURS = ("Red", "Green", "Blue")
_PIXELS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio", "PixelSpacing"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope", "RescaleType"),
    *(
        "ModalityLUTSequence",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "VOILUTSequence",
        "PresentationLUTShape",
        "PixelData",
    ),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PALETTE = (
    *(f"{colour}PaletteColorLookupTable{what}" for colour in _COLOURS for what in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
)
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_NAMED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "InstanceNumber")
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "SeriesNumber", "PatientOrientation", "Laterality"),
    "Manufacturer",
)
"""What every image has to have, though it may be empty."""


class NewUids:
    """New UIDs for old ones, the same for all files of a collection, so that what belongs together still does."""

    def __init__(self) -> None:
        self._new: dict[str, str] = {}

    def __contains__(self, old: str) -> bool:
        return old in self._new

    def renew(self, old: str) -> str:
        """The new one for an old one, which is random: a digest would let whoever knows the old one recognise it."""
        return self._new.setdefault(old, generate_uid(prefix=None))


def apply_policy(dataset: Dataset, policy: Policy, uids: NewUids) -> Dataset:
    """The dataset with the tags that a policy leaves, and with new UIDs.

    Args:
        dataset: without its file meta information; changed in place.
        policy: "keep" changes those UIDs only that `uids` knows; "basic-deidentify" follows PS3.15 Annex E, without
            options; "minimal" leaves a secondary capture with what is needed to show its pixels.
        uids: of the collection.
    """
    _without_copies(dataset)
    if policy == "keep":
        _replace_known(dataset, uids)
        return dataset
    _deidentify(dataset, uids)
    if policy == "minimal":
        dataset = _minimal(dataset)
    _say_so(dataset)
    return dataset


def _without_copies(dataset: Dataset) -> None:
    """Remove what shows or signs the pixels as they were: icons, signatures, bytes behind the end."""
    for name in ("IconImageSequence", "DigitalSignaturesSequence", "MACParametersSequence", "DataSetTrailingPadding"):
        if name in dataset:
            del dataset[name]
    for item in _items(dataset):
        _without_copies(item)


def _replace_known(dataset: Dataset, uids: NewUids) -> None:
    for element in list(dataset):
        if element.VR == "UI" and isinstance(element.value, str) and element.value in uids:
            element.value = uids.renew(element.value)
    for item in _items(dataset):
        _replace_known(item, uids)


def _deidentify(dataset: Dataset, uids: NewUids) -> None:
    for element in list(dataset):
        tag = (element.tag.group, element.tag.element)
        unknown = element.tag.is_private or tag[0] & _MASK in _REPEATING or not dictionary_has_tag(element.tag)
        if unknown or tag in _REMOVED:
            del dataset[element.tag]
        elif tag in _EMPTY:
            element.clear()
        elif tag in _UIDS:
            _renew(element, uids)
        elif tag in _DUMMY:
            _replace(element)
    for item in _items(dataset):
        _deidentify(item, uids)


def _renew(element: DataElement, uids: NewUids) -> None:
    if element.VM > 1:
        element.value = [uids.renew(str(old)) for old in element.value]
    elif element.value:
        element.value = uids.renew(str(element.value))


def _replace(element: DataElement) -> None:
    """Replace a value by one that says nothing; an empty one stays empty."""
    if element.is_empty:
        return
    if element.VR in _BYTES:
        element.value = b"\0\0"
    elif element.VR in _NUMBERS:
        element.value = 0
    else:
        element.value = _DUMMIES.get(element.VR, "REMOVED")


def _minimal(dataset: Dataset) -> Dataset:
    """A secondary capture, which needs nothing that a scanner measured."""
    left = Dataset()
    for name in (*_NAMED, *_PIXELS, *(_PALETTE if dataset.PhotometricInterpretation == "PALETTE COLOR" else ())):
        if name in dataset:
            left.add(dataset[name])
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for item in left.get(groups) or []:
            for element in list(item):
                if element.keyword not in _FRAME_GROUPS:
                    del item[element.tag]
        if groups in left and not any(len(item) for item in left.get(groups)):
            del left[groups]
    for name in _TYPE_2:
        setattr(left, name, None)
    left.ImageType = ["DERIVED", "SECONDARY"]
    left.ConversionType = "WSD"
    if "RescaleSlope" in left:
        left.setdefault("RescaleType", "US")
    left.SOPClassUID = SecondaryCaptureImageStorage
    if (left.get("NumberOfFrames") or 1) > 1:
        _as_several_frames(left)
    else:
        left.pop("NumberOfFrames", None)
    left.set_original_encoding(*dataset.original_encoding)
    return left


def _as_several_frames(capture: Dataset) -> None:
    """What PS3.3 A.8.3 to A.8.5 ask of secondary captures of several frames."""
    # Nobody looked: the value that says less is the one that warns.
    capture.setdefault("BurnedInAnnotation", "YES")
    capture.PageNumberVector = list(range(1, capture.NumberOfFrames + 1))
    capture.FrameIncrementPointer = tag_for_keyword("PageNumberVector")
    if capture.SamplesPerPixel == 3:
        capture.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
        capture.pop("PresentationLUTShape", None)
        return
    capture.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    if capture.BitsStored == 8:
        capture.SOPClassUID = MultiFrameGrayscaleByteSecondaryCaptureImageStorage
    if "ModalityLUTSequence" not in capture and "SharedFunctionalGroupsSequence" not in capture:
        for name, value in (("RescaleSlope", 1), ("RescaleIntercept", 0), ("RescaleType", "US")):
            capture.setdefault(name, value)
    capture.setdefault("PresentationLUTShape", "IDENTITY")


def _say_so(dataset: Dataset) -> None:
    """PS3.15 E.1.1: what was done, with its code."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 Annex E basic profile"
    dataset.DeidentificationMethodCodeSequence = Sequence([code])
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _items(dataset: Dataset) -> list[Dataset]:
    return [item for element in dataset if element.VR == "SQ" for item in element.value or []]

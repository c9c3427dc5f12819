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

from hpcule.data.sources.dicom_file import declarations
from hpcule.publish.dates import shifted
from hpcule.publish.values import REMOVED, cut_table, is_standard, name_codes, tidy

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
_DATES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
_NEVER_SHIFTED = ("PatientBirthDate", "PatientBirthTime", "GPSTimeStamp")
"""Dates and times that the standard's option of modified dates does not keep."""
_DUMMIES = {**_DATES, "AS": "000Y", "DS": "0", "IS": "0", "SQ": []}
_BYTES, _NUMBERS = ("OB", "OW", "UN"), ("US", "SS", "UL", "SL", "FL", "FD", "UV", "SV")
_STALE = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength")
_OTHER_PIXELS = ("FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL", "DataSetTrailingPadding")
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
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("BurnedInAnnotation", "RecognizableVisualFeatures"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
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


def apply_policy(dataset: Dataset, policy: Policy, uids: NewUids, days: int | None = None) -> Dataset:
    """The dataset with the tags that a policy leaves, and with new UIDs.

    Args:
        dataset: without its file meta information, its pixels uncompressed; changed in place.
        policy: "keep" changes those UIDs only that `uids` knows; "basic-deidentify" follows PS3.15 Annex E, without
            options; "minimal" leaves a secondary capture with what is needed to show its pixels.
        uids: of the collection.
        days: how many days earlier dates become, with the profile's option of modified dates; None: they are removed.
    """
    _without_copies(dataset)
    if policy == "keep":
        _replace_known(dataset, uids)
        return dataset
    revealing = declarations(dataset)
    _deidentify(dataset, uids, days)
    for name in revealing:
        dataset.pop(name, None)
        setattr(dataset, name, "YES")
    if policy == "minimal":
        dataset = _minimal(dataset)
    _say_so(dataset, days is not None)
    return dataset


def _without_copies(dataset: Dataset) -> None:
    """Remove what shows, signs or describes the pixels as they were, and bytes behind the end of a table."""
    cut_table(dataset)
    for name in ("IconImageSequence", "DigitalSignaturesSequence", "MACParametersSequence", *_STALE, *_OTHER_PIXELS):
        if name in dataset:
            del dataset[name]
    for group in range(0x6000, 0x6020, 2):
        overlay = dataset.group_dataset(group)
        if overlay and (group, 0x3000) not in overlay:
            for element in overlay:
                del dataset[element.tag]
    for item in _items(dataset):
        _without_copies(item)


def _replace_known(dataset: Dataset, uids: NewUids) -> None:
    for element in list(dataset):
        if element.VR == "UI" and isinstance(element.value, str) and element.value in uids:
            element.value = uids.renew(element.value)
    for item in _items(dataset):
        _replace_known(item, uids)


def _deidentify(dataset: Dataset, uids: NewUids, days: int | None) -> None:
    name_codes(dataset)
    for element in list(dataset):
        if not _treat(dataset, element, uids, days):
            del dataset[element.tag]
    for item in _items(dataset):
        _deidentify(item, uids, days)


def _treat(dataset: Dataset, element: DataElement, uids: NewUids, days: int | None) -> bool:
    """Treat an element as the profile says, or, where it does not list it, as `tidy` does; whether it may stay."""
    tag = (element.tag.group, element.tag.element)
    if element.tag.is_private or tag[0] & _MASK in _REPEATING or not dictionary_has_tag(element.tag):
        return False
    if days is not None and element.VR in _DATES and element.keyword not in _NEVER_SHIFTED:
        _shift(element, days)
    elif tag in _REMOVED:
        return False
    elif tag in _EMPTY:
        element.clear()
    elif element.VR == "UI":
        _renew(element, uids, tag in _UIDS or tag in _DUMMY)
    elif tag in _DUMMY or element.VR in _DATES:
        _replace(element)
    elif element.VR != "SQ":
        return tidy(dataset, element)
    return True


def _shift(element: DataElement, days: int) -> None:
    """Shift every date of an element; what is no whole date is replaced."""
    if element.is_empty:
        return
    texts = [str(text) for text in element.value] if element.VM > 1 else [str(element.value)]
    moved = [shifted(text, element.VR, days) or _DATES[element.VR] for text in texts]
    element.value = moved if len(moved) > 1 else moved[0]


def _renew(element: DataElement, uids: NewUids, always: bool) -> None:
    """Replace UIDs by new ones: always, or only those that are not the standard's own."""
    if element.is_empty:
        return
    olds = [str(old) for old in element.value] if element.VM > 1 else [str(element.value)]
    new = [uids.renew(old) if always or not is_standard(old) else old for old in olds]
    element.value = new if len(new) > 1 else new[0]


def _replace(element: DataElement) -> None:
    """Replace a value by one that says nothing; an empty one stays empty."""
    if element.is_empty:
        return
    if element.VR in _BYTES:
        element.value = b"\0\0"
    elif element.VR in _NUMBERS:
        element.value = 0
    else:
        element.value = _DUMMIES.get(element.VR, REMOVED)


def _minimal(dataset: Dataset) -> Dataset:
    """A secondary capture, which needs nothing that a scanner measured."""
    left = Dataset()
    for name in (*_NAMED, *_PIXELS):
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


def _say_so(dataset: Dataset, modified_dates: bool) -> None:
    """PS3.15 E.1.1: what was done, with its codes; of pixels that show who the patient is, that it was not enough."""
    for name in ("DeidentificationMethod", "DeidentificationMethodCodeSequence"):
        dataset.pop(name, None)
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if modified_dates else "REMOVED"
    if declarations(dataset):
        dataset.PatientIdentityRemoved = "NO"
        return
    codes = [_code("113100", "Basic Application Confidentiality Profile")]
    if modified_dates:
        codes.append(_code("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 Annex E basic profile"
    dataset.DeidentificationMethodCodeSequence = Sequence(codes)


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _items(dataset: Dataset) -> list[Dataset]:
    return [item for element in dataset if element.VR == "SQ" for item in element.value or []]

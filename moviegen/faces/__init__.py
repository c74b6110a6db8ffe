"""Faces in pictures: where they are, whose they are, and the crop that a model is shown. No torch."""

from moviegen.faces.base import Face, FaceError, FaceFinder, cropped, one_face, variation
from moviegen.faces.checks import check_one_person, check_reference

__all__ = [
    "Face",
    "FaceError",
    "FaceFinder",
    "check_one_person",
    "check_reference",
    "cropped",
    "one_face",
    "variation",
]

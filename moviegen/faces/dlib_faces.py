"""Faces by dlib: its HOG detector, five landmarks, a 128-number embedding; all weights come inside two packages.

The 68-point landmark model, which lies beside them, is never loaded: its training data excludes commercial use.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moviegen.faces.base import Face, FaceError

LANDMARKS, EMBEDDER = "shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"
WIDER, HIGHER, LIFT = (
    1.15,
    1.45,
    0.12,
)  # of the head's ellipse in terms of the detector's box, brows to chin; ours


class DlibFaces:
    """Faces of people.

    dlib tells no outline, so the mask of a face is an ellipse around the detector's box, turned as the eyes are.

    Args:
        upsample: how often pictures are doubled in size before faces of 80 pixels are looked for.
        neighbors: least cosine of one person's embeddings in neighboring frames.
        same: cosine from which on two faces count as one person's.
        smallest: pixels of a face's shorter side.
        drawings: take references that look drawn or rendered.
        second: detection score that a face beside another needs; dlib sees some in textures.
    """

    synthetic = False

    def __init__(
        self,
        upsample: int = 1,
        neighbors: float = 0.9,
        same: float = 0.93,
        smallest: int = 48,
        second: float = 0.3,
        drawings: bool = False,
    ):
        if upsample < 0:
            raise ValueError(f"faces.upsample must be at least 0, got {upsample}")
        self.upsample, self.neighbors, self.same, self.smallest = upsample, neighbors, same, smallest
        self.second, self.drawings = second, drawings
        self._models: list[Any] = []  # loaded with the first picture

    def _loaded(self) -> tuple[Any, Any, Any, Any]:
        if not self._models:
            dlib, folder = _packages()
            self._models = [
                dlib,
                dlib.get_frontal_face_detector(),
                dlib.shape_predictor(str(folder / LANDMARKS)),
                dlib.face_recognition_model_v1(str(folder / EMBEDDER)),
            ]
        dlib, detector, landmarks, embedder = self._models
        return dlib, detector, landmarks, embedder

    def find(self, frames: NDArray[np.uint8]) -> list[list[Face]]:
        """The faces in each of the frames [T, H, W, 3]."""
        return [self._find_in(np.ascontiguousarray(frame)) for frame in frames]

    def _find_in(self, frame: NDArray[np.uint8]) -> list[Face]:
        _, detector, landmarks, embedder = self._loaded()
        boxes, scores, _ = detector.run(frame, self.upsample, 0.0)
        found = []
        for number, (box, score) in enumerate(zip(boxes, scores, strict=True)):
            if number and score < self.second:  # the best comes first
                continue
            shape = landmarks(frame, box)
            vector = np.array(embedder.compute_face_descriptor(frame, shape), dtype=np.float32)
            points = np.array([[point.x, point.y] for point in shape.parts()], dtype=np.float32)
            mask = head_mask(frame.shape[:2], (box.left(), box.top(), box.right(), box.bottom()), points[:4])
            if mask.any():
                length = np.float32(np.linalg.norm(vector))
                found.append(Face(mask, vector / length, points=points))
        return found


def head_mask(
    shape: tuple[int, ...], box: tuple[int, int, int, int], eyes: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """An ellipse [H, W] around a detected box (left, top, right, bottom), turned as the eyes' corners [4, 2] are."""
    left, top, right, bottom = box
    across = eyes[:2].mean(axis=0) - eyes[2:].mean(axis=0)  # from the right of the picture to its left
    across = across if across[0] > 0 else -across
    cosine, sine = across / max(float(np.linalg.norm(across)), 1e-6)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = columns - (left + right) / 2, rows - ((top + bottom) / 2 - LIFT * (bottom - top))
    u, v = cosine * x + sine * y, cosine * y - sine * x
    return (u / (WIDER * (right - left) / 2)) ** 2 + (v / (HIGHER * (bottom - top) / 2)) ** 2 <= 1


def _packages() -> tuple[Any, Path]:
    """dlib, and the folder of its weights; FaceError names what is not installed. The weights' package is not run."""
    spec = importlib.util.find_spec("face_recognition_models")
    try:
        import dlib
    except ImportError:
        dlib = None
    if dlib is None or spec is None or spec.origin is None:
        missing = "dlib-bin" if dlib is None else "face-recognition-models"
        raise FaceError(f"faces=dlib needs {missing}: pip install moviegen[faces]", "not installed")
    return dlib, Path(spec.origin).parent / "models"

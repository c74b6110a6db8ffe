"""Faces by insightface models (SCRFD, ArcFace) in a local folder; licensed for non-commercial research only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moviegen.faces.base import Face, FaceError
from moviegen.faces.dlib_faces import head_mask


class InsightFaces:
    """Faces of people, as insightface's `FaceAnalysis` finds them; not run here, for want of its models.

    Args:
        folder: `<root>/models/<name>` with the onnx files of a model pack, e.g. buffalo_l.
        neighbors: least cosine of one person's embeddings in neighboring frames (paper 4.2).
        same: cosine from which on two faces count as one person's.
        smallest: pixels of a face's shorter side.
        drawings: take references that look drawn or rendered.
    """

    synthetic = False

    def __init__(
        self,
        folder: str,
        neighbors: float = 0.5,
        same: float = 0.5,
        smallest: int = 48,
        drawings: bool = False,
    ):
        self.folder, self.neighbors, self.same, self.smallest = Path(folder), neighbors, same, smallest
        self.drawings = drawings
        self._models: list[Any] = []

    def _loaded(self) -> Any:
        if not self._models:
            if not any(self.folder.glob("*.onnx")) or self.folder.parent.name != "models":
                raise FaceError(
                    f"faces.folder={self.folder}: must be a folder models/NAME with onnx files",
                    "not installed",
                )
            try:
                from insightface.app import FaceAnalysis
            except ImportError:
                raise FaceError(
                    "faces=insightface needs insightface and onnxruntime: pip install them", "not installed"
                ) from None
            root = str(self.folder.parent.parent)
            app = FaceAnalysis(
                self.folder.name, root=root, allowed_modules=["detection", "recognition"],
                providers=["CPUExecutionProvider"],
            )  # fmt: skip
            app.prepare(ctx_id=-1)
            self._models.append(app)
        return self._models[0]

    def find(self, frames: NDArray[np.uint8]) -> list[list[Face]]:
        """The faces in each of the frames [T, H, W, 3]."""
        found = []
        for frame in frames:
            seen = self._loaded().get(np.ascontiguousarray(frame[..., ::-1]))  # blue first
            found.append([_face(one, frame.shape[:2]) for one in seen])
        return found


def _face(seen: Any, shape: tuple[int, ...]) -> Face:
    left, top, right, bottom = (round(float(value)) for value in seen.bbox)
    eyes = np.repeat(np.asarray(seen.kps, dtype=np.float32)[:2], 2, axis=0)
    return Face(
        head_mask(shape, (left, top, right, bottom), eyes),
        np.asarray(seen.normed_embedding, dtype=np.float32),
    )

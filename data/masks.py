"""Where a named thing is in a video: the seam of generative segmentation (paper 5: a detector and SAM 2).

Both models are local folders of transformers; nothing is fetched. The toy world has true masks and needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class MaskFinder(Protocol):
    """What finds a thing by its name."""

    def find(self, frames: NDArray[np.uint8], name: str) -> NDArray[np.bool_] | None:
        """Its mask [T, H, W] in frames uint8 [T, H, W, 3]; None where it is not seen."""
        ...


class SamMasks:
    """Grounding DINO finds the thing in the first frame, SAM 2 follows it through the video.

    Args:
        detector, segmenter: folders of a GroundingDino and a Sam2Video model with their processors.
        threshold: least score of a box.

    Raises:
        ValueError: a folder that holds no such model.
    """

    def __init__(self, detector: str, segmenter: str, threshold: float = 0.35):
        for path in (detector, segmenter):
            if not (Path(path) / "config.json").is_file():
                raise ValueError(f"{path}: no config.json; give a local folder of a transformers model")
        from transformers import (
            AutoModelForZeroShotObjectDetection,
            AutoProcessor,
            Sam2VideoModel,
            Sam2VideoProcessor,
        )

        own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with _readable(detector, "detector that takes words"):
            self.words: Any = AutoProcessor.from_pretrained(detector, **own)
            self.detector: Any = AutoModelForZeroShotObjectDetection.from_pretrained(
                detector, use_safetensors=True, **own
            )
        with _readable(segmenter, "SAM 2 for video"):
            _expect_sam(segmenter)
            self.video: Any = Sam2VideoProcessor.from_pretrained(segmenter, **own)
            self.segmenter: Any = Sam2VideoModel.from_pretrained(segmenter, use_safetensors=True, **own)
        self.threshold = threshold

    def find(self, frames: NDArray[np.uint8], name: str) -> NDArray[np.bool_] | None:
        box = self._box(frames[0], name)
        return None if box is None else self._followed(frames, box)

    def _box(self, frame: NDArray[np.uint8], name: str) -> list[float] | None:
        """The box [left, top, right, bottom] of the best finding."""
        import torch

        with torch.no_grad():
            inputs = self.words(images=Image.fromarray(frame), text=f"{name.lower()}.", return_tensors="pt")
            found = self.words.post_process_grounded_object_detection(
                self.detector(**inputs),
                inputs.input_ids,
                threshold=self.threshold,
                target_sizes=[frame.shape[:2]],
            )[0]
        if not len(found["scores"]):
            return None
        return found["boxes"][int(found["scores"].argmax())].tolist()

    def _followed(self, frames: NDArray[np.uint8], box: list[float]) -> NDArray[np.bool_]:
        import torch

        height, width = frames.shape[1:3]
        masks = np.zeros(frames.shape[:3], dtype=bool)
        with torch.no_grad():
            session = self.video.init_video_session(video=list(frames))
            self.video.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, input_boxes=[[box]])
            self.segmenter(inference_session=session, frame_idx=0)
            for output in self.segmenter.propagate_in_video_iterator(session):
                (mask,) = self.video.post_process_masks([output.pred_masks], original_sizes=[[height, width]])
                masks[output.frame_idx] = mask.cpu().numpy().reshape(-1, height, width)[0] > 0
        return masks


@contextmanager
def _readable(folder: str, what: str) -> Iterator[None]:
    """Turn what transformers says of a folder that it cannot read into one line."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{folder}: is no {what} ({reason})") from error


def _expect_sam(folder: str) -> None:
    """Another kind of model would be read with random weights, and a warning."""
    kind = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != "sam2_video":
        raise ValueError(f"its config.json names model_type {kind}, not sam2_video")


@lru_cache(maxsize=1)
def sam_masks(detector: str, segmenter: str) -> SamMasks:
    """Both models, loaded once a process."""
    return SamMasks(detector, segmenter)

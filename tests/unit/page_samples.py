"""A small study on disk, with videos of equal form, and its server in a thread: for the tests of the rating page."""

import dataclasses
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from moviegen_eval.study.axes import Axis
from moviegen_eval.study.built import Built, BuiltPair, write_built
from moviegen_eval.study.serve import listening, new_server, open_service
from moviegen_eval.study.settings import StudyServeConfig
from moviegen_eval.study.study import Arm, ExclusionRules, Item, Study, save_study

from moviegen.media import to_png_bytes, write_video

SECONDS, FRAME_RATE = 0.5, 16.0
HOSTILE = '<img src=x onerror="document.title=1"> "quoted" & <script>document.title=2</script>'
OVERALL = Axis("overall", "Which video is better, all in all?", 2)
REALNESS = Axis("realness", "Which video looks more real?", 3)
IDENTITY = Axis("identity", "Which looks more like the person?", 2, reference=True)
SOUND = Axis("sync", "Which sound fits better?", 2, sound=True)


def make_study(
    num_items: int = 6, axes: tuple[Axis, ...] = (OVERALL,), num_gold: int = 0, seed: int = 3
) -> Study:
    """A study of two arms; its gold items are pairs of `ours` with itself."""
    items = [
        Item(
            f"i{n}", HOSTILE if n == 0 else f"prompt {n}", "ours", "other", f"ours/{n}.mp4", f"other/{n}.mp4"
        )
        for n in range(num_items)
    ]
    items += [
        Item(f"g{n}", "gold", "ours", "ours", f"ours/{n}.mp4", f"bad/{n}.mp4", gold="a")
        for n in range(num_gold)
    ]
    arms = (Arm("ours", "ours"), Arm("other", "other"))
    rules = ExclusionRules(min_gold_accuracy=0.6, min_gold_votes=1, max_side_bias=0.5)
    return Study("tiny", "Tiny study", axes, arms, tuple(items), seed, "Watch both.", "I take part.", rules)


def write_served(root: Path, study: Study, sound: bool = False, seconds: float = SECONDS) -> StudyServeConfig:
    """Write the study file and its built folder; the settings to serve them."""
    save_study(study, root / "study.yaml")
    (root / "built" / "media").mkdir(parents=True)
    pairs = {}
    for number, item in enumerate(study.items):
        names = [f"{uuid.uuid4().hex}.mp4" for _ in "ab"]
        for side, name in enumerate(names):
            write_video(root / "built" / "media" / name, *_clip(number, side, sound, seconds))
        frames = round(seconds * FRAME_RATE)
        pair = BuiltPair(*names, 64, 48, FRAME_RATE, frames, seconds, sound, -23.0 if sound else None, "", [])
        pairs[item.id] = replace(pair, reference=_reference(root, item, number))
    write_built(Built(root / "built", pairs), study.digest)
    return StudyServeConfig(str(root / "study.yaml"), str(root / "built"), str(root / "votes"), gold_every=0)


def _reference(root: Path, item: Item, number: int) -> str | None:
    """The built reference of an item that has one: a picture of the first, of the others a video."""
    if item.reference is None:
        return None
    name = f"{uuid.uuid4().hex}.{'mp4' if number else 'png'}"
    path, frames = root / "built" / "media" / name, _clip(number, 2, False, SECONDS)[0]
    if number:
        write_video(path, frames, FRAME_RATE)
    else:
        path.write_bytes(to_png_bytes(np.full((400, 300, 3), 120, np.uint8)))
    return name


def _clip(
    number: int, side: int, sound: bool, seconds: float
) -> tuple[np.ndarray, float, np.ndarray | None, int | None]:
    frames = np.zeros((round(seconds * FRAME_RATE), 48, 64, 3), np.uint8)
    frames[..., side] = 60 + 20 * (number % 8)
    for time, frame in enumerate(frames):
        frame[:, 6 * time : 6 * time + 8] = 255
    if not sound:
        return frames, FRAME_RATE, None, None
    tone = np.sin(2 * np.pi * 440 * (1 + side) * np.arange(round(seconds * 48_000)) / 48_000)
    return frames, FRAME_RATE, 0.2 * tone[None].astype(np.float32), 48_000


@contextmanager
def served(config: StudyServeConfig, keep_port: bool = False) -> Iterator[str]:
    """Serve a study on a free port (or on its own) from a thread; its address."""
    config = config if keep_port else dataclasses.replace(config, port=0)
    with open_service(config) as service, listening(config) as listener:
        server = new_server(config, service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def client(url: str, **more: Any) -> httpx.Client:
    """Whoever asks a server, with patience on a busy machine."""
    return httpx.Client(base_url=url, timeout=120, **more)


def cast(task: dict[str, Any], answer: str = "left", **changes: Any) -> dict[str, Any]:
    """An answer to a task, as the page sends it."""
    values = {
        "id": uuid.uuid4().hex,
        "assignment": task["id"],
        "answer": answer,
        "watch_seconds": [SECONDS, SECONDS],
    }
    return values | {"reason": "", "undoes": None} | changes

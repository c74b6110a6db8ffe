"""Public watermarks by path, and the hooks that may refuse a prompt or withhold a clip."""

from pathlib import Path

import numpy as np
import pytest
import torch

from moviegen.config import UserError, build, compose
from moviegen.provenance.backends import AudioSeal, VideoSeal
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters, Flashes, Terms


class FakeVideoSeal(torch.nn.Module):
    """Stands in for the real file: a bit is the mean of one of 256 columns, up or down."""

    @torch.jit.export
    def embed(self, image: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.1 * (2 * bits[:, None, None, :] - 1).expand(1, 3, image.size(2), 256)

    @torch.jit.export
    def detect(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones(1, 1), 10 * (image.mean(dim=[1, 2]) - 0.5)], 1)


class FakeAudioSeal(torch.nn.Module):
    """Stands in for the real file: bits lie in the first samples."""

    @torch.jit.export
    def embed(self, sound: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
        blocks = (bits - 0.5).repeat_interleave(500, 1)
        return torch.cat([0.5 * blocks[:, None], sound[:, :, 8000:]], 2)

    @torch.jit.export
    def detect(self, sound: torch.Tensor) -> torch.Tensor:
        means = sound[:, 0, :8000].reshape(1, 16, 500).mean(2)
        return torch.cat([torch.full((1, 1), 0.9), 0.5 + 2 * means], 1)


def test_public_watermarks_come_from_torchscript_files(tmp_path: Path) -> None:
    for name, module in (("video.jit", FakeVideoSeal()), ("audio.jit", FakeAudioSeal())):
        torch.jit.script(module).save(str(tmp_path / name))
    video = VideoSeal(str(tmp_path / "video.jit"))
    image = np.full((64, 256, 3), 128, np.uint8)
    reader = video.reader()
    reader.add(video.embedder(64, 256, 0xDEADBEEF)(image))
    reading = reader.read()
    assert reading.found and reading.payload == 0xDEADBEEF
    reader = video.reader()
    reader.add(np.random.default_rng(0).integers(0, 255, (64, 256, 3)).astype(np.uint8))
    assert not reader.read().found
    heard = AudioSeal(str(tmp_path / "audio.jit"))
    marked = heard.embed(np.zeros((1, 16_000), np.float32), 16_000, 0xDEADBEEF)
    reading = heard.read(marked, 16_000)
    assert reading.found and reading.payload == 0xBEEF and reading.bits == 16
    (tmp_path / "junk.jit").write_bytes(b"junk")
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "other.jit"))
    for name, message in (
        ("none.jit", "no such file; give 'builtin'"),
        ("junk.jit", "is no TorchScript file of VideoSeal"),
        ("other.jit", "has no method embed"),
    ):
        with pytest.raises(UserError, match=message):
            VideoSeal(str(tmp_path / name))


def test_a_prompt_that_a_rule_of_words_names_is_refused_and_others_pass(tmp_path: Path) -> None:
    filters = build(compose("generate", ["filters=default", "prompt=x"]).filters)
    filters.check_prompts(
        {"1": "a red star moves left", "2": "children play in the sand", "3": "a naked mole rat"}
    )
    with pytest.raises(
        UserError, match=r"prompt 2 is refused: sexual content with minors .*; so are 1 others"
    ):
        filters.check_prompts({"1": "a star", "2": "a nude child", "3": "Naked TEENS"})
    (tmp_path / "own.json").write_text('[{"reason": "no stars", "words": [["star"]]}]')
    assert Terms(str(tmp_path / "own.json")).refusal("a star") and not Terms(
        str(tmp_path / "own.json")
    ).refusal("x")
    (tmp_path / "own.json").write_text('{"star": 1}')
    with pytest.raises(UserError, match="is no list of rules"):
        Terms(str(tmp_path / "own.json"))


def test_a_flashing_clip_is_withheld_and_nothing_of_it_is_written(tmp_path: Path) -> None:
    def flashing(hertz: float, height: int = 64) -> np.ndarray:
        frames = np.full((48, 64, 64, 3), 40, np.uint8)
        lit = (np.arange(48) * 2 * hertz / 24).astype(int) % 2 == 1
        frames[lit, :height] = 220
        return frames

    def passes(frames: np.ndarray) -> bool:
        exporter = Exporter(Marking(c2pa=False), Filters(output=(Flashes(),)))
        exporter.export(
            tmp_path / "a.mp4", Made(frames, 24.0), Origin("weights/t2v", "ab" * 32, "a red star", 3), {}
        )
        return True

    assert passes(flashing(2.5)) and passes(flashing(6, height=12))
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "a.json").unlink()
    with pytest.raises(
        UserError, match=r"a.mp4 is withheld: more than 3 flashes within a second on 100 %|100%"
    ):
        passes(flashing(6))
    assert list(tmp_path.iterdir()) == []


def test_filters_are_off_in_generate_and_training_has_none() -> None:
    assert build(compose("generate", ["prompt=x"]).filters) == Filters()
    training = compose("train", ["experiments=toy/t2v"])
    assert "filters" not in training and "marking" not in training

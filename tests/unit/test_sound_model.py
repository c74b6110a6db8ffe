"""The sound generator: what is seen, heard and said at each port; chunks; dropping; sound of any length."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_weights import CLIP
from torch import Tensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.codec.audio import AudioAutoencoder
from moviegen.conditioning.base import Conditioner, ConditionerSet
from moviegen.conditioning.clip import load_clip, new_clip, save_clip
from moviegen.conditioning.sound import AudioContext, KnownSound
from moviegen.conditioning.video import CLIP_MEAN, CLIP_STD, ClipFrames, PixelFeatures, Seen, VideoFeatures
from moviegen.fields import TEXT_FEATURES
from moviegen.flow.path import OTPath
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.long_sound import ConditionGap, SoundSampler, _along_known, sample_sound
from moviegen.tasks.solving import solve
from moviegen.types import Batch, Grid, Latent, VideoClip

CHANNELS, WINDOW, RATE = 3, 10, 25.0


class Words(Conditioner):
    """Cached text features [B, L, 4], in place of an encoder."""

    port, field = "context", TEXT_FEATURES

    def __init__(self, dim: int, drop_prob: float = 0.1):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.proj = torch.nn.Linear(4, dim)

    def forward(self, inputs: Any, grid: Grid) -> Any:
        features, mask = inputs
        return self.proj(features), mask


def eyes(dim: int = 16) -> VideoFeatures:
    return VideoFeatures(dim, lambda: PixelFeatures((4, 8), size=16, features=6), RATE)


def generator(**changes: Any) -> FlowTask:
    torch.manual_seed(0)
    config = BackboneConfig(
        dim=16, num_layers=2, num_heads=2, ffn_dim=32, latent_channels=CHANNELS, patch=(1, 1, 1), max_frames=WINDOW,
        max_height=1, max_width=1, concat_channels=CHANNELS + 1, block="dit",
    )  # fmt: skip
    codec = AudioAutoencoder(4, (2, 3), 8, 16, (3, 2), CHANNELS, sample_rate_hz=150)
    conditioners = {"text": Words, "video": eyes, "sound": lambda dim: AudioContext(dim, CHANNELS)}
    task = FlowTask(Backbone(config), codec, conditioners, cached=True, **changes)
    for parameter in task.parameters():  # a new network answers 0
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return task.eval()


def inputs(count: int, frames: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    pictures = torch.randn(count, 3, frames * 8 // 25 + 1, 16, 16, generator=draw).clamp(-1, 1)
    words = torch.randn(count, 5, 4, generator=draw), torch.ones(count, 5, dtype=torch.bool)
    return {"text": words, "video": VideoClip(pictures, torch.full((count,), 8.0))}


def latents(count: int, frames: int) -> Latent:
    values = torch.randn(count, CHANNELS, frames, 1, 1, generator=torch.Generator().manual_seed(2))
    return Latent(values, torch.full((count,), 8.0))


def test_features_lie_between_pictures_at_the_rate_of_the_latents() -> None:
    """A feature that grows by 1 a picture, at 5 pictures a second: 25 tokens a second lie 0.2 apart."""

    class Count(torch.nn.Module):
        margin, features = 0, 1

        def forward(self, frames: Tensor) -> Tensor:
            return frames[:, :1, :, 0, 0].transpose(1, 2)

    seen = VideoFeatures(1, Count, RATE)
    seen.norm, seen.proj = torch.nn.Identity(), torch.nn.Identity()  # type: ignore[assignment]
    pictures = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 2, 2)
    clip = VideoClip(pictures, torch.tensor([5.0]))
    found = seen(clip, Grid(20, 1, 1))[0]
    torch.testing.assert_close(found[:16, 0], 0.1 + 0.2 * torch.arange(16) - (torch.arange(16) > 14) * 0.1)
    torch.testing.assert_close(found[0, 1:], torch.tensor([0.1, 0.1]).mul(2 * torch.pi).sin().roll(0).new_tensor(
        [torch.cos(torch.tensor(0.2 * torch.pi)), torch.sin(torch.tensor(0.2 * torch.pi))]
    ))  # fmt: skip
    window = seen(seen.window(clip, 5, 12), Grid(7, 1, 1))[0]
    torch.testing.assert_close(window, found[5:12])


def test_a_window_sees_what_the_whole_sees() -> None:
    seen, clip = eyes(), inputs(2, 50)["video"]
    whole = seen(clip, Grid(50, 1, 1))
    for start, stop in ((0, 10), (13, 30), (40, 50)):
        part = seen(seen.window(clip, start, stop), Grid(stop - start, 1, 1))
        torch.testing.assert_close(part, whole[:, start:stop])
    features = seen.features(clip)
    assert features.is_features
    torch.testing.assert_close(seen(features, Grid(50, 1, 1)), whole)
    torch.testing.assert_close(seen(seen.window(features, 13, 30), Grid(17, 1, 1)), whole[:, 13:30])


def test_each_clip_of_a_batch_is_seen_at_its_own_frame_rate() -> None:
    torch.manual_seed(0)
    seen, rates = eyes(), (0.0, 8.0, 12.5)
    torch.nn.init.normal_(seen.null)
    frames = torch.rand(3, 3, 10, 16, 16) * 2 - 1
    clips = [VideoClip(frames[i : i + 1], torch.tensor([rate])) for i, rate in enumerate(rates)]
    alone = torch.cat([seen(clip, Grid(20, 1, 1)) for clip in clips])
    torch.testing.assert_close(seen(VideoClip(frames, torch.tensor(rates)), Grid(20, 1, 1)), alone)
    assert not torch.allclose(seen(VideoClip(frames, torch.full((3,), 8.0)), Grid(20, 1, 1))[2], alone[2])
    with pytest.raises(ValueError, match=r"videos of 8, 12\.5 frames/s in one batch have no common window"):
        seen.window(VideoClip(frames, torch.tensor(rates)), 5, 12)
    stills = VideoClip(frames, torch.tensor([0.0, 8.0, 8.0]))  # a single picture among videos
    window = seen(seen.window(stills, 5, 12), Grid(7, 1, 1))
    torch.testing.assert_close(window, seen(stills, Grid(20, 1, 1))[:, 5:12])


def test_clip_looks_at_each_picture_and_stays_out_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_clip(tmp_path / "clip", new_clip(CLIP, 24), CLIP)
    width, path = CLIP["embed_dim"], str(tmp_path / "clip")
    frames = torch.rand(2, 3, 4, 40, 48) * 2 - 1
    found = ClipFrames(path, width)(frames)
    assert found.shape == (2, 4, width) and not found.requires_grad
    small = torch.nn.functional.interpolate(frames[1:, :, 2], (32, 32), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (CLIP_MEAN, CLIP_STD))
    expected = load_clip(tmp_path / "clip", 24).eval().encode_image((small / 2 + 0.5 - mean) / std)
    torch.testing.assert_close(found[1, 2:3], expected, rtol=1e-4, atol=1e-5)
    seen = VideoFeatures(16, lambda: ClipFrames(path, width), RATE)
    names = set(seen.state_dict())
    clip = VideoClip(frames, torch.full((2,), 8.0))
    features = seen.features(clip)
    assert features.is_features and features.frames.shape == (2, 4, width)
    whole = seen(clip, Grid(12, 1, 1))
    assert whole.shape == (2, 12, 16) and set(seen.state_dict()) == names
    torch.testing.assert_close(seen(seen.window(Seen.of(clip), 3, 9), Grid(6, 1, 1)), whole[:, 3:9])
    with pytest.raises(ValueError, match="embeddings are 16 wide, features is 1024; set it to 16"):
        ClipFrames(path)(frames)
    with pytest.raises(ValueError, match="describes no open-clip model"):
        ClipFrames(str(tmp_path))(frames)


def test_pictures_of_any_size_are_looked_at() -> None:
    extractor = PixelFeatures((4, 8), size=16, features=6)
    assert extractor(torch.zeros(2, 3, 1, 20, 33)).shape == (2, 1, 6)


def test_training_mirrors_a_share_of_the_clips() -> None:
    frames = torch.rand(200, 3, 2, 4, 5)
    seen = VideoFeatures(16, lambda: PixelFeatures((4, 8), size=16, features=6), RATE, mirror_prob=0.25)
    varied = seen.vary(VideoClip(frames, torch.full((200,), 8.0)), SampleRng(0, 0, torch.arange(200))).frames
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(varied, frames, strict=True)])
    assert 30 < int(mirrored.sum()) < 70
    torch.testing.assert_close(varied[~mirrored], frames[~mirrored])
    clip = VideoClip(frames, torch.full((200,), 8.0))
    assert eyes().vary(clip, SampleRng(0, 0, torch.arange(200))) is clip


def test_an_impact_looks_alike_wherever_it_happens() -> None:
    torch.manual_seed(0)
    extractor, small = PixelFeatures((4, 8), size=32, features=6), torch.rand(1, 3, 3, 8, 8)
    here, there = torch.zeros(2, 1, 3, 3, 32, 32)
    here[..., 8:16, 8:16], there[..., 12:20, 16:24] = small, small
    torch.testing.assert_close(extractor(here), extractor(there))
    assert not torch.allclose(
        extractor(here)[:, 1], extractor(here.flip(2))[:, 1]
    )  # it sees which way things go


def test_masking_is_the_papers() -> None:
    context = AudioContext(16, CHANNELS)
    known = context.vary(latents(400, 40), SampleRng(0, 0, torch.arange(400)))
    share = known.mask.float().mean(1)
    assert (
        0.42 < float((share == 0).float().mean()) < 0.62
    )  # half, and of the others those that draw 0 frames
    assert float(share.max()) <= 0.25
    left = known.mask[share > 0]
    inside = left.float().diff(dim=1).ne(0).sum(1)
    assert int(inside.max()) == 2  # at both ends
    assert bool((inside >= 1).all())
    torch.testing.assert_close(known.values[:, 0, :, 0, 0] != 0, known.mask)


def test_context_joins_latents_and_a_mask() -> None:
    context, latent = AudioContext(16, CHANNELS), latents(2, 10)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[:, :3] = True
    tokens = context(KnownSound.where(latent.values, mask), Grid(10, 1, 1))
    assert tokens.shape == (2, 10, CHANNELS + 1)
    torch.testing.assert_close(tokens[:, :3, :CHANNELS], latent.values[:, :, :3, 0, 0].transpose(1, 2))
    assert not tokens[:, 3:].any()
    assert not context(latent, Grid(10, 1, 1)).any()  # held-out losses tell nothing
    with pytest.raises(ValueError, match="3 channels and 10 frames"):
        context(latent, Grid(9, 1, 1))
    with pytest.raises(ValueError, match="not 'beside'"):
        AudioContext(16, CHANNELS, kinds={"beside": 1.0})


def test_all_conditions_are_lost_together() -> None:
    conditioners = ConditionerSet({"text": Words(16), "video": eyes()}, drop_all=0.2)
    drop = conditioners.random_drop(SampleRng(0, 0, torch.arange(4000)))
    both = (drop["text"] & drop["video"]).float().mean()
    assert 0.18 < float(both) < 0.24  # 0.2 + 0.8 * 0.01
    assert 0.25 < float(drop["text"].float().mean()) < 0.31
    plain = ConditionerSet({"text": Words(16), "video": eyes()})
    assert float((plain.random_drop(SampleRng(0, 0, torch.arange(4000)))["text"]).float().mean()) < 0.13


def test_training_takes_a_chunk_of_everything() -> None:
    task = generator(chunk=WINDOW, drop_all=0.2)
    media = latents(2, 50)
    batch = Batch(torch.arange(2), media, inputs(2, 50) | {"sound": media})
    seen = {task._chunk(media.values, batch.inputs, step)[0][0, 0, 0].item() for step in range(12)}
    assert len(seen) > 4
    values, cut = task._chunk(media.values, batch.inputs, 3)
    assert values.shape[2] == WINDOW
    torch.testing.assert_close(cut["sound"].values, values)
    assert task._chunk(media.values, batch.inputs, None)[0][0, 0, 0].item() == media.values[0, 0, 0].item()
    losses = task.train().losses(batch, step=0)
    assert losses.shape == (2,) and bool(losses.isfinite().all())
    assert task.held_out(batch).shape == (2, 5)
    assert task.sample_cost(50, 1, 1)[0] == WINDOW


def sampler(**changes: Any) -> SoundSampler:
    settings = {"num_steps": 3, "window": WINDOW, "hop": 5, "guidance": 2.0}
    return SoundSampler(**(settings | changes))


@pytest.mark.parametrize("method", ["windows", "segments"])
@pytest.mark.parametrize("frames", [1, 10, 11, 33])
def test_sound_of_any_length(method: str, frames: int) -> None:
    task, config = generator(), sampler(method=method, candidates=2, beams=2)
    made = sample_sound(task, inputs(2, frames), torch.arange(2), frames, config)
    assert made.values.shape == (2, CHANNELS, frames, 1, 1)
    assert bool(made.values.isfinite().all())
    alone = sample_sound(task, _first(inputs(2, frames)), torch.arange(1), frames, config)
    torch.testing.assert_close(alone.values, made.values[:1], atol=1e-4, rtol=1e-4)


def _first(given: dict[str, Any]) -> dict[str, Any]:
    text, video = given["text"], given["video"]
    return {"text": (text[0][:1], text[1][:1]), "video": VideoClip(video.frames[:1], video.frame_rate[:1])}


@pytest.mark.parametrize("method", ["windows", "segments"])
def test_known_sound_is_kept(method: str) -> None:
    mask = torch.zeros(1, 33, dtype=torch.bool)
    mask[:, :4] = mask[:, 20:25] = True
    known = KnownSound.where(latents(1, 33).values, mask)
    task = generator()
    made = sample_sound(
        task, _first(inputs(1, 33)) | {"sound": known}, torch.arange(1), 33, sampler(method=method)
    )
    torch.testing.assert_close(made.values[:, :, mask[0]], known.values[:, :, mask[0]])


def test_known_frames_go_the_way_of_training_and_the_others_that_of_the_model() -> None:
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[:, 2:5] = True
    known, x_0, path = KnownSound.where(latents(1, 10).values, mask), torch.randn(1, 10, CHANNELS), OTPath()
    seen = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return torch.ones_like(x)

    x = solve(_along_known(model, known, x_0, path), x_0, path, sampler())
    x_1 = known.values[..., 0, 0].transpose(1, 2)
    torch.testing.assert_close(x[mask], x_1[mask], atol=1e-4, rtol=0)
    torch.testing.assert_close(x[~mask], x_0[~mask] + 1)
    for noisy, t in seen:
        torch.testing.assert_close(
            noisy[mask], path.sample(x_1=x_1, x_0=x_0, t=t).x_t[mask], atol=1e-4, rtol=0
        )


def test_the_best_candidate_is_taken() -> None:
    task, given, keys = generator(), inputs(2, 10), torch.arange(2)

    def highest(task: FlowTask, values: Tensor, inputs: Any, absent: frozenset[str]) -> Tensor:
        return values.flatten(1).mean(1)

    one = sample_sound(task, given, keys, 10, sampler())
    best = sample_sound(task, given, keys, 10, sampler(candidates=4), highest)
    assert bool((best.values.flatten(1).mean(1) >= one.values.flatten(1).mean(1)).all())
    scores = ConditionGap()(
        task, one.values, task.conditioners.completed(given, 2, Grid(10, 1, 1)), frozenset()
    )
    assert scores.shape == (2,)


def test_an_absent_condition_says_nothing() -> None:
    task, keys = generator(), torch.arange(1)
    given, other = _first(inputs(1, 10)), _first(inputs(1, 10))
    other["text"] = (other["text"][0] + 1, other["text"][1])
    heard = [
        sample_sound(task, one, keys, 10, sampler(), absent=frozenset({"text"})).values
        for one in (given, other)
    ]
    torch.testing.assert_close(heard[0], heard[1])
    told = [sample_sound(task, one, keys, 10, sampler()).values for one in (given, other)]
    assert not torch.allclose(told[0], told[1])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="windows of 10 need a hop"):
        sampler(hop=11)
    with pytest.raises(ValueError, match="method must be"):
        sampler(method="loops")
    with pytest.raises(ValueError, match="beams from 1 to candidates, got 1 and 2"):
        sampler(beams=2)

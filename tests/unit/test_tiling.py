"""Tiles: they cover a clip, fade into each other, and give what the whole would where a codec looks no further."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from moviegen.codec.seams import seam_mask
from moviegen.codec.tiling import (
    Tiling,
    decode_stream,
    decoded,
    encode_stream,
    encoded,
    ramp,
    sliding,
    sliding_spans,
    spatially_tiled,
    windows,
)
from moviegen.types import Latent, VideoClip


def chunked(x: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(x.split(sizes, dim=2))


def pooled(x: Tensor) -> Tensor:
    """A codec whose cells know their own 2x2x2 block alone; a lone last frame stands for two."""
    if x.shape[2] % 2:
        x = torch.cat([x, x[:, :, -1:]], dim=2)
    return torch.nn.functional.avg_pool3d(x, 2)


def unpooled(x: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(5, 8, 2), (8, 8, 2), (9, 8, 2), (20, 8, 2), (21, 8, 0)]
)
def test_windows_cover_everything_and_share_their_overlap(length: int, tile: int, overlap: int) -> None:
    found = windows(length, tile, overlap)
    assert found[0][0] == 0 and found[-1][1] == length
    for (_, stop), (start, _) in pairwise(found):
        assert stop - start >= overlap
    assert all(stop - start == min(tile, length) for start, stop in found)
    parts = list(sliding([torch.arange(float(length)).view(1, 1, length, 1, 1)], tile, overlap))
    spans = [(int(part.min()), int(part.max()) + 1) for part in parts]
    assert spans == sliding_spans(length, tile, overlap)


def test_neighbouring_ramps_add_up_to_one() -> None:
    left, right = ramp(10, 0, 4), ramp(10, 4, 0)
    torch.testing.assert_close(left[-4:] + right[:4], torch.ones(4))
    assert left[0] == right[-1] == 1


@pytest.mark.parametrize("num_frames", [1, 3, 8, 9, 17, 40])
def test_a_local_codec_gives_the_same_in_tiles_as_whole(num_frames: int) -> None:
    torch.manual_seed(0)
    frames = torch.rand(1, 3, num_frames, 24, 40)
    tiling = Tiling(frames=8, frames_overlap=4, size=16, size_overlap=8)
    sizes = [5] * (num_frames // 5) + ([num_frames % 5] if num_frames % 5 else [])
    latents = list(encode_stream(pooled, chunked(frames, sizes), tiling, 2))
    torch.testing.assert_close(torch.cat(latents, dim=2), pooled(frames))
    found = torch.cat(list(decode_stream(unpooled, latents, tiling, 2, 2)), dim=2)
    torch.testing.assert_close(found, unpooled(pooled(frames)))


def test_tiles_that_disagree_fade_linearly_into_each_other() -> None:
    values = iter([0.0, 1.0])
    latent = torch.zeros(1, 1, 6, 1, 1)
    tiling = Tiling(frames=8, frames_overlap=4)
    decode = lambda x: torch.full((1, 1, 2 * x.shape[2], 2, 2), next(values))  # noqa: E731
    frames = torch.cat(list(decode_stream(decode, [latent], tiling, 2, 2)), dim=2)[0, 0, :, 0, 0]
    assert frames.tolist() == pytest.approx([0] * 4 + [0.125, 0.375, 0.625, 0.875] + [1] * 4)


def test_latents_of_more_than_four_frames_are_decoded_in_tiles_but_those_of_a_causal_codec() -> None:
    lengths: list[int] = []

    def decode(latent: Latent) -> VideoClip:
        lengths.append(latent.values.shape[2])
        return VideoClip(latent.values.repeat_interleave(2, dim=2), latent.frame_rate)

    codec = SimpleNamespace(temporal_factor=2, spatial_factor=1, decode=decode)
    for frames, tiles in ((1, [1]), (4, [4]), (6, [4, 4])):
        latent = Latent(torch.rand(1, 3, frames, 1, 1), torch.ones(1))
        torch.testing.assert_close(torch.cat([*decoded(codec, latent)], 2), decode(latent).frames)
        assert lengths == [*tiles, frames]
        lengths.clear()
    codec.causal = True
    next(decoded(codec, latent))
    assert lengths == [6]


@pytest.mark.parametrize(("causal", "frames", "longest"), [(False, 4, 4), (False, None, 12), (True, 4, 12)])
def test_a_codec_sees_tiles_in_space_however_few_frames_there_are_and_a_causal_one_all_frames(
    causal: bool, frames: int | None, longest: int
) -> None:
    seen: set[tuple[int, ...]] = set()

    def encode(clip: VideoClip) -> Latent:
        seen.add(tuple(clip.frames.shape[2:]))
        return Latent(pooled(clip.frames), clip.frame_rate)

    def decode(latent: Latent) -> VideoClip:
        found = VideoClip(unpooled(latent.values), latent.frame_rate)
        seen.add(tuple(found.frames.shape[2:]))
        return found

    codec = SimpleNamespace(temporal_factor=2, spatial_factor=2, causal=causal, encode=encode, decode=decode)
    tiling = Tiling(frames=frames, frames_overlap=2, size=8, size_overlap=4)
    for length in (2, 12):
        seen.clear()
        clip = torch.rand(1, 3, length, 12, 20)
        latent = encoded(codec, chunked(clip, [1] * length), torch.ones(1), tiling)
        torch.testing.assert_close(latent.values, pooled(clip))
        parts = list(decoded(codec, latent, tiling))
        assert all(part.shape[2] for part in parts)
        torch.testing.assert_close(torch.cat(parts, dim=2), unpooled(latent.values))
        assert seen == {(n, 8, 8) for n in [min(length, longest)]}


def test_a_seam_in_space_fades_too() -> None:
    values = iter([0.0, 1.0])
    out = spatially_tiled(lambda x: torch.full_like(x, next(values)), torch.zeros(1, 1, 1, 4, 12), 8, 4, 1.0)
    assert out[0, 0, 0, 0].tolist() == pytest.approx([0] * 4 + [0.125, 0.375, 0.625, 0.875] + [1] * 4)


def test_no_window_is_kept_longer_than_it_takes() -> None:
    lengths = []

    def source():
        for _ in range(100):
            yield torch.zeros(1, 1, 4, 1, 1)

    for window in sliding(source(), 8, 4):
        lengths.append(window.shape[2])
    assert max(lengths) == 8 and len(lengths) == 99


def test_overlaps_and_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="tiles of frames=8 need an overlap from 0 to 7, got 8"):
        Tiling(frames=8, frames_overlap=8)
    with pytest.raises(ValueError, match=r"tiling\.size must be a multiple of the codec's 8, got 100"):
        Tiling(size=100).check(8, 8)
    with pytest.raises(
        ValueError, match=r"tiling\.size_overlap must be a multiple of the codec's 32, got 16"
    ):
        Tiling(size=64, size_overlap=16).check(32, 8)


def test_an_overlap_without_tiles_is_not_looked_at() -> None:
    tiling = Tiling(frames=None, frames_overlap=3, size=None, size_overlap=7)
    tiling.check(8, 8)
    for num_frames in (2, 3, 4):  # shorter than the overlap, as long, longer
        assert not seam_mask(torch.zeros(1, 3, num_frames, 8, 8), tiling).any()

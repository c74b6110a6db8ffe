"""The ready-made fields: bytes of a sample's files to tensors of a batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import webdataset
from shard_samples import npy

from moviegen.data.module import ShardData, Source
from moviegen.fields import JSON, LATENT, TEXT, TEXT_FEATURES, VIDEO, Field
from moviegen.media import encode_video


def moving_square(num_frames: int, place: int = 8) -> np.ndarray:
    """A white square on black that moves 2 pixels a frame: uint8 [T, 64, 64, 3]."""
    frames = np.zeros((num_frames, 64, 64, 3), np.uint8)
    for time, frame in enumerate(frames):
        frame[16:32, place + 2 * time : place + 2 * time + 16] = 255
    return frames


def read(field: Field, *samples: tuple[bytes, ...]):
    return field.collate([field.decode(*files) for files in samples])


def test_clips_become_frames_from_minus_one_to_one():
    first, second = moving_square(16), moving_square(16, place=20)
    clip = read(VIDEO, (encode_video(first, 8.0, crf=1),), (encode_video(second, 8.0, crf=1),))
    assert clip.frames.shape == (2, 3, 16, 64, 64) and clip.frames.dtype == torch.float32
    assert clip.frames.is_contiguous() and clip.frames.abs().max() <= 1
    assert clip.frame_rate.tolist() == [8.0, 8.0]
    for frames, decoded in zip((first, second), clip.frames, strict=True):
        expected = torch.from_numpy(frames).permute(3, 0, 1, 2) / 127.5 - 1
        assert (decoded - expected).abs().mean() < 0.03


def test_a_photograph_is_a_clip_of_one_frame_without_a_frame_rate():
    clip = read(VIDEO, (encode_video(moving_square(1), 8.0),))
    assert clip.frames.shape == (1, 3, 1, 64, 64)
    assert clip.frame_rate.tolist() == [0.0]


def test_a_latent_takes_its_frame_rate_from_the_record():
    values = np.random.default_rng(0).normal(size=(2, 16, 2, 8, 8)).astype(np.float16)
    records = [json.dumps({"fps": rate}).encode() for rate in (8, 24.0)]
    latent = read(LATENT, *((npy(value), record) for value, record in zip(values, records, strict=True)))
    assert torch.equal(latent.values, torch.from_numpy(values).float())
    assert latent.frame_rate.tolist() == [8.0, 24.0]


@pytest.mark.parametrize(
    ("array", "record", "message"),
    [
        (np.zeros((2, 2)), b'{"fps": 8}', r"a latent is \[C, T, H, W\], this array is \[2, 2\]"),
        (np.zeros((1, 1, 1, 1)), b"{}", "no number under 'fps', but None"),
    ],
)
def test_a_latent_of_the_wrong_form_is_refused(array, record, message):
    with pytest.raises(ValueError, match=message):
        LATENT.decode(npy(array), record)


def test_text_features_are_padded_and_masked():
    first, second = np.ones((2, 4), np.float16), np.full((5, 4), 2, np.float16)
    features, mask = read(TEXT_FEATURES, (npy(first),), (npy(second),))
    assert features.shape == (2, 5, 4) and features.dtype == torch.float32
    assert mask.tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert features.sum((1, 2)).tolist() == [8, 40]


def test_text_features_of_two_encoders_are_not_mixed():
    with pytest.raises(ValueError, match=r"text features of several sizes in one batch: \[4\] and \[8\]"):
        read(TEXT_FEATURES, (npy(np.ones((2, 4))),), (npy(np.ones((2, 8))),))
    with pytest.raises(ValueError, match=r"text features are \[L, D\], this array is \[4\]"):
        read(TEXT_FEATURES, (npy(np.ones(4)),))


def test_captions_and_records_stay_lists():
    assert read(TEXT, ("a caf\u00e9 \n".encode(),), (b"b",)) == ["a caf\u00e9", "b"]
    assert read(JSON, (b'{"a": 1}',)) == [{"a": 1}]


def test_arrays_of_python_objects_are_never_loaded():
    pickled = np.array([{"a": 1}], dtype=object)
    header = npy(np.zeros(1)).replace(b"'<f8'", b"'|O' ")
    with pytest.raises(ValueError, match="allow_pickle"):
        TEXT_FEATURES.decode(header + pickled.dumps())
    with pytest.raises(ValueError, match=r"not a \.npy file"):
        TEXT_FEATURES.decode(pickled.dumps())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_mixture_of_images_and_videos_trains_from_mp4(tmp_path, num_workers):
    for name, count, num_frames in (("videos", 5, 16), ("photos", 3, 1)):
        with webdataset.TarWriter(str(tmp_path / f"train-{name}-000000.tar")) as writer:
            for number in range(count):
                data = encode_video(moving_square(num_frames, place=number), 8.0)
                writer.write({"__key__": f"{name}-{number}", "mp4": data, "json": b"{}", "truth.json": b"{}"})
    (tmp_path / "index.json").write_text(
        json.dumps(
            {
                "shards": [
                    {
                        "name": "train-videos-000000.tar",
                        "num_samples": 5,
                        "frames": 16,
                        "height": 64,
                        "width": 64,
                    },
                    {
                        "name": "train-photos-000000.tar",
                        "num_samples": 3,
                        "frames": 1,
                        "height": 64,
                        "width": 64,
                    },
                ]
            }
        )
    )
    data = ShardData({"all": Source(str(tmp_path))}, batch_size=2, num_workers=num_workers, cache_bytes=10**8)
    data.use({"media": VIDEO})
    loader = iter(data.train_dataloader())
    batches = [next(loader) for _ in range(12)]
    assert {batch.media.frames.shape for batch in batches} == {(2, 3, 16, 64, 64), (2, 3, 1, 64, 64)}
    assert all((batch.media.frame_rate[0] == 8) == (batch.media.frames.shape[2] == 16) for batch in batches)

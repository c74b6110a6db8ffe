"""`moviegen edit`: what of the source stays, clips longer than the window, baselines, and what is refused."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_samples import RATE, moving, tone, video_file
from model_samples import Generator
from odd_samples import make_video, sixteen_bits
from PIL import Image
from test_editing import editing, randomized

from moviegen import cli
from moviegen.edit_files import changed_share
from moviegen.media import decode_audio, probe, read_clip, read_image, to_png_bytes, write_flac, write_video
from moviegen.modelfile import read_record, save_model
from moviegen.provenance.verify import Examiner
from moviegen.runfolder import file_sha256, write_json
from moviegen.tasks import editing as sampling
from moviegen.tasks.editing import EditBatch, EditSampler, edit_latents
from moviegen.types import Latent

SAMPLER = EditSampler(
    num_steps=2, schedule="linear", guidance=2.0, condition_guidance={"source": 1.5}, window=2
)
WORDS = ["sampler.num_steps=1", "sampler.schedule=linear", "height=16", "width=16", "num_threads=1"]


@pytest.fixture(scope="module")
def model(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_editor(generator, tmp_path_factory.mktemp("edit"))


def saved_editor(generator: Generator, folder: Path) -> str:
    """A tiny model that edits, on disk, with random weights."""
    torch.manual_seed(0)
    task = randomized(editing(generator.node))
    node = json.loads(json.dumps(generator.node))
    node["backbone"]["config"] |= {"concat_channels": 4, "gated": True}
    names = {"source": "SourceVideo", "task": "TaskTokens", "task_vector": "TaskVector"}
    for name, kind in names.items():
        node["conditioners"][name] = {"_target_": f"moviegen.conditioning.editing.{kind}", "_partial_": True}
    node["conditioners"]["source"]["latent_channels"] = 4
    save_model(folder / "edit", task, node, torch.float32, {})
    return str(folder / "edit")


def run(out: Path, model: str, *words: str) -> int:
    return cli.main(["edit", f"run_dir={out}", f"checkpoint={model}", *WORDS, *words])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line in which the command refused its work."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert code != 0
    return lines[-1]


@pytest.mark.parametrize(
    ("frames", "rate", "height", "width"), [(11, 12.5, 40, 56), (3, 30000 / 1001, 16, 16), (1, 8.0, 24, 24)]
)
def test_frames_rate_and_sound_of_the_source_stay(
    model: str, tmp_path: Path, frames: int, rate: float, height: int, width: int
) -> None:
    source = video_file(tmp_path / "in.mp4", frames, rate, height=height, width=width)
    assert run(tmp_path / "out", model, f"video={source}", "instruction=add a red star, please: [now]") == 0
    before, after = probe(source), probe(tmp_path / "out" / "edited.mp4")
    assert (after.num_frames, after.height, after.width) == (frames, height, width)
    assert Fraction(after.frame_rate).limit_denominator(2000) == Fraction(rate).limit_denominator(2000)
    assert (after.sample_rate_hz, after.num_channels) == (before.sample_rate_hz, before.num_channels)
    heard, was = (decode_audio(path)[0] for path in (tmp_path / "out" / "edited.mp4", source))
    length = min(heard.shape[1], was.shape[1])
    assert abs(heard.shape[1] - was.shape[1]) <= 2048
    np.testing.assert_allclose(heard[:, :length], was[:, :length], atol=1e-6)  # the packets themselves
    note = json.loads((tmp_path / "out" / "edited.json").read_text())
    assert note["edit"]["task"] == "add" and note["frames"] == frames
    assert read_image(tmp_path / "out" / "edited_strip.png").shape[0] == 320


def test_an_edit_leaves_marked_and_signed_with_its_source_as_an_ingredient(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = video_file(tmp_path / "in.mp4", 9, height=256, width=256)
    strong = "marking.strength=8"  # random weights make noise, in which the usual mark is found but not always read
    assert run(tmp_path / "out", model, f"video={source}", "instruction=add a red star", strong) == 0
    found = Examiner().examine(tmp_path / "out" / "edited.mp4")
    assert found.manifest.state == "development" and found.manifest.generated and found.same_file
    assert found.manifest.ingredients == ("in.mp4",)
    assert found.card["ingredients"] == [{"sha256": file_sha256(source)}]
    assert found.picture is not None and found.picture.found and found.accuracy(found.picture) == 1
    off = ["marking.picture=null", "marking.c2pa=false"]
    assert run(tmp_path / "off", model, f"video={source}", "instruction=add a red star", *off) == 0
    assert "no picture watermark: switched off by marking.picture=null" in capsys.readouterr().out
    without = json.loads((tmp_path / "off" / "edited.json").read_text())["provenance"]["without"]
    assert set(without) == {"picture watermark", "manifest"}


def test_a_picture_is_edited_to_a_picture_of_its_size_and_what_was_understood_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.png").write_bytes(to_png_bytes(moving(1, 30, 22)[0]))
    words = [f"image={tmp_path / 'in.png'}", "instruction=remove the star"]
    assert run(tmp_path / "out", model, *words) == 0
    assert read_image(tmp_path / "out" / "edited.png").shape == (30, 22, 3)
    said = "edit tasks, by the words of instructions"
    assert f"{said} that name none: remove (1)" in capsys.readouterr().out
    assert run(tmp_path / "other", model, *words, "edit_task=add") == 0
    assert said not in capsys.readouterr().out


def test_an_odd_side_is_written_one_pixel_longer_and_a_silent_file_stays_silent(
    model: str, tmp_path: Path
) -> None:
    odd = make_video(tmp_path / "in.mkv", moving(5, 21, 17), codec="ffv1", pixel_format="bgr0")
    assert run(tmp_path / "out", model, f"video={odd}", "instruction=invert the colors") == 0
    info = probe(tmp_path / "out" / "edited.mp4")
    assert (info.height, info.width, info.num_frames, info.has_audio) == (22, 18, 5, False)


def test_without_a_size_the_nearest_to_the_sources_own_is_taken(model: str, tmp_path: Path, capsys) -> None:
    source = video_file(tmp_path / "in.mp4", 3, height=22, width=38)
    words = [word for word in WORDS if not word.startswith(("height", "width"))]
    words += ["height=null", "width=null", f"video={source}", "instruction=add a star"]
    assert cli.main(["edit", f"run_dir={tmp_path / 'a'}", f"checkpoint={model}", *words]) == 0
    assert probe(tmp_path / "a" / "edited.mp4").width == 38
    large = video_file(tmp_path / "large.mp4", 2, height=16, width=320)
    code = cli.main(["edit", f"run_dir={tmp_path / 'b'}", f"checkpoint={model}", *words, f"video={large}"])
    error = refused(capsys, code)
    assert "is of 320x16 pixels; width=320: this model edits multiples of 4 pixels, from 4 to 256" in error
    assert "set height= and width=" in error and not (tmp_path / "b" / "edited.mp4").exists()


def test_windows_that_overlap_are_averaged_in_each_step(generator: Generator) -> None:
    task = randomized(editing(generator.node))
    torch.manual_seed(0)
    values = torch.randn(1, 4, 4, 4, 4)  # positions reach 2 latent frames

    def made(values: torch.Tensor, **settings) -> torch.Tensor:
        config = EditSampler(**{**vars(SAMPLER), "num_steps": 1, **settings})
        batch = EditBatch(Latent(values, torch.tensor([8.0])), ["add a star"], ["add"], torch.tensor([3]))
        return edit_latents(task, batch, config).values

    long = made(values, hop=2)
    assert long.shape == values.shape
    other = made(torch.cat([values[:, :, :2], values[:, :, 2:] + 1], dim=2), hop=2)
    torch.testing.assert_close(
        long[:, :, :2], other[:, :, :2]
    )  # windows without overlap know nothing of each other
    assert not torch.allclose(long[:, :, 2:], other[:, :, 2:])
    overlapping = made(values, hop=1)
    torch.testing.assert_close(overlapping[:, :, 0], long[:, :, 0])  # seen by one window alone, the same one
    assert not torch.allclose(overlapping[:, :, 1:3], long[:, :, 1:3])
    with pytest.raises(ValueError, match=r"sampler\.window=3: the model's positions reach 2 latent frames"):
        made(values, window=3)


def test_neither_batch_nor_order_changes_an_edit_and_each_guidance_counts(generator: Generator) -> None:
    task = randomized(editing(generator.node))
    task.conditioners.named()["text"].frame_rate_prefix = True
    torch.manual_seed(0)
    values, words = torch.randn(2, 4, 2, 4, 4), ["add a star", "invert the colors"]

    def made(index: list[int], **settings) -> torch.Tensor:
        config = EditSampler(**{**vars(SAMPLER), **settings})
        source = Latent(values[index], torch.tensor([8.0, 24.0])[index])  # each is told its own
        keys = torch.tensor([11, 12])[index]
        batch = EditBatch(source, [words[i] for i in index], [("add", "style")[i] for i in index], keys)
        return edit_latents(task, batch, config).values

    both = made([0, 1])
    torch.testing.assert_close(both.flip(0), made([1, 0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[:1], made([0]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both, made([0, 1], condition_guidance={"source": 1.0}), atol=1e-3)
    assert not torch.allclose(both, made([0, 1], guidance=1.0), atol=1e-3)


def test_baselines_copy_ignore_and_sdedit(generator: Generator) -> None:
    plain = generator.task
    torch.manual_seed(0)
    values = torch.randn(1, 4, 2, 4, 4)
    source = Latent(values, torch.tensor([8.0]))
    batch = EditBatch(source, ["a red star"], ["add"], torch.tensor([3]))
    assert edit_latents(plain, batch, SAMPLER, "copy") is source
    with pytest.raises(ValueError, match="takes no source; train one with"):
        edit_latents(plain, batch, SAMPLER)
    sampler = EditSampler(num_steps=8, schedule="linear", guidance=1.0, strength=0.01)
    calls: list[int] = []
    hook = plain.backbone.register_forward_hook(lambda *_: calls.append(1))
    near = edit_latents(plain, batch, sampler, "sdedit").values
    hook.remove()
    assert (near - values).abs().mean() < 0.1 and len(calls) == 8  # as many steps as an edit takes
    far = [edit_latents(plain, one, SAMPLER, "ignore").values for one in (batch, EditBatch(
        Latent(values + 1, torch.tensor([8.0])), ["a red star"], ["add"], torch.tensor([3])
    ))]  # fmt: skip
    torch.testing.assert_close(*far)
    with pytest.raises(ValueError, match=r"sdedit needs a solver of fixed steps .*, got 'dopri5'"):
        edit_latents(plain, batch, EditSampler(solver="dopri5"), "sdedit")


def test_many_edits_are_resumed_and_only_missing_ones_made(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number in range(3):
        video_file(tmp_path / f"{number}.mp4", 4, height=16, width=16, seed=number)
        rows.append({"id": f"e{number}", "video": f"{number}.mp4", "instruction": "make the star blue"})
    (tmp_path / "edits.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    words = [f"edits={tmp_path / 'edits.jsonl'}", "batch_size=2"]
    assert run(tmp_path / "out", model, *words) == 0
    manifest = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [row["file"] for row in manifest] == ["e0.mp4", "e1.mp4", "e2.mp4"]
    assert {row["task"] for row in manifest} == {"color"}
    assert "by the words of instructions that name none: color (3)" in capsys.readouterr().out
    stamps = {n: (tmp_path / "out" / f"e{n}.mp4").stat().st_mtime_ns for n in range(3)}
    recipe = json.loads((tmp_path / "out" / "e0.json").read_text())["recipe"]
    codec = Path(read_record(model)["task"]["codec"]["path"] + ".safetensors")
    assert recipe["codec"] == file_sha256(codec) and recipe["tiling"]["frames"] == 32
    first = read_clip(tmp_path / "out" / "e1.mp4").frames
    (tmp_path / "out" / "e1.mp4").unlink()
    assert run(tmp_path / "out", model, *words) == 0
    again = {n: (tmp_path / "out" / f"e{n}.mp4").stat().st_mtime_ns for n in range(3)}
    assert [n for n in range(3) if stamps[n] != again[n]] == [1]
    made = read_clip(
        tmp_path / "out" / "e1.mp4"
    ).frames  # alone, not in a batch: a level may be rounded otherwise
    assert np.abs(made.astype(int) - first).mean() < 0.5
    calls = []
    real = sampling.edit_latents
    monkeypatch.setattr("moviegen.edit.edit_latents", lambda *a: calls.append(1) or real(*a))
    assert run(tmp_path / "out", model, *words, "sampler.seed=1") == 0
    assert len(calls) == 2  # batches of two: all made anew
    assert "earlier edits are replaced: e0.mp4, e1.mp4, e2.mp4" in capsys.readouterr().out
    video_file(tmp_path / "2.mp4", 3, height=16, width=16, seed=5)  # another source of the same name
    assert run(tmp_path / "out", model, *words, "sampler.seed=1") == 0
    assert len(calls) == 3 and probe(tmp_path / "out" / "e2.mp4").num_frames == 3


def test_what_a_window_asks_of_the_model_beyond_its_training_is_told_once(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = read_record(model) | {
        "info": {"num_frames": [8, 8], "frame_rates": [8.0, 8.0], "height": [16, 16]}
    }
    write_json(tmp_path / "told.json", record)
    (tmp_path / "told.safetensors").write_bytes(Path(f"{model}.safetensors").read_bytes())
    rows = []
    for number, rate in enumerate((12.5, 12.5, 8000 / 1001)):
        source = video_file(tmp_path / f"{number}.mp4", 8, rate, height=16, width=16)
        rows.append({"id": f"e{number}", "video": str(source), "instruction": "add a star"})
    (tmp_path / "edits.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [f"edits={tmp_path / 'edits.jsonl'}", "batch_size=1", "strips=false"]
    assert run(tmp_path / "out", str(tmp_path / "told"), *words) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "knows no" in line]
    odd = "num_frames=4 (trained: 8)"  # two latent frames: a window
    assert [line.split("knows no ")[1] for line in lines] == [
        f"frame_rates=12.5 (trained: 8), {odd}: such clips may be poor",
        f"{odd}: such clips may be poor",
    ]


def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no source, and what is said of each."""
    folder.mkdir()
    whole = video_file(folder / "whole.mp4", 12, height=32, width=32).read_bytes()
    (folder / "corrupt.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").write_bytes(b"")
    write_flac(folder / "sound.flac", tone(1.0), RATE)
    return {
        "corrupt.mp4": (folder / "corrupt.mp4", "corrupt.mp4"),
        "text.mp4": (folder / "text.mp4", "text.mp4"),
        "empty.mp4": (folder / "empty.mp4", "is empty (0 bytes)"),
        "sound.flac": (folder / "sound.flac", "sound.flac"),
        "missing": (folder / "nowhere.mp4", "no such file"),
    }


def test_sources_that_are_no_video_are_refused_and_nothing_half_written_stays(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (path, said) in broken(tmp_path / "in").items():
        error = refused(capsys, run(tmp_path / name, model, f"video={path}", "instruction=add a star"))
        assert said in error, (name, error)
        assert not (tmp_path / name).exists(), name


def test_a_picture_of_which_an_edit_would_lose_something_is_refused_before_anything_is_written(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clear = np.full((16, 16, 4), (255, 0, 0, 255), np.uint8)
    clear[:8, :, 3] = 0  # red that nobody sees
    Image.fromarray(clear).save(tmp_path / "clear.png")
    (tmp_path / "deep.png").write_bytes(sixteen_bits(16, 16))
    for name, said in (
        ("clear.png", "clear.png: is transparent in places; save it on an opaque background"),
        ("deep.png", "deep.png: has 16 bits a channel; save it with 8"),
    ):
        for size in ([], ["height=null", "width=null"]):
            words = [f"image={tmp_path / name}", "instruction=add a star", *size]
            assert said in refused(capsys, run(tmp_path / "out", model, *words))
            assert not (tmp_path / "out").exists()


def test_ten_minutes_go_through_and_a_longer_film_is_refused_before_it_is_read(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("moviegen.edit_files.SMALL_BYTES", 0)  # read in chunks, as a large file is
    write_video(tmp_path / "in.mp4", moving(600, 8, 8), 1.0)  # ten minutes at one frame a second
    words = [f"video={tmp_path / 'in.mp4'}", "instruction=add a star", "height=4", "width=4"]
    assert run(tmp_path / "out", model, *words, "sampler.hop=2") == 0
    info = probe(tmp_path / "out" / "edited.mp4")
    assert (info.num_frames, info.frame_rate, round(info.duration_seconds)) == (600, 1.0, 600)
    error = refused(capsys, run(tmp_path / "short", model, *words, "max_frames=599"))
    assert "has 600 frames (600 s), at most 599 are edited; cut it, or raise max_frames" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["instruction=add a star"],
            "give video=in.mp4, image=in.png or edits=FILE, one of them; given: none",
        ),
        (["video=a.mp4", "image=a.png", "instruction=add a star"], "given: video, image"),
        (["video=a.mp4"], "say what to change: instruction="),
        (
            ["video=a.mp4", "instruction='the moon is round'"],
            "known by its words; name its task, one of segment",
        ),
        (
            ["video=a.mp4", "instruction=fly", "edit_task=fly"],
            "task=fly is none of this model's: segment, add",
        ),
        (
            ["video=a.mp4", "instruction=add a star", "height=18"],
            "height=18: this model edits multiples of 4 pixels",
        ),
        (
            ["video=a.mp4", "instruction=add a star", "baseline=best"],
            "baseline=best: expected one of sdedit, copy, ignore",
        ),
        (
            ["video=a.mp4", "instruction=add a star", "tiling.frames=31"],
            "tiling.frames must be a multiple of the codec's 2, got 31",
        ),
        (["edits=nowhere.jsonl"], "nowhere.jsonl: cannot be read as a json object a line"),
        (
            ["video=a.mp4", "instruction=add a star", "sampler.strength=0"],
            "strength must be above 0 and at most 1",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refused(capsys, run(tmp_path / "out", model, *words))
    assert not (tmp_path / "out").exists()


def test_rows_that_name_no_edit_and_models_without_a_source_are_refused(
    model: str,
    generator: Generator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "edits.jsonl"
    for rows, said in (
        ([{"id": "a", "instruction": "add a star"}], "line 1: needs a video or an image"),
        ([{"id": "a/b", "video": "x.mp4", "instruction": "add a star"}], "an id that is a plain file name"),
        ([{"id": " ", "video": "x.mp4", "instruction": "add a star"}], "an id that is a plain file name"),
        ([{"id": "a", "video": "x.mp4"}], "line 1: needs id, instruction"),
        ([{"id": "a", "video": "x.mp4", "instruction": "add it"}] * 2, "two edits are called a"),
    ):
        file.write_text("\n".join(json.dumps(row) for row in rows))
        assert said in refused(capsys, run(tmp_path / "out", model, f"edits={file}"))
    error = refused(capsys, run(tmp_path / "out", generator.path, "video=a.mp4", "instruction=add a star"))
    assert "takes no source; give a model that was trained with task=edit, or baseline=sdedit" in error


def test_an_edit_that_changes_nothing_is_said_to() -> None:
    before = list(moving(4, 16, 16))
    assert (
        changed_share(before, before) == 0.0
        and changed_share(before, [255 - frame for frame in before]) > 0.5
    )


def test_a_long_copy_shows_the_source(model: str, tmp_path: Path) -> None:
    source = video_file(tmp_path / "in.mp4", 70, height=16, width=16)  # more than the codec's tile
    assert run(tmp_path / "out", model, f"video={source}", "instruction=add a star", "baseline=copy") == 0
    with av.open(str(tmp_path / "out" / "edited.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 70
    assert read_clip(tmp_path / "out" / "edited.mp4").frames.shape == (70, 16, 16, 3)

"""Images out and images in: what is judged of stills, of clips that were given an image, and what the page shows."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from eval_samples import softened
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.judge import judge
from moviegen_eval.manifest import GeneratedSample, read_manifest, write_manifest
from moviegen_eval.numbers import Figure, read_numbers
from moviegen_eval.pairs import ClipPair, Reconstruction, save_pair, write_reconstructions
from moviegen_eval.report import report
from moviegen_eval.stills import frame_psnr, observe_image, read_given, still_spec
from moviegen_eval.verdicts import judge_observation, read_verdicts

from moviegen.config import compose
from moviegen.media import to_png_bytes, write_clip

NUM = 8
FACTS = {"system": "x", "seed": 0, "steps": 1, "guidance": 1.0, "checkpoint": "c", "commit": "d"}
WORLD = World(WorldConfig(level=4, combos="heldout"))


def sample(folder: Path, name: str, frames: np.ndarray, **more: object) -> GeneratedSample:
    """A generated file in a folder, and its line of the manifest."""
    path = write_clip(folder / name, frames, 8.0).name
    rate = 8.0 if len(frames) > 1 else 0.0
    values = {
        "id": name,
        "prompt": name,
        "path": path,
        "set": "heldout",
        "spec": None,
        "frame_rate": rate,
    } | FACTS
    return GeneratedSample(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right clips, right stills, and clips that begin with the image they were given (half of them with another)."""
    root = tmp_path_factory.mktemp("job")
    folder, samples, records = root / "gen", [], []
    folder.mkdir()
    (root / "given").mkdir()
    for index in range(NUM):
        clip = WORLD.render(5, index)
        spec, facts = clip.truth["spec"], {"prompt": clip.caption}
        samples.append(sample(folder, f"clip{index}", clip.frames, spec=spec, **facts))
        samples.append(sample(folder, f"still{index}", clip.frames[:1], spec=spec, **facts))
        given = root / "given" / f"{index}.png"
        shown = clip.frames[0] if index % 2 else WORLD.render(6, index).frames[0]
        given.write_bytes(to_png_bytes(shown))
        facts["original"] = f"short <{index}>"
        samples.append(
            sample(folder, f"given{index}", clip.frames, spec=spec, image=f"../given/{index}.png", **facts)
        )
        path = save_pair(root / "rec", f"r{index}", ClipPair(clip.frames, softened(clip.frames), 8.0))
        records.append(Reconstruction(f"r{index}", "toyworld", "toyworld", path, clip.caption, spec))
    write_manifest(folder, samples)
    write_reconstructions(root / "rec", records)
    bars = dict(compose("judge", ["out=x"])["bars"])
    judge(config(root) | {"reconstructions": str(root / "rec"), "bars": bars, "level": 4})
    return root


def config(root: Path) -> dict:
    return {
        "out": str(root / "judged"),
        "generations": str(root / "gen"),
        "bootstrap_count": 200,
        "shuffles": 20,
    }


@pytest.fixture(scope="module")
def figures(job: Path) -> dict[str, Figure]:
    return {figure.name: figure for figure in read_numbers(job / "judged" / "numbers.json")}


def test_stills_have_figures_of_what_a_picture_shows_beside_those_of_clips(
    figures: dict[str, Figure],
) -> None:
    of_stills = {name.split("/")[1] for name in figures if name.startswith("t2i/")}
    assert of_stills == {"colour", "shape", "size", "background"}
    for attribute in of_stills:
        for kind in ("t2i", "t2v"):
            figure = figures[f"{kind}/{attribute}"]
            assert figure.value >= 0.85 and figure.n <= NUM
            assert {f"{figure.name}/floor", f"{figure.name}/ceiling"} <= set(figures)
    assert figures["t2i/colour/floor"].value < 0.6 and figures["t2i/colour/ceiling"].value == 1.0


def test_clips_that_were_given_an_image_are_figures_of_their_own(figures: dict[str, Figure]) -> None:
    assert figures["i2v/motion"].value >= 0.85 and "i2v/motion/floor" in figures
    psnr = figures["i2v/first_frame_psnr"]
    assert psnr.unit == "dB, toyworld level 4" and psnr.n == NUM and psnr.low < psnr.value < psnr.high  # type: ignore[operator]
    ceiling, floor = figures["i2v/first_frame_psnr/ceiling"], figures["i2v/first_frame_psnr/floor"]
    assert floor.value < psnr.value < ceiling.value  # half of the clips begin with another image
    assert "t2v/first_frame_psnr" not in figures


def test_the_first_frame_is_held_against_the_image_of_its_own_clip(job: Path, tmp_path: Path) -> None:
    given = [s for s in read_manifest(job / "gen") if s.image]
    right = [replace(s, path=f"{job}/gen/{s.path}") for s in given[1::2]]
    found = first_frame(tmp_path, job, right)
    assert found > 30  # the very image, but for H.264
    assert first_frame(tmp_path, job, [replace(s, image=given[0].image) for s in right]) < 20


def test_a_given_frame_is_held_against_the_one_in_its_place(job: Path, tmp_path: Path) -> None:
    clip = WORLD.render(5, 1)
    (tmp_path / "late.png").write_bytes(to_png_bytes(clip.frames[9]))
    given = next(s for s in read_manifest(job / "gen") if s.id == "given1")
    right = replace(given, image=str(tmp_path / "late.png"), image_frame=9)
    at_the_start = first_frame(tmp_path, job, [replace(right, image_frame=0)])
    assert first_frame(tmp_path, job, [right]) > max(30, at_the_start + 3)


def first_frame(folder: Path, job: Path, samples: list[GeneratedSample]) -> float:
    """The figure for clips of a job, judged from another folder."""
    lines = [
        asdict(s) | {"path": Path(s.path).name, "image": str((job / "gen" / str(s.image)).resolve())}
        for s in samples
    ]
    for line in lines:
        (folder / line["path"]).write_bytes((job / "gen" / line["path"]).read_bytes())
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    figures = judge(
        {"out": str(folder / "out"), "generations": str(folder), "bootstrap_count": 200, "shuffles": 5}
    )
    return next(f.value for f in figures if f.name == "i2v/first_frame_psnr")


def test_an_image_of_another_size_is_scaled_and_a_clip_that_is_missing_counts_as_black(
    job: Path, tmp_path: Path
) -> None:
    clip = WORLD.render(5, 1)
    large = clip.frames[0].repeat(2, axis=0).repeat(2, axis=1)
    (tmp_path / "large.png").write_bytes(to_png_bytes(large))
    samples = [sample(tmp_path, "a", clip.frames, image="large.png", set="free")]
    samples.append(replace(samples[0], id="b", path="lost.mp4"))
    write_manifest(tmp_path, samples)
    figures = judge({"out": str(tmp_path / "out"), "generations": str(tmp_path), "bootstrap_count": 200})
    found = next(f for f in figures if f.name == "i2v/first_frame_psnr")
    black = frame_psnr(clip.frames[0], np.zeros_like(clip.frames[0]))
    assert found.n == 2 and (30 + black) / 2 < found.value < (45 + black) / 2


def test_the_middle_of_a_wide_image_is_what_a_clip_begins_with(tmp_path: Path) -> None:
    frame = WORLD.render(5, 1).frames[0]
    wide = np.pad(frame, ((0, 0), (20, 20), (0, 0)), constant_values=255)
    (tmp_path / "wide.png").write_bytes(to_png_bytes(wide))
    np.testing.assert_array_equal(read_given(tmp_path / "wide.png", *frame.shape[:2]), frame)


def test_an_image_that_is_not_there_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    write_manifest(tmp_path, [sample(tmp_path, "a", WORLD.render(5, 1).frames, image="lost.png", set="free")])
    with pytest.raises(ValueError, match=r"manifest\.jsonl: the image lost\.png of clip a does not exist"):
        judge({"out": str(tmp_path / "out"), "generations": str(tmp_path)})
    (tmp_path / "lost.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"lost\.png"):
        judge({"out": str(tmp_path / "out"), "generations": str(tmp_path)})
    assert not (tmp_path / "out").exists()


def test_bars_of_stills_and_given_images_count_only_where_there_are_some(job: Path, tmp_path: Path) -> None:
    bars = {bar["name"]: bar for bar in json.loads((job / "judged" / "bars.json").read_text())}
    assert bars["i2v/motion"]["target"] == 0.8 and bars["i2v/first_frame_psnr"]["target"] == 24.0
    write_manifest(tmp_path, [sample(tmp_path, "a", WORLD.render(5, 1).frames, set="free")])
    words = {"generations": str(tmp_path), "bars": {"i2v/motion": 0.8, "t2i/colour": 0.5, "t2v/colour": 0.9}}
    judge({"out": str(tmp_path / "out"), **words})
    assert [bar["name"] for bar in json.loads((tmp_path / "out" / "bars.json").read_text())] == ["t2v/colour"]


def test_a_still_that_cannot_be_read_is_a_wrong_still(tmp_path: Path) -> None:
    clip = WORLD.render(5, 1)
    samples = [sample(tmp_path, name, clip.frames[:1], spec=clip.truth["spec"]) for name in ("a", "b")]
    write_manifest(tmp_path, samples)
    (tmp_path / "a.png").write_bytes(b"no image")
    figures = {f.name: f for f in judge({"out": str(tmp_path / "out"), "generations": str(tmp_path)})}
    assert figures["t2i/colour"].value == 0.5 and "t2v/colour" not in figures
    assert [row.still for row in read_verdicts(tmp_path / "out")] == [True, True]


def test_a_picture_of_any_frame_shows_color_shape_size_and_background() -> None:
    right: list[bool] = []
    for index in range(20):
        clip = WORLD.render(9, index)
        for frame in (0, 9):
            spec = still_spec(clip.truth["spec"])
            right += judge_observation(spec, observe_image(clip.frames[frame])).values()
    assert np.mean(right) >= 0.98 and len(right) > 140


def test_a_size_is_not_asked_of_a_picture_where_the_camera_zooms() -> None:
    spec = {
        "sprites": [{"color": "red", "shape": "star", "size": "big", "motion": "left"}],
        "background": "plain",
    }
    assert still_spec(spec | {"camera": "static", "interaction": "push"}) == {
        "sprites": [{"color": "red", "shape": "star", "size": "big"}],
        "background": "plain",
    }
    assert "size" not in still_spec(spec | {"camera": "zoom in"})["sprites"][0]  # type: ignore[index]
    assert still_spec(None) is None


def test_only_a_still_has_no_frame_rate(tmp_path: Path) -> None:
    clip = sample(tmp_path, "a", WORLD.render(5, 1).frames, set="free")
    write_manifest(tmp_path, [replace(clip, frame_rate=0.0)])
    with pytest.raises(ValueError, match="frame_rate is 0"):
        read_manifest(tmp_path)


def test_the_page_shows_stills_given_images_and_both_prompts(job: Path) -> None:
    source = report({"judged": str(job / "judged"), "out": str(job / "report.html")}).read_text()
    assert source.count("<img ") == 2 * NUM and source.count("<video ") == 2 * NUM and "</img>" not in source
    assert source.count('src="data:image/png;base64,iVBOR') == 2 * NUM
    assert "<span>written</span>" in source and "short &lt;3&gt;" in source
    assert "never trained on: clips that were given their first frame" in source
    assert "never trained on: images" in source and "i2v/first_frame_psnr" in source

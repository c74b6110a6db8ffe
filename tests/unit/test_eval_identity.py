"""`moviegen eval identity`: what its scores mean on clips of known content, floors, and differences of arms."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.finder import ToyFaces
from moviegen_eval.files import read_json_lines
from moviegen_eval.identity import identity
from moviegen_eval.identity_scores import Seen, clip_scores, gallery, look, retrieved
from moviegen_eval.manifest import GeneratedSample, write_manifest
from moviegen_eval.numbers import read_numbers
from moviegen_eval.report import report

from moviegen import cli
from moviegen.faces import one_face
from moviegen.media import read_clip, read_image, write_clip
from moviegen.media import to_png_bytes as png

WORLD = World(WorldConfig(character_share=1.0, characters="heldout", named_characters=False))
FACES = {"_target_": "moviegen_data.toyworld.finder.ToyFaces"}


def sample(number: int, **more) -> GeneratedSample:
    return GeneratedSample(
        id=f"{number:02d}",
        prompt=f"prompt {number}",
        path=f"{number:02d}.mp4",
        set="heldout",
        spec={"sprites": [{"motion": WORLD.scene(0, number).sprites[0].motion}]},
        system="x",
        seed=0,
        steps=1,
        guidance=1.0,
        checkpoint="m",
        frame_rate=8.0,
        commit="c",
        references=[f"../references/{number:02d}.png"],
        tags={"person": str(WORLD.render(0, number).truth["sprites"][0]["character"])},
        **more,
    )


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three arms of 10 clips: the right person, the same person twice as often, and somebody else."""
    folder, count = tmp_path_factory.mktemp("arms"), 10
    (folder / "references").mkdir()
    for number in range(count):
        (folder / "references" / f"{number:02d}.png").write_bytes(png(WORLD.render(0, number).frames[4]))
    frames = [WORLD.render(0, number).frames for number in range(count)]
    shown = {
        "right": frames,
        "still": [np.repeat(f[4:5], 16, axis=0) for f in frames],
        "wrong": frames[1:] + frames[:1],
    }
    for arm, clips in shown.items():
        (folder / arm).mkdir()
        for number, clip in enumerate(clips):
            write_clip(folder / arm / f"{number:02d}", clip, 8.0)
        write_manifest(folder / arm, [sample(number) for number in range(count)])
    return {arm: str(folder / arm) for arm in shown}


def figures(arms: dict[str, str], out: Path, **more) -> dict:
    config = {"out": str(out), "arms": arms, "faces": FACES, "bootstrap_count": 200, "shuffles": 20, **more}
    return {figure.name.removeprefix("personalize/"): figure for figure in identity(config)}


def test_the_right_person_scores_high_the_wrong_one_as_the_floor(arms, tmp_path: Path) -> None:
    found = figures(arms, tmp_path / "out", compare=["right,still"], bars={"personalize/identity_top1": 0.8})
    assert found["identity_mean"].value > 0.95 and found["identity_worst"].value > 0.9
    assert found["identity_best"].value >= found["identity_mean"].value >= found["identity_worst"].value
    assert found["identity_top1"].value == 1 and found["wrong/identity_top1"].value < 0.3
    floor = found["identity_mean/floor"]
    assert floor.value < 0.7 and abs(found["wrong/identity_mean"].value - floor.value) < 0.25
    assert found["motion"].value == 1 and found["still/motion"].value < 0.5
    assert found["reference_frame/variation"].value == 0 and found["still/variation"].value < 0.05
    assert found["variation"].low > 0.1 and found["consistency"].value > 0.95
    assert found["right_minus_still/equal_identity"].value == 1
    assert found["right_minus_still/variation"].low > 0
    assert found["identity_top1/chance"].value == 1 / len(
        {row["person"] for _, row in rows(tmp_path / "out")}
    )
    written = read_numbers(tmp_path / "out" / "numbers.json")
    assert [figure.name for figure in written] == [f"personalize/{name}" for name in found]
    assert json.loads((tmp_path / "out" / "bars.json").read_text())[0]["reached"]


def test_figures_stand_between_shuffled_references_and_true_clips_and_say_their_level(
    arms, tmp_path: Path
) -> None:
    config = {"ceiling": arms["right"], "level": 4}
    found = figures({"still": arms["still"], "wrong": arms["wrong"]}, tmp_path, **config)
    assert found["motion"].value < 0.5 and found["motion/ceiling"].value == 1
    assert found["motion/floor"].value < found["motion/ceiling"].value
    assert found["identity_top1"].value == found["identity_top1/ceiling"].value == 1
    assert found["identity_top1/floor"].value == 0
    assert found["identity_best/floor"].value < 0.9 < found["identity_best"].value
    assert found["wrong/identity_mean"].value < found["wrong/identity_mean/ceiling"].value
    assert "reference_frame/identity_mean/ceiling" not in found
    assert all(figure.unit.endswith(", toyworld level 4") for figure in found.values())
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="is no true clip that can be read"):
        figures({"right": arms["right"]}, tmp_path / "out", ceiling=str(tmp_path / "none"))


def rows(out: Path) -> list:
    return list(read_json_lines(out / "identity.jsonl"))


def test_scores_are_written_and_embeddings_are_not(arms, tmp_path: Path) -> None:
    figures({"right": arms["right"]}, tmp_path)
    (_, row), *_ = rows(tmp_path)
    said = {"arm", "id", "prompt", "person", "path", "references", "consent", "scores", "verdict", "error"}
    assert set(row) == said
    assert {path.name for path in tmp_path.iterdir()} == {"identity.jsonl", "numbers.json", "bars.json"}


def test_the_report_shows_references_of_drawn_characters_beside_their_clips(arms, tmp_path: Path) -> None:
    figures({"right": arms["right"]}, tmp_path / "judged")
    page = report({"people": str(tmp_path / "judged")}).read_text()
    people = len({row["person"] for _, row in rows(tmp_path / "judged")})
    assert page.count("data:video/mp4") == page.count("data:image/png") == people
    assert "personalize/identity_mean" in page and "Clips of given people" in page
    lines = [json.dumps(row | {"consent": "anna"}) for _, row in rows(tmp_path / "judged")]
    (tmp_path / "judged" / "identity.jsonl").write_text("\n".join(lines) + "\n")
    page = report({"people": str(tmp_path / "judged")}).read_text()
    assert page.count("data:video/mp4") == people and "data:image/png" not in page


def test_a_clip_that_is_missing_shows_nobody_and_counts(arms, tmp_path: Path) -> None:
    write_manifest(tmp_path / "half", [sample(number) for number in range(10)])
    found = figures({"right": arms["right"], "half": str(tmp_path / "half")}, tmp_path / "out")
    assert found["half/identity_mean"].value == 0 and found["half/identity_top1"].value == 0
    assert found["half/motion"].value == 0 and "half/variation" not in found


def test_several_clips_of_a_prompt_count_once(arms, tmp_path: Path) -> None:
    found = figures({"right": arms["right"]}, tmp_path)
    assert found["identity_mean"].n == 10
    clips = [WORLD.render(0, 0).frames, WORLD.render(0, 1).frames]
    finder = ToyFaces()
    faces = [finder.find(clip)[4][0] for clip in clips]
    seen = [look(sample(number), clip, [faces[number]], finder) for number, clip in enumerate(clips)]
    assert retrieved(seen[0], gallery(seen)) and retrieved(seen[1], gallery(seen))
    nobody = Seen(sample(0), (None, None), (faces[0],), {})
    scores = clip_scores(nobody)
    assert scores["identity_best"] == 0 and scores["found"] == 0 and "variation" not in scores
    assert not retrieved(nobody, gallery(seen))
    half = clip_scores(Seen(sample(0), (faces[0], None), (faces[0],), {}))
    assert (
        half["identity_best"] == pytest.approx(1) and half["identity_worst"] == 0 and half["consistency"] == 0
    )


def test_prompts_of_characters_come_with_frames_of_their_other_clips(tmp_path: Path) -> None:
    out = tmp_path / "p"
    assert (
        cli.main(
            [
                "eval",
                "prompts",
                f"out={out}",
                "heldout=0",
                "template=0",
                "free=[]",
                "characters=2",
                "truths=true",
            ]
        )
        == 0
    )
    prompts = [row for _, row in read_json_lines(out / "prompts.jsonl")]
    assert len(prompts) == 32 and len({row["tags"]["person"] for row in prompts}) == 16
    truths = {row["id"]: row for _, row in read_json_lines(out / "truths.jsonl")}
    assert set(truths) == {row["id"] for row in prompts}
    for row in prompts[:8]:
        finder = ToyFaces()
        shown = read_clip(out / truths[row["id"]]["video"]).frames
        reference = one_face(finder.find(read_image(out / row["references"][0])[None])[0], finder.smallest)
        seen = look(GeneratedSample(**sample(0).__dict__ | {"spec": row["spec"]}), shown, [reference], finder)
        assert all(seen.verdict.values()) and clip_scores(seen)["identity_mean"] > 0.8
        assert set(row["spec"]["sprites"][0]) == {"motion"}
        (faces,) = ToyFaces().find(read_image(out / row["references"][0])[None])
        assert len(faces) == 1
    bare = [row for _, row in read_json_lines(out / "text_only.jsonl")]
    assert bare == [{key: value for key, value in row.items() if key != "references"} for row in prompts]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}}, "give arms.<name>=FOLDER"),
        ({"compare": ["right,best"]}, "compare names 'best'; the arms are right"),
        ({"faces": {"_target_": "os.system"}}, "_target_ os.system is none of"),
    ],
)
def test_wrong_settings_are_refused(arms, tmp_path: Path, change: dict, message: str) -> None:
    config = {"out": str(tmp_path / "o"), "arms": {"right": arms["right"]}, "faces": FACES, **change}
    with pytest.raises(ValueError, match=message):
        identity(config)
    assert not (tmp_path / "o").exists()


def test_arms_need_references_and_the_same_prompts(arms, tmp_path: Path) -> None:
    bare = [GeneratedSample(**asdict(sample(n)) | {"references": None}) for n in range(10)]
    write_manifest(tmp_path / "bare", bare)
    with pytest.raises(ValueError, match="no clip of its manifest names references"):
        figures({"bare": str(tmp_path / "bare")}, tmp_path / "o")
    write_manifest(tmp_path / "few", bare[:3])
    with pytest.raises(ValueError, match="has no clip 03, which the first arm has"):
        figures({"right": arms["right"], "few": str(tmp_path / "few")}, tmp_path / "o")
    write_manifest(tmp_path / "lost", [GeneratedSample(**asdict(sample(0)) | {"references": ["no.png"]})])
    with pytest.raises(ValueError, match=r"the reference no\.png of clip 00 does not exist"):
        figures({"lost": str(tmp_path / "lost")}, tmp_path / "o")

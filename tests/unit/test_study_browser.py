"""The rating page in a real browser: players in step, locked answers, keys, undo, pause, a phone, a killed server."""

import dataclasses
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browsing import PATIENCE_MS, opened, wait_until
from moviegen_eval.study.axes import Axis
from moviegen_eval.study.table import read_votes
from page_samples import (
    HOSTILE,
    IDENTITY,
    OVERALL,
    REALNESS,
    SECONDS,
    SOUND,
    make_study,
    served,
    write_served,
)

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("no chromium to rate with", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
PHONE["viewport"] = {"width": 390, "height": 780}
OPEN = "!document.querySelector('#answers button').disabled"
ROUNDS = 3  # of the test with several raters
NOTE_SOUND = """() => {  // which are mute, from now on, in a task that begins anew
  const player = moviegenStudy.player, { left, right } = player.videos;
  window.heard = [[left.muted, right.muted]];
  for (const [name, usual] of [["mute", player.mute], ["changed", player.changed]])
    player[name] = () => { usual.call(player); heard.push([left.muted, right.muted]); };
  player.reset(player.task);
  player.ready = true;
  player.show("left");
  player.again();
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield launched
        launched.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    yield chromium
    for context in chromium.contexts:  # their videos would play on
        context.close()


@pytest.fixture
def config(tmp_path: Path):
    return dataclasses.replace(write_served(tmp_path, make_study()), anyone=True)


def enter(browser: Any, url: str, form: dict = DESK) -> Any:
    """A page of a rater who agreed, with the first task on the screen; errors in it fail the test."""
    page = opened(browser, **form)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda line: line.type == "error" and page.errors.append(line.text))
    page.goto(url)
    page.wait_for_selector("#agree:visible")
    assert page.inner_text("#consent-text") == "I take part."
    page.click("#agree")
    page.wait_for_selector("#rate:visible")
    return page


def current(page: Any) -> str:
    return page.evaluate("moviegenStudy.current().id")


def press(page: Any, key: str) -> None:
    """Answer by key once that is possible, and wait for what comes next."""
    task = current(page)
    wait_until(page, OPEN)
    page.keyboard.press(key)
    wait_until(page, f"id => moviegenStudy.current().id !== id || {SHOWN} !== 'rate'", task)


SHOWN = "document.body.dataset.page"


def votes(config: Any) -> list:
    return list(read_votes(Path(config.out) / "votes.jsonl").votes())


def test_answers_are_locked_until_both_videos_were_watched_to_the_end(browser, config) -> None:
    with served(config) as url:
        page = enter(browser, url)
        wait_until(page, "moviegenStudy.player.ready")
        page.evaluate("moviegenStudy.player.pause()")
        page.evaluate("moviegenStudy.player.seen.right.fill(0)")  # as if the right one had not been shown yet
        time.sleep(0.2)
        assert not page.evaluate(OPEN)
        page.keyboard.press("1")
        page.evaluate("moviegenStudy.player.seek(moviegenStudy.player.duration - 0.05)")  # shows nothing
        page.keyboard.press("1")
        assert votes(config) == []
        page.evaluate("moviegenStudy.player.again()")
        press(page, "1")
        assert page.errors == []
    vote = votes(config)[0]
    assert vote.answer == vote.shown_left
    assert min(vote.watch_seconds) >= 0.8 * SECONDS
    assert vote.details["window"] == [1280, 800]


def test_both_players_stay_within_half_a_frame_of_each_other(browser, tmp_path) -> None:
    config = write_served(tmp_path, make_study(), seconds=4.0)  # not begun anew meanwhile
    with served(dataclasses.replace(config, anyone=True)) as url:
        page = enter(browser, url)
        wait_until(page, "moviegenStudy.player.playing")
        drifts = []
        while len(drifts) < 40:
            drifts.append(abs(page.evaluate("moviegenStudy.player.drift || 0")))
            time.sleep(0.05)
        assert sorted(drifts)[20] < 0.5 / 16  # half a frame; single ticks may be late on a busy machine
        page.evaluate("moviegenStudy.player.step(1)")
        wait_until(
            page, "!document.querySelector('#left').seeking && !document.querySelector('#right').seeking"
        )
        times = page.evaluate("[...document.querySelectorAll('video')].map(video => video.currentTime)")
        assert times[0] == times[1]
        boxes = page.evaluate(
            "[...document.querySelectorAll('video')].map(v => [v.clientWidth, v.clientHeight])"
        )
        assert boxes[0] == boxes[1]
        assert all(page.evaluate("[...document.querySelectorAll('video')].map(video => video.muted)"))


def test_keys_answer_take_back_and_leave_a_reason(browser, config) -> None:
    with served(config) as url:
        page = enter(browser, url)
        first = current(page)
        wait_until(page, OPEN)
        page.keyboard.press("r")
        page.keyboard.type("1 because it is sharp")  # the key 1 inside the reason answers nothing
        assert current(page) == first
        page.keyboard.press("Enter")
        press(page, "3")
        press(page, "2")
        third = current(page)
        page.keyboard.press("u")
        page.keyboard.press("u")
        assert current(page) == first
        assert page.input_value("#reason") == "1 because it is sharp"
        wait_until(page, OPEN)  # at once: it was watched before
        wait_until(page, "moviegenStudy.player.watch.left > 0.1")
        page.keyboard.press("1")
        wait_until(page, "id => moviegenStudy.current().id === id", third)
        page.reload()
        wait_until(page, f"{SHOWN} === 'rate' && moviegenStudy.player.ready")
        assert current(page) == third  # where it stopped
        assert page.is_enabled("#undo")  # and the last answer can still be taken back
        assert page.errors == []
    given = votes(config)
    assert [vote.answer == "tie" for vote in given] == [False, True, False]
    assert given[2].undoes == given[0].id
    assert given[2].answer != given[0].answer and given[2].item == given[0].item
    assert given[2].watch_seconds[0] > given[0].watch_seconds[0]
    assert given[0].reason == given[2].reason == "1 because it is sharp"


def test_prompts_are_text_and_nothing_else(browser, config) -> None:
    with served(config) as url:
        page = enter(browser, url)
        seen = []
        for _ in range(6):
            seen.append(page.inner_text("#prompt"))
            press(page, "2")
        assert HOSTILE in seen
        assert page.title() == "Tiny study"
        assert page.locator("#prompt *").count() == 0
        assert page.errors == []


def test_a_break_and_another_device_go_on_at_the_same_task(browser, config) -> None:
    with served(config) as url:
        page = enter(browser, url)
        press(page, "1")
        task, link = current(page), page.url
        assert "#code=" in link
        page.keyboard.press("p")
        page.wait_for_selector("#message-title:has-text('Paused')")
        other = opened(browser, **PHONE)
        other.goto(link)
        other.click("#message-button:has-text('Go on')")
        wait_until(other, f"{SHOWN} === 'rate' && moviegenStudy.player.ready")
        assert current(other) == task


def test_on_a_phone_everything_fits_and_is_answered_by_touch(browser, config, tmp_path) -> None:
    with served(config) as url:
        page = enter(browser, url, PHONE)
        wait_until(page, OPEN)
        page.screenshot(path=tmp_path / "phone.png")
        boxes = [
            page.locator(name).bounding_box()
            for name in ("#left-figure", "#right-figure", "#answers", "#tools")
        ]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]  # one above the other
        assert boxes[0]["height"] == pytest.approx(boxes[1]["height"], abs=1) and boxes[0]["height"] > 150
        assert boxes[3]["y"] + boxes[3]["height"] <= 780
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.inner_text("#answers").split() == ["Upper", "Same", "Lower"]
        task = current(page)
        page.tap("#answers button[data-answer=right]")
        wait_until(page, "id => moviegenStudy.current().id !== id", task)
        page.set_viewport_size({"width": 780, "height": 390})
        wait_until(page, "!document.body.classList.contains('stacked')")
        bottom = page.evaluate("document.querySelector('#tools').getBoundingClientRect().bottom")
        assert bottom <= 390
        assert page.errors == []
    assert votes(config)[0].details["touch"] is True


def test_only_one_sound_is_heard_at_a_time_and_both_have_to_be(browser, tmp_path) -> None:
    config = dataclasses.replace(write_served(tmp_path, make_study(3, (SOUND,)), sound=True), anyone=True)
    with served(config) as url:
        page = enter(browser, url)
        wait_until(page, "moviegenStudy.player.ready")
        page.evaluate(NOTE_SOUND)
        wait_until(page, OPEN)
        heard = {tuple(state) for state in page.evaluate("heard")}
        assert heard == {(False, True), (True, False)}  # it went over to the other one by itself
        press(page, "3")
        assert page.errors == []
    assert min(votes(config)[0].watch_seconds) >= 0.8 * SECONDS


def held_against(study: Any) -> Any:
    items = tuple(dataclasses.replace(item, reference=f"faces/{item.id}.png") for item in study.items)
    return dataclasses.replace(study, items=items)


@pytest.mark.parametrize("form", [DESK, PHONE], ids=["desk", "phone"])
def test_the_reference_is_shown_on_the_axes_that_ask_for_it_and_grows_when_pressed(
    browser, tmp_path, form
) -> None:
    study = held_against(
        make_study(2, (dataclasses.replace(IDENTITY, raters=1), dataclasses.replace(OVERALL, raters=1)))
    )
    config = dataclasses.replace(write_served(tmp_path, study), anyone=True, pairs_once=False)
    kinds = set()
    with served(config) as url:
        page = enter(browser, url, form)
        for _ in range(2):
            wait_until(page, OPEN)
            kind = page.evaluate("document.querySelector('#reference > *').localName")
            kinds.add(kind)
            size = f"(x => x.naturalWidth || x.videoWidth)(document.querySelector('#reference {kind}'))"
            wait_until(page, f"{size} > 0")
            box = page.locator(f"#reference {kind}").bounding_box()
            tools = page.locator("#tools").bounding_box()
            assert box["height"] > 60 and tools["y"] + tools["height"] <= form["viewport"]["height"]
            page.click("#reference")
            assert page.locator(f"#reference {kind}").bounding_box()["height"] > 3 * box["height"]
            page.click("#reference")
            press(page, "1")
        page.wait_for_selector("#message-title:has-text('A new question')")
        page.click("#message-button")
        wait_until(page, OPEN)
        assert page.is_hidden("#reference")
        assert page.errors == []
    assert kinds == {"img", "video"}
    assert [vote.axis for vote in votes(config)] == ["identity", "identity"]


def test_the_flicker_view_shows_both_in_one_place(browser, config) -> None:
    with served(config) as url:
        page = enter(browser, url)
        wait_until(page, OPEN)
        page.keyboard.press("f")
        boxes = [page.locator(name).bounding_box() for name in ("#left", "#right")]
        assert boxes[0] == boxes[1]
        front = "getComputedStyle(document.querySelector('#left-figure')).opacity"
        assert page.evaluate(front) == "1"
        page.keyboard.press("f")
        assert page.evaluate(front) == "0"
        page.keyboard.press("Escape")
        press(page, "1")
    assert votes(config)[0].details["flickers"] >= 1


def test_several_raters_at_once_share_the_work_without_repeats(browser, tmp_path) -> None:
    axis = Axis("overall", "Which?", ROUNDS)
    config = dataclasses.replace(write_served(tmp_path, make_study(4, (axis,))), anyone=True)
    with served(config) as url, ExitStack() as stack:
        pages = [enter(browser, url, PHONE if number else DESK) for number in range(ROUNDS)]
        for page in pages:
            stack.callback(page.context.close)
        busy = True
        while busy:
            busy = False
            for page in pages:
                if page.evaluate(SHOWN) == "rate":
                    busy = True
                    press(page, "123"[len(votes(config)) % 3])
        assert all("Thank you" in page.inner_text("#message-title") for page in pages)
    given = votes(config)
    assert len({(vote.rater, vote.item) for vote in given}) == len(given) == 4 * ROUNDS


def test_an_answer_given_while_the_server_is_down_arrives_when_it_is_back(browser, config) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(served(config))
        port = int(url.rpartition(":")[2])
        page = enter(browser, url)
        wait_until(page, OPEN)
        task = current(page)
        first.close()
        page.keyboard.press("1")
        page.wait_for_selector("#banner:has-text('No connection')")
        assert votes(config) == []
        again = dataclasses.replace(config, port=port)
        stack.enter_context(served(again, keep_port=True))
        wait_until(page, "id => moviegenStudy.current().id !== id", task)
        assert page.is_hidden("#banner")
    assert len(votes(config)) == 1


def test_an_answer_survives_a_closed_window_while_the_server_is_down(browser, config) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(served(config))
        page = enter(browser, url)
        wait_until(page, OPEN)
        first.close()
        page.keyboard.press("3")
        page.wait_for_selector("#banner:has-text('No connection')")
        context = page.context
        page.close()
        stack.enter_context(
            served(dataclasses.replace(config, port=int(url.rpartition(":")[2])), keep_port=True)
        )
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#rate:visible")
        assert page.inner_text("#count") == "1 done"
    assert [vote.answer == vote.shown_left for vote in votes(config)] == [False]


def test_a_new_question_is_announced(browser, tmp_path) -> None:
    config = dataclasses.replace(
        write_served(tmp_path, make_study(1, (OVERALL, REALNESS))), anyone=True, pairs_once=False
    )
    with served(config) as url:
        page = enter(browser, url)
        first = page.inner_text("#question")
        wait_until(page, OPEN)
        page.keyboard.press("1")
        page.wait_for_selector("#message-title:has-text('A new question')")
        page.click("#message-button")
        assert page.inner_text("#question") != first


def test_the_admin_page_follows_the_votes_live(browser, config, tmp_path) -> None:
    before = threading.active_count()
    with served(config) as url:
        with sqlite3.connect(Path(config.out) / "votes.sqlite") as database:
            token = database.execute("SELECT value FROM meta WHERE key='admin'").fetchone()[0]
        page = enter(browser, url)
        admin = opened(browser)
        admin.goto(f"{url}/admin#token={token}")
        admin.wait_for_selector("#facts:has-text('0 of 12 votes')")
        press(page, "1")
        admin.wait_for_selector("#facts:has-text('1 of 12 votes')")
        admin.click("#create")
        admin.wait_for_selector("#links:visible")
        assert len(admin.input_value("#links").splitlines()) == 5
        admin.click("#accepting")
        admin.wait_for_selector("#accepting:has-text('Open the study again')")
        admin.screenshot(path=tmp_path / "admin.png", full_page=True)
        guest = opened(browser)
        guest.goto(f"{url}/admin#token=guess")
        guest.wait_for_selector("#banner:has-text('this link is not the admin')")
        assert guest.is_hidden("main")
    deadline = time.monotonic() + 30
    while threading.active_count() >= before + 10:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.1)

"""The report: one file that plays, without outside references, and says what is missing."""

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from eval_samples import NUM_FREE, NUM_HELDOUT, NUM_TEMPLATE, PROMPT_WITH_MARKUP, judge_config, write_job
from moviegen_eval.judge import judge
from moviegen_eval.report import report
from moviegen_eval.report.clips import share_out
from PIL import Image

from moviegen.media import decode_video


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("job")
    write_job(root)
    judge(judge_config(root))
    yield root


def config(root: Path, **changes: object) -> dict:
    values = {
        "judged": str(root / "judged"),
        "out": str(root / "report.html"),
        "title": "A <toy> report",
        "reconstructions": str(root / "rec"),
        "runs": {"t2v": str(root / "run"), "lost": str(root / "nowhere")},
        "notes": ["Clips are 64x64 pixels."],
    }
    return values | changes


class Page(HTMLParser):
    """The elements of a page, and whether every opened one is closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def source(job: Path) -> str:
    return report(config(job)).read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_refers_to_nothing_outside(source: str):
    page = Page(source)
    assert page.open == []
    for name, attributes in page.elements:
        assert name not in ("script", "link", "img", "iframe", "base")
        for key in ("src", "href", "srcset", "poster", "data", "action"):
            assert (attributes.get(key) or "data:").startswith(("data:", "#"))
    assert not re.search(r"url\(|@import", source)
    assert "default-src 'none'" in str(page.named("meta"))


def test_prompts_are_escaped(source: str):
    assert PROMPT_WITH_MARKUP not in source
    assert "&lt;script src=&quot;http://example.org/x.js&quot;&gt;" in source
    assert "<title>A &lt;toy&gt; report</title>" in source


def test_all_clips_are_inside_and_decode(source: str):
    videos = Page(source).named("video")
    assert len(videos) == NUM_HELDOUT + NUM_TEMPLATE + NUM_FREE + 6
    for attributes in videos:
        assert {"autoplay", "loop", "muted", "playsinline"} <= set(attributes)
        data = str(attributes["src"]).removeprefix("data:video/mp4;base64,")
        frames, _ = decode_video(base64.b64decode(data, validate=True))
        assert frames.std() > 2
    sizes = {decode_video(base64.b64decode(str(v["src"]).split(",")[1]))[0].shape for v in videos}
    assert (16, 64, 64 * 3 + 8, 3) in sizes and (9, 44, 60 * 3 + 8, 3) in sizes


def test_figures_bars_verdicts_curves_and_facts_are_on_the_page(source: str):
    for words in ("t2v/colour", "tae/toyworld/psnr_pca", "&#10003; reached", "&#10007; not reached", "0.970",
                  "0123abc with uncommitted changes", "lr: 0.001", "Clips are 64x64 pixels.",
                  "toyworld level 2",
                  "<span>motion</span>", "val/loss", "<path"):  # fmt: skip
        assert words in source, words


def test_absent_inputs_are_named_on_the_page(job: Path, tmp_path: Path):
    shutil.copy(job / "judged" / "numbers.json", tmp_path / "numbers.json")
    path = report({"judged": str(tmp_path), "runs": {"lost": str(tmp_path / "no")}})
    assert path == tmp_path / "report.html"
    source = path.read_text()
    for words in (
        "No generated clips",
        "No reconstructions",
        "has no metrics.csv",
        "has no run.json",
        "does not exist",
    ):
        assert words in source
    assert Page(source).named("video") == []


def test_the_figures_lie_beside_the_page_too(job: Path, source: str):
    assert source and (job / "numbers.json").read_bytes() == (job / "judged" / "numbers.json").read_bytes()


def test_real_pairs_come_from_all_files(source: str):
    assert "file 0.mp4, 60x44" in source and "file 1.mp4, 60x44" in source


def test_a_folder_that_was_not_judged_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"numbers\.json: cannot be read"):
        report({"judged": str(tmp_path), "out": str(tmp_path / "r.html")})
    assert list(tmp_path.iterdir()) == []


def test_a_lost_clip_and_a_full_page_are_said(job: Path, tmp_path: Path):
    shutil.copytree(job, tmp_path / "job")
    (tmp_path / "job" / "gen" / "heldout-0.mp4").unlink()
    root = tmp_path / "job"
    assert "clip cannot be read: No such file" in report(config(root)).read_text()
    small = report(config(root, max_megabytes=0.02)).read_text()
    assert "clips were left out to keep the page below 0.02 MB" in small
    assert len(small) < len(report(config(root)).read_text())
    few = Page(report(config(root, max_clips=5, max_pairs=1)).read_text())
    assert len(few.named("video")) == 5 - 1 + 2  # one of the five is the lost clip


def test_places_that_a_small_group_does_not_need_go_to_the_larger_ones():
    assert share_out(64, {"heldout": 64, "template": 16, "free": 8}) == {
        "heldout": 40,
        "template": 16,
        "free": 8,
    }
    assert share_out(5, {"a": 4, "b": 0, "c": 4}) == {"a": 2, "b": 0, "c": 3}


def test_a_browser_shows_the_page(source: str, tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium to take a screenshot with")
    (tmp_path / "report.html").write_text(source, encoding="utf-8")
    shot = tmp_path / "shot.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    ]
    flags += [
        "--window-size=1280,3000",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [browser, *flags, f"--screenshot={shot}", (tmp_path / "report.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    with Image.open(shot) as image:
        assert image.size == (1280, 3000)
        colors = image.convert("RGB").resize((320, 750)).getcolors(maxcolors=320 * 750)
    assert colors is not None and len(colors) > 500

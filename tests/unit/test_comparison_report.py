"""The report of a comparison: its figures are those of the analysis, it can be checked, and no text can act."""

import base64
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import wait_until
from comparison_samples import ARMS, NUM_ITEMS, report_config, write_comparison
from moviegen_eval.agreement import agreements
from moviegen_eval.numbers import read_numbers
from moviegen_eval.report import report
from moviegen_eval.report.grid import draw_items
from moviegen_eval.report.published import read_published
from moviegen_eval.report.tables import Table, to_csv, to_html, to_latex, to_markdown
from moviegen_eval.scores import SampleRow, read_scores
from moviegen_eval.study.analysis import analyse
from moviegen_eval.study.study import load_study, save_study
from moviegen_eval.study.table import read_votes
from moviegen_eval.study.votes import VoteLog

from moviegen import cli

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "experiments" / "benchmark" / "movie_gen_table6" / "published.json"
ATTACKS = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "<svg onload=document.title='owned'>",
    "' autofocus onfocus='document.title=`owned`",
    "javascript:document.title='owned'",
    "</title><script>document.title='owned'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\">",
    "</style><script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\" id=x>x</a>",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "<meta http-equiv=refresh content='0;url=data:text/html,owned'>",
    "<details open ontoggle=document.title='owned'>",
    "<!--><script>document.title='owned'</script>-->",
    "\u202e\u2066<b onmouseover=document.title='owned'>",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder)
    report(report_config(folder, published=str(PUBLISHED)))
    yield folder


@pytest.fixture(scope="module")
def source(root: Path) -> str:
    return (root / "report" / "report.html").read_text(encoding="utf-8")


def test_every_figure_of_the_analysis_is_in_numbers_json_and_on_the_page(root: Path, source: str) -> None:
    analysis = analyse(load_study(root / "study.yaml"), read_votes(root / "votes.jsonl"), resamples=200)
    figures = {figure.name: figure for figure in read_numbers(root / "report" / "numbers.json")}
    assert len(analysis.results) == 4
    for one in analysis.results:
        name = f"study/{one.axis}/{one.first}_vs_{one.second}"
        net = figures[f"{name}/net"]
        assert (net.value, net.low, net.high, net.n) == (
            one.net.value,
            one.net.low,
            one.net.high,
            one.n_prompts,
        )
        assert figures[f"{name}/tie_half"].value == pytest.approx(50 + one.net.value / 2)
        assert (
            figures[f"{name}/wins"].value + figures[f"{name}/ties"].value + figures[f"{name}/losses"].value
            == one.n_items
        )
        assert f">{one.wins}-{one.ties}-{one.losses}<" in source and f">{one.net.value:+.2f}<" in source
    assert {f"score/{arm}/flicker" for arm in ARMS} <= figures.keys()
    assert {"agreement/flicker/overall", "study/overall/alpha"} <= figures.keys()


def test_the_page_says_that_raters_are_simulated_and_what_was_declared(root: Path, source: str) -> None:
    study = load_study(root / "study.yaml")
    for words in ("SIMULATED RATERS", study.digest, "overall 3, realness 4", "published, n unknown", "+8.23",
                  "Not checked against the source: realness, aesthetics", "model luma", "not stated", "differs",
                  "drawn with seed 0 and not chosen", "&lt;b&gt;study&lt;/b&gt;", "(few)"):  # fmt: skip
        assert words in source, words
    for name in ("report.md", "report.tex"):
        assert "SIMULATED RATERS" in (root / "report" / "report.files" / name).read_text()
    assert json.loads((root / "report" / "report.files" / "report.json").read_text())["simulated"] is True


def test_the_page_is_one_file_whose_policy_names_its_only_script_and_style(source: str) -> None:
    assert len(re.findall(r"<script", source)) == 1 and len(re.findall(r"<style", source)) == 1
    for name in ("script", "style"):
        inside = re.search(rf"<{name}>(.*?)</{name}>", source, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{name}-src &#x27;sha256-{digest}&#x27;" in source
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None and "default-src &#x27;none&#x27;" in policy[1] and "unsafe" not in policy[1]
    assert not re.search(r"\son\w+=|\sstyle=", source) and "http://" not in source
    assert source.count('data-src="data:video/mp4;base64,') == 8


def test_tables_lie_beside_the_page_as_markdown_latex_and_csv(root: Path) -> None:
    folder = root / "report" / "report.files"
    rows = (folder / "main.csv").read_text().splitlines()
    assert rows[0].startswith("axis,comparison,W-T-L,items,net win rate") and len(rows) == 1 + 4
    assert len((folder / "items.csv").read_text().splitlines()) == 1 + NUM_ITEMS
    assert "## Preference by axis and baseline" in (folder / "report.md").read_text()
    tex = (folder / "report.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") >= 6 and r"motion\_level" in tex
    assert json.loads((folder / "study.json").read_text())["id"] == "study"


def test_a_check_recomputes_and_names_every_difference(root: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(root, tmp_path / "job")
    settings = report_config(tmp_path / "job", published=str(PUBLISHED))
    report(settings | {"check": True})
    assert "is what its inputs give" in capsys.readouterr().out
    numbers = tmp_path / "job" / "report" / "numbers.json"
    values = json.loads(numbers.read_text())
    values[0]["value"] += 0.5
    values[0]["high"] += 0.5
    dropped = values.pop()
    numbers.write_text(json.dumps(values))
    (tmp_path / "job" / "report" / "report.files" / "main.csv").unlink()
    with pytest.raises(ValueError, match="the report is not what its inputs give: 3 differences"):
        report(settings | {"check": True})
    out = capsys.readouterr().out
    assert f"numbers.json: {values[0]['name']}: value is" in out and "main.csv: is not there" in out
    assert f"numbers.json: {dropped['name']}: is not there" in out
    votes = tmp_path / "job" / "votes.jsonl"
    votes.write_text("".join(votes.read_text().splitlines(keepends=True)[:-40]))
    with pytest.raises(ValueError, match="differences"):
        report(settings | {"check": True})


def test_check_is_a_flag_of_the_command_line(root: Path, capsys) -> None:
    words = [f"{key}={value}" for key, value in report_config(root, published=PUBLISHED).items()]
    assert cli.main(["eval", "report", *words, "--check"]) == 0
    assert cli.main(["eval", "judge", "out=x", "--check"]) == 2
    assert "check" in capsys.readouterr().err


def test_the_grid_is_drawn_by_its_seed_alone(root: Path) -> None:
    study = load_study(root / "study.yaml")
    first = [item.id for item in draw_items(study, 5, 1)]
    assert (
        first
        == [item.id for item in draw_items(study, 5, 1)]
        != [item.id for item in draw_items(study, 5, 2)]
    )
    assert all(not name.startswith("gold") for name in first)
    assert json.loads((root / "report" / "report.files" / "grid.json").read_text())["items"] == [
        item.id for item in draw_items(study, 4, 0)
    ]


def test_a_metric_that_follows_the_raters_agrees_and_a_random_one_does_not(root: Path) -> None:
    study = load_study(root / "study.yaml")
    analysis = analyse(study, read_votes(root / "votes.jsonl"), resamples=200)
    file = read_scores(root / "scores")
    texts = file.facts["texts"]
    counts = {item.id: analysis.item(item.id, "overall") for item in study.items if item.gold is None}
    rows = [SampleRow("ours", prompt, 0, "", {"told": 0.0, "always": 1.0}) for prompt in texts]
    for arm in ("sora", "luma"):
        for prompt in texts:
            own = counts[f"{prompt}.{arm}"]
            rows.append(SampleRow(arm, prompt, 0, "", {"told": float(own.losses - own.wins), "always": 1.0}))
    found = {
        (one.output, one.axis): one
        for one in agreements(study, analysis, rows, texts, {"told": True, "always": True}, 200, 0)
    }
    told = found["told", "overall"]
    assert told.accuracy == 1 and told.interval is not None and told.interval.high == 1
    assert told.n == NUM_ITEMS >= told.n_decided and told.with_ties > 0.8
    assert found["always", "overall"].accuracy == 0.5


def test_the_published_column_is_checked_for_what_it_says(tmp_path: Path) -> None:
    published = read_published(PUBLISHED)
    assert published.net("overall", "sora") == 8.23 and published.net("overall", "veo") is None
    assert len(published.nets) == 7 and all(len(row) == 4 for row in published.nets.values())
    for value in published.nets.values():
        k = value["sora"] * (155 if value["sora"] in (11.62, 6.45) else 158) / 100
        assert k == pytest.approx(round(k), abs=0.02)
    (tmp_path / "p.json").write_text(PUBLISHED.read_text().replace("8.23", "823"))
    with pytest.raises(ValueError, match=r"nets\.overall\.sora is 823"):
        read_published(tmp_path / "p.json")


def test_cells_cannot_break_out_of_any_format() -> None:
    table = Table(
        "t",
        "a & b",
        ("x|y", "z"),
        (("=cmd|'/c calc'!A1", "<b>[a](javascript:x)</b>"), ("-3.5", "50% _a_ {b} \\")),
    )
    assert to_csv(table).splitlines()[1].startswith("'=cmd") and to_csv(table).splitlines()[2].startswith(
        "-3.5,"
    )
    assert "<b>" not in to_markdown(table) and "\\[a\\]" in to_markdown(table)
    assert all(line.replace("\\|", "").count("|") == 3 for line in to_markdown(table).splitlines()[2:])
    assert r"50\% \_a\_ \{b\} \textbackslash{}" in to_latex(table)
    assert "&lt;b&gt;" in to_html(table)
    with pytest.raises(ValueError, match="1 cells under 2 heads"):
        Table("t", "", ("a", "b"), (("1",),))


@pytest.fixture(scope="module")
def hostile(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study whose every free text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(root, folder, dirs_exist_ok=True)
    study = load_study(folder / "study.yaml")
    texts = {item.id: ATTACKS[n % len(ATTACKS)] + f" {n}" for n, item in enumerate(study.items)}
    items = [
        replace(
            item,
            prompt=texts[item.id],
            tags={"concept": ATTACKS[n % len(ATTACKS)].replace(",", ";"), "motion_level": "low"},
        )
        for n, item in enumerate(study.items)
    ]
    study = replace(study, items=tuple(items), title=ATTACKS[6], instructions=ATTACKS[0], consent=ATTACKS[8])
    save_study(study, folder / "study.yaml")
    table = read_votes(folder / "votes.jsonl")
    (folder / "votes.jsonl").unlink()
    with VoteLog(folder / "votes.jsonl", durable=False) as log:
        for n, vote in enumerate(table.votes()):
            attack = ATTACKS[int(vote.rater[-1]) % len(ATTACKS)]
            log.append(
                replace(
                    vote,
                    study=study.digest,
                    rater=f"{vote.rater} {attack}"[:190],
                    reason=ATTACKS[n % len(ATTACKS)],
                )
            )
    for arm in ARMS:
        (folder / arm / "arm.yaml").write_text(
            json.dumps({"name": arm, "model": ATTACKS[1], "notes": ATTACKS[3]})
        )
    arms = {arm: str(folder / arm) for arm in ARMS}
    changes = {
        "title": ATTACKS[6],
        "summary": ATTACKS[2],
        "notes": list(ATTACKS),
        "protocol": {"pay": ATTACKS[4]},
    }
    return report(report_config(folder, grid_items=NUM_ITEMS, arms=arms, **changes))


def test_no_attack_reaches_the_page_unescaped(hostile: Path) -> None:
    source = hostile.read_text(encoding="utf-8")
    for attack in ATTACKS:
        if "<" in attack:
            assert attack not in source
    assert len(re.findall(r"<script", source)) == 1
    assert not re.search(r"<(iframe|img|meta http-equiv=refresh|svg onload|details open)", source)
    assert "<script" not in (hostile.parent / "report.files" / "report.md").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page with")
def test_in_a_browser_no_attack_runs_and_the_grid_filters_and_plays(hostile: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on(
            "request",
            lambda request: requests.append(request.url) if not request.url.startswith("data:") else None,
        )
        page.goto(hostile.as_uri())
        assert page.title() == ATTACKS[6] and errors == [] and len(requests) == 1
        assert page.locator("figure[data-facets]").count() == NUM_ITEMS
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("[data-filter=comparison]").select_option("ours vs luma")
        assert page.locator("[data-role=count]").inner_text() == f"{NUM_ITEMS // 2} of {NUM_ITEMS} shown"
        page.locator("[data-filter=concept]").select_option(ATTACKS[0])
        shown = page.locator("figure[data-facets]:not([hidden])")
        assert 0 < shown.count() < NUM_ITEMS // 2
        shown.first.scroll_into_view_if_needed()
        wait_until(
            page,
            "[...document.querySelectorAll('figure[data-facets]:not([hidden]) video')].slice(0, 2)"
            ".every(video => video.currentTime > 0)",
        )
        apart = []
        while len(apart) < 20:  # single looks may be late on a busy machine
            times = shown.first.evaluate(
                "card => [...card.querySelectorAll('video')].map(video => video.currentTime)"
            )
            apart.append(abs(times[0] - times[1]))
            time.sleep(0.1)
        assert statistics.median(apart) < 0.2
        assert page.title() == ATTACKS[6] and errors == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to take a screenshot with")
def test_a_browser_shows_the_page_and_its_plots_differ_in_grey(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,4000"]
    flags += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    page = (root / "report" / "report.html").as_uri()
    subprocess.run([str(CHROMIUM), *flags, page], capture_output=True, timeout=120, check=True)
    with Image.open(shot) as image:
        grey = image.convert("L")
        assert grey.size == (1280, 4000)
        levels = grey.getcolors(maxcolors=256) or []
    assert sum(count for count, level in levels if 60 < level < 130) > 3000  # the bars of wins


def test_what_cannot_be_reported_is_one_line(root: Path, tmp_path: Path) -> None:
    for changes, hint in (
        ({"study": None}, "votes without a study"),
        ({"study": None, "votes": None, "scores": None}, "nothing to report"),
        ({"votes": str(tmp_path / "no.jsonl")}, "no.jsonl"),
        ({"scores": str(tmp_path)}, r"scores\.json: cannot be read"),
        ({"wandb": {"projekt": "x"}}, "unknown key wandb.projekt"),
        ({"resamples": 3}, "resamples must be at least 100"),
    ):
        with pytest.raises((ValueError, OSError), match=hint):
            report(report_config(root, out=str(tmp_path / "r.html"), **changes))
    assert not (tmp_path / "r.html").exists()


def test_scores_alone_and_a_study_without_votes_make_a_page(root: Path, tmp_path: Path) -> None:
    page = report(report_config(root, study=None, votes=None, out=str(tmp_path / "a" / "r.html")))
    assert "Automatic metrics" in page.read_text() and "<script" not in page.read_text()
    page = report(report_config(root, votes=None, scores=None, out=str(tmp_path / "b" / "r.html")))
    assert "No votes were given." in page.read_text()


def test_the_mirror_logs_figures_tables_and_page_offline(root: Path, tmp_path: Path) -> None:
    settings = {"project": "p", "mode": "offline", "dir": str(tmp_path)}
    report(report_config(root, out=str(tmp_path / "r" / "report.html"), wandb=settings))
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    names = {path.name.split("_")[0] for path in runs[0].rglob("*.json")}
    assert {"figures", "main", "settings"} <= names

"""Prove the statistics of human preference on simulated raters and on public counts; writes numbers.json.

python experiments/study/proof.py             1,000 studies of each kind (about 3 minutes on one idle core)
python experiments/study/proof.py studies=50  a quick look
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import evalica
import numpy as np
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import wilson
from moviegen_eval.study.analysis import Analysis, analyse
from moviegen_eval.study.axes import Axis
from moviegen_eval.study.davidson import ranking
from moviegen_eval.study.intervals import net_intervals, resampled
from moviegen_eval.study.power import detectable, half_width
from moviegen_eval.study.rates import Counts, net_win_rate
from moviegen_eval.study.significance import holm, sign_test
from moviegen_eval.study.simulate import Simulation, simulate, true_net
from moviegen_eval.study.study import Arm, ExclusionRules, Item, Study
from moviegen_eval.study.table import VoteTable
from tqdm import tqdm

HERE = Path(__file__).parent
STEP_VIDEO = {  # Step-Video-T2V's Table 12 against Movie Gen: W-T-L, and the net that follows
    "overall": ((485, 315, 489), -0.31),
    "human": ((123, 58, 160), -10.85),
    "physics": ((61, 54, 64), -1.68),
    "unusual": ((110, 74, 108), 0.68),
    "animal": ((39, 37, 42), -2.54),
    "scene": ((84, 53, 63), 10.50),
    "sequential_motion": ((9, 2, 2), 53.85),
    "camera_motion": ((59, 37, 50), 6.16),
}
POWER = {  # prompts -> half-width and detectable net at 10, 25, 40 % ties, as printed in the table of our notes
    100: ((18.6, 26.6), (17.0, 24.3), (15.2, 21.7)),
    128: ((16.4, 23.5), (15.0, 21.4), (13.4, 19.2)),
    250: ((11.8, 16.8), (10.7, 15.3), (9.6, 13.7)),
    381: ((9.5, 13.6), (8.7, 12.4), (7.8, 11.1)),
    500: ((8.3, 11.9), (7.6, 10.9), (6.8, 9.7)),
    1003: ((5.9, 8.4), (5.4, 7.7), (4.8, 6.9)),
}


def study_of(prompts: int, axes: int = 1, items_each: int = 1, gold: int = 0, raters: int = 3) -> Study:
    """Two arms on so many prompts, with gold items."""
    items = [
        Item(f"{prompt}-{seed}", f"prompt {prompt}", "ours", "other", "a", "b")
        for prompt in range(prompts)
        for seed in range(items_each)
    ]
    items += [
        Item(f"gold-{n}", "", "ours", "ours", "a", "b", gold=("a", "tie", "b")[n % 3]) for n in range(gold)
    ]
    keys = tuple(Axis(f"axis_{n}", "Which?", raters) for n in range(axes))
    return Study("proof", "Proof", keys, (Arm("ours"), Arm("other")), tuple(items))


def share(name: str, hits: int, total: int, higher_is_better: bool = True) -> Figure:
    """A share with Wilson's interval."""
    interval = wilson(hits, total)
    assert interval is not None
    return Figure(f"study/{name}", hits / total, *interval, total, "", higher_is_better)


def votes_as_clusters(analysis: Analysis, seed: int) -> tuple[float, float]:
    """The interval that takes every vote as a prompt of its own: what not to do."""
    wins, ties, losses = analysis.item_counts[:, 0].sum(axis=0).tolist()
    signs = np.repeat([1, 0, -1], [wins, ties, losses])[:, None]
    interval = net_intervals(signs, np.ones_like(signs), 1000, seed, "votes")[0]
    assert interval is not None
    return interval


def coverage(studies: int) -> list[Figure]:
    """How often 95 % intervals hold the truth: one item a prompt, few prompts, several items a prompt."""
    found = []
    cases = {
        "200_prompts": (study_of(200), 0.3, 1.0),
        "60_prompts": (study_of(60), 0.3, 1.0),
        "strong_prompt_effects": (study_of(150), 0.5, 2.5),
        "3_items_a_prompt": (study_of(80, items_each=3), 0.3, 1.5),
    }
    for name, (study, strength, prompt_sd) in cases.items():
        truths = true_net(strength, prompt_sd, 1.0, 3)
        model = Simulation({"ours": strength}, prompt_sd=prompt_sd)
        hits = {"pooled": 0, "majority": 0, "votes_as_prompts": 0}
        for seed in tqdm(range(studies), name):
            analysis = analyse(study, simulate(study, model, seed), seed, 1000)
            result, naive = analysis.results[0], votes_as_clusters(analysis, seed)
            hits["pooled"] += result.pooled.net.low <= truths[0] <= result.pooled.net.high
            hits["majority"] += result.majority.net.low <= truths[1] <= result.majority.net.high
            hits["votes_as_prompts"] += naive[0] <= truths[0] <= naive[1]
        found += [share(f"coverage/{name}/{kind}", count, studies) for kind, count in hits.items()]
    return found


def false_alarms(studies: int) -> list[Figure]:
    """Equal arms on seven axes: how often any axis is called significant, with Holm and without."""
    study, any_holm, any_raw = study_of(150, axes=7), 0, 0
    for seed in tqdm(range(studies), "equal arms"):
        results = analyse(study, simulate(study, Simulation(), seed), seed, 200).results
        any_holm += any(result.significant for result in results)
        any_raw += any(result.p < 0.05 for result in results)
    return [
        share("false_alarm/any_of_7_axes/holm", any_holm, studies, False),
        share("false_alarm/any_of_7_axes/uncorrected", any_raw, studies, False),
    ]


def planted(studies: int) -> list[Figure]:
    """One rater with a side and one who answers anything, among 24: found, and honest ones left in peace."""
    study = study_of(120, axes=7, gold=12)
    strict = replace(study, exclusion=ExclusionRules(min_gold_accuracy=0.7, max_side_bias=0.4))
    model = Simulation({"ours": 0.4}, careless=1, sided=1, prompt_sd=2.0, side=3.0)
    sided = careless = wrong = excluded = 0
    for seed in tqdm(range(studies), "planted raters"):
        analysis = analyse(strict, simulate(strict, model, seed), seed, 200)
        rows = {row.rater: row for row in analysis.raters}
        careless += bool(rows["r000"].flags)
        sided += "side bias" in rows["r001"].flags
        honest = [row for name, row in rows.items() if name > "r001"]
        wrong += any(row.flags or row.excluded for row in honest)
        excluded += rows["r000"].excluded is not None and rows["r001"].excluded is not None
    return [
        share("planted/careless_rater_flagged", careless, studies),
        share("planted/side_bias_flagged", sided, studies),
        share("planted/both_excluded_by_rules", excluded, studies),
        share("planted/studies_with_an_honest_rater_flagged_or_excluded", wrong, studies, False),
    ]


def order_of_votes(shuffles: int = 50) -> list[Figure]:
    """Shuffled logs: how many analyses differ in anything, and how far an online Elo moves."""
    items = [
        Item(f"{n}-{x}-{y}", f"prompt {n}", x, y, "a", "b", {"motion": ("low", "high")[n % 2]})
        for n in range(60)
        for x, y in combinations(("ours", "p", "q", "r", "s"), 2)
    ]
    arms = tuple(map(Arm, ("ours", "p", "q", "r", "s")))
    study = Study("order", "Order", (Axis("overall", "Which?"),), arms, tuple(items))
    table = simulate(study, Simulation({"ours": 0.3, "p": 0.2, "q": 0.1}, careless=1), 0)
    rng, first, changed, leaders = np.random.default_rng(0), analyse(study, table, 0, 500), 0, set()
    for _ in range(shuffles):
        shuffled = table.take(rng.permutation(len(table)))
        other = analyse(study, shuffled, 0, 500)
        changed += other != first or not (other.item_counts == first.item_counts).all()
        leaders.add(elo_leader(study, shuffled))
    return [
        Figure("study/order/analyses_that_differ", changed, None, None, shuffles, "", False),
        Figure("study/order/leaders_by_online_elo", len(leaders), None, None, shuffles, "", False),
    ]


def elo_leader(study: Study, table: VoteTable) -> str:
    """The first of an online Elo with k = 32, which depends on the order of votes."""
    items = {item.id: item for item in study.items}
    pairs = [items[table.item[row]] for row in range(len(table))]
    winners = [
        {1: evalica.Winner.X, 0: evalica.Winner.Draw, -1: evalica.Winner.Y}[int(a)] for a in table.answer
    ]
    scores = evalica.elo([i.arm_a for i in pairs], [i.arm_b for i in pairs], winners, k=32.0).scores
    return str(scores.idxmax())


def davidson(votes: int = 20_000) -> list[Figure]:
    """Five arms 0.30 apart, nu 0.35: what Davidson's fit and half-win counting make of it."""
    arms, step, nu = list("abcde"), 0.30, 0.35
    strength = step * (2 - np.arange(5))
    pairs, rng = list(combinations(range(5), 2)), np.random.default_rng(0)
    counts = np.zeros((votes, len(pairs), 3), dtype=np.int64)
    for row, pair in enumerate(rng.integers(len(pairs), size=votes)):
        i, j = pairs[pair]
        middle = nu * np.exp((strength[i] + strength[j]) / 2)
        odds = np.array([np.exp(strength[i]), middle, np.exp(strength[j])])
        counts[row, pair] = rng.multinomial(1, odds / odds.sum())
    drawn = resampled(counts.reshape(votes, -1), 200, rng).reshape(200, len(pairs), 3)
    fit = ranking("overall", arms, pairs, counts, drawn)
    by_arm = {row.arm: row for row in fit.rows}
    gap = (by_arm["a"].strength - by_arm["e"].strength) / 4
    half = (by_arm["a"].half_win_strength - by_arm["e"].half_win_strength) / 4
    return [
        Figure("study/davidson/step_of_0.30", gap, None, None, votes, "log odds", True),
        Figure(
            "study/davidson/step_of_0.30_with_ties_as_half_wins", half, None, None, votes, "log odds", True
        ),
        Figure("study/davidson/nu_of_0.35", fit.ties, *fit.ties_interval, votes, "", True),
    ]


def step_video() -> list[Figure]:
    """The public counts, each judgement as a prompt of its own: nets, intervals, sign tests."""
    found, p_values = [], {}
    for name, (counts, published) in STEP_VIDEO.items():
        own, signs = Counts(*counts), np.repeat([1, 0, -1], counts)[:, None]
        interval = net_intervals(signs, np.ones_like(signs), 10_000, 0, name)[0]
        assert interval is not None
        net = net_win_rate(own, interval)
        assert round(net.value, 2) == published, (name, net)
        p_values[name] = sign_test(own.wins, own.losses)
        found.append(
            Figure(f"study/step_video/{name}/net", net.value, net.low, net.high, own.total, "points", True)
        )
    adjusted = holm([p for name, p in p_values.items() if name != "overall"])
    for name, p in p_values.items():
        found.append(Figure(f"study/step_video/{name}/p", p, None, None, sum(STEP_VIDEO[name][0]), "", False))
    return [
        *found,
        Figure("study/step_video/least_p_holm_of_slices", min(adjusted), None, None, 7, "", False),
    ]


def planning(studies: int) -> list[Figure]:
    """The power table, and the power that simulated studies have at its effect of 12.4 on 381 prompts."""
    wrong = 0
    for prompts, cells in POWER.items():
        for ties, cell in zip((0.1, 0.25, 0.4), cells, strict=True):
            wrong += (round(half_width(prompts, ties), 1), round(detectable(prompts, ties), 1)) != cell
    rng, found, net = np.random.default_rng(0), 0, detectable(381, 0.25) / 100
    shares = ((0.75 + net) / 2, 0.25, (0.75 - net) / 2)
    for seed in tqdm(range(studies), "power"):
        signs = rng.choice([1, 0, -1], p=shares, size=381)[:, None]
        interval = net_intervals(signs, np.ones_like(signs), 1000, seed, "power")[0]
        assert interval is not None
        found += interval.low > 0
    cells = 2 * 3 * len(POWER)
    return [
        Figure("study/power/table_cells_that_differ", wrong, None, None, cells, "", False),
        share("power/at_381_prompts_25_ties_net_12.4", found, studies),
    ]


def main() -> None:
    """Run everything and write numbers.json beside this file."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    studies = int(given.get("studies", 1000))
    figures = [
        *step_video(),
        *planning(studies),
        *davidson(),
        *order_of_votes(),
        *planted(min(studies, 300)),
        *coverage(studies),
        *false_alarms(studies),
    ]
    write_numbers(Path(given.get("out", str(HERE))) / "numbers.json", figures)
    for figure in figures:
        interval = "" if figure.low is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
        print(f"{figure.name}: {figure.value:.4g}{interval} (n = {figure.n})")


if __name__ == "__main__":
    main()

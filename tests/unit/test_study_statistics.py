"""Win rates, intervals, tests, ranks, agreement and power: closed forms, public counts, simulated raters."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import evalica
import numpy as np
import pytest
from moviegen_eval.stats import Interval
from moviegen_eval.study.analysis import analyse, pair_results
from moviegen_eval.study.axes import TEXT_TO_VIDEO, Axis
from moviegen_eval.study.davidson import connected, fit_davidson
from moviegen_eval.study.intervals import net_intervals
from moviegen_eval.study.power import detectable, half_width, prompts_needed
from moviegen_eval.study.raters import Alpha, alpha
from moviegen_eval.study.rates import Counts, NetWinRate, TieHalfWinRate, net_win_rate
from moviegen_eval.study.significance import holm, paper_verdict, sign_test, verdict
from moviegen_eval.study.simulate import Simulation, simulate, true_net
from moviegen_eval.study.study import ExclusionRules, Item
from moviegen_eval.study.table import table_of
from moviegen_eval.study.tables import analysis_table
from moviegen_eval.study.tally import item_counts, majority, pair_tallies
from scipy.optimize import minimize
from statsmodels.stats.multitest import multipletests
from study_samples import small_study, vote

# Step-Video-T2V's Table 12, against Movie Gen: W-T-L, and net, 95 % interval and sign test worked out from them.
STEP_VIDEO = [
    ((485, 315, 489), -0.31, (-5.0, 4.3), 0.92),
    ((123, 58, 160), -10.85, (-20.5, -1.5), 0.032),
    ((61, 54, 64), -1.68, (-14.0, 10.6), 0.86),
    ((110, 74, 108), 0.68, (-9.2, 10.6), 0.95),
    ((39, 37, 42), -2.54, (-16.9, 12.7), 0.82),
    ((84, 53, 63), 10.50, (-1.0, 22.5), 0.099),
    ((9, 2, 2), 53.85, (7.7, 92.3), 0.065),
    ((59, 37, 50), 6.16, (-7.5, 19.9), 0.44),
]


def each_its_own_prompt(counts: Sequence[int]) -> Interval:
    signs = np.repeat([1, 0, -1], counts)[:, None]
    interval = net_intervals(signs, np.ones_like(signs), 4000, 0, "test")[0]
    assert interval is not None
    return interval


@pytest.mark.parametrize(("counts", "net", "interval", "p"), STEP_VIDEO)
def test_public_counts_give_the_published_nets(
    counts: tuple[int, int, int], net: float, interval: tuple[float, float], p: float
) -> None:
    own = net_win_rate(Counts(*counts), each_its_own_prompt(counts))
    assert round(own.value, 2) == net
    # One vote moves a net by 100 / n: of 13 votes two more or less.
    allowed = 1.0 + 100 / sum(counts)
    assert (own.low, own.high) == (
        pytest.approx(interval[0], abs=allowed),
        pytest.approx(interval[1], abs=allowed),
    )
    assert sign_test(counts[0], counts[2]) == pytest.approx(p, rel=0.02)


def test_public_counts_of_categories_sum_to_the_overall_row_and_no_slice_survives_holm() -> None:
    rows = np.array([counts for counts, *_ in STEP_VIDEO])
    assert rows[1:].sum(axis=0).tolist() == rows[0].tolist() == [485, 315, 489]
    assert min(holm([sign_test(wins, losses) for wins, _, losses in rows[1:].tolist()])) > 0.05


def test_the_sora_column_of_the_paper_is_a_count_of_158() -> None:
    for net, wins_less_losses in ((8.23, 13), (8.22, 13), (4.43, 7), (8.86, 14), (17.72, 28)):
        assert Counts(wins_less_losses, 158 - wins_less_losses, 0).net() == pytest.approx(net, abs=0.011)


def test_the_two_scales_do_not_mix() -> None:
    net = NetWinRate(10.0, -5.0, 25.0)
    half = net.tie_half()
    assert half == TieHalfWinRate(55.0, 47.5, 62.5)
    assert half.net() == net
    assert net != half
    for mixed in (lambda: net < half, lambda: net - half, lambda: half > net):
        with pytest.raises(TypeError, match="does not compare with a"):
            mixed()
    assert (str(net), str(half)) == ("+10.0 [-5.0, +25.0]", "55.0 % (50 = tie) [47.5, 62.5]")
    with pytest.raises(ValueError, match="TieHalfWinRate"):
        TieHalfWinRate(-8.0, -9.0, -7.0)
    assert (net.flipped().value, net.flipped().low) == (-10.0, -25.0)


def test_ties_count_in_the_denominator() -> None:
    assert Counts(3, 4, 1).net() == 25.0
    assert Counts(3, 4, 1).tie_half() == 62.5
    with pytest.raises(ValueError, match="no votes"):
        Counts(0, 0, 0).net()


def test_a_majority_needs_a_leading_answer_and_splits_are_ties() -> None:
    counts = np.array(
        [[3, 0, 0], [1, 0, 2], [1, 1, 1], [2, 0, 2], [0, 2, 1], [2, 2, 2], [3, 2, 1], [0, 0, 0]]
    )
    outcome, split = majority(counts)
    assert outcome.tolist() == [1, -1, 0, 0, 0, 0, 1, 0]
    assert split.tolist() == [False, False, True, True, False, True, False, False]


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        p = rng.random(size) ** 3
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert holm([]) == []


def test_the_papers_rule_and_ours_stand_beside_each_other() -> None:
    sora = [
        ("overall", 8.23, "moderate"),
        ("consistency", 8.22, "significant"),
        ("motion_naturalness", 4.43, "moderate"),
    ]
    for axis, net, expected in sora:
        assert paper_verdict(axis, NetWinRate(net, net - 14, net + 14)) == expected
        assert verdict(NetWinRate(net, net - 14, net + 14), 0.3) == "on par"
    assert paper_verdict("text_alignment", NetWinRate(-1.99, -3, 0)) == "on par"
    assert paper_verdict("audio_quality", NetWinRate(50, 40, 60)) is None
    assert verdict(NetWinRate(8, 1, 15), 0.2) == "moderate"


def test_equal_outcomes_have_an_interval_all_the_same() -> None:
    won, tied = each_its_own_prompt((13, 0, 0)), each_its_own_prompt((0, 13, 0))
    assert won.high == 100.0
    assert won.low == pytest.approx(50.6, abs=0.1)  # Clopper-Pearson: 75.3 % of 13 of 13 at least
    assert (tied.low, tied.high) == (pytest.approx(-24.7, abs=0.1), pytest.approx(24.7, abs=0.1))


def test_intervals_over_prompts_hold_the_truth_and_intervals_over_votes_do_not() -> None:
    study = small_study(100, axes=(Axis("overall", "Which?", 6),))
    truth, hits, naive = true_net(0.3, 2.0, 1.0, 6)[0], 0, 0
    for seed in range(200):
        counts = item_counts(study, simulate(study, Simulation({"ours": 0.3}, 2.0), seed))
        result = pair_results(study, pair_tallies(study, counts), seed, 200)[0]
        over_votes = each_its_own_prompt_of(result.pooled.counts)
        hits += result.pooled.net.low <= truth <= result.pooled.net.high
        naive += over_votes[0] <= truth <= over_votes[1]
    assert 0.90 <= hits / 200 <= 0.99
    assert naive / 200 < 0.85


def each_its_own_prompt_of(counts: Counts) -> tuple[float, float]:
    half = 196 * np.sqrt((1 - counts.ties / counts.total - (counts.net() / 100) ** 2) / counts.total)
    return counts.net() - half, counts.net() + half


def test_the_order_of_votes_changes_nothing() -> None:
    study = small_study(20, ("ours", "p", "q"), gold=6, exclusion=ExclusionRules(min_gold_accuracy=0.7))
    table = simulate(study, Simulation({"ours": 1.0}, careless=2, raters=9), 0)
    rows = np.r_[np.arange(len(table)), np.arange(30)]  # some votes twice
    first = analyse(study, table.take(rows), 0, 200)
    for seed in range(5):
        shuffled = analyse(study, table.take(np.random.default_rng(seed).permutation(rows)), 0, 200)
        assert shuffled == first
        assert shuffled.item_counts.tolist() == first.item_counts.tolist()


def test_swapping_an_items_sides_changes_nothing_but_its_text() -> None:
    study = small_study(30)
    items = [Item(i.id, i.prompt, i.arm_b, i.arm_a, i.video_b, i.video_a, i.tags) for i in study.items]
    turned = replace(study, items=tuple(items))
    table = simulate(study, Simulation({"ours": 0.8}), 0)
    other = {"a": "b", "b": "a", "tie": "tie"}
    votes = [
        replace(v, study=turned.digest, answer=other[v.answer], shown_left=other[str(v.shown_left)])
        for v in table.votes()
    ]
    first, second = analyse(study, table, 0, 200), analyse(turned, table_of(votes), 0, 200)
    assert first.results == second.results
    assert first.raters == second.raters
    assert first.slices == second.slices


def test_davidson_finds_the_strengths_that_counting_ties_as_half_wins_shrinks() -> None:
    study = small_study(400, ("a", "b", "c", "d"), axes=(Axis("overall", "Which?", 6),))
    model = Simulation({"a": 0.45, "b": 0.15, "c": -0.15, "d": -0.45}, prompt_sd=0.0, ties=0.7)
    ranks = analyse(study, simulate(study, model, 0), 0, 200).rankings[0]
    assert [row.arm for row in ranks.rows] == ["a", "b", "c", "d"]
    assert [row.rank for row in ranks.rows] == [1, 2, 3, 4]
    for row in ranks.rows:
        assert row.strength == pytest.approx(model.strengths[row.arm], abs=0.06)
        assert row.strength_interval.low < row.strength < row.strength_interval.high
        assert abs(row.half_win_strength) < abs(row.strength)
        assert row.rank_interval[0] <= row.rank <= row.rank_interval[1]
    assert ranks.ties == pytest.approx(0.7, abs=0.05)


def test_davidsons_fit_is_the_maximum_that_scipy_finds() -> None:
    pairs, rng = list(combinations(range(4), 2)), np.random.default_rng(1)
    counts = rng.integers(5, 60, size=(len(pairs), 3))

    def loss(values: np.ndarray) -> float:
        total = 0.0005 * float(values @ values)
        for (i, j), row in zip(pairs, counts, strict=True):
            logits = np.array([values[i], values[4] + (values[i] + values[j]) / 2, values[j]])
            total -= float(row @ (logits - np.logaddexp.reduce(logits)))
        return total

    best = minimize(loss, np.zeros(5), method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).x
    fit = fit_davidson(counts[None], pairs, 4)[0]
    assert fit[:4] == pytest.approx(best[:4] - best[:4].mean(), abs=1e-4)
    assert fit[4] == pytest.approx(best[4], abs=1e-4)


def test_an_arm_that_never_loses_keeps_a_finite_strength_and_islands_are_not_ranked() -> None:
    fit = fit_davidson(np.array([[[30, 0, 0], [30, 0, 0], [10, 5, 15]]]), [(0, 1), (0, 2), (1, 2)], 3)
    assert np.isfinite(fit).all()
    assert fit[0, 0] > fit[0, 2] > fit[0, 1]
    assert connected(3, [(0, 1), (1, 2)])
    assert not connected(4, [(0, 1), (2, 3)])


def test_arms_that_only_win_have_no_finite_strength_and_the_tables_say_so() -> None:
    study = small_study(6, ("x", "y", "z"))
    log = [vote(study, item.id, "a", f"r{n}") for item in study.items for n in range(3)]
    won = analyse(study, table_of(log), resamples=100)
    assert [(row.arm, row.rank, row.half_win_strength) for row in won.rankings[0].rows] == [
        ("x", 1, None),
        ("y", 2, None),
        ("z", 3, None),
    ]
    assert not won.rankings[0].finite and "no finite strength fits the votes best" in analysis_table(won)
    log[0] = vote(study, log[0].item, "tie", "r0")  # of x and y: z still never wins
    assert not analyse(study, table_of(log), resamples=100).rankings[0].finite
    log[-1] = vote(study, log[-1].item, "b", "r2")
    held = analyse(study, table_of(log), resamples=100)
    assert held.rankings[0].finite and "no finite strength" not in analysis_table(held)
    assert held.rankings[0].rows[0].half_win_strength > 1


def test_ranks_of_a_study_that_is_half_voted_draw_only_prompts_with_votes() -> None:
    whole = small_study(6, ("x", "y", "z"))
    longer = small_study(40, ("x", "y", "z"))
    answers = {"x-y": "ab", "y-z": "ab", "x-z": "aa"}
    rankings = []
    for study in (whole, longer):
        log = [
            vote(study, item.id, answers[f"{item.arm_a}-{item.arm_b}"][n], f"r{n}", id=f"{row:030d}{n:02d}")
            for row, item in enumerate(study.items[: len(whole.items)])
            for n in range(2)
        ]
        rankings.append(analyse(study, table_of(log), resamples=200).rankings)
    assert rankings[0] == rankings[1]


def test_online_elo_depends_on_the_order_and_our_ranking_does_not() -> None:
    study = small_study(60, ("ours", "p", "q", "r", "s"))
    table = simulate(study, Simulation({"ours": 0.2}), 3)
    items = {item.id: item for item in study.items}
    sign = {"a": evalica.Winner.X, "tie": evalica.Winner.Draw, "b": evalica.Winner.Y}
    votes = list(table.votes())
    scores = []
    for order in (votes, votes[::-1]):
        pairs = [items[v.item] for v in order]
        elo = evalica.elo(
            [i.arm_a for i in pairs], [i.arm_b for i in pairs], [sign[v.answer] for v in order], k=32.0
        )
        scores.append(elo.scores.to_dict())
    assert scores[0] != pytest.approx(scores[1], abs=1.0)
    assert (
        analyse(study, table_of(votes), 0, 200).rankings
        == analyse(study, table_of(votes[::-1]), 0, 200).rankings
    )


def agreement(counts: np.ndarray) -> Alpha | None:
    return alpha(counts, np.arange(len(counts)), 200, np.random.default_rng(0))


def test_alpha_is_one_for_perfect_agreement_near_zero_by_chance_and_right_by_hand() -> None:
    perfect = agreement(np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]]))
    assert perfect is not None
    assert perfect.value == 1.0
    chance = agreement(np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=2000))
    assert chance is not None
    assert chance.value == pytest.approx(0.0, abs=0.03)
    # Two raters, units (a, a), (a, b): observed 1/2, expected 1 - (3*2 + 1*0) / (4*3) = 1/2.
    by_hand = agreement(np.array([[2, 0, 0], [1, 0, 1]]))
    assert by_hand is not None
    assert by_hand.value == pytest.approx(0.0)
    assert by_hand.n_votes == 4
    assert agreement(np.array([[1, 0, 0], [0, 1, 0]])) is None
    assert agreement(np.array([[3, 0, 0], [3, 0, 0]])) is None


def test_alpha_is_that_of_a_table_of_raters_and_units() -> None:
    krippendorff = pytest.importorskip("krippendorff")
    rng = np.random.default_rng(0)
    ratings = np.where(
        rng.random((5, 60)) < 0.4, np.nan, rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.2, 0.6], size=(5, 60))
    )
    counts = np.stack([(ratings == sign).sum(axis=0) for sign in (1, 0, -1)], axis=1)
    own = agreement(counts)
    assert own is not None
    expected = krippendorff.alpha(reliability_data=ratings, level_of_measurement="nominal")
    assert own.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prompts", "ties", "half", "net"),
    [
        (100, 0.1, 18.6, 26.6),
        (128, 0.25, 15.0, 21.4),
        (381, 0.25, 8.7, 12.4),
        (500, 0.4, 6.8, 9.7),
        (1003, 0.4, 4.8, 6.9),
    ],
)
def test_the_power_table_of_the_reference_comes_out(
    prompts: int, ties: float, half: float, net: float
) -> None:
    assert round(half_width(prompts, ties), 1) == half
    assert round(detectable(prompts, ties), 1) == net
    needed = prompts_needed(detectable(prompts, ties), ties)
    assert needed == prompts
    assert prompts_needed(net, ties, num_tests=7) > needed


def test_what_the_paper_says_against_sora_and_kling_cannot_be_called_on_381_prompts() -> None:
    assert prompts_needed(8.23, 0.25) > 800
    assert prompts_needed(3.87, 0.25) > 3900
    for wrong in (0.0, 80.0):
        with pytest.raises(ValueError, match="expected a net win rate from above 0 to 75 points"):
            prompts_needed(wrong, 0.25)


def test_a_planted_side_bias_and_a_planted_bad_rater_are_found_and_honest_ones_are_not() -> None:
    study = small_study(100, gold=12, axes=TEXT_TO_VIDEO)
    analysis = analyse(study, simulate(study, Simulation({"ours": 0.4}, 2.0, careless=1, sided=1), 0), 0, 200)
    flags = {row.rater: row.flags for row in analysis.raters if row.flags}
    assert set(flags) == {"r000", "r001"}
    assert "gold" in flags["r000"]
    assert "side bias" in flags["r001"]
    bad = analysis.raters[0]
    assert bad.gold_right < 0.8 * bad.gold
    assert bad.watch_seconds is not None
    assert bad.watch_seconds < 2


def test_a_slice_counts_every_item_once_for_each_value_of_its_tag_and_small_ones_say_so() -> None:
    study = small_study(60)
    item = replace(study.items[0], tags={"motion": "low", "concept": "animal,animal, scene"})
    study = replace(study, items=(item, *study.items[1:]))
    analysis = analyse(study, simulate(study, Simulation(), 0), 0, 200)
    sizes = {part.tags: part.n_items for part in analysis.slices}
    assert sizes[(("motion", "low"),)] == sizes[(("motion", "high"),)] == 30
    assert sizes[(("concept", "animal"),)] == 40
    assert sizes[(("concept", "scene"),)] == 41
    assert sizes[(("concept", "animal"), ("motion", "low"))] == 20
    assert {part.small for part in analysis.slices if part.n_items < 30} == {True}
    assert not next(part for part in analysis.slices if part.tags == (("motion", "low"),)).small
    by_motion = [part for part in analysis.slices if part.tags[0][0] == "motion"]
    assert [part.p_holm for part in by_motion] == holm([part.p for part in by_motion])


def test_gold_items_never_count_in_a_result() -> None:
    study = small_study(5, gold=3)
    votes = [vote(study, f"p{n}-ours-other", "a") for n in range(5)] + [vote(study, "gold-0", "a")]
    analysis = analyse(study, table_of(votes), 0, 200)
    assert (analysis.n_votes, analysis.n_gold, analysis.results[0].n_items) == (5, 1, 5)
    assert (analysis.raters[0].gold, analysis.raters[0].gold_right) == (1, 1)


def test_majority_and_pooled_are_both_there_and_differ_where_raters_do() -> None:
    study = small_study(2)
    answers = {"p0-ours-other": "aab", "p1-ours-other": "btt"}
    table = table_of(
        [
            vote(study, item, {"t": "tie"}.get(answer, answer), f"r{n}")
            for item, letters in answers.items()
            for n, answer in enumerate(letters)
        ]
    )
    result = analyse(study, table, 0, 200).result("overall", "ours", "other")
    assert (result.wins, result.ties, result.losses) == (1, 1, 0)
    assert str(result.pooled.counts) == "2-2-2"
    assert (result.net.value, result.pooled.net.value) == (50.0, 0.0)
    assert (result.n_items, result.n_votes, result.splits) == (2, 6, 0)


def test_without_a_vote_that_counts_the_analysis_says_why() -> None:
    study = small_study(2)
    with pytest.raises(ValueError, match="no vote counts: the file holds no line"):
        analyse(study, table_of([]))
    with pytest.raises(ValueError, match="1 left out: its axis is not in the study"):
        analyse(study, table_of([vote(study, axis="beauty")]))

"""The fault sweep at a small size: nothing silently wrong, every `latest` loads, no more lost than agreed."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "faults" / "run.py"


def loaded() -> Any:
    """The sweep's script as a module."""
    if "faults_run" not in sys.modules:
        spec = importlib.util.spec_from_file_location("faults_run", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = sys.modules["faults_run"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["faults_run"]


faults = loaded()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return faults.Sweep(faults.Settings(tmp_path_factory.mktemp("faults"), scale=0.03))


@pytest.mark.parametrize("group", faults.GROUPS, ids=lambda group: group.__name__)
def test_a_broken_training_goes_on_as_if_nothing_had_been(sweep: Any, group: Callable) -> None:
    outcomes = list(group(sweep))
    assert outcomes
    for outcome in outcomes:
        assert not (outcome.wrong or outcome.unloadable or outcome.unexpected), outcome
        assert outcome.lost <= outcome.bound <= 4, outcome  # one interval, also in the background
    if group.__name__ in ("killed_saves", "disks"):  # most meet a run that has something to lose
        assert sum(bool(outcome.latest) for outcome in outcomes) >= 0.75 * len(outcomes)
    if group.__name__ == "sharded":
        assert [(one.case, bool(one.latest)) for one in outcomes] == [
            (f"SIGKILL, {name}", True) for name in ("fsdp", "tp", "cp")
        ]
    late = [outcome for outcome in outcomes if outcome.case.startswith("kill before latest moves")]
    assert all((one.lost, one.latest[-1]) == (4, "4" if "async" in one.case else "8") for one in late), late


def test_the_counted_calls_replace_latest_and_remove_what_is_old(sweep: Any) -> None:
    calls = sweep.calls()
    first, second, third = ([calls.names[n - 1] for n in calls.of_saves(save, save)] for save in (1, 2, 3))
    assert first.count("replace") == 1 and not {"unlink", "rmdir"} & set(first)
    assert second == third and second[: len(first)] == first
    assert second[len(first) :] == ["rename", "unlink", "unlink", "unlink", "rmdir"]
    assert calls.moves_latest(2) in calls.of_saves(2, 2)


def test_a_wrong_step_and_a_wrong_checkpoint_are_noticed(sweep: Any) -> None:
    run = sweep.run()
    reference = sweep.reference(run)
    faults.cases.finish(faults.cases.start(run))
    assert reference.wrong(run) == []
    note = reference.notes[0, 5]
    reference.notes[0, 5] = {**note, "loss": note["loss"] + 1e-7}
    assert reference.wrong(run) == ["attempt 0 rank 0 step 5: ['loss']"]
    reference.notes[0, 5] = note
    last = reference.notes[0, run.steps]
    latest = faults.cases.Folders(run.checkpoints).latest()
    assert reference.same(*latest)
    reference.notes[0, run.steps] = {**last, "rng": "another"}
    assert not reference.same(*latest)
    reference.notes[0, run.steps] = last


def test_each_sample_is_seen_once_an_epoch_whatever_is_killed_and_however_many_ranks(sweep: Any) -> None:
    """22 samples in batches of 4; 33 steps are six epochs; kills at other steps, other numbers of ranks."""
    run = sweep.run(steps=33, every=5, dropout=0.0)
    for attempt, (world, dies_at) in enumerate([(1, 7), (2, 16), (4, 22), (1, None)]):
        fault = None if dies_at is None else faults.cases.signal_at(dies_at, 9)
        part = faults.replace(run, world=world, watchdog_seconds=5.0 if world > 1 else 0.0)
        codes = faults.cases.finish(faults.cases.start(part, attempt, fault))
        assert (codes == [0]) == (dies_at is None)
    made = faults.cases.notes(run)
    last: dict[int, int] = {}  # a step that was made again counts as it was made last
    for note in made:
        last[note["step"]] = max(last.get(note["step"], 0), note["attempt"])
    kept = [note for note in made if note["attempt"] == last[note["step"]]]
    order = [n for note in sorted(kept, key=lambda note: (note["step"], note["rank"])) for n in note["ids"]]
    assert sorted(last) == list(range(1, 34)) and len(order) == 132
    for epoch in range(6):
        assert len(set(order[22 * epoch : 22 * (epoch + 1)])) == 22

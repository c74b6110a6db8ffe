"""All checks of the planner, in one command; numbers.json and the printed tables.

python experiments/plan/run.py            four minutes beside other work; --skip memory scale: arithmetic alone

Of parts that are skipped the figures that are there stay.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from fit import WITHIN, fitted, left_out, report
from moviegen_eval.numbers import Figure, read_numbers, write_numbers
from published import of, profile, rows

from moviegen.plan.goodput import (
    daly_goodput,
    daly_interval,
    simulated_goodput,
    young_goodput,
    young_interval,
)

HERE = Path(__file__).resolve().parent
# Seconds: save, restart, mean time between failures. 6,144 GPUs at Llama 3's rate stop every 8.2 hours.
RUNS = {
    "6144_staged": (5.0, 600.0, 8.2 * 3600),
    "6144_blocking": (30.0, 600.0, 8.2 * 3600),
    "16384_blocking": (30.0, 600.0, 3.1 * 3600),
    "512_slow": (120.0, 900.0, 98.0 * 3600),
    "fragile": (60.0, 300.0, 3600.0),
}


def _figure(name: str, value: float, n: int, unit: str, higher: bool = False) -> Figure:
    return Figure(f"plan/{name}", round(float(value), 5), None, None, n, unit, higher)


def step_times() -> list[Figure]:
    """Every published row by the shares of conf/hardware, and with its source left out of the fit."""
    figures = []
    table = rows()
    for device in dict.fromkeys(row.device for row in table):
        mine = of(device, table)
        print(report(device, mine))
        blind = left_out(mine)
        errors = [abs(row.error()) for row in mine]
        figures += [_figure(f"step/{row.name}/error", row.error(), 1, "share") for row in mine]
        figures += [_figure(f"step/{row.name}/error_left_out", blind[row.name], 1, "share") for row in mine]
        figures += [
            _figure(f"step/{device}/{k}", v, len(mine), "share", True) for k, v in fitted(mine).items()
        ]
        within = sum(error <= WITHIN for error in errors)
        figures.append(_figure(f"step/{device}/rows_within_25_percent", within, len(mine), "rows", True))
        left = sum(abs(error) <= WITHIN for error in blind.values())
        figures.append(
            _figure(f"step/{device}/rows_within_25_percent_left_out", left, len(mine), "rows", True)
        )
        figures.append(_figure(f"step/{device}/median_error", statistics.median(errors), len(mine), "share"))
        documented = profile(device)
        stale = {k: v for k, v in fitted(mine).items() if abs(getattr(documented, k) - v) > 0.002}
        if stale:
            print(f"conf/hardware/{device}.yaml differs from the fit: {stale}")
    return figures


def goodputs() -> list[Figure]:
    """The simulator against Young and Daly."""
    figures = []
    for name, (save, restart, mtbf) in RUNS.items():
        interval = daly_interval(save, mtbf)
        found = simulated_goodput(interval, save, restart, mtbf)
        daly, young = (f(interval, save, restart, mtbf) for f in (daly_goodput, young_goodput))
        around = {
            factor: simulated_goodput(interval * factor, save, restart, mtbf) for factor in (0.5, 0.7, 1.4, 2)
        }
        print(
            f"{name:16} every {interval / 60:6.1f} min (Young {young_interval(save, mtbf) / 60:6.1f}): "
            f"goodput {found:.4f}, "
            f"Daly {daly:.4f}, Young {young:.4f}; " + ", ".join(f"x{f:g} {v:.4f}" for f, v in around.items())
        )
        figures += [
            _figure(f"goodput/{name}/simulated", found, 100_000, "share", True),
            _figure(f"goodput/{name}/error_to_daly", found / daly - 1, 100_000, "share"),
            _figure(f"goodput/{name}/loss_error_to_daly", (1 - found) / (1 - daly) - 1, 100_000, "share"),
            _figure(f"goodput/{name}/error_to_young", found / young - 1, 100_000, "share"),
            _figure(f"goodput/{name}/best_of_other_intervals", max(around.values()), 100_000, "share", True),
        ]
    return figures


def scale() -> list[Figure]:
    """One of 6,144 processes, laid out without the others."""
    from scale import PAPER, laid_out, stage3

    found = laid_out(stage3(), PAPER)
    print(", ".join(f"{name} {value:,.3f}" for name, value in found.items()))
    units = {"parameters": "elements", "local_parameters": "elements", "resident_gib": "GiB"}
    return [_figure(f"scale_6144/{k}", v, 1, units.get(k, "s")) for k, v in found.items()]


def memory() -> list[Figure]:
    """Real runs on 1 to 4 processes."""
    from memory_runs import measured, other_settings, shard_settings

    figures, errors = [], []
    wanted = [*shard_settings(), *other_settings()]
    found = measured(wanted)
    for setting in wanted:
        one, predicted = found[str(setting)], setting.predicted().peak
        errors.append(predicted / one["peak"] - 1)
        print(
            f"{setting!s:36} measured {one['peak'] / 2**20:8.3f} MiB ({one['when']}), "
            f"predicted {predicted / 2**20:8.3f} MiB, {errors[-1]:+.1%}"
        )
        figures.append(_figure(f"memory/{setting}/measured", one["peak"], 1, "bytes"))
        figures.append(_figure(f"memory/{setting}/error", errors[-1], 1, "share"))
    largest = max(map(abs, errors))
    figures.append(_figure("memory/largest_error", largest, len(errors), "share"))
    within = sum(abs(error) <= 0.1 for error in errors)
    return [*figures, _figure("memory/settings_within_10_percent", within, len(errors), "settings", True)]


PARTS: dict[str, tuple[str, Callable[[], list[Figure]]]] = {  # where their figures stand, and what makes them
    "step_times": ("plan/step/", step_times),
    "goodputs": ("plan/goodput/", goodputs),
    "scale": ("plan/scale_6144/", scale),
    "memory": ("plan/memory/", memory),
}


def all_figures(skipped: Container[str], before: Sequence[Figure]) -> list[Figure]:
    """Of each part in turn new figures, or those of before where it is skipped."""
    found = []
    for name, (prefix, part) in PARTS.items():
        found += [f for f in before if f.name.startswith(prefix)] if name in skipped else part()
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip", nargs="*", default=[], choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    numbers = options.out / "numbers.json"
    before = read_numbers(numbers) if options.skip and numbers.is_file() else []
    write_numbers(numbers, all_figures(options.skip, before))
    print(f"{numbers} written")


if __name__ == "__main__":
    main()

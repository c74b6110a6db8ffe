"""Metrics during training: settings are checked when the run starts, samples are shared out and counted once."""

import numpy as np
import pytest
from moviegen_eval.metrics.registry import open_metrics
from moviegen_eval.metrics.sample import Clip, Sample

from moviegen.callbacks.metrics import Metrics, scored


def test_metrics_that_cannot_run_here_stop_the_run_at_its_start() -> None:
    with pytest.raises(ValueError, match="no such metric; did you mean 'flicker'"):
        Metrics(["flickr"])
    with pytest.raises(ValueError, match="none of the metrics clip scores single clips here"):
        Metrics(["clip"])
    with pytest.raises(ValueError, match="every must be at least 1"):
        Metrics(["flicker"], every=0)


def test_a_prompt_that_two_processes_scored_counts_once_and_what_does_not_apply_is_left_out() -> None:
    metrics = open_metrics(["flicker", "psnr"])
    clips = [
        np.random.default_rng(n).integers(0, 40 * (n + 1), (4, 16, 16, 3)).astype(np.uint8) for n in range(2)
    ]
    samples = [Sample("", Clip(clip, 8.0)) for clip in (*clips, clips[0])]
    found = scored(metrics, [0, 1, 0], samples)
    alone = [metrics.samples["flicker"].scores(sample)["flicker"] for sample in samples[:2]]
    assert found["flicker"] == pytest.approx(np.mean(alone)) and "psnr" not in found

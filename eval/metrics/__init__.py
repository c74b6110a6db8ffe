"""Metrics of clips: one file a metric, all behind the `Metric` protocol."""

from moviegen_eval.metrics.base import FrameMetric, Metric
from moviegen_eval.metrics.psnr import Psnr
from moviegen_eval.metrics.ssim import Ssim
from moviegen_eval.metrics.stlpips import StLpips
from moviegen_eval.metrics.vmaf import Vmaf

__all__ = ["FrameMetric", "Metric", "Psnr", "Ssim", "StLpips", "Vmaf"]

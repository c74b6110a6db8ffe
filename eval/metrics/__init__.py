"""Metrics of clips: one file a metric, all behind the `Metric` protocol."""

from moviegen_eval.metrics.base import Metric
from moviegen_eval.metrics.psnr import Psnr
from moviegen_eval.metrics.ssim import Ssim
from moviegen_eval.metrics.stlpips import StLpips

__all__ = ["Metric", "Psnr", "Ssim", "StLpips"]

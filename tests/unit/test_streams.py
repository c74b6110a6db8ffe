"""Frames that stream through the steps of a solver come out as if all had been in memory."""

import torch

from moviegen.flow.sampler import euler
from moviegen.flow.streams import streamed_euler
from moviegen.flow.windows import Axis, averaged


def test_streamed_frames_are_those_of_multi_diffusion_in_memory() -> None:
    torch.manual_seed(0)
    mix = torch.randn(5, 5, dtype=torch.float64) / 3
    for length in (3, 14, 15, 24, 41):
        noise = torch.randn(2, length, 3, 5, dtype=torch.float64)

        def velocity(x: torch.Tensor, t: torch.Tensor, span: slice) -> torch.Tensor:
            """Depends on the whole window, on the time and on where it lies."""
            return (x + x.mean(1, keepdim=True)) @ mix * (1 + t.view(-1, 1, 1, 1)) + 0.01 * span.start

        times = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
        whole = euler(averaged(lambda x, t, part: velocity(x, t, part[0]), [Axis(1, 14, 10)]), noise, times)
        frames = list(streamed_euler(velocity, noise.split(1, dim=1), times, length, 14, 10))
        torch.testing.assert_close(torch.cat(frames, dim=1), whole)


def test_few_frames_are_waited_for() -> None:
    asked = []

    def noise():
        for number in range(400):
            asked.append(number)
            yield torch.zeros(1, 1, 1)

    given = streamed_euler(lambda x, t, span: x, noise(), torch.linspace(0, 1, 5), 400, 14, 10)
    for number, _ in enumerate(given):
        assert len(asked) - number <= 14 * 4

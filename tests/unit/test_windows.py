"""Windows averaged in every step: what they cover, what they weigh, and what follows from both."""

import pytest
import torch
from torch import Tensor

from moviegen.flow.sampler import euler
from moviegen.flow.times import linear_times
from moviegen.flow.windows import Axis, averaged, weights


@pytest.mark.parametrize(
    ("length", "size", "hop"), [(10, 4, 2), (11, 4, 3), (4, 4, 1), (3, 4, 2), (100, 10, 10)]
)
def test_windows_cover_everything_and_have_one_size(length: int, size: int, hop: int) -> None:
    spans = Axis(1, size, hop).spans(length)
    covered = torch.zeros(length)
    for span in spans:
        covered[span] += 1
    assert bool((covered > 0).all())
    assert {span.stop - span.start for span in spans} == {min(size, length)}
    assert spans[-1].stop == length


def test_a_hop_beyond_its_window_is_refused() -> None:
    with pytest.raises(ValueError, match="windows of 4 need a hop from 1 to 4, got 5"):
        Axis(1, 4, 5)
    with pytest.raises(ValueError, match="triangular or uniform, got 'round'"):
        weights(4, "round")  # type: ignore[arg-type]


def test_weights_are_a_triangle_or_alike() -> None:
    torch.testing.assert_close(weights(4), torch.tensor([0.25, 0.75, 0.75, 0.25]))
    torch.testing.assert_close(weights(5)[2], torch.tensor(1.0))
    torch.testing.assert_close(weights(3, "uniform"), torch.ones(3))


def test_a_velocity_that_needs_no_context_is_kept() -> None:
    """A pointwise velocity is the same from windows along two axes as from the whole."""

    def pointwise(x: Tensor, t: Tensor) -> Tensor:
        return x.sin() + t.view(-1, 1, 1, 1)

    x, t = torch.randn(2, 3, 11, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.7])
    tiled = averaged(lambda part, time, _: pointwise(part, time), [Axis(2, 4, 3), Axis(3, 5, 2)])
    torch.testing.assert_close(tiled(x, t), pointwise(x, t))


def test_where_windows_disagree_their_weights_decide() -> None:
    """Two windows of 4 over 6 places: the constant velocities 0 and 1 are mixed by the triangles in between."""
    axis = Axis(1, 4, 2)
    values = {0: 0.0, 2: 1.0}
    velocity = averaged(lambda x, t, part: torch.full_like(x, values[part[0].start]), [axis])
    found = velocity(torch.zeros(1, 6, 1), torch.zeros(1))[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.25, 0.75, 1.0, 1.0]))
    even = averaged(lambda x, t, part: torch.full_like(x, values[part[0].start]), [axis], "uniform")
    torch.testing.assert_close(
        even(torch.zeros(1, 6, 1), torch.zeros(1))[0, 2:4, 0], torch.tensor([0.5, 0.5])
    )


def test_a_sampler_takes_it_as_any_velocity() -> None:
    """Toward a target that every window knows, the solver ends at the target, also where windows overlap."""
    target = torch.arange(12.0).view(1, 12, 1)

    def toward(x: Tensor, t: Tensor, part: tuple[slice, ...]) -> Tensor:
        return (target[:, part[0]] - x) / (1 - t).view(-1, 1, 1)

    noise = torch.randn(1, 12, 1, generator=torch.Generator().manual_seed(0))
    times = linear_times(8)
    torch.testing.assert_close(euler(averaged(toward, [Axis(1, 5, 2)]), noise, times), target)

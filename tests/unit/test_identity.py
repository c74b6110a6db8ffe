"""Reference pictures: what training takes, what enters cross-attention, and that dropping them leaves text-to-video."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import Generator, in_float64
from shard_samples import npy
from tiny_weights import CLIP

from moviegen.conditioning.clip import new_clip, save_clip
from moviegen.conditioning.identity import FACES, FaceSet, Identity, References, collate_faces
from moviegen.conditioning.vision import TowerSizes, VisionTower
from moviegen.config import build
from moviegen.flow.guidance import GuidanceTerm, nested_guidance
from moviegen.modelfile import load_task, load_weights
from moviegen.rng import SampleRng
from moviegen.tasks.sampling import SamplerConfig, sample_latents
from moviegen.types import Batch, Grid, Latent

SIZES = TowerSizes(image_size=16, patch_size=8, width=16, layers=1, heads=2)
SAMPLER = SamplerConfig(num_frames=4, height=16, width=16, frame_rate=8.0, num_steps=2, guidance=2.0)
TOWER = {
    "_target_": "moviegen.conditioning.vision.VisionTower",
    "sizes": {"_target_": "moviegen.conditioning.vision.TowerSizes", **vars(SIZES)},
}
IDENTITY = {"_target_": "moviegen.conditioning.identity.Identity", "_partial_": True, "tower": TOWER}


def condition(**settings) -> Identity:
    torch.manual_seed(0)
    return Identity(dim=8, tower=VisionTower(sizes=SIZES), **settings)


def sample(paired: int, cross: int, first: int = 0) -> tuple[np.ndarray, list[int]]:
    """Crops that are as bright as their number says."""
    bright = np.arange(first, first + paired + cross, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(bright, (paired + cross, 16, 16, 3)).copy(), [0] * paired + [1] * cross


def numbers(references: References) -> list[list[int]]:
    """Which crops of `sample` were taken, by clip."""
    bright = ((references.pictures[:, :, 0, 0, 0] + 1) * 127.5).round().long()
    return [row[mask].tolist() for row, mask in zip(bright, references.mask, strict=True)]


@pytest.fixture(scope="module")
def models(generator: Generator) -> tuple[str, dict]:
    """A text-to-video model on disk, and the node of one that takes references too."""
    conditioners = {**generator.node["conditioners"], "identity": IDENTITY}
    return generator.path, {**generator.node, "conditioners": conditioners}


def adopted(models: tuple[str, dict]):
    task = build(models[1])
    load_weights(task, models[0], fit=task.adopted)
    return task.eval()


def test_a_new_model_without_references_is_the_text_to_video_model_to_the_bit(models) -> None:
    plain, task = load_task(models[0]), adopted(models)
    texts = plain.conditioners.named()["text"].features(["a red star", "a blue circle moves left"])
    keys = torch.tensor([1, 2])
    expected = sample_latents(plain, {"text": texts}, keys, SAMPLER).values
    assert torch.equal(sample_latents(task, {"text": texts}, keys, SAMPLER).values, expected)


def test_dropped_references_leave_the_answer_and_its_gradients_as_they_were(models) -> None:
    torch.manual_seed(0)
    plain, task = load_task(models[0]).double(), adopted(models).double()
    texts = ["a red star", "a blue circle"]
    faces = collate_faces([sample(2, 1), sample(1, 0)])
    latents = in_float64(Latent(torch.randn(2, 4, 2, 4, 4), torch.full((2,), 8.0)))
    batch = Batch(torch.tensor([1, 2]), latents, {"text": texts, "identity": in_float64(faces)})
    alone = Batch(torch.tensor([1, 2]), latents, {"text": texts})
    expected = plain.losses(alone, 0, time=0.5)
    losses = task.losses(batch, 0, time=0.5, drop=frozenset({"identity"}))
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    assert not torch.allclose(task.losses(batch, 0, time=0.5), expected, rtol=1e-3)
    losses.sum().backward()
    tower = task.conditioners.named()["identity"].tower
    assert all(p.grad is None or not p.grad.any() for p in tower.parameters())


def test_references_become_a_token_for_each_patch_after_each_other() -> None:
    identity = condition()
    two = torch.rand(2, 3, 16, 16) * 2 - 1
    references = References.of([two, two[:1]])
    tokens, mask = identity(references, Grid(1, 1, 1))
    assert tokens.shape == (2, 8, 8) and mask.tolist() == [[True] * 8, [True] * 4 + [False] * 4]
    torch.testing.assert_close(tokens[0, :4], tokens[1, :4])
    plain = torch.full((1, 3, 16, 16), 0.3)
    scaled, _ = identity(References.of([torch.full((1, 3, 40, 40), 0.3)]), Grid(1, 1, 1))
    torch.testing.assert_close(scaled, identity(References.of([plain]), Grid(1, 1, 1))[0])


def test_training_draws_paired_and_cross_references_by_their_weights() -> None:
    count = 800
    faces = collate_faces([sample(5, 3)] * count)
    rng = SampleRng(0, 0, torch.arange(count))
    taken = numbers(condition(kinds={"paired": 1.0, "cross": 3.0}).vary(faces, rng))
    assert {len(row) for row in taken} == {1}
    cross = sum(row[0] >= 5 for row in taken) / count
    assert cross == pytest.approx(0.75, abs=0.05)
    assert {row[0] for row in taken} == set(range(8))
    several = numbers(condition(max_references=3).vary(faces, SampleRng(0, 0, torch.arange(count))))
    assert {len(row) for row in several} == {1, 2, 3}
    assert all(len(set(row)) == len(row) and max(row) < 5 for row in several)


def test_a_sample_of_one_kind_takes_it_and_one_without_the_wanted_kind_is_named() -> None:
    faces = collate_faces([sample(2, 0), sample(1, 2)])
    rng = SampleRng(0, 0, torch.arange(2))
    both = condition(kinds={"paired": 1e-9, "cross": 1.0})
    taken = numbers(both.vary(faces, rng))
    assert taken[0][0] in (0, 1) and taken[1][0] in (1, 2)
    with pytest.raises(ValueError, match="a sample has no cross face"):
        condition(kinds={"cross": 1.0}).vary(faces, rng)


def test_held_out_losses_take_the_first_face_of_the_weightiest_kind() -> None:
    faces = collate_faces([sample(2, 2), sample(2, 0)])
    identity = condition(kinds={"paired": 1.0, "cross": 2.0})
    wanted = References.of([torch.full((1, 3, 16, 16), 2 / 127.5 - 1), torch.full((1, 3, 16, 16), -1.0)])
    torch.testing.assert_close(identity(faces, Grid(1, 1, 1))[0], identity(wanted, Grid(1, 1, 1))[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": {"twin": 1.0}}, "no kind of reference is called 'twin'"),
        ({"kinds": {"paired": 0.0}}, "weights from 0, not all of them 0"),
        ({"max_references": 0}, "max_references must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition(**settings)


def test_a_tower_is_read_from_an_open_clip_folder_and_can_stay_frozen(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip", new_clip(CLIP, 24), CLIP)
    tower = VisionTower(folder=str(tmp_path / "clip"), trainable=False)
    tokens = tower(torch.zeros(2, 3, 32, 32))
    assert tokens.shape == (2, 4, tower.width) and not tokens.requires_grad
    assert not any(p.requires_grad for p in tower.parameters())
    with pytest.raises(ValueError, match="sizes: one of the two"):
        VisionTower()
    with pytest.raises(ValueError, match="give a local open-clip model folder"):
        VisionTower(folder=str(tmp_path))


def test_faces_that_do_not_fit_their_record_are_refused() -> None:
    faces, _ = sample(2, 1)
    decoded, kinds = FACES.decode(npy(faces), json.dumps({"faces": {"paired": 2, "cross": 1}}).encode())
    assert np.array_equal(decoded, faces) and kinds == [0, 0, 1]
    for counts in ({"paired": 2}, {"twin": 3}, None):
        with pytest.raises(ValueError, match="faces"):
            FACES.decode(npy(faces), json.dumps({"faces": counts}).encode())
    assert isinstance(collate_faces([(faces, kinds), sample(1, 0)]), FaceSet)


def test_guidance_of_two_conditions_adds_them_one_after_another() -> None:
    terms = nested_guidance({"identity": 2.0, "text": 3.0})
    both, one, none = frozenset(), frozenset({"text"}), frozenset({"identity", "text"})
    assert terms == (GuidanceTerm(3.0, both), GuidanceTerm(-1.0, one), GuidanceTerm(-1.0, none))
    assert nested_guidance({"identity": 1.0, "text": 1.0}) == (GuidanceTerm(1.0),)
    assert nested_guidance({"identity": 3.0, "text": 3.0}) == (
        GuidanceTerm(3.0, both),
        GuidanceTerm(-2.0, none),
    )


def test_a_model_without_references_refuses_a_scale_for_them(models) -> None:
    plain = load_task(models[0])
    texts = plain.conditioners.named()["text"].features(["a red star"])
    asked = SamplerConfig(**{**vars(SAMPLER), "condition_guidance": {"identity": 2.0}})
    with pytest.raises(ValueError, match="no condition named 'identity'"):
        sample_latents(plain, {"text": texts}, torch.tensor([1]), asked)

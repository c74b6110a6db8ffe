"""Rewriting by a causal language model from a local Hugging Face folder: the teacher, or the student taught by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moviegen.rewriting.base import Rewriter, one_line
from moviegen.rewriting.chat import end_token, exchange, load, question_tokens


class LanguageModelRewriter(Rewriter):
    """Ask a language model for a caption-like rewriting; answers are greedy, so the same prompt has the same one.

    The paper's teacher is a 70B model that is shown examples, its student an 8B model finetuned on its answers.

    Args:
        path: local Hugging Face folder of a causal model, in safetensors.
        instruction: what the model is told first (the teacher prompt).
        examples: pairs of a prompt and its rewriting, shown before every prompt.
        max_new_tokens: of an answer; a longer one ends at its last full sentence, or counts as none.
        batch_size: prompts at a time.
    """

    def __init__(
        self,
        path: str,
        instruction: str,
        examples: Sequence[Sequence[str]] = (),
        max_new_tokens: int = 192,
        batch_size: int = 8,
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(
                f"max_new_tokens {max_new_tokens} and batch_size {batch_size} must be at least 1"
            )
        if any(len(pair) != 2 for pair in examples):
            raise ValueError("each of examples is a pair of a prompt and its rewriting")
        self.tokenizer, self.model = load(path)
        self.model.eval().requires_grad_(False)
        self.instruction, self.examples = instruction, [tuple(pair) for pair in examples]
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size

    def use_weights(self, weights: dict[str, Tensor]) -> None:
        """Take weights as the finetuning task exports them; ValueError where one has another shape or name."""
        own = self.model.state_dict()
        for name, value in weights.items():
            plain = name.removeprefix("model.")
            if name == plain or plain not in own or own[plain].shape != value.shape:
                raise ValueError(
                    f"{name} {list(value.shape)} does not fit the language model; give its own student"
                )
        self.model.load_state_dict({n.removeprefix("model."): v for n, v in weights.items()}, strict=False)

    def rewrite(self, prompts: list[str]) -> list[str]:
        answers: list[str] = []
        for first in range(0, len(prompts), self.batch_size):
            answers += self._answers(prompts[first : first + self.batch_size])
        return [answer or one_line(prompt) for answer, prompt in zip(answers, prompts, strict=True)]

    @torch.no_grad()
    def _answers(self, prompts: list[str]) -> list[str]:
        rows = [question_tokens(self.tokenizer, self._messages(prompt)) for prompt in prompts]
        self._check_room(rows, prompts)
        longest, pad, end = max(map(len, rows)), self.tokenizer.pad_token_id, end_token(self.tokenizer)
        tokens = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        made = self.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=pad,
        )
        return [self._answer(row[longest:].tolist(), end) for row in made]

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        return exchange(self.instruction, self.examples, one_line(prompt))

    def _check_room(self, rows: list[list[int]], prompts: list[str]) -> None:
        """Refuse a prompt that leaves the model no room for an answer."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        for row, prompt in zip(rows, prompts, strict=True):
            if limit and len(row) + self.max_new_tokens > limit:
                raise ValueError(
                    f"prompt {prompt[:40]!r} and the instruction have {len(row)} tokens: with an answer of "
                    f"{self.max_new_tokens} more than the {limit} that the language model holds"
                )

    def _answer(self, tokens: list[Any], end: int) -> str:
        finished = end in tokens
        tokens = tokens[: tokens.index(end)] if finished else tokens
        text = one_line(self.tokenizer.decode(tokens, skip_special_tokens=True))
        if not finished:
            text = text[: text.rfind(".") + 1]
        inside = text.strip('"')  # marks around the whole answer; others belong to the caption
        return text if '"' in inside else inside

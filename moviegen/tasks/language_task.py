"""Finetuning of a causal language model on exchanges: the student of prompt rewriting (paper 3.4.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moviegen.fields import PAIR, Field
from moviegen.rewriting.chat import answer_tokens, load, question_tokens
from moviegen.tasks.base import OptimizerFactory, Schedule, Task
from moviegen.types import Batch

IGNORED = -100  # labels that do not count, as transformers has it


class LanguageTask(Task):
    """Next-token loss on the last answer of each exchange; what comes before it is read and not learned.

    Args:
        model: local Hugging Face folder of a causal model, where training starts.
        max_tokens: of an exchange; a longer one raises ValueError, since an answer without its end would be learned.
    """

    def __init__(
        self,
        model: str,
        max_tokens: int = 1024,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        super().__init__(optimizer, schedule, seed)
        self.tokenizer, self.model = load(model)
        self.model.train()  # it comes in evaluation mode
        self.max_tokens = max_tokens

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": PAIR}

    def exported(self) -> dict[str, Tensor]:
        """The weights, those that several layers share once."""
        once: dict[int, str] = {}
        state = super().exported()
        for name, value in state.items():
            once.setdefault(value.data_ptr(), name)
        return {name: value for name, value in state.items() if once[value.data_ptr()] == name}

    def losses(self, batch: Batch) -> Tensor:
        """Mean negative log likelihood of each answer's tokens, in nats, [B]."""
        exchanges: Any = batch.media
        rows = [self._tokens(messages, name) for messages, name in zip(exchanges, batch.names, strict=True)]
        longest = max(len(tokens) for tokens, _ in rows)
        tokens = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        labels, mask = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
        for row, (values, start) in enumerate(rows):
            tokens[row, : len(values)] = torch.tensor(values)
            labels[row, start : len(values)] = tokens[row, start : len(values)]
            mask[row, : len(values)] = 1
        tokens, labels, mask = (value.to(self.device) for value in (tokens, labels, mask))
        logits_BLV = self.model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        nll_BL = torch.nn.functional.cross_entropy(
            logits_BLV.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
        )
        return nll_BL.sum(1) / (labels[:, 1:] != IGNORED).sum(1)

    def _tokens(self, messages: list[dict[str, str]], name: str) -> tuple[list[int], int]:
        """Tokens of an exchange, and where its answer begins."""
        question = question_tokens(self.tokenizer, messages[:-1])
        tokens = question + answer_tokens(self.tokenizer, messages[-1]["content"])
        if len(tokens) > self.max_tokens:
            raise ValueError(
                f"exchange {name} has {len(tokens)} tokens, task.max_tokens is {self.max_tokens}"
            )
        return tokens, len(question)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        return self.mean_loss(self.losses(batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self.log("val/loss", self.losses(batch).mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)

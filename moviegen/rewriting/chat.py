"""One exchange with a language model: an instruction, examples, a prompt, and the text that is to be its answer.

The finetuning data are such exchanges, a json object a line: {"id", "messages": [{"role", "content"}, ...]}, the form
that tools for finetuning read. Roles are system, user and assistant; the last message is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Message = dict[str, str]


def exchange(
    instruction: str, examples: Sequence[Sequence[str]], prompt: str, answer: str | None = None
) -> list[Message]:
    """The messages of one exchange; `examples` are pairs of a prompt and its rewriting."""
    messages = [{"role": "system", "content": instruction}] if instruction else []
    for given, wanted in [*examples, (prompt, answer)]:
        messages.append({"role": "user", "content": given})
        if wanted is not None:
            messages.append({"role": "assistant", "content": wanted})
    return messages


def load(path: str) -> tuple[Any, Any]:
    """Tokenizer and causal language model of a local Hugging Face folder; nothing is fetched, no code of it is run.

    Raises ValueError where there is none.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"language model {path!r}: no config.json in {folder}; give a local Hugging Face folder of a causal model"
        )
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"language model {path!r} cannot be loaded ({reason})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = end_token(tokenizer)
    return tokenizer, model


def end_token(tokenizer: Any) -> int:
    """The token that ends an answer."""
    token = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if token is None:
        raise ValueError("the tokenizer has neither an end token nor a separator, so no answer would end")
    return token


def question_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Tokens up to where the answer begins: by the tokenizer's own chat template, or plain lines without one.

    Raises ValueError for messages that the template refuses.
    """
    if tokenizer.chat_template:
        text = _templated(tokenizer, list(messages))
    else:
        names = {"system": "", "user": "prompt: ", "assistant": "rewritten: "}
        lines = [names[message["role"]] + message["content"] for message in messages]
        text = "\n".join([*lines, "rewritten:"])
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _templated(tokenizer: Any, messages: list[Message]) -> str:
    """Messages as the chat template writes them; those of Gemma and the first Mistrals know no system role.

    The system's text stands at the head of the first prompt then.
    """
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, which may raise anything
        if [message["role"] for message in messages[:2]] == ["system", "user"]:
            first = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            return _templated(tokenizer, [first, *messages[2:]])
        raise ValueError(f"the language model's chat template refuses the messages: {error}") from error


def answer_tokens(tokenizer: Any, answer: str) -> list[int]:
    """Tokens of an answer and the end token."""
    return [*tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], end_token(tokenizer)]

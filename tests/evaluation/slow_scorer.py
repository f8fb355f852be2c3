"""A second implementation of prompts and scores: slow, in float64, one item at a time.

It shares no code with the package, so an error must be made twice to go unnoticed.
"""

import random

import jax
import numpy as np

from scalejax.config import Run


def log_probabilities(run: Run, params, tokens: list[int]) -> np.ndarray:
    """Log-probabilities of the token after each of `tokens`, float64 [t, v].

    The network is that of the quickstart: QK-norm, and under muP the logits are divided
    by width / base_width.
    """
    model = run.model
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    x = p["embedding"][tokens]
    for i in range(model.depth):
        block = p["blocks"][i]
        attention_input = _norm(x, block["attention_norm"]["gain"])
        for head in range(model.heads):
            x = x + _attention_head(block["attention"], attention_input, head)
        mlp_input, mlp = _norm(x, block["mlp_norm"]["gain"]), block["mlp"]
        gate = mlp_input @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (mlp_input @ mlp["up"])) @ mlp["down"]
    width_multiplier = model.width / run.parametrization.base_width
    logits = _norm(x, p["norm"]["gain"]) @ p["head"] / width_multiplier
    largest = logits.max(1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(1, keepdims=True))


def prompt(
    rows: list[dict], number: int, shots: int, delimiter: str
) -> list[tuple[list[str], str]]:
    """[(parts of the context, answer)] for every choice of item `number`.

    `rows` are the raw records of a task file. The rules are those of LLM-foundry.
    """
    row = rows[number]
    if "context_options" in row:
        answer = " " + row["continuation"].strip()
        return [(["", option], answer) for option in row["context_options"]]
    examples = [
        _question(rows[i]) + delimiter + _gold_answer(rows[i])
        for i in _few_shots(len(rows), number, shots)
    ]
    head = "\n".join(examples)
    context = (("\n" if head else "") + _question(row) + delimiter).rstrip()
    answers = row.get("choices") or [row["continuation"].strip()]
    return [
        ([head, context], answer if answer.startswith(" ") else " " + answer) for answer in answers
    ]


class ThreeLetters:
    """A tokenizer of 512 ids for every three letters of a text. " a" is one token."""

    vocabulary, end, end_token, hash, model = 512, 0, "", "three-letters", b""

    def encode(self, texts):
        ids = []
        for text in texts:
            pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
            ids.append(np.array([self._id(piece) for piece in pieces], np.int64))
        return ids

    def decode(self, ids):
        raise NotImplementedError

    def _id(self, piece):
        return int.from_bytes(piece.encode()) * 2_654_435_761 % 2**32 % 511 + 1


def _norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain


def _rotate(x: np.ndarray) -> np.ndarray:
    """Rotary embedding: features (i, i + h/2) are complex numbers, rotated by
    position."""
    half = x.shape[1] // 2
    angles = np.outer(np.arange(len(x)), 10_000.0 ** (-np.arange(half) / half))
    pairs = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def _attention_head(attention: dict, x: np.ndarray, head: int) -> np.ndarray:
    q, k, v = (x @ attention[name][:, head] for name in ("query", "key", "value"))
    q = _rotate(_norm(q, attention["query_norm"]["gain"]))
    k = _rotate(_norm(k, attention["key_norm"]["gain"]))
    scores = np.where(np.tri(len(x)) > 0, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)) @ v @ attention["output"][head]


def _few_shots(count: int, number: int, shots: int) -> set[int]:
    """The examples of item `number`, drawn as LLM-foundry does, from the first item
    on."""
    generator = random.Random(1234)
    examples: set[int] = set()
    for item in range(number + 1):
        size = min(count - 1, shots)
        examples = set(generator.sample(range(count), size)) if size else set()
        if item in examples:
            examples.discard(item)
            replacement = generator.choice(range(count))
            while replacement in examples or replacement == item:
                replacement = generator.choice(range(count))
            examples.add(replacement)
    return examples


def _question(row: dict) -> str:
    return (row["query"] if "query" in row else row["context"]).strip()


def _gold_answer(row: dict) -> str:
    return row["choices"][row["gold"]] if "choices" in row else row["continuation"].strip()

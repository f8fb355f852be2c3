"""Pipelines of the field: seqio Tasks and Mixtures (tokens), tfds builders (text). TensorFlow is imported here alone, on use."""

import functools
import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scalejax.config import Data
from scalejax.data.sources.records import Document, documents


class Example(NamedTuple):
    """`inputs`, where a task has them, and `targets`."""

    ids: np.ndarray
    """Of both, without the end of a document."""
    prompt: int
    """How many of them are `inputs`."""


@dataclass(frozen=True)
class Task:
    """Where the examples of a task come from."""

    train: Callable[[], Iterator[Example]]
    validation: Callable[[], Iterator[Example]] | None
    """None for a task without a validation split."""


@dataclass(frozen=True)
class TokenSource:
    """Documents that are token ids already."""

    vocabulary: int
    """Ids are 0 .. vocabulary - 1."""
    end: int
    """Id that ends a document."""
    model: bytes
    """The SentencePiece model behind the ids; empty when there is none."""
    tasks: dict[str, Task]
    """Each by its name."""
    rates: dict[str, float]
    """Name -> share of the examples of a Mixture; empty for a single task."""
    prompts: bool
    """Whether any task has `inputs`."""


def fingerprint(source: str) -> str:
    """Hash of a pipeline's name, and of the module that registers it; the files that it reads are not looked at."""
    module, _ = _named(source) if source.startswith("seqio:") else ("", "")
    spec = importlib.util.find_spec(module) if module else None
    code = (
        Path(spec.origin).read_bytes()
        if spec and spec.origin and Path(spec.origin).is_file()
        else b""
    )
    return hashlib.sha256(source.encode() + code).hexdigest()


def seqio_tokens(source: str) -> TokenSource:
    """The Task or Mixture that `seqio:MODULE:TASK` names, with its own vocabulary.

    A document is `inputs` (where there are any) followed by `targets`; each task of a Mixture is a domain. Raises ValueError
    when seqio is not installed, when the module registers nothing of that name, or when the task has no `train` split.
    """
    module, name = _named(source)
    try:
        import seqio  # pyright: ignore[reportMissingImports]
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(f"{source} needs seqio: pip install 'scalejax[data]'") from error
    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take all of its memory
    importlib.import_module(module)
    try:
        task = seqio.get_mixture_or_task(name)
    except ValueError as error:
        known = (
            ", ".join(sorted([*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]))
            or "none"
        )
        raise ValueError(
            f"{source}: {module} registers no Task or Mixture {name!r}; registered are {known}"
        ) from error
    if "targets" not in task.output_features:
        raise ValueError(
            f"{source} has no feature `targets`; it has {', '.join(task.output_features)}"
        )
    vocabulary = task.output_features["targets"].vocabulary
    if vocabulary.eos_id is None:
        raise ValueError(f"{source}: its vocabulary has no EOS, which ends a document")
    tasks = list(task.tasks) if isinstance(task, seqio.Mixture) else [task]
    rates = (
        {part.name: float(task.get_rate(part)) for part in tasks}
        if isinstance(task, seqio.Mixture)
        else {}
    )
    model = vocabulary.sp_model if isinstance(vocabulary, seqio.SentencePieceVocabulary) else b""
    parts = {part.name: _task(part, source, vocabulary.eos_id) for part in tasks}
    prompts = any("inputs" in part.output_features for part in tasks)
    return TokenSource(vocabulary.vocab_size, vocabulary.eos_id, model, parts, rates, prompts)


def tfds_documents(data: Data) -> Iterator[Document]:
    """The documents in the train split of the builder that `tfds:NAME/CONFIG:VERSION` names."""
    name = data.source.removeprefix("tfds:")
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"{data.source} needs tensorflow_datasets: pip install 'scalejax[data]'"
        ) from error
    tf.config.set_visible_devices([], "GPU")
    try:
        records = tfds.as_numpy(tfds.load(name, split="train", shuffle_files=False))
    except (
        tfds.core.registered.DatasetNotFoundError,
        AssertionError,
        tf.errors.NotFoundError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"tfds has no {name!r} ready to read: {reason}") from error
    placed = (
        (f"tfds {name}, example {number}", _text(record)) for number, record in enumerate(records)
    )
    yield from documents(
        placed, field=data.field, domain=data.domain, default=name.split("/")[0].split(":")[0]
    )


def _named(source: str) -> tuple[str, str]:
    module, _, name = source.removeprefix("seqio:").partition(":")
    if not module or not name:
        raise ValueError(
            f"a seqio source is `seqio:MODULE:TASK`, MODULE being what registers the task; got {source!r}"
        )
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ValueError(
            f"{source}: no module {module!r} can be imported; install it, or put its folder on PYTHONPATH"
        )
    return module, name


def _task(task: Any, source: str, end: int) -> Task:
    if "train" not in task.splits:
        raise ValueError(
            f"{source}: {task.name} has no `train` split; it has {', '.join(task.splits)}"
        )

    def examples(split: str) -> Iterator[Example]:
        for example in task.get_dataset(
            sequence_length=None, split=split, shuffle=False, num_epochs=1
        ).as_numpy_iterator():
            prompt, targets = (
                np.asarray(example.get(name, ()), np.int64) for name in ("inputs", "targets")
            )
            targets = targets[:-1] if len(targets) and targets[-1] == end else targets
            yield Example(np.concatenate([prompt, targets]), len(prompt))

    validation = functools.partial(examples, "validation") if "validation" in task.splits else None
    return Task(functools.partial(examples, "train"), validation)


def _text(record: Any) -> dict[str, Any]:
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in record.items()
    }

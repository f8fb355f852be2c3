"""seqio Tasks and Mixtures: examples that are token ids already.

TensorFlow and seqio are imported only when a task is written for the first time.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from scalejax.config import Data
from scalejax.data.progress import say, with_progress
from scalejax.data.shards import Contents, token_dtype
from scalejax.data.sources.source import CachedSource
from scalejax.data.staging import HELD_OUT
from scalejax.data.writer import SplitFile, WrittenSplit, write_index


class Example(NamedTuple):
    """One example: its `inputs`, if the task has them, followed by its `targets`."""

    ids: np.ndarray
    """int64 ids of both, without the end of the document."""
    prompt: int
    """How many of the ids are `inputs`."""


class HeldOutExample(NamedTuple):
    """A held-out example and what it is sorted by."""

    digest: bytes
    """sha256 of the ids."""
    task: int
    """Number of its task."""
    example: Example


class Task(Protocol):
    """The part of a seqio.Task that is used here."""

    name: str
    splits: Sequence[str]

    def get_dataset(self, **options: object) -> "Dataset": ...


class Dataset(Protocol):
    """The part of a tf.data.Dataset that is used here."""

    def as_numpy_iterator(self) -> Iterator[Mapping[str, np.ndarray]]: ...


@dataclass(frozen=True)
class Registered:
    """A Task or Mixture as its module registered it."""

    vocabulary: int
    """Number of ids."""
    end: int
    """Id that ends a document."""
    model: bytes
    """The SentencePiece model that made the ids; empty when there is none."""
    tasks: dict[str, Task]
    """The task, or the tasks of a Mixture, sorted by name."""
    rates: dict[str, float]
    """Share of each task in the examples of a Mixture; empty for a single task."""
    has_prompts: bool
    """Whether any task has `inputs`."""

    def split_file(self, path: Path) -> SplitFile:
        """A file for examples of these tasks."""
        return SplitFile(path, self.vocabulary, self.end, with_loss_mask=self.has_prompts)


@dataclass(frozen=True)
class SeqioTask(CachedSource):
    """`seqio:MODULE:TASK`: a Task or Mixture, in its own vocabulary."""

    module: str
    """Importing it registers the task."""
    task: str

    brings_tokenizer: ClassVar[bool] = True

    def fingerprint(self) -> str:
        """Hash of the source's name and of the text of its module.

        The files that the task reads are not part of it.
        """
        origin = self._find_module().origin
        code = Path(origin).read_bytes() if origin and Path(origin).is_file() else b""
        return hashlib.sha256(self.name.encode() + code).hexdigest()

    def write(self, data: Data, folder: Path, cache: Path) -> Contents:
        """Write the examples as documents; each task of a Mixture is a domain.

        Validation splits are held out. Of a task without one, 4% of the examples are,
        by the hash of their ids. A Mixture's rates become shares of the training
        tokens.
        """
        say(f"preparing {self.name}: reading examples")
        registered = self.load()
        train, held_out = self._write_train(registered, folder)
        splits = {"train": train, "validation": _write_held_out(held_out, registered, folder)}
        (folder / "tokenizer.model").write_bytes(registered.model)
        names = list(registered.tasks)
        digest = hashlib.sha256(registered.model).hexdigest() if registered.model else None
        return {
            "licence": "as of the seqio task",
            "attribution": f"{self.module}:{self.task}",
            "tokenizer": {"name": self.name, "hash": digest, "end": registered.end},
            "duplicates_dropped": 0,
            "vocabulary": registered.vocabulary,
            "dtype": token_dtype(registered.vocabulary).name,
            **write_index(folder, splits, names),
            "shares": _token_shares(registered.rates, names, train),
            "entropy_rate": None,
        }

    def load(self) -> Registered:
        """Import the module and look the task up.

        Raises ValueError when seqio is not installed, when the module does not register
        the task, when a task has no `train` split or no `targets`, and when its
        vocabulary has no end-of-sequence id.
        """
        self._find_module()
        seqio = self._import_seqio()
        importlib.import_module(self.module)
        task = self._look_up(seqio)
        if "targets" not in task.output_features:
            raise ValueError(
                f"{self.name} needs a feature `targets`; it has {', '.join(task.output_features)}"
            )
        vocabulary = task.output_features["targets"].vocabulary
        if vocabulary.eos_id is None:
            raise ValueError(
                f"{self.name}: its vocabulary has no end-of-sequence id (eos_id), which ends a "
                "document; use a vocabulary with one"
            )
        is_mixture = isinstance(task, seqio.Mixture)
        has_model = isinstance(vocabulary, seqio.SentencePieceVocabulary)
        parts = sorted(task.tasks if is_mixture else [task], key=lambda part: part.name)
        for part in parts:
            self._check_splits(part)
        return Registered(
            vocabulary=vocabulary.vocab_size,
            end=vocabulary.eos_id,
            model=vocabulary.sp_model if has_model else b"",
            tasks={part.name: part for part in parts},
            rates={part.name: float(task.get_rate(part)) for part in parts} if is_mixture else {},
            has_prompts=any("inputs" in part.output_features for part in parts),
        )

    def _import_seqio(self) -> ModuleType:
        try:
            seqio = importlib.import_module("seqio")
            tensorflow = importlib.import_module("tensorflow")
        except ImportError as error:
            raise ValueError(
                f"{self.name} needs seqio; run `pip install 'scalejax[data]'`"
            ) from error
        # TensorFlow would otherwise reserve all of the GPU's memory.
        tensorflow.config.set_visible_devices([], "GPU")
        return seqio

    def _look_up(self, seqio: ModuleType) -> Any:
        """The seqio.Task or seqio.Mixture, whose types are known only when seqio is."""
        try:
            return seqio.get_mixture_or_task(self.task)
        except ValueError as error:
            names = sorted([*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()])
            raise ValueError(
                f"{self.name}: {self.module} does not register a Task or Mixture {self.task!r}; "
                f"the registered ones are {', '.join(names) or 'none'}"
            ) from error

    def _find_module(self) -> ModuleSpec:
        try:
            spec = importlib.util.find_spec(self.module)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise ValueError(
                f"{self.name}: no module {self.module!r} can be imported; install it, or put its "
                "folder on PYTHONPATH"
            )
        return spec

    def _check_splits(self, task: Task) -> None:
        if "train" not in task.splits:
            raise ValueError(
                f"{self.name}: {task.name} needs a `train` split; it has {', '.join(task.splits)}"
            )

    def _write_train(
        self, registered: Registered, folder: Path
    ) -> tuple[WrittenSplit, list[HeldOutExample]]:
        """Write the training split, and return it with the held-out examples."""
        domains: list[int] = []
        held_out: list[HeldOutExample] = []
        with registered.split_file(folder / "train.bin") as file:
            for number, (name, task) in enumerate(registered.tasks.items()):
                for example, digest, in_train in _split_examples(task, registered.end):
                    if in_train:
                        file.add(example.ids, example.prompt)
                        domains.append(number)
                    else:
                        held_out.append(HeldOutExample(digest, number, example))
                if number not in domains or all(item.task != number for item in held_out):
                    raise ValueError(
                        f"{self.name}: {name} has too few examples to train on some and hold out "
                        "others; add more"
                    )
        return WrittenSplit(np.array(file.lengths), np.array(domains), None), held_out


def _write_held_out(
    held_out: list[HeldOutExample], registered: Registered, folder: Path
) -> WrittenSplit:
    """Write the validation split."""
    # In the order of hashes the tasks are mixed, so that the beginning of the split,
    # which is all that a short evaluation reads, is a sample of all tasks.
    held_out = sorted(held_out, key=lambda item: (item.digest, item.task))
    with registered.split_file(folder / "validation.bin") as file:
        for item in held_out:
            file.add(item.example.ids, item.example.prompt)
    domains = np.array([item.task for item in held_out])
    return WrittenSplit(np.array(file.lengths), domains, None)


def _split_examples(task: Task, end: int) -> Iterator[tuple[Example, bytes, bool]]:
    """(example, sha256 of its ids, whether to train on it) for every example."""
    has_validation = "validation" in task.splits
    for example in with_progress(_examples(task, "train", end), task.name):
        digest = _digest(example)
        # The leading 64 bits of the hash are a uniform number in [0, 1).
        uniform = int.from_bytes(digest[:8]) / 2**64
        yield example, digest, has_validation or uniform >= HELD_OUT
    if has_validation:
        examples = _examples(task, "validation", end)
        for example in with_progress(examples, f"{task.name}, validation"):
            yield example, _digest(example), False


def _examples(task: Task, split: str, end: int) -> Iterator[Example]:
    """The examples of a split, in the order of the task's files."""
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, num_epochs=1)
    for features in dataset.as_numpy_iterator():
        prompt = np.asarray(features.get("inputs", ()), np.int64)
        targets = np.asarray(features.get("targets", ()), np.int64)
        # SplitFile ends every document itself.
        if len(targets) and targets[-1] == end:
            targets = targets[:-1]
        yield Example(np.concatenate([prompt, targets]), len(prompt))


def _digest(example: Example) -> bytes:
    return hashlib.sha256(example.ids.tobytes()).digest()


def _token_shares(
    rates: dict[str, float], names: list[str], train: WrittenSplit
) -> dict[str, float]:
    """Shares of the training tokens that give a Mixture's rates of examples.

    A rate counts examples and a share counts tokens, so a task's share is its rate
    times the mean length of its examples, normalized to a sum of 1. Empty for a single
    task.
    """
    if len(names) < 2:
        return {}
    tokens = np.bincount(train.domains, train.lengths)
    examples = np.bincount(train.domains)
    shares = {name: rates[name] * tokens[i] / examples[i] for i, name in enumerate(names)}
    return {name: float(share / sum(shares.values())) for name, share in shares.items()}

"""Tasks and Mixtures in seqio itself (mirrors scalejax/data/sources/seqio_tasks.py).

Needs `scalejax[data]`; `make test-data` runs it in an environment of its own.
"""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from scalejax.config import Data
from scalejax.data.batches import PERIOD, quotas
from scalejax.data.packing import split_flags
from scalejax.data.preparation import prepare
from scalejax.data.shards import Split
from scalejax.files import read_json
from tests.data.decoding import documents

MISSING = [name for name in ("tensorflow", "seqio") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scalejax[data]'"
    ),
    # Warnings of TensorFlow are not ours.
    pytest.mark.filterwarnings("default"),
]

SPLITS: tuple[Split, Split] = ("train", "validation")

TASKS = """
    import functools
    import os

    import seqio
    import tensorflow as tf

    TEXTS = {
        split: [f"{split} text number {i}, naïve" + " and more" * (i % 5) for i in range(n)]
        for split, n in (("train", 300), ("validation", 20))
    }
    LINES = os.path.join(os.path.dirname(__file__), "lines.txt")
    BYTES = seqio.ByteVocabulary()

    def dataset(split, shuffle_files=False, seed=None):
        return tf.data.Dataset.from_tensor_slices({"text": TEXTS[split]})

    def line_text(line):
        return {"text": line}

    def question(example):
        return {"inputs": example["text"], "targets": "yes"}

    def language_modelling(vocabulary):
        return dict(
            preprocessors=[
                functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
                seqio.preprocessors.tokenize,
                seqio.preprocessors.append_eos,
            ],
            output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
        )

    both_splits = seqio.FunctionDataSource(dataset, splits=["train", "validation"])
    seqio.TaskRegistry.add("own_function", source=both_splits, **language_modelling(BYTES))
    lines = language_modelling(BYTES)
    lines["preprocessors"] = [lambda ds: ds.map(line_text), *lines["preprocessors"]]
    seqio.TaskRegistry.add("own_lines", source=seqio.TextLineDataSource({"train": LINES}), **lines)
    seqio.MixtureRegistry.add("own_mixture", [("own_function", 3), ("own_lines", 1)])
    if os.path.exists(MODEL := os.path.join(os.path.dirname(__file__), "own.model")):
        pieces = seqio.SentencePieceVocabulary(MODEL, extra_ids=10)
        seqio.TaskRegistry.add("own_pieces", source=both_splits, **language_modelling(pieces))
    both = language_modelling(BYTES)
    both["preprocessors"] = [lambda ds: ds.map(question), *both["preprocessors"][1:]]
    both["output_features"]["inputs"] = seqio.Feature(BYTES, add_eos=True)
    seqio.TaskRegistry.add("own_questions", source=both_splits, **both)
    held_out = seqio.FunctionDataSource(dataset, splits=["validation"])
    seqio.TaskRegistry.add("own_held_out", source=held_out, **language_modelling(BYTES))
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A user's module of tasks on sys.path, as users of seqio have one."""
    from scalejax.data.tokenizers import train_bpe

    folder = tmp_path_factory.mktemp("user")
    (folder / "own_tasks.py").write_text(textwrap.dedent(TASKS))
    (folder / "lines.txt").write_text("".join(f"line {i} of the file\n" for i in range(400)))
    texts = (f"text number {i}, naïve and more" for i in range(400))
    (folder / "own.model").write_bytes(train_bpe(texts, pieces=320).model)
    sys.path.insert(0, str(folder))
    yield "own_tasks"
    sys.path.remove(str(folder))


def test_a_task_is_written_once_in_its_own_vocabulary(module, cache):
    data = Data(source=f"seqio:{module}:own_function", tokenizer="own")
    shards = prepare(data, cache)
    import own_tasks  # pyright: ignore[reportMissingImports]

    assert shards.vocabulary == own_tasks.BYTES.vocab_size and shards.end == 1
    for split, tokens in (("train", shards.train), ("validation", shards.validation)):
        decoded = sorted(own_tasks.BYTES.decode(ids) for ids in documents(tokens, end=1))
        assert decoded == sorted(own_tasks.TEXTS[split]), (
            "a task with a validation split does not keep its own splits"
        )
    before = shards.folder.stat().st_mtime_ns
    assert prepare(data, cache).folder.stat().st_mtime_ns == before


def test_a_sentencepiece_vocabulary_brings_its_model(module, cache):
    shards = prepare(Data(source=f"seqio:{module}:own_pieces", tokenizer="own"), cache)
    import own_tasks  # pyright: ignore[reportMissingImports]

    assert shards.vocabulary == 330
    tokenizer = shards.tokenizer()
    texts = [tokenizer.decode(ids) for ids in documents(shards.train, tokenizer.end)]
    assert texts == own_tasks.TEXTS["train"]


def test_inputs_come_before_targets_and_do_not_count_in_the_loss_of_packed_documents(module, cache):
    shards = prepare(Data(source=f"seqio:{module}:own_questions", tokenizer="own"), cache)
    import own_tasks  # pyright: ignore[reportMissingImports]

    decode = own_tasks.BYTES.decode
    for split in SPLITS:
        ids, starts, loss_mask = split_flags(shards.tokens(split, "documents").rows())
        cuts = np.flatnonzero(starts)
        # The last part is the end token behind the last document.
        parts = zip(np.split(ids, cuts)[1:-1], np.split(loss_mask, cuts)[1:-1], strict=True)
        # The first token that counts is the end token in front of the document.
        texts = [
            (decode(part[~mask].tolist()), decode(part[mask][1:].tolist())) for part, mask in parts
        ]
        assert sorted(texts) == sorted((text, "yes") for text in own_tasks.TEXTS[split])
    assert shards.tokens("train", "concatenate").loss_mask is None


def test_a_mixture_keeps_its_rates_between_domains(module, cache):
    shards = prepare(Data(source=f"seqio:{module}:own_mixture", tokenizer="own"), cache)
    assert shards.domains == ["own_function", "own_lines"]
    tokens = {
        name: shards.tokens("train", "concatenate", domain=name).ids for name in shards.domains
    }
    mean_length = {name: len(ids) / np.sum(ids[1:] == 1) for name, ids in tokens.items()}
    odds = shards.shares["own_function"] / shards.shares["own_lines"]
    assert odds == pytest.approx(
        3 * mean_length["own_function"] / mean_length["own_lines"], rel=0.01
    ), "rates count examples, shares count tokens"
    assert quotas(shards.shares).sum() == PERIOD
    assert set(shards.validation_domains.tolist()) == {0, 1}
    lines = len(documents(tokens["own_lines"], end=1))
    assert 360 < lines < 400, "a task without a validation split does not hold out about 4%"


def test_a_mixture_trains(module, cache, tmp_path, monkeypatch):
    from scalejax import Measure, Model, Optimizer, Run, train
    from scalejax.optim.schedules import constant

    monkeypatch.setenv("SCALEJAX_CACHE", str(cache))
    data = Data(source=f"seqio:{module}:own_mixture", tokenizer="own", sequence_length=16)
    vocabulary = prepare(data).vocabulary
    run = Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=vocabulary),
        data=data,
        optimizer=Optimizer(learning_rate=0.01),
        schedule=constant(warmup=0),
        tokens=50 * 64,
        batch_tokens=64,
    )
    result = train(run, out=tmp_path / "run", measure=Measure(items=0, tokens=1_024))
    assert result.loss < 0.9 * np.log(vocabulary)


def test_the_documented_task_trains_and_its_inputs_leave_the_loss(cache, tmp_path, monkeypatch):
    from scalejax import Model, Optimizer, Run
    from scalejax.optim.schedules import constant

    section = Path("docs/guides/data.md").read_text().partition("## Train on a seqio Task")[2]
    tasks, training = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    (tmp_path / "my_tasks.py").write_text(tasks)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALEJAX_CACHE", str(cache))
    base = Run(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=259),
        data=Data(),
        optimizer=Optimizer(learning_rate=0.02),
        schedule=constant(warmup=0),
        tokens=64 * 8 * 40,
        batch_tokens=64 * 8,
    )
    values = {"base": base}
    exec(compile(training, "docs/guides/data.md", "exec"), values)
    result = read_json(tmp_path / "squares" / "result.json")
    assert result["packing"] == "documents" and result["loss"] < 3.5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("seqio:no_such_module:task", "no module 'no_such_module' can be imported"),
        (
            "seqio:own_tasks:own_funktion",
            "does not register a Task or Mixture 'own_funktion'; .* are .*own_function",
        ),
        ("seqio:own_tasks:own_held_out", "own_held_out needs a `train` split; it has validation"),
    ],
)
def test_a_task_that_cannot_be_read_is_refused(module, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        prepare(Data(source=source, tokenizer="own"), tmp_path)


def test_a_task_with_another_tokenizer_is_refused(module, tmp_path):
    with pytest.raises(
        ValueError, match=r"brings its own tokenizer or vocabulary, .* set tokenizer='own'"
    ):
        prepare(Data(source=f"seqio:{module}:own_function", tokenizer="byte"), tmp_path)


def test_the_command_line_prepares_a_task(module, tmp_path):
    command = [sys.executable, "-m", "scalejax.cli", "data", "prepare"]
    command += ["--seqio", f"{module}:own_function", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(module, tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()


def _environment(module: str, cache: Path) -> dict[str, str]:
    """The environment of a process that imports the module and uses the cache."""
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin
    path = [os.path.dirname(spec.origin), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "SCALEJAX_CACHE": str(cache)}


def test_importing_scalejax_does_not_import_tensorflow():
    code = (
        "import scalejax.data.preparation, scalejax.training.loop, sys\n"
        "assert not {'tensorflow', 'seqio'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

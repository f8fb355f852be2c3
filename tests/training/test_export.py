"""Runs are exported to other tools from the command line (mirrors
scalejax/training/export.py).
"""

import dataclasses
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from scalejax import Data, Measure, Model, train
from scalejax.data.preparation import prepare
from scalejax.files import read_json, write_json
from scalejax.model.hf_import import import_hf
from scalejax.model.parametrization import mup
from scalejax.training.evaluate import last_weights

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


def needs_transformers(test):
    """Mark a test that needs torch and transformers, whose warnings are not ours."""
    reason = f"{', '.join(MISSING)} not installed: pip install 'scalejax[hf,eval]'"
    test = pytest.mark.filterwarnings("default")(test)
    return pytest.mark.hf(pytest.mark.skipif(bool(MISSING), reason=reason)(test))


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """The folder of a trained run whose logits have a multiplier of 1/2."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = tiny_run.replace(parametrization=mup(base_width=8))
    train(run, out=folder, measure=Measure(tokens=1024, items=0))
    return folder


def test_one_command_exports_a_run(trained, call, tmp_path):
    code, out, err = call("export", trained, "--format", "hf", "--out", tmp_path / "hf")
    assert code == 0, err
    assert "at step 60" in out and "without a tokenizer: synthetic:32" in out
    weights = last_weights(trained)
    model, imported = import_hf(tmp_path / "hf")
    assert model == weights.run.model
    for name in ("up", "down"):
        exported = imported["blocks"][0]["mlp"][name]
        assert np.array_equal(exported, weights.params["blocks"][0]["mlp"][name])
    # The multiplier of the logits is folded into the head.
    assert np.array_equal(imported["head"], weights.params["head"] * np.float32(0.5))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["max_position_embeddings"] == 16
    assert config["eos_token_id"] == prepare(weights.run.data).manifest["tokenizer"]["end"]


@pytest.mark.parametrize(
    ("run_folder", "out", "message"),
    [
        pytest.param("no_run", "hf", "is not a run's folder", id="not a run"),
        pytest.param(None, ".", "exists already; give the name of a new folder", id="out exists"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(
    trained, call, tmp_path, run_folder, out, message
):
    folder = tmp_path / run_folder if run_folder else trained
    code, stdout, stderr = call("export", folder, "--out", tmp_path / out)
    assert code == 2 and message in stderr and not stdout
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(trained, call, tmp_path, monkeypatch):
    def save_file(*_, **__):
        raise Exception("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", save_file)
    code, _, stderr = call("export", trained, "--out", tmp_path / "hf")
    assert code == 1
    assert stderr == f"scalejax: {tmp_path / 'hf'} cannot be written: no space left on device\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [("export", "--out", "hf"), ("eval", "--suite", "continuation")]
)
def test_a_run_whose_data_were_changed_since_is_neither_exported_nor_scored(
    trained, call, tmp_path, monkeypatch, command
):
    """A tokenizer that is trained on the text would be another one than in training."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    status = read_json(Path("run/status.json"))
    write_json(Path("run/status.json"), status | {"data_hash": "another"})
    verb, *flags = command
    code, stdout, stderr = call(verb, "run", *flags)
    assert code == 2 and not stdout
    assert "was trained on data with the hash another" in stderr
    assert not Path("hf").exists() and not Path("run/evaluations").exists()


@needs_transformers
def test_transformers_computes_the_loss_that_the_run_measured(tiny_run, call, tmp_path):
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoModelForCausalLM,
        AutoTokenizer,
    )

    lines = "\n".join(f"the {i % 7} laws of scaling, told {i % 5} times" for i in range(40))
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_text(f"{i}\n{lines}")
    data = Data(source=str(tmp_path / "text"), tokenizer="byte", sequence_length=16)
    model = Model.sized(width=16, depth=1, head_size=8, vocabulary=257)
    run = dataclasses.replace(tiny_run, data=data, model=model)
    measured = train(run, out=tmp_path / "run", measure=Measure(tokens=1600, items=0)).loss
    assert call("export", tmp_path / "run", "--out", tmp_path / "hf")[0] == 0
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = np.asarray(prepare(data).validation[:1601], np.int64)
    rows = torch.tensor(np.lib.stride_tricks.sliding_window_view(tokens, 17)[::16].copy())
    with torch.no_grad():
        logits = network(rows[:, :-1]).logits
    cross_entropy = torch.nn.functional.cross_entropy
    loss = cross_entropy(logits.reshape(-1, 257), rows[:, 1:].reshape(-1)).item()
    assert loss == pytest.approx(measured, abs=1e-5) and measured < 5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer("laws")["input_ids"] == list(b"laws")
    assert tokenizer.eos_token_id == network.config.eos_token_id == 256


@needs_transformers
def test_the_documentation_page_runs_from_top_to_bottom(call, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "guides" / "huggingface.md").read_text()
    blocks = {
        language: re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        for language in ("python", "bash", "yaml", "json")
    }
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "animals.yaml").write_text(blocks["yaml"][0])
    (tmp_path / "tasks" / "animals.jsonl").write_text(blocks["json"][0])
    training, *rest = blocks["python"]
    names = {}
    exec(training, names)
    command = blocks["bash"][1].split()
    assert command[0] == "scalejax" and call(*command[1:])[0] == 0
    for block in rest:
        exec(block, names)
    assert "'acc,none'" in capsys.readouterr().out
    assert names["model"].vocabulary == 512

"""Runs handed to other tools, from the command line (mirrors scalejax/study/exchange.py)."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from scalejax import Data, Measure, train
from scalejax.data.preparation import prepare
from scalejax.model.hf import import_hf
from scalejax.model.parametrization import mup
from scalejax.training.evaluate import last_weights

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(
        tiny_run.replace(parametrization=mup(base_width=8)),
        out=folder,
        measure=Measure(tokens=1024, items=0),
    )
    return folder


def test_a_run_is_exported_by_one_command(trained, call, tmp_path):
    code, out, err = call("export", trained, "--format", "hf", "--out", tmp_path / "hf")
    assert code == 0, err
    assert "at step 60" in out and "without a tokenizer: synthetic:32" in out
    weights = last_weights(trained)
    model, values = import_hf(tmp_path / "hf")
    assert model == weights.run.model
    assert np.array_equal(
        values["blocks"][0]["mlp"]["up"], weights.params["blocks"][0]["mlp"]["up"]
    )
    assert np.array_equal(values["head"], weights.params["head"] * np.float32(0.5)), (
        "the multiplier is in the weights"
    )
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (
        config["max_position_embeddings"] == 16
        and config["eos_token_id"] == prepare(weights.run.data).manifest["tokenizer"]["end"]
    )


def test_bad_input_is_exit_2_and_writes_nothing(trained, call, tmp_path):
    for arguments, said in [
        ((tmp_path / "none", "--out", tmp_path / "hf"), "is no run's folder"),
        ((trained, "--out", tmp_path), "name a new folder"),
    ]:
        code, out, err = call("export", *arguments)
        assert code == 2 and said in err and not out
    assert not list(tmp_path.iterdir())


@pytest.mark.hf
@pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scalejax[hf]'"
)
@pytest.mark.filterwarnings("default")
def test_transformers_measures_the_loss_that_the_run_measured(tiny_run, call, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = "\n".join(f"the {i % 7} laws of scaling, told {i % 5} times" for i in range(40))
    for i in range(60):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{i}.txt").write_text(f"{i}\n{lines}")
    data = Data(source=str(tmp_path / "text"), tokenizer="byte", sequence_length=16)
    run = tiny_run.replace(
        data=data,
        model=tiny_run.model.__class__.sized(width=16, depth=1, head_size=8, vocabulary=257),
    )
    measured = train(run, out=tmp_path / "run", measure=Measure(tokens=1600, items=0)).loss
    assert call("export", tmp_path / "run", "--out", tmp_path / "hf")[0] == 0
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = np.asarray(prepare(data).validation[:1601], np.int64)
    rows = torch.tensor(np.lib.stride_tricks.sliding_window_view(tokens, 17)[::16].copy())
    with torch.no_grad():
        logits = network(rows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 257), rows[:, 1:].reshape(-1)
    ).item()
    assert loss == pytest.approx(measured, abs=1e-5) and measured < 5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (
        tokenizer("laws")["input_ids"] == list(b"laws")
        and tokenizer.eos_token_id == network.config.eos_token_id == 256
    )


@pytest.mark.hf
@pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'scalejax[hf,eval]'"
)
@pytest.mark.filterwarnings("default")
def test_the_page_of_documentation_runs_from_top_to_bottom(call, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "guides" / "huggingface.md").read_text()
    blocks = {
        kind: re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)
        for kind in ("python", "bash", "yaml", "json")
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

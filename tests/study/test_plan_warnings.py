"""What a plan warns about before any FLOP is spent.

Mirrors scalejax/study/plan_warnings.py.
"""

import pytest

from scalejax import laws
from scalejax.config import Data, Measure, Model, Optimizer, Run
from scalejax.data.preparation import prepare
from scalejax.grids import grid, run_id
from scalejax.model.flops import per_param
from scalejax.optim.averaging import ema, window
from scalejax.optim.schedules import constant, cosine, cyclic, multistep, wsd
from scalejax.study.plan_warnings import most_epochs, plan_warnings
from scalejax.study.study import Study

MODELS = [Model.sized(width=width, depth=1, head_size=8, vocabulary=32) for width in (16, 24, 32)]
BUDGETS = (16_000, 32_000, 64_000)
BASE = Run(
    model=MODELS[0],
    data=Data(source="synthetic:32", tokenizer="own", sequence_length=16),
    optimizer=Optimizer(learning_rate=0.01),
    schedule=constant(warmup=640),
    tokens=64_000,
    batch_tokens=64,
)
CHINCHILLA = [laws.chinchilla()]


def text_data(source, **changes):
    return Data(source=str(source), tokenizer="byte", sequence_length=16, **changes)


def test_a_grid_of_three_sizes_and_three_budgets_has_no_warning():
    runs = grid(BASE, model=MODELS, tokens=BUDGETS)
    assert plan_warnings(Study("s@1", runs, laws=CHINCHILLA)) == []


def test_constant_tokens_per_parameter_is_a_warning_if_a_chinchilla_law_is_fitted():
    runs = grid(BASE, model=MODELS, tokens=per_param(20))
    (warning,) = plan_warnings(Study("s@1", runs, laws=CHINCHILLA))
    assert "tokens per parameter is constant" in warning
    assert plan_warnings(Study("s@1", runs)) == []


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"model": MODELS[:2], "tokens": BUDGETS}, "different model sizes is 2"),
        ({"model": MODELS, "tokens": BUDGETS[:2]}, "different token budgets is 2"),
    ],
)
def test_two_values_of_an_input_are_too_few_for_its_exponent(axes, words):
    (warning,) = plan_warnings(Study("s@1", grid(BASE, **axes), laws=CHINCHILLA))
    assert words in warning


def test_different_warmups_are_a_warning():
    (warning,) = plan_warnings(Study("s@1", grid(BASE, warmup=[640, 1280])))
    assert "differ in warmup" in warning


def test_reading_tokens_twice_is_a_warning_once_the_data_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"{i} " + "words and more words " * 100 for i in range(40))
    )
    data = text_data(tmp_path / "text.txt")
    study = Study("s@1", [BASE.replace(data=data)])
    assert not plan_warnings(study), "before it is prepared, nobody knows how much text there is"
    tokens = len(prepare(data).train)
    assert most_epochs(study) == pytest.approx(64_000 / tokens, rel=0.01)
    assert not plan_warnings(study)
    (warning,) = plan_warnings(Study("s@1", [BASE.replace(data=data, tokens=2.5 * tokens)]))
    assert "reads its training tokens up to 2.5 times" in warning


def test_a_mixture_repeats_the_domain_that_is_small_for_its_share(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEJAX_CACHE", str(tmp_path / "cache"))
    for name, documents in (("large", 60), ("small", 20)):
        (tmp_path / "text" / name).mkdir(parents=True)
        for i in range(documents):
            text = f"{name} {i} " + "words and more words " * 100
            (tmp_path / "text" / name / f"{i}.txt").write_text(text)
    data = text_data(tmp_path / "text")
    even = text_data(tmp_path / "text", mixture="large=1,small=1")
    small = len(prepare(data).tokens("train", "concatenate", domain="small")) - 1
    repeats = most_epochs(Study("s@1", [BASE.replace(data=even)]))
    assert repeats == pytest.approx(32_000 / small, rel=0.01)
    assert most_epochs(Study("s@1", [BASE.replace(data=data)])) < 0.6 * 32_000 / small
    misspelt = text_data(tmp_path / "text", mixture="large=1,smal=1")
    with pytest.raises(ValueError, match=r"names the domain 'smal'.* its domains are large, small"):
        plan_warnings(Study("s@1", [BASE.replace(data=misspelt)]))


@pytest.mark.parametrize(
    ("with_effect", "without"),
    [
        (wsd(warmup=64, cooldown=0.2), wsd(warmup=64, cooldown=0.1)),
        (cosine(warmup=512), cosine(warmup=640)),
        (cyclic(warmup=0, period=128), cyclic(warmup=0, period=64)),
        (multistep(warmup=0, milestones=(0.9,)), multistep(warmup=0, milestones=(0.99,))),
        (wsd(warmup=128, cooldown=0), multistep(warmup=0, milestones=())),
    ],
)
def test_a_decay_that_is_too_short_to_lower_the_rate_is_a_warning(with_effect, without):
    """All are runs of ten steps."""
    run = BASE.replace(tokens=640, schedule=with_effect)
    assert plan_warnings(Study("s@1", [run])) == []
    flat = run.replace(schedule=without)
    (warning,) = plan_warnings(Study("s@1", [flat], [run]))
    assert f"of 1 run(s), such as {run_id(flat)}, never falls" in warning
    assert f"the schedule is {without.shape}:" in warning


@pytest.mark.parametrize(
    ("changes", "copy"),
    [
        # A batch has 64 tokens.
        ({"tokens": 64_000}, {"tokens": 63_990}),
        ({"schedule": wsd(warmup=0, cooldown=0.2)}, {"schedule": wsd(warmup=0, cooldown=0.2001)}),
        ({"schedule": constant(warmup=0)}, {"schedule": cyclic(warmup=0, period=64)}),
    ],
)
def test_runs_that_take_the_same_steps_are_a_warning(changes, copy):
    """A law would count one measurement twice."""
    one, two = BASE.replace(**changes), BASE.replace(**(changes | copy))
    assert run_id(one) != run_id(two)
    warning = plan_warnings(Study("s@1", [one, two, one.replace(seed=1)]))[-1]
    assert f"2 run(s) take the same steps as another one, such as {run_id(one)}" in warning
    assert not any("same steps" in line for line in plan_warnings(Study("s@1", [one, one])))


def test_windows_that_do_not_fit_a_run_are_a_warning():
    fitting = (window(tokens=64), window(tokens=640), ema(half_life_tokens=10**6))
    run = BASE.replace(tokens=640)
    assert plan_warnings(Study("s@1", [run], measure=Measure(averages=fitting))) == []
    others = (window(tokens=63), window(tokens=641))
    short, long = plan_warnings(Study("s@1", [run], measure=Measure(averages=others)))
    assert "a step of 1 run(s)" in short and "more tokens than window-63" in short
    assert f"such as {run_id(run)}, are shorter than window-641" in long


def test_a_batch_that_never_reaches_its_size_is_a_warning():
    run = BASE.replace(tokens=640, batch_doublings=(600,))
    assert plan_warnings(Study("s@1", [run])) == []
    (warning,) = plan_warnings(Study("s@1", [run, run.replace(batch_doublings=(640,))]))
    assert "the batch of 1 run(s), such as" in warning and "never reaches batch_tokens" in warning

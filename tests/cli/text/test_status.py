"""What `status` prints (mirrors scalejax/cli/text/status.py)."""

from typing import Any

from scalejax.cli.text.status import changes_text, status_text


def run(**changes) -> Any:
    settings = {"params": 8400, "tokens": 32_000.0, "learning_rate": 0.01}
    waiting = {
        "settings": settings,
        "state": "waiting",
        "worker": "",
        "error": "",
        "step": 0,
        "steps": 500,
        "loss": None,
        "tokens_per_second": None,
        "seconds_left": None,
    }
    return waiting | changes


def status(**runs) -> Any:
    states = [one["state"] for one in runs.values()]
    return {
        "study": "s@1",
        "folder": "out/s@1",
        "totals": {state: states.count(state) for state in dict.fromkeys(states)},
        "flops_done": 0.4266,
        "seconds_left": 63.0,
        "silent": {},
        "shared": {"seed": 0, "shape": "wsd"},
        "runs": runs,
    }


RUNNING = run(state="running", worker="node1:7", step=120, tokens_per_second=12_300.4)
RUNNING |= {"loss": 3.25, "seconds_left": 7300.0}


def test_a_status_names_each_run_by_what_tells_it_apart():
    failed = run(state="failed", error="ValueError: no data")
    lines = status_text(status(abc=RUNNING, b=run(state="waiting-for-trunk"), c=failed)).split("\n")
    assert lines == [
        "s@1 in out/s@1: 1 waiting for its trunk, 1 failed, 1 running; 42% of the FLOPs, "
        "about 1 min 03 s left",
        "all runs: seed 0, schedule wsd",
        "  run  params  tokens  learning rate  state                  step     loss    "
        "tokens/s  left",
        "  abc  8.4k    32k     0.01           running on node1:7     120/500  3.2500  12,300    "
        "2 h 01 min",
        "  b    8.4k    32k     0.01           waiting for its trunk  0/500    -       -         -",
        "  c    8.4k    32k     0.01           failed                 0/500    -       -         -",
        "failed: c: ValueError: no data",
    ]


def test_who_watches_sees_first_what_runs():
    lines = status_text(status(a=run(state="done"), b=RUNNING), urgent_first=True).split("\n")
    assert [line.split()[0] for line in lines[3:]] == ["b", "a"]


def test_only_changes_of_a_state_are_told():
    before, after = status(a=RUNNING, b=run()), status(a=RUNNING | {"step": 140}, b=run())
    assert changes_text(before, after) == ""
    after = status(a=run(state="done", loss=3.1), b=run())
    assert changes_text(before, after).split("\n")[0] == (
        "a (8.4k params, 32k tokens, learning rate 0.01): done, loss 3.1000"
    )


def test_a_machine_without_a_sign_of_life_is_named():
    text = status_text(status(a=run()) | {"silent": {"a": "far:3"}})
    assert "far:3 holds the claim of a, but has shown no sign of life" in text

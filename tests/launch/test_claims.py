"""One process at a time trains a segment (mirrors scalejax/launch/claims.py)."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from scalejax.launch import claims as module
from scalejax.launch.claims import ClaimLost, Claims, Owners


@pytest.fixture
def fast(monkeypatch):
    """Claims that count every 20 ms and are stale after 200."""
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)


def take(claims):
    """Take the segment, which is free."""
    claim = claims.take("a")
    assert claim is not None
    return claim


def wait_for(claims, seconds=1.0):
    """Try to take the segment as a worker does; None while its owner counts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (claim := claims.take("a")) is not None:
            return claim
        time.sleep(0.01)
    return None


def take_over(claims):
    """Take the segment, whose claim is stale soon."""
    claim = wait_for(claims, seconds=30)
    assert claim is not None
    return claim


def stop_counting(claim):
    """Make this process count no more, as if it were stopped or its machine gone."""
    claim._closing.set()
    claim._thread.join()


def test_a_segment_has_one_owner_until_it_is_given_back(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = first.take("a")
    assert claim is not None and second.take("a") is None
    assert Owners(tmp_path).alive()["a"].endswith(f":{os.getpid()}")
    claim.check()
    claim.release()
    assert Owners(tmp_path).alive() == {}
    other = second.take("a")
    assert other is not None
    other.release()
    assert list((tmp_path / "claims").iterdir()) == []


def test_an_owner_that_counts_keeps_its_claim(tmp_path, fast):
    with take(Claims(tmp_path)) as claim:
        assert wait_for(Claims(tmp_path)) is None
        claim.check()


def test_an_owner_counts_again_when_its_disk_is_back(tmp_path, fast):
    study, away = tmp_path / "study", tmp_path / "away"
    study.mkdir()
    claim = take(Claims(study))
    study.rename(away)
    time.sleep(0.1)
    away.rename(study)
    assert wait_for(Claims(study)) is None
    claim.check()
    claim.release()


def test_a_claim_that_stands_still_is_taken_over_and_its_owner_finds_out(tmp_path, fast):
    claim = take(Claims(tmp_path))
    stop_counting(claim)
    with take_over(Claims(tmp_path)) as taken:
        with pytest.raises(ClaimLost, match="taken over a"):
            claim.check()
        # What the old owner does at its end must not touch the new claim.
        claim.release()
        taken.check()
        assert Claims(tmp_path).take("a") is None


def test_the_second_of_two_that_find_a_claim_stale_does_not_remove_the_first_ones(tmp_path, fast):
    stop_counting(take(Claims(tmp_path)))
    late = Claims(tmp_path)
    assert late.take("a") is None
    seen = late._sights["a"].content
    with take_over(Claims(tmp_path)) as claim:
        late._remove(tmp_path / "claims" / "a.json", seen)
        claim.check()
        assert late.take("a") is None


def test_of_many_processes_one_takes_over(tmp_path, fast, monkeypatch):
    # On a busy machine, the thread that counts may wait for its turn.
    monkeypatch.setattr(module, "STALE_SECONDS", 1.0)
    stop_counting(take(Claims(tmp_path)))
    taken = []

    def wait_for_it():
        if (claim := wait_for(Claims(tmp_path), seconds=2.5)) is not None:
            taken.append(claim)

    threads = [threading.Thread(target=wait_for_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    taken[0].check()
    taken[0].release()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells machines apart")
def test_the_claim_of_a_process_that_was_killed_here_is_taken_over_at_once(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from scalejax.launch.claims import Claims\n"
        "claim = Claims(Path(sys.argv[1])).take('a'); print('taken', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "taken\n"
    claims, owners = Claims(tmp_path), Owners(tmp_path)
    assert claims.take("a") is None and list(owners.alive()) == ["a"]
    process.send_signal(signal.SIGKILL)
    # Dead, but not collected by its parent: a zombie, which `kill -0` would still find.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owners.alive() == owners.silent == {}
    process.wait()
    process.stdout.close()
    claim = claims.take("a")
    assert claim is not None
    claim.release()


def test_a_claim_of_another_machine_is_not_judged_by_process_numbers(tmp_path):
    claims = Claims(tmp_path)
    stop_counting(take(claims))
    path = tmp_path / "claims" / "a.json"
    # No process has this number; the machine is another one.
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process": 2**30, "machine": "x"}))
    assert claims.take("a") is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": module._machine()}))
    assert module._machine() == "" or claims.take("a") is not None


def test_a_claim_that_was_cut_short_by_a_crash_becomes_stale(tmp_path, fast):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "a.json").write_text('{"host": "no')
    take_over(Claims(tmp_path)).release()


def test_a_number_that_another_process_has_got_since_is_not_the_owner(tmp_path):
    claims = Claims(tmp_path)
    stop_counting(take(claims))
    path = tmp_path / "claims" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"born": "1"}))
    assert Owners(tmp_path).alive() == {} or module._machine() == ""


def test_an_owner_on_another_machine_is_alive_while_its_number_changes(tmp_path, fast):
    stop_counting(take(Claims(tmp_path)))
    path, owners = tmp_path / "claims" / "a.json", Owners(tmp_path)

    def count(heartbeat):
        there = {"machine": "x", "host": "far", "process": 7, "heartbeat": heartbeat}
        path.write_text(json.dumps(json.loads(path.read_text()) | there))

    count(1)
    assert owners.alive() == {} and owners.silent == {"a": "far:7"}
    assert owners.alive() == {}, "nothing has changed"
    count(2)
    assert owners.alive() == {"a": "far:7"} and owners.silent == {}
    time.sleep(2 * module.STALE_SECONDS)
    assert owners.alive() == {} and owners.silent == {"a": "far:7"}

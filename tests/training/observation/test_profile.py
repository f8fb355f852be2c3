"""A profile of training steps (mirrors scalejax/training/observation/profile.py)."""

import jax
import pytest

from scalejax.config import Measure
from scalejax.training.loop import train
from tests.training.runs import curve


@pytest.mark.filterwarnings("ignore")
def test_a_profile_holds_the_steps_and_changes_no_bit(tiny_run, tmp_path):
    measure = Measure(every=0, tokens=1024, items=0)
    profiled = Measure(every=0, tokens=1024, items=0, profile_steps=3)
    # A profile is no evaluation: it does not make a finished run be measured again.
    assert profiled == measure
    train(tiny_run, out=tmp_path / "plain", measure=measure)
    train(tiny_run, out=tmp_path / "profiled", measure=profiled)
    assert curve(tmp_path / "profiled") == curve(tmp_path / "plain")
    assert not (tmp_path / "plain" / "profile").exists()
    # The layout that XProf reads.
    (trace,) = (tmp_path / "profiled" / "profile").glob("plugins/profile/*/*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(trace))
    events = [event.name for plane in data.planes for line in plane.lines for event in line.events]
    assert sum("train_step" in name for name in events) >= 3

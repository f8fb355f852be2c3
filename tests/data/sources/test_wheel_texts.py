"""Texts are read out of wheels (mirrors scalejax/data/sources/wheel_texts.py)."""

from scalejax.data.sources import wheel_texts
from scalejax.data.staging import clean
from tests.data.sources.small_wheels import METHOD, PLAY


def test_a_play_gives_its_scenes_without_markdown():
    first, second = map(clean, wheel_texts.scenes(PLAY))
    assert first == "SCENE I. A room.\n\nEnter ANNA\n\nANNA\nSpeak, snake_case and all."
    assert second == "SCENE II. A street.\n\nExit"


def test_a_documented_entry_is_a_line_per_part_and_no_text_occurs_twice(small_wheels):
    first, second = wheel_texts.documentation([small_wheels / "services.whl"])
    assert first.startswith("Put: Puts an object.\nOne & two\nAll of it.\n")
    assert first.endswith("\nKey: Its name.")
    assert second == "copy: " + METHOD["description"] + "\nfileId: The id.", (
        "text that is not HTML is not kept as it is"
    )

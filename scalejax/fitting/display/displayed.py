"""How a fit shows itself: as text, in notebooks, and as a table for a paper."""

import html
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from scalejax.fitting.charts import write
from scalejax.fitting.charts.chart import Chart
from scalejax.fitting.display import tables, text

if TYPE_CHECKING:
    from pandas import DataFrame

HEAD = ("parameter", "value", "95% interval")


class Displayed:
    """What a `Fit` inherits to show itself."""

    law: Any
    params: dict[str, float]
    intervals: dict[str, tables.Ends]
    n_rows: int
    verdict: str
    reasons: list[str]

    def __str__(self) -> str:
        """What `scalejax fit` prints."""
        return text.fit_text(self)

    def _repr_html_(self) -> str:
        """What notebooks show: the verdict, its reasons, and a table of parameters."""
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        title = html.escape(f"{self.law.name} on {self.n_rows} rows: {self.verdict}")
        return f"<p>{title}</p><ul>{reasons}</ul>{tables.html_table(HEAD, self._rows())}"

    def table(self, form: tables.Format) -> str:
        """Return the parameters as a "latex" or "markdown" table."""
        return tables.render(HEAD, self._rows(), form)

    def to_frame(self) -> "DataFrame":
        """Return the parameters as a data frame, with columns value, low and high.

        An end is nan where the interval is open, or where there is none.
        """
        import pandas as pd

        ends = [self.intervals.get(name, (None, None)) for name in self.params]
        columns = {
            "value": list(self.params.values()),
            "low": [np.nan if low is None else low for low, _ in ends],
            "high": [np.nan if high is None else high for _, high in ends],
        }
        return pd.DataFrame(columns, index=pd.Index(list(self.params), name="parameter"))

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the figure of the law to a PNG, SVG or HTML file.

        Raises ValueError for another suffix, for a fit that was loaded from a file, and
        for a law that has no figure.
        """
        write.check_suffix(path)
        write.write(self.charts(), path, f"{self.law.name} on {self.n_rows} rows")

    def figure(self) -> write.Picture:
        """Return the figure of the law, which a notebook shows.

        Raises ValueError as `plot` does.
        """
        return write.Picture(self.charts())

    def charts(self) -> list[Chart]:
        """Return the panels of the figure of the law."""
        raise ValueError(f"the {self.law.name} law has no figure")

    def _rows(self) -> list[list[str]]:
        return tables.parameter_rows(self.params, self.intervals)

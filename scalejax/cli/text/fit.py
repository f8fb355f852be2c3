"""What `fit` and `predict` print."""

from scalejax.fitting.display.text import fit_text as fit_text
from scalejax.fitting.display.text import forecast_text as forecast_text

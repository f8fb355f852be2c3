"""Power laws of the best hyperparameters, as functions of the size of a run.

N non-embedding parameters, D training tokens.
"""

from typing import NamedTuple

import numpy as np

# Names of the parameters of `Hyperparameters` in a fit, in the order of its fields.
NAMES = (
    "learning_rate.coefficient",
    "learning_rate.params_exponent",
    "learning_rate.tokens_exponent",
    "batch_tokens.coefficient",
    "batch_tokens.tokens_exponent",
)

# Names of the parameters of `Beta2` in a fit, in the order of its fields.
BETA2_NAMES = ("beta2.coefficient", "beta2.batch_exponent")


class Hyperparameters(NamedTuple):
    """LR* = a N^b D^c and batch* = d D^e (StepLaw, Li et al. 2025, arXiv 2503.04715,
    eq. 1).

    a, b, c: coefficient and exponents of the peak learning rate.  d, e: coefficient and
    exponent of the batch size, in tokens.  N: non-embedding parameters.  D: tokens.

    >>> published = Hyperparameters(1.79, -0.713, 0.307, 0.58, 0.571)
    >>> print(f"{published.learning_rate(1e9, 1e11):.2e}")
    1.63e-03
    >>> print(f"{published.batch_tokens(1e11):.2e}")
    1.11e+06
    """

    lr_coefficient: float | np.ndarray
    lr_params_exponent: float | np.ndarray
    lr_tokens_exponent: float | np.ndarray
    batch_coefficient: float | np.ndarray
    batch_tokens_exponent: float | np.ndarray

    def learning_rate(self, N: float | np.ndarray, D: float | np.ndarray) -> float | np.ndarray:
        """Best peak learning rate."""
        return self.lr_coefficient * N**self.lr_params_exponent * D**self.lr_tokens_exponent

    def batch_tokens(self, D: float | np.ndarray) -> float | np.ndarray:
        """Best batch size, in tokens per step."""
        return self.batch_coefficient * D**self.batch_tokens_exponent


class Beta2(NamedTuple):
    """1 - beta2* = coefficient x batch^exponent, with the batch in tokens.

    1 / (1 - beta2) is the number of steps over which Adam averages squared gradients.
    With an exponent of 1 it is a fixed number of tokens, with 0 a fixed number of
    steps.

    >>> law = Beta2(1e-7, 1.0)
    >>> print(f"{law.beta2(5e5):.3f} {law.half_life(5e5):.2e}")
    0.950 6.76e+06
    """

    coefficient: float | np.ndarray
    batch_exponent: float | np.ndarray

    def beta2(self, batch: float | np.ndarray) -> float | np.ndarray:
        """Best beta2 at a batch size in tokens."""
        return 1 - self.coefficient * batch**self.batch_exponent

    def half_life(self, batch: float | np.ndarray) -> float | np.ndarray:
        """Tokens after which a squared gradient weighs half in Adam's average."""
        return batch * np.log(0.5) / np.log(self.beta2(batch))

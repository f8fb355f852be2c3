"""Optimizers whose numbers were tuned, and for what."""

from scalejax import Optimizer

TINY_ADAMW = Optimizer(learning_rate=0.008, beta2=0.98, epsilon=1e-8, clip=1.0)
"""For TINY under muP at 512 tokens a batch; the loss is flat from 0.004 to 0.016."""

HAGELE_ADAMW = Optimizer(
    learning_rate=1e-3, beta2=0.95, weight_decay=0.1, decay="standard", clip=1.0
)
"""Hägele et al. 2024: the numbers of their code."""

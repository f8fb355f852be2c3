"""Optimizers with tuned hyperparameters, and what they were tuned for."""

from scalejax import Optimizer

# For models.TINY under muP, with 512 tokens per batch. The loss is flat in the learning
# rate from 0.004 to 0.016.
TINY_ADAMW = Optimizer(learning_rate=0.008, beta2=0.98, epsilon=1e-8, clip=1.0)

# The numbers in the code of Hägele et al. 2024.
HAGELE_ADAMW = Optimizer(
    learning_rate=1e-3, beta2=0.95, weight_decay=0.1, decay="standard", clip=1.0
)

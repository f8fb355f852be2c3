"""Optimizers with tuned hyperparameters, and what they were tuned for."""

from scalejax import Optimizer

# For models.TINY under muP, with 512 tokens per batch. The loss is flat in the learning
# rate from 0.004 to 0.016.
TINY_ADAMW = Optimizer(learning_rate=0.008, beta2=0.98, epsilon=1e-8, clip=1.0)

# The same with Muon, whose best rate is about four times as high.
TINY_MUON = Optimizer(
    name="muon", learning_rate=2.0**-5, beta2=0.98, epsilon=1e-8, momentum=0.95, clip=1.0
)

# The numbers in the code of Hägele et al. 2024.
HAGELE_ADAMW = Optimizer(
    learning_rate=1e-3, beta2=0.95, weight_decay=0.1, decay="standard", clip=1.0
)

# The rate that Yao et al. 2023 found best at width 256, to be transferred by muP. The
# paper gives no other hyperparameter of Adam.
YAO_ADAM = Optimizer(learning_rate=7.5e-4, beta2=0.95, clip=1.0)

# The optimizer of Porian et al. 2024 before its rate, batch and beta2 are tuned.
PORIAN_ADAMW = Optimizer(
    learning_rate=3e-3, beta2=0.95, weight_decay=1e-4, decay="independent", clip=1.0, z_loss=1e-4
)

# The optimizer of Gadre et al. 2024 for all sizes but the largest, which has a rate of
# 3e-4 and a weight decay of 0.33.
GADRE_ADAMW = Optimizer(
    learning_rate=3e-3, beta2=0.95, weight_decay=0.033, decay="standard", clip=1.0, z_loss=1e-4
)

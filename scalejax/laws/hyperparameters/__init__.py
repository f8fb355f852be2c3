"""Laws of the best learning rate, batch size and beta2, from sweeps.

A sweep consists of cells: runs of one size N and one number of tokens D. The optimum of
every cell is found first; power laws in N and D are then fitted to the optima.
"""

from scalejax.laws.hyperparameters.fit import SweepFit as SweepFit
from scalejax.laws.hyperparameters.fit import fit_hyperparameters as fit_hyperparameters
from scalejax.laws.hyperparameters.forms import BETA2_NAMES as BETA2_NAMES
from scalejax.laws.hyperparameters.forms import NAMES as NAMES
from scalejax.laws.hyperparameters.forms import Beta2 as Beta2
from scalejax.laws.hyperparameters.forms import Hyperparameters as Hyperparameters
from scalejax.laws.hyperparameters.law import HyperparameterLaw as HyperparameterLaw
from scalejax.laws.hyperparameters.law import hyperparameter_law as hyperparameter_law
from scalejax.laws.hyperparameters.optimum import Optimum as Optimum
from scalejax.laws.hyperparameters.optimum import near_optimum as near_optimum
from scalejax.laws.hyperparameters.optimum import surface_optimum as surface_optimum
from scalejax.laws.hyperparameters.regret import regret as regret
from scalejax.laws.hyperparameters.sweep import Sweep as Sweep

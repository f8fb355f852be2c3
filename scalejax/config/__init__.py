"""The configuration of an experiment, as frozen dataclasses.

A `Run` says what is trained: a Model, Data, an Optimizer, a Schedule, a Parametrization
and their numbers. The hash of a Run is its identity. `Measure` says what is measured
and when, `Placement` says where a run executes; neither is part of the identity.

Every field is checked when a value is created. An error names the field, the value that
was given and what would be valid.
"""

from scalejax.config.data import Data as Data
from scalejax.config.measure import Average as Average
from scalejax.config.measure import Measure as Measure
from scalejax.config.model import Model as Model
from scalejax.config.model import Parametrization as Parametrization
from scalejax.config.optimizer import Optimizer as Optimizer
from scalejax.config.placement import Placement as Placement
from scalejax.config.run import Run as Run
from scalejax.config.schedule import Schedule as Schedule

"""Compute-optimal sizes without a law of the loss: approaches 1 and 2.

Approach 1 takes the envelope of training curves, approach 2 the minima of isoFLOP
curves (Hoffmann et al. 2022, sections 3.1 and 3.2). Both give the optimum of every
compute budget, through which two power laws are fitted, N*(C) and D*(C). Approach 2
also fits the frontier L*(C), the loss of the optimum against compute.
"""

from scalejax.laws.isoflop.envelope import envelope as envelope
from scalejax.laws.isoflop.fit import fit_isoflop as fit_isoflop
from scalejax.laws.isoflop.frontier import Frontier as Frontier
from scalejax.laws.isoflop.law import IsoFLOP as IsoFLOP
from scalejax.laws.isoflop.law import isoflop_law as isoflop_law
from scalejax.laws.isoflop.noise import Noise as Noise
from scalejax.laws.isoflop.power_laws import Budget as Budget
from scalejax.laws.isoflop.power_laws import IsoFLOPResult as IsoFLOPResult
from scalejax.laws.isoflop.power_laws import PowerLaws as PowerLaws

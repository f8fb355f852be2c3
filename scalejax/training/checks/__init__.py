"""Checks of a parametrization: sizes of activations, and transfer of the best rate."""

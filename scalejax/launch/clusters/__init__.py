"""Clusters that train the segments of a study: SLURM and Ray."""

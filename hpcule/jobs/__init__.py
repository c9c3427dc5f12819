"""Handing commands to a batch system, and taking them up again after it took the node away."""

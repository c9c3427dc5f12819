"""What several methods share: the two-phase template, noise, surrogates, adversaries."""

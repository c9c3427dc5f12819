"""Training on published data by somebody else's recipe."""

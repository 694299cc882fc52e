"""Training on from a fixed-point network."""

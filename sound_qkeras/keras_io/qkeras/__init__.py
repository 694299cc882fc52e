"""QKeras models that others quantised, read as networks with roundings."""

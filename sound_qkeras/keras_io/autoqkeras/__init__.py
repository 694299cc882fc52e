"""AutoQKeras' search, run as its own documentation says."""

"""The search for the worst error. Nothing proved depends on it."""

"""Rewrites of the trained network that leave its function on the box what it is."""

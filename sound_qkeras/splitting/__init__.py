"""Guidance for the proofs: where to cut a box. Nothing here is trusted."""

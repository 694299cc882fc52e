"""Proofs, certificates and their checker. Trusts neither tuner nor solver."""

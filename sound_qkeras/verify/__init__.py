"""Proofs, certificates, their checker, and the search for counterexamples. Trusts neither tuner nor solver."""

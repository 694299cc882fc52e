"""The choice of formats: costs, error tables, the MILP, rounding, and the loop that proves what is chosen."""

"""Files, budgets, memory bounds and decimals: what every room may use."""

"""The exported code computes the simulator's integers."""

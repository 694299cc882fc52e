"""What float32 and float64 evaluation adds to a fixed-point network."""

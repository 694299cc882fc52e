"""QKeras and float Keras models from networks."""

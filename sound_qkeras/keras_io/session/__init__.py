"""Which Keras is there, and how it is made to be the one that QKeras needs."""

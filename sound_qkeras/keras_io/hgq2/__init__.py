"""HGQ2, which trains a width for every weight and value, in an environment of its own: its `qkeras` is not ours."""

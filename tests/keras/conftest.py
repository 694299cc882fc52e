"""These tests import TensorFlow, which takes seconds: where they are deselected they are not even collected."""


def pytest_ignore_collect(config):
    return True if "not keras" in config.getoption("markexpr") else None

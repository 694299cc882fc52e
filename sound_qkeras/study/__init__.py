"""Everyone's ways to choose formats on one model and one data set, measured alike."""

from sound_qkeras.study.compare import Study, compare

__all__ = ["Study", "compare"]

"""Property tests against exact rational arithmetic."""

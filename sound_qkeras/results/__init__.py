"""What a run returns, and how it is saved and read again."""

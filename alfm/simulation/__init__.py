"""Active learning played through where all labels are known."""

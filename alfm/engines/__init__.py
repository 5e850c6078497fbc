"""Who has the cells of a sweep run."""

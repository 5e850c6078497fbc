"""Who runs the jobs of a sweep."""

"""One batch for people who bring their own arrays or their own model: no cache, no run, nothing kept."""

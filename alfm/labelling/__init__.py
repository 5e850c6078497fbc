"""Labelling a real pool: what people said, what is asked next, and what the model makes of it."""

"""The report's sections, one file per question; a function returns None where runs say nothing of it."""

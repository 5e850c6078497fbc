"""The page on which people label: a server on this machine, and the files that it serves."""

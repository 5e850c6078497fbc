"""Where things lie, and how a command line becomes cells, a cell a configuration, a configuration objects."""

"""Where things lie, and how a configuration becomes an object."""

"""HTML page of a finished run: one file without references to other files or to the network."""

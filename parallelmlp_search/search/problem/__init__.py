"""Problem definition: table, settings, device, and the prepared arrays of each part."""

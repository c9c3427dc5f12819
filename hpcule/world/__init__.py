"""Who we are: rank, size, device, address; collectives; signals; training engines."""

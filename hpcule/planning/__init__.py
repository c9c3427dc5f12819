"""What a run will take: counted, measured on this machine, and predicted for others."""

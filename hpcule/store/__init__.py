"""What we write: shards, manifest, virtual master, checkpoints; verify and export."""

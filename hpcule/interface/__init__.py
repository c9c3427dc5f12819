"""The Python interface, for notebooks and scripts: `hpcule.craft`, `open_store`, `export`, `evaluate`, `load_study`."""

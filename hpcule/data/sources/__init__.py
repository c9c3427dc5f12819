"""One file a kind of data, each with its source."""

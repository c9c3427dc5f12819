"""What we publish: copies of collections, without anything that leads back to the clean samples."""

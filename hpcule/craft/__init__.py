"""Crafting: one file a method, one table that lists them (`hpcule.craft.table`)."""

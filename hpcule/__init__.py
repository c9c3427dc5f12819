"""hpcule: unlearnable examples, crafted jointly on many workers, published, and measured."""

__version__ = "0.1.0"

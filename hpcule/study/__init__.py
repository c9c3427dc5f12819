"""Several runs seen together: the protection report, the demo."""

"""A function that fails while it is loaded."""

raise RuntimeError("it broke while it was loaded")

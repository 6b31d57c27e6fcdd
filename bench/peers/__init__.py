"""Other pipeline tools, each in an environment of its own, at the same trivial steps."""

"""Features of a project: registered, read, joined, followed online, audited."""

"""The commands that need no service: ``reason run | search``, ``reason-prepare``, ``reason-train``."""

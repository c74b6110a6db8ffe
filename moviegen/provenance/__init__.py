"""Where generated files come from, and by whose leave. No torch."""

"""Pure rules, in milliseconds."""

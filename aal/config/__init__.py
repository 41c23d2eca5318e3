"""Settings: one schema for YAML, key=value and Python; loading, errors, seeds."""

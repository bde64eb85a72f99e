"""One file a task. Each runs alone: ``python -m jobs.NAME --help``."""

"""Running HyMiRec on one machine: environment, set-up, services, foreground runs."""

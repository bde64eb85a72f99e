"""What runs when: strings and wiring only."""

"""What an operator sets: environment, models file, logging. Nothing here knows what a job is."""

"""What a job is: its request, its record, its states, what failures mean, what to do next. No I/O, no clock."""

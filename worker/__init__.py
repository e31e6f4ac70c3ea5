"""The processes: intake, submission, tracking, delivery, the store under them and the doors around them."""

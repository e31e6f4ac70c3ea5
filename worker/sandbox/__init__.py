"""A gateway to develop and test against: reached by URL only, sharing no code with the rest of the project."""

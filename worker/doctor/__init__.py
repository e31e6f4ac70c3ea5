"""The doctor: ``diagnosis`` runs every check, ``redis_checks`` are those of Redis, ``findings`` what they say."""

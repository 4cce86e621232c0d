"""Programs that run in a process of their own, so that their peak memory is theirs alone."""

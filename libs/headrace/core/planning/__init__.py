"""Planning: which request groups are served where and in which order. Pure; one file per planner."""

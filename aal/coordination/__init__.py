"""Who may do what next: the hub, its two pools, schedules and messages. No processes, no files, no SQL."""

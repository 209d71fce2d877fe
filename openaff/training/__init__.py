"""Training: schedules, devices, the engine and the run folder."""

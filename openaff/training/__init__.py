"""Training: configurations, the engine, the run folder, several devices and processes."""

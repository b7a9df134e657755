"""The machine and the process: cache folder, device, threads, logs, progress, environment."""

"""What trains methods: networks, the loop, validation, checkpoints, and shared losses."""

"""What trained methods share: layers, losses, data, the loop, validation and checkpoints."""

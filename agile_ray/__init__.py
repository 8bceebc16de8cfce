"""The agent and the training loop: light enough to import without torch or Ray."""

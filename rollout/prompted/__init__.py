"""Plays the agent with a chat model behind an OpenAI-compatible endpoint."""

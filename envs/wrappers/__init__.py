"""Environments made of other environments; each changes one thing, and same.py forwards the rest."""

"""Containers with a life: start, wait, kill, update, and the account of how they ended."""

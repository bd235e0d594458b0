"""The kernel, typed. Nothing here knows what a container is."""

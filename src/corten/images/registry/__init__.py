"""Registries: who they are, how they are asked, pull and push (OCI distribution 1.1, Docker registry v2)."""

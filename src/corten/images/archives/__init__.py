"""Images in files: OCI layouts, docker archives, root file systems."""

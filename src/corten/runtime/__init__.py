"""An OCI spec made into a running process: spec, plan, launcher, init. Nothing here knows what an image is."""

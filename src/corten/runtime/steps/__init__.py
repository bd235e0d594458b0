"""The steps, by the kernel object that they are about."""

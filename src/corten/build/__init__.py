"""Building images: Containerfiles and `corten.Image` made into steps, steps into layers, layers into an image."""

"""Where images are kept: blobs, unpacked layers, names. All of it files; see `corten.images.store.images`."""

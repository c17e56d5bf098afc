"""What is embedded: images and texts by the name of their source, in files or on the hub, and how they are split."""

"""What is embedded: images by the name of their source, in Parquet or on the hub, and how they are split."""

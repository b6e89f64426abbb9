"""Shards: tar files of WebDataset and Parquet files that hold images."""

"""Features of many images in one file: planned, computed in parts that survive a kill, joined."""

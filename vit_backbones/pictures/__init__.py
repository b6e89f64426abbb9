"""Pictures of arrays, RGB throughout: sheets and panels, overlays, curves, points, matrices."""

"""Images of users: where they are, reading them, going over many of them."""

from vit_backbones.images.reading import (
    UnreadableImageError,
    find_images,
    image_size,
    read_image,
)

__all__ = ['UnreadableImageError', 'find_images', 'image_size', 'read_image']

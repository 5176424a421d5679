"""Pictures from files: finding, decoding, cropping them."""

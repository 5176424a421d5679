"""Threaded loading, augmentation and data modules."""

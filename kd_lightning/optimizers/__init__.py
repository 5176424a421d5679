"""Optimizers that treat the gradients of the task and of distillation apart."""

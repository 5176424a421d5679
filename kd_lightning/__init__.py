"""kd-lightning: knowledge distillation experiments on PyTorch Lightning, Hydra and TensorBoard."""

__version__ = "0.1.0"

"""MNIST (LeCun, Cortes & Burges 1998): 28x28 grey images of handwritten digits."""

from __future__ import annotations

from kd_lightning.data.fashion_mnist import FashionMnistData


class MnistData(FashionMnistData):
    """MNIST: (N, 1, 28, 28), 10 classes, 60,000 training and 10,000 test samples.

    Fashion-MNIST was made in its format: the settings are those of
    :class:`~kd_lightning.data.fashion_mnist.FashionMnistData`, with ``MNIST/raw`` and ``mnist`` below ``root``.
    """

    class_names = [str(digit) for digit in range(10)]
    mean = [0.1307]
    std = [0.3081]
    default_augment = {"crop_padding": 2, "flip": False}
    torchvision_name = "MNIST"
    folder_name = "mnist"
    usual_directories = ("/usr/share/datasets/mnist",)

"""A teacher that is taken as its ``_target_`` returns it: with the weights that timm, torchvision or you put in."""

from __future__ import annotations

from kd_lightning.teachers.network import NetworkTeacher


class PretrainedTeacher(NetworkTeacher):
    """A network with the weights that it comes with."""

"""A teacher that cannot move: a trained module behind a callable that never trains and never takes gradients.

A teacher that drifts during distillation (BatchNorm statistics in train mode, a forgotten ``requires_grad``, weights
that slip into the optimizer or the checkpoint) spoils results without a word, so each of these is closed by
construction.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, LOGITS
from kd_lightning.outputs import ModelOutput
from kd_lightning.runs.latency import state_bytes
from kd_lightning.taps import Taps

Normalization = Mapping[str, Sequence[float]]
PRECISIONS = ("32", "bf16")


class TeacherChanged(RuntimeError):
    """The teacher's weights or buffers are not those it was frozen with."""


class FrozenTeacher:
    """Answers ``teacher(batch) -> ModelOutput`` with a module that stays exactly as it was given.

    It is deliberately not an ``nn.Module``: as an attribute of a LightningModule it is not registered, hence absent
    from ``parameters()`` (the optimizer), from DDP's reduction and from ``state_dict()`` (checkpoints). The module
    itself is frozen in place: no parameter requires a gradient, and ``train()`` does nothing on it or on any of its
    parts, so that neither the caller nor a parent module can put it in training mode.

    The forward runs under ``no_grad``, not ``inference_mode``: a loss saves the teacher's outputs for the student's
    backward, which inference tensors forbid, and cloning every output and feature map would cost more than it saves.
    It runs in the teacher's own precision, whatever autocast the trainer has switched on, and logits come back in
    float32 (float64 stays), features as computed.

    Args:
        model: the trained module; frozen in place, so pass a copy of a module that is also to be trained.
        normalization: ``{"mean": [...], "std": [...]}`` per channel that the teacher was trained with; None: it takes
            what the loader gives.
        data_normalization: what the loader applied, in the same form; None: nothing. Where the two differ, the inputs
            are mapped from one to the other by one multiply-add.
        taps: feature taps, ``{tap: layer name}``; None: logits only.
        precision: ``"32"``, or ``"bf16"``: autocast to bfloat16.
        channels_last: run 4-d inputs and weights in channels-last memory format (faster convolutions).
        compile: run through ``torch.compile`` (worth it for long runs only).
        name: for messages and tables.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        normalization: Normalization | None = None,
        data_normalization: Normalization | None = None,
        taps: Mapping[str, str] | None = None,
        precision: str = "32",
        channels_last: bool = False,
        compile: bool = False,
        name: str = "teacher",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UserError(f"teacher {name!r}: expected a torch module, got {type(model).__name__}")
        if str(precision) not in PRECISIONS:
            raise UserError(f"teacher.precision: got {precision!r}, choose one of {', '.join(PRECISIONS)}")
        self.name = name
        self.precision = str(precision)
        self.channels_last = channels_last
        self.module = freeze(model)
        self._taps = Taps(self.module, taps or {}, role="teacher")
        if channels_last:
            self.module.to(memory_format=torch.channels_last)
        self._parts = list(self.module.modules())
        self._scale_shift = renormalization(normalization, data_normalization, name)
        if compile:
            self.module.compile()  # in place: layer names stay as they are
        self.provides = frozenset({LOGITS, FEATURES})
        self.labels_new_inputs = True
        self._digests = tensor_digests(self.module)
        self._fingerprint = combined(self._digests)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> ModelOutput:
        """Logits of shape (N, C), detached; ``batch.inputs`` as the loader made them."""
        if any(part.training for part in self._parts):  # someone wrote `.training` behind train()'s back
            for part in self._parts:
                part.training = False
        inputs = self.prepare(batch.inputs)
        device = batch_device(inputs)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            output = self._taps(self.module, inputs)
        spread = None if output.spread is None else widened(output.spread)
        return ModelOutput(widened(output.logits), output.features, spread)

    def prepare(self, inputs: Any) -> Any:
        """The inputs in the teacher's own normalisation and memory format; structures of tensors pass unchanged."""
        if not isinstance(inputs, Tensor):
            if self._scale_shift is not None:
                raise UserError(
                    f"teacher {self.name!r}: its normalization differs from the data's, which is handled for plain "
                    f"tensors only, but the loader gives {type(inputs).__name__}; give both the same normalization"
                )
            return inputs
        if self._scale_shift is not None:
            scale, shift = (per_channel(v, inputs) for v in self._scale_shift)
            inputs = torch.addcmul(shift, inputs, scale)
        if self.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def fingerprint(self) -> str:
        """Hex digest of all weights and buffers as they are now (names, shapes, dtypes, bytes; not their device)."""
        return combined(tensor_digests(self.module))

    def verify(self) -> None:
        """Raise :class:`TeacherChanged`, naming the tensors, if weights or buffers moved since construction."""
        now = tensor_digests(self.module)
        if now != self._digests:
            names = [n for n in {**self._digests, **now} if self._digests.get(n) != now.get(n)]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise TeacherChanged(
                f"teacher {self.name!r} changed since it was frozen: {', '.join(names[:3])}{more}; results of this run "
                "are not distilled from the teacher that was loaded: find what writes to its weights or buffers"
            )

    def cache_parts(self) -> dict[str, Any]:
        """Everything but the inputs that the outputs depend on: part of the key under which outputs are cached."""
        described = re.sub(r"0x[0-9a-f]+", "", repr(self.module))  # memory addresses differ from process to process
        scale_shift = self._scale_shift and [[float(f"{v:.6g}") for v in part.tolist()] for part in self._scale_shift]
        return {
            "weights": self._fingerprint,
            "architecture": hashlib.sha256(described.encode()).hexdigest()[:16],
            "precision": self.precision,
            "input_scale_shift": scale_shift,
        }

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move weights, buffers and normalisation to a device, in place."""
        self.module.to(device)
        if self._scale_shift is not None:
            self._scale_shift = tuple(v.to(device) for v in self._scale_shift)
        return self

    @property
    def device(self) -> torch.device:
        """Where the module is (the CPU if it has no tensors)."""
        return next((t.device for _, t in state_tensors(self.module)), torch.device("cpu"))

    @property
    def parameters_count(self) -> int:
        """Number of scalar parameters."""
        return sum(p.numel() for p in self.module.parameters())

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        return {
            "name": self.name,
            "fingerprint": self._fingerprint,
            "parameters": self.parameters_count,
            "bytes": state_bytes(self.module),
        }

    def __repr__(self) -> str:
        return f"FrozenTeacher({self.name}, {self.parameters_count} parameters, {self._fingerprint[:12]})"


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode for good (``train()`` becomes a no-op on the module and on each part), no gradients."""
    model.eval()
    model.requires_grad_(False)
    for part in model.modules():
        # A partial, not a closure: it copies and pickles along with the module it belongs to.
        part.train = functools.partial(_stay_in_eval, part)
    return model


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def renormalization(
    teacher: Normalization | None, data: Normalization | None, name: str
) -> tuple[Tensor, Tensor] | None:
    """(scale, shift), each of shape (C,), taking loader-normalised inputs to the teacher's; None where they agree."""
    if teacher is None:
        return None
    mean, std = _mean_std(teacher, f"teacher {name!r}: normalization")
    data_mean, data_std = _mean_std(data or {"mean": [0.0], "std": [1.0]}, "data normalization")
    try:
        scale, shift = torch.broadcast_tensors(data_std / std, (data_mean - mean) / std)
    except RuntimeError:
        raise UserError(
            f"teacher {name!r}: normalization has {len(mean)} channels, the data's has {len(data_mean)}; "
            "give the teacher's mean and std for the data's channels"
        ) from None
    if torch.allclose(scale, torch.ones_like(scale), 0, 1e-6) and torch.allclose(
        shift, torch.zeros_like(shift), 0, 1e-6
    ):
        return None
    return scale.float(), shift.float()


def _mean_std(normalization: Normalization, where: str) -> tuple[Tensor, Tensor]:
    if set(normalization) != {"mean", "std"}:
        raise UserError(f"{where}: expected the keys mean and std, got {', '.join(map(str, normalization)) or 'none'}")
    mean, std = (torch.as_tensor([float(v) for v in normalization[k]], dtype=torch.float64) for k in ("mean", "std"))
    if len(mean) != len(std) or not len(std) or not bool((std > 0).all()):
        raise UserError(f"{where}: mean and std need one number a channel each, std > 0, got {dict(normalization)}")
    return mean, std


def per_channel(values: Tensor, inputs: Tensor) -> Tensor:
    """Values of shape (C,) shaped to broadcast along dimension 1 of ``inputs``, in its dtype and on its device."""
    return values.to(inputs).view(1, -1, *[1] * (inputs.dim() - 2))


def widened(tensor: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def batch_device(inputs: Any) -> torch.device:
    """The device of the first tensor in a structure of inputs; the CPU where there is none."""
    if isinstance(inputs, Tensor):
        return inputs.device
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (list, tuple)) else ()
    return next((batch_device(v) for v in values), torch.device("cpu"))


def state_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers by name, tied ones and non-persistent buffers included."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def tensor_digests(module: nn.Module) -> dict[str, str]:
    """A digest of each weight and buffer: shape, dtype and bytes, whatever the device and memory format."""
    digests = {}
    for name, tensor in state_tensors(module):
        values = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{tuple(values.shape)} {values.dtype} ".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
        digests[name] = digest.hexdigest()
    return digests


def combined(digests: Mapping[str, str]) -> str:
    """One hex digest of a module's named tensor digests."""
    return hashlib.sha256("\n".join(f"{n} {d}" for n, d in sorted(digests.items())).encode()).hexdigest()

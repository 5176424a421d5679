"""A teacher that cannot move: a trained module behind a callable that never trains and never takes gradients.

A teacher that drifts during distillation (BatchNorm statistics in train mode, a forgotten ``requires_grad``, weights
that slip into the optimizer or the checkpoint) spoils results without a word, so each of these is closed by
construction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.joints import FEATURES, LOGITS
from kd_lightning.losses.inputs import MASKED
from kd_lightning.outputs import ModelOutput
from kd_lightning.runs.latency import state_bytes
from kd_lightning.taps import Taps
from kd_lightning.teachers.inputs import Normalization, per_channel, renormalization, resized
from kd_lightning.teachers.weights import architecture_digest, combined, state_tensors, tensor_digests

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OUTPUTS = ("logits", "probabilities", "values")


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
        precision: ``"32"``, or ``"bf16"`` or ``"fp16"``: autocast to half precision.
        channels_last: run 4-d inputs and weights in channels-last memory format (faster convolutions).
        compile: run through ``torch.compile`` (worth it for long runs only).
        classes: which of the model's classes are the data's, in their order; None: its classes are the data's.
        outputs: what the model returns: ``"logits"``, ``"probabilities"``, of which the logarithm is taken, or
            ``"values"`` in the data's units, which ``read`` brings to the task's.
        image_size: pixels of a side to which images are scaled; None: as they come.
        provides: what its output is good for.
        read: what is done with each answer at the end: a task's reading, a change of units.
        read_by: what the answers depend on through ``read``, plain.
        origin: what :meth:`describe` says beside its own: where the weights come from.
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
        classes: Sequence[int] | None = None,
        outputs: str = "logits",
        image_size: int | None = None,
        provides: frozenset[str] = frozenset({LOGITS, FEATURES}),
        read: Callable[[ModelOutput], ModelOutput] | None = None,
        read_by: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
        name: str = "teacher",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UserError(f"teacher {name!r}: expected a torch module, got {type(model).__name__}")
        if str(precision) not in PRECISIONS:
            raise UserError(f"teacher.precision: got {precision!r}, choose one of {', '.join(PRECISIONS)}")
        if outputs not in OUTPUTS:
            raise UserError(f"teacher.outputs: got {outputs!r}, choose one of {', '.join(OUTPUTS)}")
        self.name = name
        self.provides = provides
        self.labels_new_inputs = True
        self.outputs = outputs
        self.image_size = image_size
        self.classes = None if classes is None else torch.tensor(list(classes), dtype=torch.long)
        self._origin = dict(origin or {})
        self._read, self._read_by = read, dict(read_by or {})
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
        dtype = PRECISIONS[self.precision]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            output = self._taps(self.module, inputs)
        spread = None if output.spread is None else widened(output.spread)
        answer = ModelOutput(self._logits(output.logits), output.features, spread)
        return answer if self._read is None else self._read(answer)

    def _logits(self, answer: Tensor) -> Tensor:
        logits = widened(answer)
        if self.outputs == "probabilities":
            logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
        if self.classes is not None:
            logits = logits.index_select(1, self.classes.to(logits.device))
        return torch.where(torch.isneginf(logits), MASKED, logits) if logits.is_floating_point() else logits

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
        inputs = resized(inputs, self.image_size)
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
        scale_shift = self._scale_shift and [[float(f"{v:.6g}") for v in part.tolist()] for part in self._scale_shift]
        return {
            "weights": self._fingerprint,
            "architecture": architecture_digest(self.module),
            "precision": self.precision,
            "input_scale_shift": scale_shift,
            "image_size": self.image_size,
            "classes": None if self.classes is None else self.classes.tolist(),
            "outputs": self.outputs,
            **({"read_by": self._read_by} if self._read_by else {}),
        }

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move weights, buffers and normalisation to a device, in place."""
        self.module.to(device)
        if self._scale_shift is not None:
            scale, shift = self._scale_shift
            self._scale_shift = scale.to(device), shift.to(device)
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
            **self._origin,
        }

    def __repr__(self) -> str:
        return f"FrozenTeacher({self.name}, {self.parameters_count} parameters, {self._fingerprint[:12]})"


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode for good (``train()`` becomes a no-op on the module and on each part), no gradients."""
    model.eval()
    model.requires_grad_(False)
    for part in model.modules():
        # A partial, not a closure: it copies and pickles along with the module it belongs to.
        setattr(part, "train", functools.partial(_stay_in_eval, part))  # noqa: B010  (a type checker forbids the other)
    return model


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def widened(tensor: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def batch_device(inputs: Any) -> torch.device:
    """The device of the first tensor in a structure of inputs; the CPU where there is none."""
    if isinstance(inputs, Tensor):
        return inputs.device
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (list, tuple)) else ()
    return next((batch_device(v) for v in values), torch.device("cpu"))

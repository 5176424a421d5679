"""An ONNX file as a function of arrays: its inputs filled from a batch's, its answer as an array, errors in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.errors import UserError

_KINDS = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip

_STEMS = {"logits": "logit", "probabilities": "probabilit", "labels": "label", "values": "value"}
"""How an output of each kind is likely to be called."""


class OnnxSession:
    """Runs an ONNX file on batches of any size, also where the file has a fixed one.

    Args:
        path: the file.
        where: key and file, for messages.
        output: the name of the output that is wanted; None: the only one, or the one called as ``wanted``.
        wanted: what its output is, for the choice.
        names: the data's input by the name of the file's.

    Raises:
        UserError: it cannot be opened, or which output is meant is not clear.
    """

    def __init__(self, path: str, where: str, output: str | None, wanted: str, names: Mapping[str, str]) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f'{where}: needs onnxruntime: pip install "kd-lightning[export]"') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds
            text = " ".join(str(error).split())
            raise UserError(f"{where}: is no ONNX file that can be run: {text[:200]}") from error
        self.where, self._names = where, dict(names)
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._output = self._chosen(output, wanted)
        for name in names:
            if name not in self._inputs:
                raise UserError(f"teacher.inputs.{name}: {where} has no such input, it has {', '.join(self._inputs)}")

    def __call__(self, inputs: Any, class_names: Sequence[str] | None = None) -> np.ndarray:
        """The chosen output (N, ...) for a batch's inputs: a tensor, a list of texts, or these by name."""
        feed = {name: self._fitted(name, value) for name, value in self._by_name(inputs).items()}
        samples = len(next(iter(feed.values())))
        fixed = {size for node in self._inputs.values() if isinstance(size := (node.shape or [None])[0], int)}
        step = min(fixed) if fixed else samples
        parts = []
        for start in range(0, samples, max(1, step)):
            part = {name: _filled_up(value[start : start + step], step) for name, value in feed.items()}
            count = min(step, samples - start)
            parts.append(_as_array(self._run(part), class_names)[:count])
        made: np.ndarray = np.concatenate(parts)
        if len(made) != samples:
            raise UserError(f"{self.where}: answers with {len(made)} rows for {samples} samples")
        return made

    def _run(self, feed: Mapping[str, np.ndarray]) -> Any:
        try:
            return self._session.run([self._output], feed)[0]
        except Exception as error:
            text = " ".join(str(error).split())
            raise UserError(f"{self.where}: cannot answer: {text[:300]}") from error

    def _chosen(self, output: str | None, wanted: str) -> str:
        outputs = [node.name for node in self._session.get_outputs()]
        if output is not None:
            if output not in outputs:
                raise UserError(f"teacher.output={output}: {self.where} has the outputs {', '.join(outputs)}")
            return output
        alike = [name for name in outputs if _STEMS[wanted] in name.lower()]
        if len(outputs) > 1 and len(alike) != 1:
            raise UserError(f"{self.where}: which output is meant? teacher.output=…, one of {', '.join(outputs)}")
        return str(alike[0] if len(outputs) > 1 else outputs[0])

    def _by_name(self, inputs: Any) -> dict[str, Any]:
        """The data's input for each of the file's."""
        if not isinstance(inputs, Mapping):
            if len(self._inputs) > 1:
                raise UserError(
                    f"{self.where}: takes {' and '.join(map(self._said, self._inputs))}, the data have one input without a name"
                )
            return {next(iter(self._inputs)): inputs}
        texts = [name for name, value in inputs.items() if isinstance(value, list)]
        made = {}
        for name, node in self._inputs.items():
            given = self._names.get(name, name)
            if given not in inputs and name not in self._names and len(self._inputs) == 1:
                if node.type == "tensor(string)" and len(texts) == 1:
                    given = texts[0]
                elif len(inputs) == 1:
                    given = next(iter(inputs))
            if given not in inputs:
                raise UserError(
                    f"{self.where}: takes {self._said(name)}, the data's inputs are {', '.join(map(str, inputs))}: say which it is: "
                    f"teacher.inputs={{{name}: …}}"
                )
            made[name] = inputs[given]
        return made

    def _fitted(self, name: str, value: Any) -> np.ndarray:
        """The input in the file's type and number of dimensions."""
        node = self._inputs[name]
        wanted = _KINDS.get(node.type)
        shape = list(node.shape or [])
        if wanted is np.object_ or isinstance(value, list):
            if not isinstance(value, list) or wanted is not np.object_:
                raise UserError(f"{self.where}: takes {self._said(name)}, the data's input is {_told(value)}")
            texts = np.array([str(text) for text in value], dtype=object)
            return texts.reshape(-1, 1) if len(shape) == 2 else texts
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        whole = array.dtype.kind in "iub"
        if wanted is None or (not whole and np.dtype(wanted).kind in "iub"):
            raise UserError(f"{self.where}: takes {self._said(name)}, the data's input is {_told(value)}")
        if len(shape) == 2 and array.ndim > 2:  # rows of numbers, as scikit-learn's
            array = array.reshape(len(array), -1)
        sizes = list(shape[1:])
        fits = len(shape) == 0 or (
            len(shape) == array.ndim
            and all(
                not isinstance(size, int) or size == given for size, given in zip(sizes, array.shape[1:], strict=True)
            )
        )
        if not fits:
            hint = ""
            if array.ndim == 4 and len(shape) == 4 and isinstance(shape[3], int) and shape[3] != array.shape[3]:
                hint = (
                    f": teacher.image_size={shape[3]} scales the images" if shape[1] in (array.shape[1], None) else ""
                )
            raise UserError(f"{self.where}: takes {self._said(name)}, the data's input is {_told(value)}{hint}")
        if whole and np.dtype(wanted).kind in "iu" and array.size:
            room = np.iinfo(wanted)
            outside = [int(end) for end in (array.min(), array.max()) if not room.min <= int(end) <= room.max]
            if outside:
                raise UserError(f"{self.where}: takes {self._said(name)}, the data's input holds {outside[0]}")
        return np.ascontiguousarray(array.astype(wanted, copy=False))

    def _said(self, name: str) -> str:
        node = self._inputs[name]
        shape = ", ".join(
            "N" if k == 0 else str(size) if isinstance(size, int) else "any" for k, size in enumerate(node.shape or [])
        )
        return f"{name}: {node.type.removeprefix('tensor(').rstrip(')')} ({shape})"


def _filled_up(part: np.ndarray, size: int) -> np.ndarray:
    """As many rows as a fixed batch has, the last one repeated."""
    if not len(part) or len(part) == size:
        return part
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])


def _as_array(answer: Any, class_names: Sequence[str] | None) -> np.ndarray:
    """Rows of numbers or texts; a dictionary a sample (scikit-learn's files) in the classes' order."""
    if isinstance(answer, list) and answer and isinstance(answer[0], Mapping):
        order = list(answer[0])
        if class_names is not None and {str(key) for key in order} == {str(name) for name in class_names}:
            by_text = {str(key): key for key in order}
            order = [by_text[str(name)] for name in class_names]
        elif all(isinstance(key, (int, np.integer)) for key in order):
            order = sorted(order)
        return np.array([[row[key] for key in order] for row in answer])
    return np.asarray(answer)


def _told(value: Any) -> str:
    if isinstance(value, list):
        return "texts"
    shape = ", ".join(["N", *map(str, value.shape[1:])])
    return f"{str(value.dtype).removeprefix('torch.')} ({shape})"

"""What losses on embeddings have in common: where embeddings come from, and a linear head where lengths differ."""

from __future__ import annotations

from torch import Tensor, nn

from kd_lightning.errors import UserError
from kd_lightning.losses.inputs import as_reference, full_precision
from kd_lightning.outputs import ModelOutput


class EmbeddingPair(nn.Module):
    """Embeddings of both models as rows (N, D), the student's through a linear head where the lengths differ.

    Args:
        tap: whose features are the embeddings; maps and tokens are averaged. None: the outputs themselves.
        same_length: False where the two need not be of one length: no head is built.
    """

    def __init__(self, tap: str | None = None, same_length: bool = True) -> None:
        super().__init__()
        self.tap, self._same_length = tap, same_length
        self.head: nn.Module = nn.Identity()

    def prepare(self, student: ModelOutput, teacher: ModelOutput) -> None:
        """Build the head for the shapes of these outputs; a second call changes nothing."""
        ours, theirs = self.raw(student), self.raw(teacher)
        if self._same_length and ours.shape[1] != theirs.shape[1] and isinstance(self.head, nn.Identity):
            self.head = nn.Linear(ours.shape[1], theirs.shape[1]).to(ours.device)

    def pair(self, student: ModelOutput, teacher: ModelOutput) -> tuple[Tensor, Tensor]:
        """Both models' rows in full precision, the teacher's detached."""
        return full_precision(self.head(self.raw(student))), as_reference(self.raw(teacher))

    def raw(self, output: ModelOutput) -> Tensor:
        """A model's rows (N, D)."""
        if self.tap is None:
            return output.logits
        if self.tap not in output.features:
            raise UserError(
                f"a loss needs the tap {self.tap!r}, there is {sorted(output.features) or 'none'}: set "
                f"method.taps.student.{self.tap} and method.taps.teacher.{self.tap} to names of layers"
            )
        features = output.features[self.tap]
        if features.ndim == 4:
            return features.mean(dim=(2, 3))
        return features.mean(dim=1) if features.ndim == 3 else features

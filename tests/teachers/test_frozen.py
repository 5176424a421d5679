from __future__ import annotations

import copy
import io
import pickle

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning.batch import Batch
from kd_lightning.errors import UserError
from kd_lightning.outputs import ModelOutput
from kd_lightning.teachers.frozen import FrozenTeacher, TeacherChanged


def network(seed: int = 0) -> nn.Sequential:
    """Convolution, BatchNorm and dropout: everything that misbehaves in a teacher left in train mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, 5)
    )


def batch(n: int = 16) -> Batch:
    inputs = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(inputs * 3 + 1, torch.arange(n) % 5, torch.arange(n))


def test_output_is_the_modules_own_in_eval_mode():
    expected = network().eval()(batch().inputs)
    assert torch.equal(FrozenTeacher(network())(batch()).logits, expected)


def test_module_given_in_train_mode_answers_twice_alike():
    teacher = FrozenTeacher(network().train())
    assert torch.equal(teacher(batch()).logits, teacher(batch()).logits)


def test_no_parameter_requires_grad_and_outputs_have_no_graph():
    teacher = FrozenTeacher(network())
    assert not any(p.requires_grad for p in teacher.module.parameters())
    teacher.module.requires_grad_(True)  # what an unfreezing callback does to every module it finds
    assert not teacher(batch()).logits.requires_grad


def test_train_is_a_no_op_on_the_module_its_parts_and_below_a_parent():
    teacher = FrozenTeacher(network())
    parent = nn.Sequential(teacher.module, nn.Linear(5, 5))
    assert teacher.module.train() is teacher.module
    teacher.module[1].train(True)
    parent.train()
    assert parent[1].training
    assert not any(part.training for part in teacher.module.modules())


def test_training_flag_written_directly_does_not_reach_the_forward():
    teacher = FrozenTeacher(network())
    expected = teacher(batch()).logits
    for part in teacher.module.modules():
        part.training = True
    assert torch.equal(teacher(batch()).logits, expected)
    teacher.verify()


def test_outputs_can_be_saved_for_the_students_backward():
    """Inference tensors cannot: this is why the forward runs under no_grad."""
    teacher, student = FrozenTeacher(network(), taps={"hint": "0"}), network(1)
    answer = teacher(batch())
    loss = F.kl_div(student(batch().inputs).log_softmax(1), answer.logits.softmax(1), reduction="batchmean")
    loss = loss + (student[0](batch().inputs) * answer.features["hint"]).mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())


class Pair(pl.LightningModule):
    """The least that trains a student from a teacher held as a plain attribute."""

    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.teacher, self.student = teacher, network(1)

    def training_step(self, items, batch_idx):
        inputs, target = items
        answer = self.teacher(Batch(inputs, target))
        student = self.student(inputs)
        return F.mse_loss(student, answer.logits) + F.cross_entropy(student, target)

    def validation_step(self, items, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(tmp_path) -> tuple[Pair, pl.Trainer]:
    data = batch(64)
    loader = DataLoader(TensorDataset(data.inputs, data.target), batch_size=16)
    pair = Pair(FrozenTeacher(network()))
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(pair, loader, loader)
    return pair, trainer


def test_teacher_buffers_do_not_move_during_fit(tmp_path):
    fresh = FrozenTeacher(network()).fingerprint()
    pair, _ = fitted(tmp_path)
    pair.teacher.verify()
    assert pair.teacher.fingerprint() == fresh
    assert not torch.equal(pair.student[1].running_mean, network(1)[1].running_mean)  # the student did train


def test_teacher_is_absent_from_parameters_optimizer_and_checkpoint(tmp_path):
    pair, trainer = fitted(tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"]
    assert all(name.startswith("student.") for name in saved["state_dict"])
    assert all(name.startswith("student.") for name, _ in pair.named_parameters())
    held = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    assert not held & {id(p) for p in pair.teacher.module.parameters()}
    assert not any("teacher" in name for name, _ in pair.named_modules())


def test_fingerprint_tells_weights_buffers_and_names_apart():
    fingerprint = FrozenTeacher(network()).fingerprint()
    assert FrozenTeacher(network()).fingerprint() == fingerprint
    one_weight, one_buffer, other_shape = network(), network(), network()
    one_weight[5].bias.data[0] += 1e-6
    one_buffer[1].running_var[3] += 1e-3
    other_shape[5].bias.data = other_shape[5].bias.data[None]
    renamed = nn.ModuleDict({"net": network()})
    prints = {FrozenTeacher(m).fingerprint() for m in (one_weight, one_buffer, other_shape, renamed)}
    assert len(prints | {fingerprint}) == 5


def test_fingerprint_does_not_depend_on_memory_format():
    assert FrozenTeacher(network(), channels_last=True).fingerprint() == FrozenTeacher(network()).fingerprint()


@pytest.mark.parametrize("tensor", ["0.weight", "1.running_mean", "1.num_batches_tracked"])
def test_verify_names_the_tensor_that_moved(tensor):
    teacher = FrozenTeacher(network(), name="cnn")
    dict(teacher.module.state_dict(keep_vars=True))[tensor].data += 1
    with pytest.raises(TeacherChanged, match=f"'cnn'.*{tensor}"):
        teacher.verify()


def test_a_forward_that_writes_its_own_buffer_is_noticed():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.seen += 1
            return x.flatten(1)

    teacher = FrozenTeacher(Counting())
    teacher.verify()
    teacher(batch())
    with pytest.raises(TeacherChanged, match="seen"):
        teacher.verify()


def test_copies_and_pickles_of_the_module_stay_frozen_and_independent():
    teacher = FrozenTeacher(network())
    for clone in (copy.deepcopy(teacher.module), pickle.loads(pickle.dumps(teacher.module))):
        assert clone.train() is clone
        assert not any(part.training for part in clone.modules())
        assert clone[1].train() is clone[1] is not teacher.module[1]


def test_state_dict_of_the_module_still_loads_into_an_unfrozen_one():
    buffer = io.BytesIO()
    torch.save(FrozenTeacher(network(3)).module.state_dict(), buffer)
    buffer.seek(0)
    free = network()
    free.load_state_dict(torch.load(buffer, weights_only=True))
    assert free.train().training


# -- normalisation ----------------------------------------------------------------------------------------------------
TEACHERS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
DATAS = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}


def normalized(raw, statistics):
    mean, std = (torch.tensor(statistics[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (raw - mean) / std


@pytest.mark.parametrize("data", [DATAS, None])
def test_inputs_reach_the_teacher_in_its_own_normalisation(data):
    raw = torch.rand(16, 3, 8, 8)
    expected = network().eval()(normalized(raw, TEACHERS))
    teacher = FrozenTeacher(network(), normalization=TEACHERS, data_normalization=data)
    loaded = normalized(raw, data) if data else raw
    torch.testing.assert_close(teacher(Batch(loaded, None)).logits, expected, rtol=1e-4, atol=1e-4)
    wrong = FrozenTeacher(network())(Batch(loaded, None)).logits
    assert (wrong - expected).abs().max() > 0.1


def test_equal_normalisation_leaves_the_very_same_tensor():
    teacher = FrozenTeacher(network(), normalization=TEACHERS, data_normalization=dict(TEACHERS))
    inputs = batch().inputs
    assert teacher.prepare(inputs) is inputs


def test_normalisation_of_tables_is_per_column():
    linear = nn.Linear(2, 2)
    teacher = FrozenTeacher(linear, normalization={"mean": [1, 2], "std": [2, 4]})
    raw = torch.tensor([[3.0, 10.0]])
    torch.testing.assert_close(teacher(Batch(raw, None)).logits, linear(torch.tensor([[1.0, 2.0]])))


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"mean": [0.5]}, "keys mean and std"),
        ({"mean": [0.5, 0.5], "std": [1.0]}, "one number a channel"),
        ({"mean": [0.5], "std": [0.0]}, "std > 0"),
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0]}, "2 channels.*3"),
    ],
)
def test_bad_normalisation_is_one_line(statistics, message):
    with pytest.raises(UserError, match=message):
        FrozenTeacher(network(), normalization=statistics, data_normalization=DATAS)


# -- precision, memory format, compile, taps --------------------------------------------------------------------------
def test_bf16_runs_in_bfloat16_and_answers_in_float32():
    teacher = FrozenTeacher(network(), taps={"hint": "0"}, precision="bf16")
    answer, exact = teacher(batch()), FrozenTeacher(network())(batch()).logits
    assert answer.logits.dtype == torch.float32
    assert answer.features["hint"].dtype == torch.bfloat16
    error = (answer.logits - exact).abs().max()
    assert 0 < error < 0.1


def test_precision_is_the_teachers_own_under_the_trainers_autocast():
    exact = FrozenTeacher(network())(batch()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(FrozenTeacher(network())(batch()).logits, exact)


def test_channels_last_reaches_weights_and_activations():
    teacher = FrozenTeacher(network(), channels_last=True, taps={"hint": "0"})
    answer = teacher(batch())
    assert teacher.prepare(batch().inputs).is_contiguous(memory_format=torch.channels_last)
    assert answer.features["hint"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(answer.logits, FrozenTeacher(network())(batch()).logits, rtol=1e-4, atol=1e-5)


def test_features_are_captured_by_tap_name():
    teacher = FrozenTeacher(network(), taps={"hint": "2"})
    expected = network().eval()[:3](batch().inputs)
    assert torch.equal(teacher(batch()).features["hint"], expected)
    with pytest.raises(UserError, match=r"method\.taps\.teacher\.hint"):
        FrozenTeacher(network(), taps={"hint": "9"})


@pytest.mark.slow
def test_compiled_teacher_gives_the_same_logits_and_features():
    compiled = FrozenTeacher(network(), compile=True, taps={"hint": "1"})
    plain = FrozenTeacher(network(), taps={"hint": "1"})
    answer, expected = compiled(batch()), plain(batch())
    torch.testing.assert_close(answer.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer.features["hint"], expected.features["hint"], rtol=1e-4, atol=1e-5)
    assert compiled.fingerprint() == plain.fingerprint()


def test_a_model_output_passes_through_whole():
    class Regressor(nn.Module):
        def forward(self, x):
            return ModelOutput(x.mean((1, 2, 3)).double()[:, None], spread=torch.zeros(len(x), 1).half())

    answer = FrozenTeacher(Regressor())(batch())
    assert answer.logits.dtype == torch.float64
    assert answer.spread.dtype == torch.float32


def test_counts_and_bytes_are_those_of_the_module():
    teacher = FrozenTeacher(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    assert teacher.parameters_count == 3 * 4 + 4 + 8
    assert teacher.describe()["bytes"] == 4 * (12 + 4 + 8) + 4 * 8 + 8


@pytest.mark.parametrize("arguments", [{"precision": "16"}, {"model": lambda x: x}])
def test_unusable_arguments_are_one_line(arguments):
    with pytest.raises(UserError, match=r"teacher"):
        FrozenTeacher(**{"model": network(), **arguments})

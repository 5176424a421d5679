"""A loader continues in mid-epoch exactly where the consumer was, by itself and through Lightning's checkpoints."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import Dataset, IterableDataset

from kd_lightning.data.loader.threaded_loader import ThreadedLoader
from kd_lightning.errors import UserError


class Single(Dataset):
    """Read one sample at a time."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([float(index), 0.0]), index % 2


class Vectorised(Single):
    """Read a batch at a time; the view is part of the input, so that a wrong epoch shows."""

    def gather(self, indices: torch.Tensor, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([indices.float(), torch.full((len(indices),), float(view))], 1), indices % 2


class Stream(IterableDataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self):
        return iter(range(self.length))


def visited(loader: ThreadedLoader, batches: int | None = None) -> list[list[float]]:
    """The inputs of the next pass's first ``batches`` batches."""
    return [x.flatten().tolist() for x, _ in itertools.islice(iter(loader), batches)]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    cut=st.floats(0, 1),
    epoch=st.integers(0, 3),
    drop_last=st.booleans(),
    threads=st.tuples(st.sampled_from([1, 2, 3, 7]), st.sampled_from([1, 2, 3, 7])),
    prefetch=st.integers(1, 6),
    kind=st.sampled_from([Vectorised, Single]),
)
def test_at_every_position_the_rest_of_the_epoch_follows_at_any_number_of_threads(
    length, batch_size, cut, epoch, drop_last, threads, prefetch, kind
):
    def loader(num_threads: int) -> ThreadedLoader:
        return ThreadedLoader(
            kind(length),
            batch_size,
            shuffle=True,
            seed=5,
            drop_last=drop_last,
            num_threads=num_threads,
            prefetch=prefetch,
        )

    uninterrupted = loader(1)
    uninterrupted.set_epoch(epoch)
    whole = visited(uninterrupted)
    following = visited(uninterrupted)
    first = loader(threads[0])
    first.set_epoch(epoch)
    position = round(cut * len(whole))
    before = visited(first, position)
    second = loader(threads[1])
    second.load_state_dict(first.state_dict())
    if position:
        assert len(second) == len(whole)
        assert before + visited(second) == whole
        assert visited(second) == following
    else:  # nothing was delivered: islice(…, 0) never began the epoch
        assert visited(second) == whole


def test_batches_read_ahead_are_neither_lost_nor_repeated():
    loader = ThreadedLoader(Single(64), 4, shuffle=True, num_threads=2, prefetch=8)
    batches = iter(loader)
    before = [next(batches)[0].tolist() for _ in range(3)]
    state = loader.state_dict()
    rest = [x.tolist() for x, _ in batches]
    assert state["delivered"] == 3
    continued = ThreadedLoader(Single(64), 4, shuffle=True, num_threads=3, prefetch=2)
    continued.load_state_dict(state)
    assert [x.tolist() for x, _ in continued] == rest
    assert len(before) + len(rest) == len(loader)


@pytest.mark.parametrize("delivered", range(8))
def test_a_stream_continues_by_skipping_what_was_delivered(delivered):
    loader = ThreadedLoader(Stream(29), 4, num_threads=3)
    before = [x.tolist() for x in itertools.islice(iter(loader), delivered)]
    continued = ThreadedLoader(Stream(29), 4, num_threads=2)
    continued.load_state_dict(loader.state_dict())
    assert [i for batch in before + [x.tolist() for x in continued] for i in batch] == list(range(29))


@pytest.mark.parametrize("make", [lambda: Single(60), lambda: Stream(60)], ids=["map-style", "stream"])
def test_in_completion_order_the_state_knows_which_batches_were_delivered(make):
    loader = ThreadedLoader(make(), 3, num_threads=3, prefetch=6, order="completion")
    batches = iter(loader)
    got = [next(batches) for _ in range(7)]
    state = loader.state_dict()
    assert state["delivered"] + len(state["ahead"]) == 7
    for order in ("input", "completion"):
        continued = ThreadedLoader(make(), 3, num_threads=2, order=order)
        continued.load_state_dict(state)
        samples = [int(v) for x in [*got, *continued] for v in (x[0][:, 0] if isinstance(x, list) else x)]
        assert sorted(samples) == list(range(60))


def test_a_loaded_state_is_given_back_until_the_pass_begins():
    loader = ThreadedLoader(Single(20), 3, shuffle=True)
    visited(loader, 4)
    continued = ThreadedLoader(Single(20), 3, shuffle=True)
    continued.load_state_dict(loader.state_dict())
    assert continued.state_dict() == loader.state_dict()
    continued.set_epoch(0)  # Lightning names the epoch again after loading
    assert continued.state_dict() == loader.state_dict()
    assert len(visited(continued)) == len(loader) - 4


def test_naming_another_epoch_drops_the_loaded_position():
    loader = ThreadedLoader(Single(20), 3, shuffle=True)
    visited(loader, 4)
    continued = ThreadedLoader(Single(20), 3, shuffle=True)
    continued.load_state_dict(loader.state_dict())
    continued.set_epoch(1)
    assert continued.state_dict()["delivered"] == 0
    loader.set_epoch(1)
    assert visited(continued) == visited(loader)


def test_the_state_survives_torch_save_with_weights_only(tmp_path):
    loader = ThreadedLoader(Single(20), 3, shuffle=True)
    visited(loader, 4)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == loader.state_dict()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 4}, "batch_size=3"),
        ({"seed": 1}, "seed=0"),
        ({"shuffle": False}, "shuffle=1"),
        ({"drop_last": True}, "drop_last=0"),
        ({"dataset": Single(21)}, "samples=20"),
        ({"rank": 0, "num_replicas": 2}, "processes=1"),
    ],
)
def test_a_state_of_other_settings_is_one_line_that_names_the_setting(change, named):
    loader = ThreadedLoader(Single(20), batch_size=3, shuffle=True)
    visited(loader, 2)
    other = ThreadedLoader(**{"dataset": Single(20), "batch_size": 3, "shuffle": True, **change})
    with pytest.raises(UserError, match=named) as caught:
        other.load_state_dict(loader.state_dict())
    assert "\n" not in str(caught.value)


def test_between_epochs_the_settings_may_change():
    loader = ThreadedLoader(Single(20), batch_size=3)
    loader.set_epoch(4)
    other = ThreadedLoader(Single(20), batch_size=5)
    other.load_state_dict(loader.state_dict())
    assert (other.epoch, len(visited(other))) == (4, 4)


@pytest.mark.parametrize("state", [{}, {"format": 1}, {"format": 1, "epoch": "x", "delivered": 0, "ahead": []}])
def test_a_dict_that_is_no_state_is_refused(state):
    with pytest.raises(UserError, match="not the state"):
        ThreadedLoader(Single(20)).load_state_dict(state)


def test_a_state_of_a_later_format_is_refused():
    state = ThreadedLoader(Single(20)).state_dict()
    with pytest.raises(UserError, match="format 9"):
        ThreadedLoader(Single(20)).load_state_dict({**state, "format": 9})


class Recorder(pl.LightningModule):
    """Trains one weight, and remembers the samples of each batch; may die at a given step, like a killed job."""

    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(2, 1)
        self.die_at, self.seen = die_at, []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.die_at:
            raise KeyboardInterrupt if self.die_at % 2 else RuntimeError("the machine went away")
        self.seen.append((self.current_epoch, batch_idx, batch.index.tolist(), batch.view))
        return self.weight(batch.inputs).mean()

    def validation_step(self, batch, batch_idx):
        self.weight(batch.inputs)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(tmp_path, threads: int, die_at: int | None = None, resume: bool = False, **trainer) -> Recorder:
    module = Recorder(die_at)
    saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1, save_top_k=0)
    options = {"max_epochs": 3, "limit_val_batches": 2, "num_sanity_val_steps": 1, **trainer}
    runner = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver],
        **options,
    )
    train = ThreadedLoader(Vectorised(50), 8, shuffle=True, seed=3, num_threads=threads, as_batch=True, views=2)
    val = ThreadedLoader(Vectorised(20), 8, num_threads=1, as_batch=True, views=1, pad_shards=False)
    with contextlib.suppress(RuntimeError, KeyboardInterrupt, SystemExit) if die_at else contextlib.nullcontext():
        runner.fit(module, train, val, ckpt_path=tmp_path / "last.ckpt" if resume else None, weights_only=True)
    return module


@pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")
@pytest.mark.parametrize("trainer", [{}, {"limit_train_batches": 5}, {"val_check_interval": 2}], ids=str)
@pytest.mark.parametrize("die_at", [1, 4, 7, 8, 13])
def test_a_trainer_that_is_killed_in_mid_epoch_continues_with_the_batches_that_would_have_come(
    tmp_path, die_at, trainer
):
    whole = fit(tmp_path / "a", 2, **trainer).seen
    first = fit(tmp_path / "b", 3, die_at=die_at, **trainer).seen
    second = fit(tmp_path / "b", 1, resume=True, **trainer).seen
    assert len(first) == die_at
    assert [step[2:] for step in first + second] == [step[2:] for step in whole]
    assert [step[0] for step in first + second] == [step[0] for step in whole]


@pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")
def test_epochs_of_a_trainer_have_their_own_order_and_view(tmp_path):
    seen = fit(tmp_path, 2).seen
    for epoch in range(3):
        assert sorted(i for step in seen if step[0] == epoch for i in step[2]) == list(range(50))
    assert [s[3] for s in seen] == [0] * 7 + [1] * 7 + [0] * 7
    assert seen[0][2] != seen[7][2] != seen[14][2]

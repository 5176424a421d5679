"""What we touch of others that they do not promise to keep, because nothing public does it.

Each has a test in ``tests/test_private_interfaces.py`` that says in a word what has moved, when a new version moves it.
That test also finds anything private that is used and not listed here.

Hydra (pinned to 1.3 for these):
    ``hydra._internal.hydra.Hydra``, ``hydra._internal.utils.create_config_search_path`` and ``get_args_parser``,
    ``hydra._internal.callbacks.Callbacks``: what ``hydra.main`` itself calls, without its way of printing errors
    (``cli/_hydra_main.py``, ``cli/_jobs.py``, ``api/start.py``).
    ``JobReturn._return_value``: the job's own exception; the property of the same name prints first
    (``cli/_jobs.py``).
    ``hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config`` and ``get_overrides_dirname``: the
    jobs of a sweep composed once for each choice of files (``cli/_compose.py``).
    ``ConfigLoaderImpl.repository``: one more source of configurations, several methods in one
    (``config/combined_methods.py``).

Optuna:
    ``FrozenTrial._trial_id``: by it another process goes on with a trial (``sweeps/search/judge.py``,
    ``sweeps/search/search.py``).

Lightning:
    ``trainer.fit_loop.epoch_loop._batches_that_stepped``: the step that loggers are told, set where a run continues
    (``callbacks/fast_forward.py``).
    ``TensorBoardLogger._experiment``: its writer if there is one; ``experiment`` would make it (``runs/loggers.py``).

torch:
    ``SummaryWriter._get_file_writer``: a summary of our own, TensorBoard's HParams (``runs/hparams.py``).
    ``Module._compiled_call_impl``: calls of a compiled model without compiling it (``member.py``, ``runs/latency.py``).
    ``Module._forward_hooks``, ``_forward_pre_hooks``, ``_backward_hooks``, ``_backward_pre_hooks``: whether others have
    set hooks on a student's layers (``stackable.py``).
    ``torch._foreach_copy_``: the buffers of many students in one launch (``stacked.py``).
    ``Tensor._version``: whether a tapped feature, or what a module keeps, was overwritten in place (``taps.py``, ``recordable.py``).
    ``_orig_mod``: the module within what ``torch.compile`` returned (``calling.py``, ``runs/latency.py``).

torchmetrics (if it is installed):
    ``Metric._reductions``: how each of a metric's states adds up over processes (``metrics/collection.py``).

numpy:
    ``RandomState._bit_generator``: a sampler's older generator is saved like a newer one (``data/loader/sampler_state.py``).

Python:
    ``threading._register_atexit``: loader threads are told to stop before the interpreter waits for them; without it exit
    is only slower (``data/loader/tasks.py``).
"""

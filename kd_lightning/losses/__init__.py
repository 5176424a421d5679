"""Loss terms of distillation methods: one idea, one file."""

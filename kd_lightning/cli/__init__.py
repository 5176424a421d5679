"""One small file per command; heavy imports inside main()."""

"""From a composed configuration to objects: check, build, fingerprint."""

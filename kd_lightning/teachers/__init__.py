"""Teachers: frozen modules, a store that trains each once, a cache of their outputs."""

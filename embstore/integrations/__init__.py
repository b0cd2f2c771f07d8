"""Other libraries with a cache, one module each; whatever a module needs is loaded when that module is."""

"""Code generation: regions to kernels (`lower`), kernels to native code (`cpu`), programs (`plan`, `build`)."""

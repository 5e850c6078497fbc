"""The kernels of `alfm.fused`, in Triton's language."""

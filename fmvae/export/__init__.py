"""Export a trained run to ONNX: ``python -m fmvae.export outputs/<run>``."""
